"""`stillwatch simulate` to a real broker: the topic holds what the file holds, in order, and failures are told."""

import contextlib
import os
import re
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
POLL_INTERVAL_S = 0.02
ENOUGH_RECORDS = 1000  # so many that the producer has long had answers for the first of them
SMALL = ("--accounts", "60", "--hours", "4", "--start", "2026-03-02T09:00Z", "--seed", "9")
ENDLESS = ("--events", "100000000", "--accounts", "40", "--rate", "2000")
PROGRAM = """
import sys, typer
from jobs.simulate import simulate
from pipeline.errors import StillwatchError
app = typer.Typer(pretty_exceptions_enable=False)
app.command()(simulate)
try:
    app()
except StillwatchError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""

TopicFactory = Callable[..., str]
Record = tuple[bytes | None, bytes]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


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


def send_one_by_one(writer: TopicWriter, *values: bytes) -> None:
    """Send each value and wait for it, but for the last, which leaving the context waits for."""
    with writer:
        for value in values[:-1]:
            writer.send(KeyedLine(b"a", value))
            writer.flush()
        writer.send(KeyedLine(b"a", values[-1]))


@contextlib.contextmanager
def started(*flags: str) -> Iterator[subprocess.Popen[str]]:
    """The command as a process of its own.

    It also keeps apart what kafka-python 3.0.12 leaks: sockets whose connect failed (`kafka/net/inet.py`).
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PROGRAM, *flags]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_records(kafka: KafkaServer, topic: str, process: subprocess.Popen[str]) -> None:
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
    with contextlib.closing(consumer):
        deadline_s = time.monotonic() + READ_TIMEOUT_S
        while not consumer.partitions_for_topic(topic):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline_s
            time.sleep(POLL_INTERVAL_S)
        consumer.assign([TopicPartition(topic, number) for number in (0, 1)])
        came = 0
        while came < ENOUGH_RECORDS:
            came += sum(map(len, consumer.poll(timeout_ms=200).values()))
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline_s


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


def test_a_broker_that_does_not_answer_is_told_in_one_line_and_nothing_is_written(tmp_path: Path) -> None:
    with started("--bootstrap", "127.0.0.1:1", "--topic", "t", "--kafka", "bootstrap_timeout_ms=500") as process:
        _, complaints = process.communicate(timeout=READ_TIMEOUT_S)

    assert process.returncode == RetryableError.exit_code, complaints
    assert complaints.startswith("cannot create topic t at 127.0.0.1:1: ")
    assert complaints.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_the_broker_refuses_ends_the_run(full_kafka: KafkaServer, topic: TopicFactory) -> None:
    name = topic(partitions=1, config={"max.message.bytes": "2000"})

    writer = TopicWriter(full_kafka.bootstrap, name, None, {"linger_ms": 0})

    with pytest.raises(RetryableError, match=r"1 record was delivered to .*, 1 was not"):
        send_one_by_one(writer, b"small", os.urandom(5000))

    assert writer.sent == 1
    assert writer.failed == 1


def test_a_broker_that_is_killed_ends_the_run_and_what_was_counted_is_there_afterwards(
    own_kafka: Callable[[], ApacheKafka],
) -> None:
    server = own_kafka()
    flags = ("--bootstrap", server.bootstrap, "--topic", "t", "--partitions", "2", *ENDLESS)
    patience = ("--kafka", "delivery_timeout_ms=3000", "--kafka", "request_timeout_ms=1500")

    with started(*flags, *patience) as process:
        wait_for_records(server, "t", process)
        server.kill()
        _, complaints = process.communicate(timeout=READ_TIMEOUT_S)
    server.restart()

    assert process.returncode == RetryableError.exit_code, complaints
    told = re.search(r"([\d,]+) records? (?:was|were) delivered to t, ([\d,]+) (?:was|were) not", complaints)
    assert told is not None, complaints
    delivered, failed = (int(count.replace(",", "")) for count in told.groups())
    assert delivered > 0
    assert failed > 0
    there = sum(map(len, read_topic(server, "t", delivered).values()))
    assert delivered <= there <= delivered + failed


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


def test_an_interrupted_run_delivers_what_it_says(kafka: KafkaServer, topic: TopicFactory) -> None:
    name = topic(partitions=2)

    with started("--bootstrap", kafka.bootstrap, "--topic", name, *ENDLESS) as process:
        wait_for_records(kafka, name, process)
        process.send_signal(signal.SIGINT)
        told, complaints = process.communicate(timeout=READ_TIMEOUT_S)

    assert (process.returncode, complaints) == (EXIT_INTERRUPTED, "")
    said = int(told.split()[1].replace(",", ""))
    assert said > 0
    assert sum(map(len, read_topic(kafka, name, said).values())) == said
