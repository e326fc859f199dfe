"""Commits, alerts and snapshots that tests give to a catalog."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import sqlalchemy as sa

from pipeline.alerts import Alert, alert_id_of
from pipeline.batch import Partition
from pipeline.commits import Commit, FileEntry, SnapshotEntry
from pipeline.errors import RetryableError
from pipeline.io.catalog import Catalog
from tests.waiting import BOUND_S

P0, P1 = Partition("access", 0), Partition("access", 1)
THREADS = 4
STEPS = 30


def commit_of(partition: Partition, first: int, following: int) -> Commit:
    return Commit(uuid.uuid4().hex, partition, first, following, following - first, 0, 1_780_000_000_000_000, "test:1")


def files_of(commit: Commit, count: int = 1) -> list[FileEntry]:
    return [
        FileEntry(
            path=f"access/dt=2026-03-01/hour={hour:02d}/{commit.commit_id}.parquet",
            table_name="access",
            dt="2026-03-01",
            hour=hour,
            rows=3,
            bytes=2**40,
            sha256="0" * 64,
            time_min_us=hour * 3_600_000_000,
            time_max_us=hour * 3_600_000_000 + 59,
        )
        for hour in range(count)
    ]


def live(catalog: Catalog) -> set[str]:
    return {file.path for file in catalog.live_files()}


# ---- alerts and snapshots


def alert_of(number: int, **changed: Any) -> Alert:
    account = f"account-{number}"
    known = {"state": "live", "severity": "high", "rule": "harvest", **changed}
    return Alert(
        alert_id=alert_id_of(known["rule"], 1, "account", account, number),
        rule_version=1,
        entity_type="account",
        entity_id=account,
        window_start_us=number,
        raised_at_us=1_000 * number,
        first_seen_us=0,
        topic="access",
        partition=0,
        offset=number,
        exchanges=2**40,
        output_tokens=0,
        risk=0.1 + 0.2,
        reasons=("one \0 \U0001f600", "two"),
        features={"a": 0.5, "b": None},
        versions={"models": "1"},
        **known,
    )


def snapshot_of(commit: Commit) -> SnapshotEntry:
    path = f"snapshots/access-0/{commit.commit_id}.snapshot"
    return SnapshotEntry(commit.partition, commit.next_offset, commit.commit_id, path, 2**40, "0" * 64, 1, 7)


def insist(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call until the catalog answers: with so many at once it may take longer than one wait for a lock, and less than
    what anything is waited for."""
    end_s = time.monotonic() + BOUND_S
    while True:
        try:
            return call(*arguments)
        except RetryableError:
            if time.monotonic() > end_s:
                raise


def open_at_once(url: str) -> None:
    """Let several threads make the catalog, or bring it up to date, at one moment; fails where one of them does."""
    start = threading.Barrier(THREADS)

    def begin(_number: int) -> None:
        start.wait(BOUND_S)
        Catalog.open(url, create=True).close()

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(begin, range(THREADS)))


def execute(url: str, statement: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()
