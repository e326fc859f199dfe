"""`stillwatch simulate` to a real broker: the topic holds what the file holds, in order, and failures are told."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest
import typer
import zstandard
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from typer.testing import CliRunner

from jobs.simulate import EXIT_INTERRUPTED, simulate
from pipeline.errors import ConfigError, RetryableError
from pipeline.io.replay import KeyedLine, TopicWriter
from tests.servers import ApacheKafka, KafkaServer

READ_TIMEOUT_S = 60.0
SMALL = ("--accounts", "60", "--hours", "4", "--start", "2026-03-02T09:00Z", "--seed", "9")
PROGRAM = "import typer; from jobs.simulate import simulate; app = typer.Typer(); app.command()(simulate); app()"

TopicFactory = Callable[..., str]
Record = tuple[bytes | None, bytes]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def failed_connections() -> Iterator[None]:
    """Lets go, within this test, of the sockets that kafka-python 3.0.12 forgets to close when a connect fails.

    `kafka/net/inet.py` raises from `connect` and drops the socket; the warning would hit whichever test comes next.
    """
    yield
    gc.collect()


LEAKS_SOCKETS = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def run(*arguments: str) -> str:
    app = typer.Typer()
    app.command()(simulate)
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False).stdout


def read_topic(kafka: KafkaServer, topic: str, expected: int) -> dict[int, list[Record]]:
    """Key and value of every record, by partition, once `expected` have come; then no more may come."""
    consumer = KafkaConsumer(
        bootstrap_servers=kafka.bootstrap, enable_auto_commit=False, auto_offset_reset="none", check_crcs=True
    )
    with contextlib.closing(consumer):
        partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
        consumer.assign(partitions)
        for partition, offset in consumer.beginning_offsets(partitions).items():
            consumer.seek(partition, offset)
        records: dict[int, list[Record]] = {partition.partition: [] for partition in partitions}
        deadline_s = time.monotonic() + READ_TIMEOUT_S
        quiet_polls = 0
        while sum(map(len, records.values())) < expected or quiet_polls < 2:
            assert time.monotonic() < deadline_s, f"{sum(map(len, records.values()))} of {expected} came"
            polled = consumer.poll(timeout_ms=300)
            quiet_polls = 0 if polled else quiet_polls + 1
            for partition, batch in polled.items():
                records[partition.partition] += [(record.key, record.value) for record in batch]
        return records


def send_one_by_one(writer: TopicWriter, *values: bytes, before_last: Callable[[], None] = lambda: None) -> None:
    """Send each value and wait for it, but for the last, which leaving the context waits for."""
    with writer:
        for value in values[:-1]:
            writer.send(KeyedLine(b"a", value))
            writer.flush()
        before_last()
        writer.send(KeyedLine(b"a", values[-1]))


def new_name() -> str:
    return f"stillwatch-test-{uuid.uuid4().hex}"


@pytest.fixture
def no_topic(kafka_admin: KafkaAdminClient) -> Iterator[str]:
    """The name of a topic that does not exist yet."""
    name = new_name()
    yield name
    if name in kafka_admin.list_topics():
        kafka_admin.delete_topics([name])


def test_the_topic_holds_what_the_file_holds(kafka: KafkaServer, no_topic: str, tmp_path: Path) -> None:
    run("--out", "a.ndjson", *SMALL)
    told = run("--bootstrap", kafka.bootstrap, "--topic", no_topic, "--force", *SMALL)
    lines = (tmp_path / "a.ndjson").read_bytes().splitlines()

    records = read_topic(kafka, no_topic, len(lines))

    assert sorted(value for batch in records.values() for _, value in batch) == sorted(lines)
    assert len(records) == TopicWriter.PARTITIONS_DEFAULT
    assert f"{len(lines):,} events" in told
    place = {line: number for number, line in enumerate(lines)}
    for batch in records.values():
        assert [place[value] for _, value in batch] == sorted(place[value] for _, value in batch)
        assert all(orjson.loads(value)["account_id"].encode() == key for key, value in batch)


def test_accounts_are_placed_as_kafka_s_default_partitioner_does(kafka: KafkaServer, topic: TopicFactory) -> None:
    name = topic(partitions=4)
    run("--bootstrap", kafka.bootstrap, "--topic", name, "--events", "300", *SMALL)
    records = read_topic(kafka, name, 300)
    place = {key: partition for partition, batch in records.items() for key, _ in batch}

    with contextlib.closing(KafkaProducer(bootstrap_servers=kafka.bootstrap)) as producer:
        for key, partition in place.items():
            assert producer.send(name, key=key, value=b"").get(timeout=READ_TIMEOUT_S).partition == partition
    assert len(set(place.values())) > 1


def test_a_replayed_zst_file_comes_out_as_its_bytes_in_order_of_each_key(
    kafka: KafkaServer, topic: TopicFactory, tmp_path: Path
) -> None:
    lines = [
        b'{"account_id": "acct_%d", "n" :%d}' % (number % 17, number)
        if number % 50
        else (b"", b"not json", b"\xff\xfe\r", b'{"account_id":null}')[number // 50 % 4]
        for number in range(5000)
    ]
    (tmp_path / "in.ndjson.zst").write_bytes(zstandard.compress(b"\n".join(lines) + b"\n"))
    name = topic(partitions=4)

    told = run("--replay", "in.ndjson.zst", "--bootstrap", kafka.bootstrap, "--topic", name)

    records = read_topic(kafka, name, len(lines))
    assert sorted(value for batch in records.values() for _, value in batch) == sorted(lines)
    by_key: dict[bytes, list[bytes]] = defaultdict(list)
    for batch in records.values():
        for key, value in batch:
            if key is not None:
                by_key[key].append(value)
    assert by_key.keys() == {b"acct_%d" % number for number in range(17)}
    for key, values in by_key.items():
        assert values == [line for line in lines if line.startswith(b'{"account_id": "%s"' % key)]
    assert "100 lines without a JSON account_id" in told
    assert not list(tmp_path.glob("labels*"))


def test_an_existing_topic_keeps_its_partitions_and_another_number_is_refused(
    kafka: KafkaServer, topic: TopicFactory, tmp_path: Path
) -> None:
    name = topic(partitions=2)

    assert "(2 partitions)" in run("--bootstrap", kafka.bootstrap, "--topic", name, "--events", "10", *SMALL)
    (tmp_path / "labels.csv").unlink()
    (tmp_path / "accounts.ndjson").unlink()
    with pytest.raises(ConfigError, match="exists with 2 partitions, not 3"):
        run("--bootstrap", kafka.bootstrap, "--topic", name, "--partitions", "3", *SMALL)

    assert list(tmp_path.iterdir()) == []


def test_a_new_topic_gets_the_partitions_asked_for(kafka: KafkaServer, no_topic: str) -> None:
    told = run("--bootstrap", kafka.bootstrap, "--topic", no_topic, "--partitions", "3", "--events", "20", *SMALL)

    assert "(3 partitions)" in told
    assert len(read_topic(kafka, no_topic, 20)) == 3


@LEAKS_SOCKETS
@pytest.mark.usefixtures("failed_connections")
def test_a_broker_that_does_not_answer_is_told_in_one_line_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(RetryableError, match=r"127\.0\.0\.1:1") as refused:
        run("--bootstrap", "127.0.0.1:1", "--topic", "t", "--kafka", "bootstrap_timeout_ms=500", *SMALL)

    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_the_broker_refuses_ends_the_run(full_kafka: KafkaServer, topic: TopicFactory) -> None:
    name = topic(partitions=1, config={"max.message.bytes": "2000"})

    writer = TopicWriter(full_kafka.bootstrap, name, None, {"linger_ms": 0})

    with pytest.raises(RetryableError, match="not delivered"):
        send_one_by_one(writer, b"small", os.urandom(5000))

    assert writer.sent == 1
    assert writer.failed == 1


@LEAKS_SOCKETS
@pytest.mark.usefixtures("failed_connections")
def test_a_broker_that_goes_away_ends_the_run_and_undelivered_records_are_not_counted(
    own_kafka: Callable[[], ApacheKafka],
) -> None:
    server = own_kafka()
    settings = {"delivery_timeout_ms": 4000, "request_timeout_ms": 1500, "linger_ms": 0}

    writer = TopicWriter(server.bootstrap, "t", 1, settings)

    with pytest.raises(RetryableError):
        send_one_by_one(writer, b"first", b"second", before_last=server.close)

    assert writer.sent == 1


def test_what_is_under_way_stays_bounded(
    kafka: KafkaServer, topic: TopicFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.io.replay._IN_FLIGHT_BYTES_MAX", 20_000)
    seen = []

    with TopicWriter(kafka.bootstrap, topic(partitions=2), None, {}) as writer:
        for number in range(400):
            writer.send(KeyedLine(b"%d" % number, b"x" * 1000))
            seen.append(writer._in_flight_bytes)
        writer.send(KeyedLine(b"large", b"x" * 50_000))  # larger than the bound: goes alone
        seen_large = writer._in_flight_bytes
    assert max(seen) <= 20_000
    assert seen_large == 50_005
    assert writer.sent == 401


def test_an_interrupted_run_delivers_what_it_says(kafka: KafkaServer, topic: TopicFactory, tmp_path: Path) -> None:
    name = topic(partitions=2)
    command = [
        sys.executable, "-c", PROGRAM, "--bootstrap", kafka.bootstrap, "--topic", name,
        "--events", "100000000", "--accounts", "40", "--rate", "2000",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        read_topic_until_some_came(kafka, name, process)
        process.send_signal(signal.SIGINT)
        told, complaints = process.communicate(timeout=READ_TIMEOUT_S)

    assert (process.returncode, complaints) == (EXIT_INTERRUPTED, "")
    said = int(told.split()[1].replace(",", ""))
    assert said > 0
    assert sum(map(len, read_topic(kafka, name, said).values())) == said


def read_topic_until_some_came(kafka: KafkaServer, topic: str, process: subprocess.Popen[str]) -> None:
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
    with contextlib.closing(consumer):
        consumer.assign([TopicPartition(topic, number) for number in (0, 1)])
        deadline_s = time.monotonic() + READ_TIMEOUT_S
        while not consumer.poll(timeout_ms=200):
            assert process.poll() is None
            assert time.monotonic() < deadline_s
