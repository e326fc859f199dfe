"""Past ranges of a topic, landed beside the live job: by offset and by time, once, and with the scores of the live job."""

from __future__ import annotations

import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from kafka import KafkaProducer

from tests.integration.backfills import (
    PastLake,
    alerts_of,
    assert_whole,
    counted,
    said,
    same_alerts,
    scores,
    tables_of,
)
from tests.integration.scored import send
from tests.integration.test_backfill import config, traffic
from tests.integration.workers import Site, ends_of, event, site_of
from tests.servers import KafkaServer

__all__ = ["config", "traffic"]

START = datetime(2026, 3, 2, tzinfo=UTC)


def past_of(site: Site, root: Path, *flags: str | Path) -> PastLake:
    catalog = site.catalog_url if root == site.lake else ""
    return PastLake(root, "--bootstrap", site.bootstrap, "--topic", site.topic, *flags, catalog=catalog)


def offsets_of(lake: PastLake) -> list[tuple[int, int]]:
    """Partition and offset of every record that is there, whatever its topic."""
    tables = tables_of(lake.root, lake.catalog_url)
    rows = [row for name in ("access", "rejects") for row in tables[name].select(["partition", "offset"]).to_pylist()]
    return sorted((row["partition"], row["offset"]) for row in rows)


def produce(site: Site, count: int) -> None:
    """Numbered events, one a minute by their Kafka time, to partitions in turn."""
    producer = KafkaProducer(bootstrap_servers=site.bootstrap, acks="all", enable_idempotence=True)
    partitions = len(ends_of(site.bootstrap, site.topic))
    for number in range(count):
        stamp = int((START + timedelta(minutes=number)).timestamp() * 1000)
        value = event(number).replace(b"2026-11-20T", b"2026-03-02T") if number % 10 else b"no event"
        producer.send(site.topic, value=value, partition=number % partitions, timestamp_ms=stamp)
    producer.flush(60)
    producer.close()


@pytest.mark.timeout(300)
def test_the_whole_past_gets_the_scores_of_the_live_job(
    tmp_path: Path, kafka: KafkaServer, topic: Callable[..., str], traffic: Path, config: Path
) -> None:
    """In two processes; one of an earlier try was killed in the middle."""
    with site_of(tmp_path, kafka.bootstrap, topic(2)) as site:
        send(site, traffic / "whole.ndjson")
        assert site.command("--config", str(config), "--once").process.wait(120) == 0
        live, live_alerts = tables_of(site.lake, site.catalog_url), alerts_of(site.catalog_url)
        past = past_of(site, tmp_path / "past", "--config", config, "--kafka", f"max_partition_fetch_bytes={1 << 18}")
        killed = past.backfill("--from", "0", crash=("committed", 2))
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert "ranges were begun before and are finished" in past.landed("--from", "0", "--parallel", "2")
        assert counted(past.landed("--from", "0"))["read"] == 0
        assert_whole(past.root, past.catalog_url)
        found = tables_of(past.root, past.catalog_url, "past:1:")
        for table in ("access", "content", "rejects"):
            assert said(found[table]) == said(live[table]), table
        assert found["access"].select(["kafka_time"]).sort_by("kafka_time") == live["access"].select(
            ["kafka_time"]
        ).sort_by("kafka_time")
        assert scores(found["account_windows"]).equals(scores(live["account_windows"]))
        assert same_alerts(alerts_of(past.catalog_url), live_alerts)


@pytest.mark.timeout(300)
def test_ranges_by_offset_and_time_fill_what_the_live_job_left_out(
    tmp_path: Path, kafka: KafkaServer, topic: Callable[..., str]
) -> None:
    """It began at the end of the log; every record is then there once, whatever ranges are asked for again."""
    with site_of(tmp_path, kafka.bootstrap, topic(2), scoring="off") as site:
        produce(site, 200)
        assert site.command("--start", "latest", "--scoring", "off", "--once").process.wait(60) == 0
        produce(site, 40)
        assert site.command("--scoring", "off", "--once").process.wait(60) == 0
        produce(site, 20)
        past = past_of(site, site.lake, "--no-score")

        dry = past.landed("--from", "40", "--to", "60", "--dry-run")
        assert counted(dry)["to be read"] == 40
        assert site.landed() == 40, "a dry run lands nothing"
        past.landed("--from", "40", "--to", "60")
        assert offsets_of(past) == [(at, offset) for at in (0, 1) for offset in (*range(40, 60), *range(100, 120))]

        by_time = past.landed("--from", "2026-03-02", "--to", "2026-03-02T01:00Z")
        assert counted(by_time)["read"] == 60
        again = past.landed("--from", "2026-03-02T00:30+00:00", "--to", "130", "--parallel", "2")
        assert "20 offsets are left to `stillwatch run`" in again
        assert offsets_of(past) == [(at, offset) for at in (0, 1) for offset in range(120)]
        assert counted(past.landed("--from", "0", "--to", "1000"))["read"] == 0
        assert offsets_of(past) == [(at, offset) for at in (0, 1) for offset in range(120)]

        assert site.command("--scoring", "off", "--once").process.wait(60) == 0
        assert offsets_of(past) == [(at, offset) for at in (0, 1) for offset in range(130)]
        assert_whole(past.root, past.catalog_url)


@pytest.mark.timeout(120)
def test_the_live_job_begins_after_what_a_backfill_landed_before_it(
    tmp_path: Path, kafka: KafkaServer, topic: Callable[..., str]
) -> None:
    with site_of(tmp_path, kafka.bootstrap, topic(1), scoring="off") as site:
        produce(site, 60)
        past = past_of(site, site.lake, "--no-score")
        assert "the log holds nothing of this range" in past.landed("--from", "100", "--dry-run")
        told = past.landed("--from", "10", "--to", "2026-03-02T00:50", "--dry-run")
        assert f"`stillwatch run` has never read {site.topic}-0" in told
        told = past.landed("--from", "10", "--to", "2026-03-02T00:50")
        assert f"`stillwatch run` has never read {site.topic}-0" in told
        assert site.command("--scoring", "off", "--once").process.wait(60) == 0
        assert offsets_of(past) == [(0, offset) for offset in range(10, 60)]
        assert_whole(past.root, past.catalog_url)


def test_a_range_that_makes_no_sense_is_refused_in_one_line(tmp_path: Path) -> None:
    lake = PastLake(tmp_path / "lake", "--bootstrap", "127.0.0.1:1")
    for arguments, words in (
        (
            ("--from", "yesterday"),
            "such as 2026-03-02 or 2026-03-02T06:00Z, or an offset (digits alone)",
        ),
        (("--from", "5", "--to", "3"), "--from 5 --to 3: nothing lies between"),
        (("--from", "2026-03-02", "--to", "2026-03-01"), "nothing lies between"),
        (("--from", "0", "a.ndjson"), "--from 0: expected a day or a time"),
        (("--rejects", "a.ndjson"), "these are several"),
        ((), "nothing is named"),
    ):
        done = lake.backfill(*arguments)
        assert done.returncode == 2
        assert words in done.stderr
        assert done.stderr.count("\n") == 1
    assert not lake.root.exists()
