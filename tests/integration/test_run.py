"""`stillwatch run` as its operator meets it: clean stops, exit codes, holes in the log, real traffic."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import orjson
import pyarrow as pa
import pytest
from confluent_kafka import Producer as OtherProducer
from kafka import KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import TopicAlreadyExistsError

from pipeline.batch import Partition
from pipeline.commits import REPLACED, Hole
from pipeline.events import ACCESS_FIELDS, TIME
from pipeline.io.catalog import Catalog
from tests.integration.workers import ROOT, Producer, Site, ends_of, event, site_of
from tests.servers import ApacheKafka, KafkaServer, create_topic
from tests.waiting import wait_until

DEV_TRAFFIC = Path(os.environ.get("STILLWATCH_TEST_DEV_TRAFFIC", ROOT.parent / "shared/data/dev/access.ndjson.zst"))
DEV_EVENTS = 202_044


def produce(bootstrap: str, topic: str, values: list[bytes | None], partition: int = 0) -> None:
    """Send values to one partition, in order."""
    with contextlib.closing(KafkaProducer(bootstrap_servers=bootstrap, acks="all")) as producer:
        for future in [producer.send(topic, value=value, key=b"k", partition=partition) for value in values]:
            future.get(30)


def rows(site: Site, table: str, query: str) -> list[dict[str, object]]:
    """Query one table's files by a plain glob; in the query it is called `t`."""
    t = duckdb.read_parquet(str(site.lake / table / "**/*.parquet"), union_by_name=True)
    return t.query("t", query).to_arrow_table().to_pylist()  # DuckDB itself wants pytz for times


@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGINT))
def test_a_signal_stops_the_job_within_ten_seconds_with_everything_written(
    tmp_path: Path, kafka: KafkaServer, topic: Callable[..., str], number: signal.Signals
) -> None:
    """Rows that no limit has cut yet are written on the way out."""
    with site_of(tmp_path, kafka.bootstrap, topic(2)) as site:
        produce(kafka.bootstrap, site.topic, [event(i) for i in range(1_000)])
        worker = site.command("--file-age", "3600", "--log-level", "debug")
        wait_until(lambda: sum(line["records"] for line in worker.logged("read")) == 1_000, "the records are read")
        assert site.landed() == 0
        before_s = time.monotonic()
        assert worker.kill(number) == 0
        assert time.monotonic() - before_s < 10
        assert site.assert_exactly_once({0: 1_000, 1: 0}) == 1_000
        assert worker.logged("stopped")[0]["why"] == number.name


def test_offsets_that_kafka_deleted_stop_the_job_and_are_named(
    tmp_path: Path, full_kafka: KafkaServer, topic: Callable[..., str], kafka_admin: KafkaAdminClient
) -> None:
    """The topic's start has moved past the stored offset: exit code 3, the range in words, the hole on record."""
    with site_of(tmp_path, full_kafka.bootstrap, topic(1)) as site:
        produce(full_kafka.bootstrap, site.topic, [event(i) for i in range(100)])
        assert site.command("--once").process.wait(60) == 0
        produce(full_kafka.bootstrap, site.topic, [event(i) for i in range(100, 300)])
        kafka_admin.delete_records({TopicPartition(site.topic, 0): 250})
        for _ in range(2):
            stopped = site.command("--once")
            assert stopped.process.wait(60) == 3
            assert "offsets 100 to 249 (150 in all)" in stopped.log()[-1]["event"]
        assert site.landed() == 100
        with contextlib.closing(Catalog.open(site.catalog_url, create=False)) as catalog:
            assert [(hole.first_offset, hole.next_offset, hole.accepted) for hole in catalog.holes()] == [
                (100, 250, False)
            ]
        for nonsense in ("foo", f"{site.topic}:0:7-3", "other:0:100-249"):
            assert site.command("--once", "--accept-hole", nonsense).process.wait(60) == 2
        wrong = site.command("--once", "--accept-hole", f"{site.topic}:0:100-200")
        assert wrong.process.wait(60) == 3
        assert site.command("--once", "--accept-hole", f"{site.topic}:0:100-249").process.wait(60) == 0
        assert rows(
            site, "access", 'SELECT count(*) AS n, count(DISTINCT "offset") AS once, max("offset") AS high FROM t'
        ) == [{"n": 150, "once": 150, "high": 299}]
        with contextlib.closing(Catalog.open(site.catalog_url, create=False)) as catalog:
            assert [hole.accepted for hole in catalog.holes()] == [True]


@pytest.mark.parametrize("again", (3, 500))
def test_a_topic_made_anew_stops_the_job_until_that_is_accepted(
    tmp_path: Path, full_kafka: KafkaServer, topic: Callable[..., str], kafka_admin: KafkaAdminClient, again: int
) -> None:
    """Shorter than what was landed or longer: its offsets mean other records now, by its id if by nothing else."""
    with site_of(tmp_path, full_kafka.bootstrap, topic(1)) as site:
        produce(full_kafka.bootstrap, site.topic, [event(i) for i in range(100)])
        assert site.command("--once").process.wait(60) == 0
        kafka_admin.delete_topics([site.topic])
        _create_again(kafka_admin, site.topic)
        produce(full_kafka.bootstrap, site.topic, [event(i) for i in range(again)])
        for _ in range(2):
            stopped = site.command("--once")
            assert stopped.process.wait(60) == 3
            assert f"lake is at offset 100, the topic ends at {again}. Offsets 0 to 99" in stopped.log()[-1]["event"]
        assert site.landed() == 100
        with contextlib.closing(Catalog.open(site.catalog_url, create=False)) as catalog:
            assert catalog.holes() == [Hole(Partition(site.topic, 0), 0, 100, accepted=False, kind=REPLACED)]
        accepting = site.command("--once", "--accept-hole", f"{site.topic}:0:0-99")
        assert accepting.process.wait(60) == (0 if again > 100 else 3)
        if again > 100:
            produce(full_kafka.bootstrap, site.topic, [event(again)])
            assert site.command("--once").process.wait(60) == 0
            assert site.assert_exactly_once({0: again + 1}) == again + 1


def _create_again(admin: KafkaAdminClient, name: str) -> None:
    """Make a topic once Kafka has done with deleting the one of that name."""

    def made() -> bool:
        try:
            create_topic(admin, name, 1)
        except TopicAlreadyExistsError:
            return False
        return True

    wait_until(made, "the old topic is gone")


@pytest.mark.parametrize("running", (False, True))
def test_a_log_that_was_cut_back_stops_the_job_until_that_is_accepted(
    tmp_path: Path, own_kafka: Callable[[], ApacheKafka], running: bool
) -> None:
    """The broker comes back without the end of its log, as a leader that was behind; other records take those offsets.

    Whether the job was running meanwhile or not: only Kafka's leader epochs tell that the log is another.
    """
    broker = own_kafka()
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=broker.bootstrap)) as admin:
        create_topic(admin, "logs", 1)
    with site_of(tmp_path, broker.bootstrap, "logs") as site:
        for first in range(0, 100, 20):  # a batch ends at each of these
            produce(broker.bootstrap, "logs", [event(i) for i in range(first, first + 20)])
        worker = site.command(*([] if running else ["--once"]), "--file-age", "0.1")
        wait_until(lambda: site.landed() == 100, "everything landed")
        assert running or worker.process.wait(60) == 0
        broker.stop()
        cut_back(broker, "logs", 40)
        broker.start()
        produce(broker.bootstrap, "logs", [event(i) for i in range(1_000, 1_100)])
        stopped = worker if running else site.command("--once")
        for _ in range(2):
            assert stopped.process.wait(60) == 3
            words = "Offsets 40 to 99 (60 in all) lie behind it, and are gone from the topic or other records now"
            said = stopped.log()[-1]["event"]
            assert words in said
            # A running job may find the log cut back before the other records are in it.
            [end] = re.findall(r"the topic ends at (\d+)", said)
            is_past = int(end) >= 100
            assert ("--accept-hole logs:0:40-99" in said) is is_past
            stopped = site.command("--once")
        assert end == "140", "the records were there when the second looked"
        assert stopped.process.wait(60) == 3
        assert site.landed() == 100, "nothing was read on"
        with contextlib.closing(Catalog.open(site.catalog_url, create=False)) as catalog:
            assert catalog.holes() == [Hole(Partition("logs", 0), 40, 100, accepted=False, kind=REPLACED)]
        assert site.command("--once", "--accept-hole", "logs:0:40-99").process.wait(60) == 0
        assert site.command("--once").process.wait(60) == 0
        assert site.assert_exactly_once({0: 140}) == 140
        with contextlib.closing(Catalog.open(site.catalog_url, create=False)) as catalog:
            assert [hole.accepted for hole in catalog.holes()] == [True]


def cut_back(broker: ApacheKafka, topic: str, to: int) -> None:
    """Remove the batches from an offset on of a stopped broker's partition 0."""
    folder = broker.data_dir / "logs" / f"{topic}-0"
    log = folder / "00000000000000000000.log"
    stored, position = log.read_bytes(), 0
    while struct.unpack_from(">q", stored, position)[0] < to:
        position += 12 + struct.unpack_from(">i", stored, position + 8)[0]
    assert struct.unpack_from(">q", stored, position)[0] == to, "a batch begins there"
    log.write_bytes(stored[:position])
    for name in ("*.index", "*.timeindex", "*.snapshot"):  # made anew from the log
        for file in folder.glob(name):
            file.unlink()
    # A clean stop is taken at its word: without this file the broker looks at its logs again.
    (broker.data_dir / "logs" / ".kafka_cleanshutdown").unlink()


def test_a_second_group_is_refused_and_may_take_the_topic_over_on_purpose(
    tmp_path: Path, kafka: KafkaServer, topic: Callable[..., str]
) -> None:
    """A worker of the former group that still runs ends by itself, and fences nobody for long."""
    with site_of(tmp_path, kafka.bootstrap, topic(2)) as site:
        produce(kafka.bootstrap, site.topic, [event(i) for i in range(100)])
        former = site.command("--file-age", "0.1")
        wait_until(lambda: site.landed() == 100, "everything landed")
        refused = site.command("--group", "another")
        assert refused.process.wait(60) == 2
        last = refused.log()[-1]["event"]
        assert f"topic {site.topic} read by the consumer group {site.settings['group']} since" in last
        assert "--change-group" in last
        assert former.process.poll() is None
        assert not former.logged("fenced: rows dropped")
        new = site.command("--group", "another", "--change-group", "--file-age", "0.1")
        new.wait_for("reading", 2)
        produce(kafka.bootstrap, site.topic, [event(i) for i in range(100, 200)])
        assert former.process.wait(60) == 2
        assert "consumer group another since" in former.log()[-1]["event"]
        produce(kafka.bootstrap, site.topic, [event(i) for i in range(200, 300)])
        wait_until(lambda: site.landed() == 300, "everything landed")
        assert new.stop() == 0
        assert site.command("--once", "--group", "another").process.wait(60) == 0
        assert site.assert_exactly_once({0: 300, 1: 0}) == 300


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    (
        (["--topic", "no-such-topic"], 2, "has no topic no-such-topic"),
        (["--kafka", "no_such_setting=1"], 2, "no_such_setting is unknown"),
        (["--kafka", "group_id=x"], 2, "group_id is Stillwatch's own"),
        (["--catalog", "mysql://x/y"], 2, "mysql is not supported"),
        (["--lake", "s3://bucket/lake"], 2, "object storage is not built yet"),
        (["--fetch", "quick"], 2, "setting fetch"),
        (["--config", "/no/such/file.toml"], 2, "No such file"),
    ),
)
def test_a_wrong_setting_is_one_line_and_exit_code_2(
    tmp_path: Path, kafka: KafkaServer, topic: Callable[..., str], flags: list[str], code: int, words: str
) -> None:
    """The last line says what is wrong; there is no traceback."""
    with site_of(tmp_path, kafka.bootstrap, topic(1)) as site:
        worker = site.command("--once", *flags)
        assert worker.process.wait(60) == code
        assert words in worker.log()[-1]["event"]
        assert "Traceback" not in str(worker.log())


def test_no_broker_is_one_line_and_exit_code_4(tmp_path: Path) -> None:
    """Nobody listens on the port; the job gives up sooner here than it would elsewhere."""
    with site_of(tmp_path, "127.0.0.1:1", "logs") as site:
        worker = site.command("--once", program="from pipeline.io import kafka; kafka.ANSWER_MS = 1_500")
        assert worker.process.wait(60) == 4
        assert "no Kafka broker answers at 127.0.0.1:1" in worker.log()[-1]["event"]


def test_max_events_is_exact_and_the_next_run_goes_on(
    tmp_path: Path, kafka: KafkaServer, topic: Callable[..., str]
) -> None:
    """The first run lands 123 records, the next one the others."""
    with site_of(tmp_path, kafka.bootstrap, topic(1)) as site:
        produce(kafka.bootstrap, site.topic, [event(i) for i in range(1_000)])
        assert site.command("--max-events", "123").process.wait(60) == 0
        assert site.landed() == 123
        assert site.command("--once").process.wait(60) == 0
        assert site.assert_exactly_once({0: 1_000}) == 1_000


def test_both_paths_land_the_same_rows_from_a_broker_with_transactions(
    tmp_path: Path, full_kafka: KafkaServer, topic: Callable[..., str]
) -> None:
    """Committed, aborted and plain records of every codec, broken ones and tombstones: the same rows either way."""
    name = topic(1)
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        _transactions(full_kafka.bootstrap, name, codec)
    produce(full_kafka.bootstrap, name, [event(1), None, b"", b"{broken", b'{"a":1}', b"\xff\xfe", b'"text"', event(2)])
    found = []
    for path in ("stock", "columnar"):
        (tmp_path / path).mkdir()
        with site_of(tmp_path / path, full_kafka.bootstrap, name, group=f"{name}-{path}") as site:
            assert site.command("--once", "--fetch", path).process.wait(60) == 0
            found.append(
                [rows(site, table, 'SELECT * FROM t ORDER BY "offset"') for table in ("access", "content", "rejects")]
            )
            assert site.landed() == 5 * 20 + 8
    assert found[0] == found[1]
    assert len(found[0][2]) == 6


def _transactions(bootstrap: str, topic: str, codec: str) -> None:
    """Ten records committed, ten aborted, ten committed."""
    producer = OtherProducer(
        {
            "bootstrap.servers": bootstrap,
            "transactional.id": f"{topic}-{codec}",
            "compression.type": codec,
            "linger.ms": 5,
        }
    )
    producer.init_transactions(30)
    for end in (producer.commit_transaction, producer.abort_transaction, producer.commit_transaction):
        producer.begin_transaction()
        for number in range(10):
            producer.produce(topic, event(number), partition=0)
        producer.flush(30)
        end(30)


@pytest.mark.skipif(
    not DEV_TRAFFIC.exists(),
    reason="the labelled development traffic is not here; STILLWATCH_TEST_DEV_TRAFFIC=FILE names it",
)
def test_the_development_traffic_lands_with_every_column_equal(
    tmp_path: Path, kafka: KafkaServer, topic: Callable[..., str]
) -> None:
    """202,044 events through broker, job and lake: what DuckDB reads from the file and from the lake is the same."""
    with site_of(tmp_path, kafka.bootstrap, topic(4)) as site:
        with pa.input_stream(str(DEV_TRAFFIC), compression="zstd") as file:
            lines = file.read().splitlines()
        # librdkafka's producer: kafka-python's would take longer than all the rest.
        producer = OtherProducer(
            {"bootstrap.servers": kafka.bootstrap, "enable.idempotence": True, "compression.type": "lz4",
             "linger.ms": 20, "queue.buffering.max.messages": len(lines)}
        )  # fmt: skip
        for line in lines:
            producer.produce(site.topic, line, key=orjson.loads(line)["account_id"])
        assert producer.flush(60) == 0
        assert len(lines) == DEV_EVENTS
        assert site.command("--once").process.wait(120) == 0
        assert site.assert_exactly_once(ends_of(kafka.bootstrap, site.topic)) == DEV_EVENTS
        with duckdb.connect() as connection:
            assert _difference(connection, site) == (DEV_EVENTS, 0, 0)


def _difference(connection: duckdb.DuckDBPyConnection, site: Site) -> tuple[int, int, int]:
    """Rows in the lake, rows only in the lake, rows only in the source; by value over all columns."""
    kinds = {
        pa.string(): "VARCHAR",
        pa.int64(): "BIGINT",
        pa.float64(): "DOUBLE",
        pa.bool_(): "BOOLEAN",
        TIME: "TIMESTAMPTZ",
    }
    columns = ", ".join(f"{field.name}: '{kinds[field.arrow]}'" for field in ACCESS_FIELDS)
    names = ", ".join(field.name for field in ACCESS_FIELDS)
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(
        f"CREATE TABLE source AS SELECT {names} "
        f"FROM read_json('{DEV_TRAFFIC}', columns = {{{columns}}}, format = 'newline_delimited')"
    )
    connection.execute(
        f"CREATE TABLE lake AS SELECT {names} FROM read_parquet('{site.lake}/access/**/*.parquet') AS a "
        "LEFT JOIN (SELECT * EXCLUDE (event_time, account_id) "
        f"FROM read_parquet('{site.lake}/content/**/*.parquet')) "
        'AS c USING (topic, "partition", "offset")'
    )
    counts = [
        connection.execute(query).fetchone()
        for query in (
            "SELECT count(*) FROM lake",
            "SELECT count(*) FROM (FROM lake EXCEPT ALL FROM source)",
            "SELECT count(*) FROM (FROM source EXCEPT ALL FROM lake)",
        )
    ]
    return tuple(count[0] for count in counts if count)  # type: ignore[return-value]


def test_a_growing_topic_is_landed_by_several_runs_once(
    tmp_path: Path, kafka: KafkaServer, topic: Callable[..., str]
) -> None:
    """`--once` again and again while a producer goes on."""
    with site_of(tmp_path, kafka.bootstrap, topic(2)) as site:
        with Producer(kafka.bootstrap, site.topic, rate=1_000) as producer:
            for _ in range(3):
                assert site.command("--once").process.wait(60) == 0
        assert site.command("--once").process.wait(60) == 0
        assert site.assert_exactly_once(ends_of(kafka.bootstrap, site.topic)) == producer.sent
