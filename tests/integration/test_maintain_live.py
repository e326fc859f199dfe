"""`stillwatch maintain` beside running workers on a real broker."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from kafka import KafkaProducer

from pipeline.forgetting import without_account
from pipeline.io.catalog import Catalog
from pipeline.io.lake import Lake
from tests.integration.scored import assert_as_by_backtest
from tests.integration.workers import ROOT, Producer, Reader, Site, ends_of, site_of
from tests.rewrites import assert_sound
from tests.servers import KafkaServer
from tests.waiting import wait_until

ERASED = "account-7"
ALL_HOURS = ("--closed-after", "0s")


def maintain(site: Site, *arguments: str) -> Any:
    command = [sys.executable, "-m", "jobs.cli", "maintain", *arguments, "--json"]
    command += ["--lake", str(site.lake), "--catalog", site.catalog_url]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def send(site: Site, first: int, count: int, account_of: Callable[[int], str]) -> None:
    with contextlib.closing(KafkaProducer(bootstrap_servers=site.bootstrap, acks="all", linger_ms=20)) as producer:
        for number in range(first, first + count):
            row = {
                "event_time": f"2026-11-20T{number // 3600 % 24:02d}:{number // 60 % 60:02d}:{number % 60:02d}Z",
                "account_id": account_of(number), "model": "large", "prompt": f"say {number % 50}", "output_tokens": 5,
            }  # fmt: skip
            producer.send(site.topic, value=orjson.dumps(row), key=row["account_id"].encode())
        producer.flush(60)


def test_compaction_beside_a_worker_and_readers_changes_no_answer(
    tmp_path: Path, kafka: KafkaServer, topic: Callable[..., str]
) -> None:
    """Hours that are still being written are compacted again and again, with no grace for anybody but readers."""
    with site_of(tmp_path, kafka.bootstrap, topic(2), scoring="off") as site:
        worker = site.worker()
        with Producer(site.bootstrap, site.topic, rate=2_000) as producer, Reader(site) as reader:
            wait_until(lambda: site.landed() > 0, "first rows")
            merged = [maintain(site, "compact", *ALL_HOURS)["files"] for _ in range(4)]
            producer.finish()
            ends = ends_of(site.bootstrap, site.topic)
            wait_until(lambda: site.landed() >= sum(ends.values()), "everything landed")
        assert worker.stop() == 0
        assert sum(merged) > 20
        assert reader.queries
        site.assert_exactly_once(ends)
        maintain(site, "compact", *ALL_HOURS)
        for _ in range(2):
            maintain(site, "compact", *ALL_HOURS, "--grace", "0s")
        site.assert_exactly_once(ends)
        with contextlib.closing(Catalog.open(site.catalog_url, create=False)) as catalog:
            assert_sound(site.lake, catalog)


def test_a_restart_replays_merged_files_and_says_what_it_would_have_said(
    tmp_path: Path, kafka: KafkaServer, topic: Callable[..., str]
) -> None:
    """No snapshot at all: everything is replayed, out of files that were merged and whose inputs are gone."""
    with site_of(tmp_path, kafka.bootstrap, topic(2), snapshot_events=10**9, snapshot_age_s=10**6) as site:
        send(site, 0, 3_000, lambda number: f"account-{number % 9}")
        first = site.worker()
        wait_until(lambda: site.landed() >= 3_000, "first half landed")
        first.kill()
        for _ in range(3):
            maintain(site, "compact", *ALL_HOURS, "--grace", "0s")
        send(site, 3_000, 3_000, lambda number: f"account-{number % 9}")
        second = site.worker()
        wait_until(lambda: site.landed() >= 6_000, "all landed")
        assert second.stop() == 0
        assert sum(line["replayed"] for line in second.logged("analysis restored")) == 3_000
        assert not [line for line in second.log() if "missing" in line]
        windows, _ = assert_as_by_backtest(site, tmp_path / "again")
        assert windows


def test_an_account_is_erased_from_a_worker_that_remembers_it(
    tmp_path: Path, kafka: KafkaServer, topic: Callable[..., str]
) -> None:
    """The worker goes on, and what it writes afterwards knows nothing of the account."""
    with site_of(tmp_path, kafka.bootstrap, topic(2), snapshot_events=500) as site:
        worker = site.worker()
        send(site, 0, 2_000, lambda number: f"account-{number % 9}")
        wait_until(lambda: site.landed() >= 2_000, "first half landed")
        assert _knowing(site), "snapshots knew the account"
        erased = maintain(site, "erase", "--account", ERASED, "--apply")
        assert erased["proven"]
        assert erased["rows"]["access"] == sum(number % 9 == 7 for number in range(2_000))
        others = [number for number in range(9) if number != 7]
        send(site, 2_000, 2_000, lambda number: f"account-{others[number % 8]}")
        wait_until(lambda: site.landed() >= 4_000, "all landed")
        assert worker.logged("fenced: rows dropped") or worker.logged("analysis restored")
        assert worker.stop() == 0
        assert not _knowing(site)
        again = maintain(site, "erase", "--account", ERASED)
        assert (again["rows"], again["snapshots"], again["alerts"]) == ({}, 0, 0)
        with contextlib.closing(Catalog.open(site.catalog_url, create=False)) as catalog:
            assert_sound(site.lake, catalog)


def _knowing(site: Site) -> list[str]:
    """Snapshots on disk that know the account."""
    lake = Lake(site.lake)
    found = [(path, (lake.root / path).read_bytes()) for path in lake.snapshot_files()]
    return [path.as_posix() for path, blob in found if without_account(blob, ERASED) is not None]
