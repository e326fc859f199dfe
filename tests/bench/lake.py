"""A lake of many events over 30 days: how quick the analysts' queries are, before and after compaction."""

from __future__ import annotations

import contextlib
import resource
import statistics
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np
import pyarrow as pa

from pipeline.alerts import ALERT_SCHEMA
from pipeline.batch import Partition
from pipeline.commits import Commit
from pipeline.events import ACCESS_SCHEMA
from pipeline.features import NAMES
from pipeline.io.catalog import Catalog, sqlite_url
from pipeline.io.lake import Lake
from pipeline.io.views.session import Session
from pipeline.land import Section
from pipeline.windows import PARTS, WINDOWS_SCHEMA
from tests.bench import account
from tests.bench.measure import say
from tests.bench.report import table, write_section

DAYS: Final = 30
FIRST: Final = datetime(2026, 3, 1, tzinfo=UTC)
PARTITIONS: Final = 4
COMMITS_AN_HOUR: Final = 3
"""Of each partition: an hour of a table is 12 files before compaction, far fewer than a busy job leaves."""

ACCOUNTS: Final = 20_000
PREFIXES: Final = 100_000
WINDOWS_SHARE: Final = 0.03
ROUNDS: Final = 5
_LOUD: Final = "acct_00007"
_DAY: Final = "2026-03-20"
_HOUR_US: Final = 3_600_000_000

QUERIES: Final = {
    "one account's timeline, 30 days": f"""
        SELECT event_time, model, input_tokens, output_tokens, client_ip FROM access
        WHERE account_id = '{_LOUD}' ORDER BY event_time""",
    "one account's timeline, a day": f"""
        SELECT event_time, model, input_tokens, output_tokens, client_ip FROM access
        WHERE account_id = '{_LOUD}' AND dt = '{_DAY}' ORDER BY event_time""",
    "top accounts of a day": f"""
        SELECT account_id, count(*) AS requests, sum(output_tokens) AS tokens FROM access
        WHERE dt = '{_DAY}' GROUP BY account_id ORDER BY tokens DESC LIMIT 20""",
    "top accounts of each of 30 days": """
        SELECT dt, account_id, sum(output_tokens) AS tokens FROM access GROUP BY dt, account_id
        QUALIFY row_number() OVER (PARTITION BY dt ORDER BY tokens DESC) <= 5 ORDER BY dt, tokens DESC""",
    "spread of prefixes over accounts, a day": f"""
        SELECT prompt_prefix_hash, count(DISTINCT account_id) AS accounts, count(*) AS requests FROM access
        WHERE dt = '{_DAY}' GROUP BY ALL HAVING accounts > 5 ORDER BY accounts DESC LIMIT 20""",
    "alerts with scores and tokens, a day": f"""
        SELECT l.entity_id, l.rule, max(w.risk) AS risk, any_value(a.tokens) AS tokens
        FROM alerts AS l
        JOIN account_windows AS w ON w.account_id = l.entity_id AND w.dt = '{_DAY}'
        JOIN (SELECT account_id, sum(output_tokens) AS tokens FROM access WHERE dt = '{_DAY}' GROUP BY ALL) AS a
          ON a.account_id = l.entity_id
        WHERE l.dt = '{_DAY}' GROUP BY ALL ORDER BY risk DESC LIMIT 50""",
}
"""What is measured, by its words."""


@dataclass(frozen=True)
class State:
    """A lake at one moment, measured.

    Attributes:
        seconds: of each query, warm.
        files: that each query is given.
        sizes: files, rows and bytes by table.
    """

    seconds: dict[str, float]
    files: dict[str, int]
    sizes: dict[str, tuple[int, int, int]]


def measure(folder: Path, events: int) -> None:
    """Make a lake, ask it, compact it, ask it again, and write the tables."""
    lake = Lake.open(str(folder / "lake"), create=True)
    url = sqlite_url(folder / "catalog.db")
    with contextlib.closing(Catalog.open(url, create=True)) as catalog:
        began_s = time.monotonic()
        with mock.patch("os.fsync"):  # how fast a lake is landed is measured elsewhere
            made = make(lake, catalog, events)
        say(f"  {made:,} events landed in {time.monotonic() - began_s:.0f} s")
        before = ask(lake, url)
        compaction = _compact(folder, url)
        say(f"  compacted in {compaction[0]:.0f} s")
        after = ask(lake, url)
    _report(made, before, after, compaction)
    account.measure(lake.root, url)


def make(lake: Lake, catalog: Catalog, events: int) -> int:
    """Land generated events, scores and alerts, an hour at a time; returns how many events."""
    draw = np.random.default_rng(11)
    hours = DAYS * 24
    world = _World(draw)
    epochs = {number: catalog.start_at(Partition("bench", number), 0).epoch for number in range(PARTITIONS)}
    offsets = dict.fromkeys(range(PARTITIONS), 0)
    for hour in range(hours):
        size = events * (hour + 1) // hours - events * hour // hours
        for number in range(PARTITIONS):
            for part in range(COMMITS_AN_HOUR):
                share = size * (part + 1) // COMMITS_AN_HOUR - size * part // COMMITS_AN_HOUR
                count = share * (number + 1) // PARTITIONS - share * number // PARTITIONS
                if count:
                    first = offsets[number]
                    sections = world.sections(hour, part, number, first, count)
                    _land(lake, catalog, Partition("bench", number), epochs[number], first, sections)
                    offsets[number] += count
        if hour % 72 == 71:  # three days
            say(f"  {(hour + 1) // 24} days")
    return sum(offsets.values())


def ask(lake: Lake, url: str) -> State:
    """Run every query once cold and some times warm."""
    seconds: dict[str, float] = {}
    files: dict[str, int] = {}
    with contextlib.closing(Session(lake, Catalog.open(url, create=False))) as session:
        for name, query in QUERIES.items():
            files[name] = len(session.files(query))
            times = [_run(session, query) for _ in range(ROUNDS + 1)]
            seconds[name] = statistics.median(times[1:])
            say(f"  {name}: {seconds[name]:.2f} s, {files[name]:,} files")
        live = session.live_files()
    sizes = {}
    for name in ("access", "account_windows", "alerts"):
        mine = [file for file in live if file.table_name == name]
        sizes[name] = (len(mine), sum(file.rows for file in mine), sum(file.bytes for file in mine))
    return State(seconds, files, sizes)


def _run(session: Session, query: str) -> float:
    began_s = time.perf_counter()
    with session.run(query) as result:
        for _ in result.batches:
            pass
    return time.perf_counter() - began_s


def _compact(folder: Path, url: str) -> tuple[float, float, float]:
    """As its users do; returns seconds, CPU seconds and MiB of memory at most."""
    began_s, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [
        sys.executable,
        "-m",
        "jobs.cli",
        "maintain",
        "compact",
        "--lake",
        str(folder / "lake"),
        "--catalog",
        url,
    ]
    for grace in ("1h", "0s", "0s"):  # the first does the work, the others what would come an hour later, and another
        subprocess.run([*command, "--grace", grace], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return time.monotonic() - began_s, cpu_s, after.ru_maxrss / 1024


def _report(made: int, before: State, after: State, compaction: tuple[float, float, float]) -> None:
    wall_s, cpu_s, mib = compaction
    rows = [
        [name, f"{after.seconds[name]:.2f}", "< 1", f"{before.seconds[name]:.2f}",
         f"{before.seconds[name] / after.seconds[name]:.1f} ×", f"{after.files[name]:,}", f"{before.files[name]:,}"]
        for name in QUERIES
    ]  # fmt: skip
    header = ["query, warm", "s after", "target", "s before", "before ÷ after", "files after", "files before"]
    sizes = [
        [name, f"{after.sizes[name][1]:,}", f"{before.sizes[name][0]:,}", f"{after.sizes[name][0]:,}",
         f"{before.sizes[name][2] / max(1, after.sizes[name][1]):.0f}", f"{after.sizes[name][2] / max(1, after.sizes[name][1]):.0f}"]
        for name in after.sizes
    ]  # fmt: skip
    of_sizes = ["table", "rows", "files before", "files after", "bytes/row before", "bytes/row after"]
    about = f"{made:,} events over {DAYS} days; compaction took {wall_s:.0f} s ({cpu_s:.0f} s CPU, {mib:.0f} MiB)."
    write_section("lake", f"{about}\n\n{table(header, rows)}\n\n{table(of_sizes, sizes)}")


class _World:
    """Makes events of always the same accounts."""

    def __init__(self, draw: np.random.Generator) -> None:
        self._draw = draw
        self._ids = np.array([f"acct_{number:05d}" for number in range(ACCOUNTS)])
        self._of_partition = [np.arange(number, ACCOUNTS, PARTITIONS) for number in range(PARTITIONS)]
        weights = [1 / (accounts + 20.0) for accounts in self._of_partition]
        self._ends = [np.cumsum(weight) / weight.sum() for weight in weights]
        self._prefixes = pa.array([uuid.UUID(bytes=draw.bytes(16)).hex for _ in range(PREFIXES)])
        self._names = pa.array(self._ids.tolist())

    def sections(self, hour: int, part: int, number: int, first: int, count: int) -> list[Section]:
        """One commit's rows of one hour."""
        draw = self._draw
        moment = FIRST + timedelta(hours=hour)
        begin_us = int(moment.timestamp()) * 1_000_000 + part * _HOUR_US // COMMITS_AN_HOUR
        times = np.sort(begin_us + draw.integers(0, _HOUR_US // COMMITS_AN_HOUR, count))
        accounts = self._of_partition[number][np.searchsorted(self._ends[number], draw.random(count))]
        order = np.lexsort((times, accounts))
        sorted_accounts, sorted_times = accounts[order], times[order]
        offsets = (first + np.arange(count))[order]
        access = self._access(sorted_accounts, sorted_times, offsets, number)
        found = [self._section("access", moment, access, sorted_times)]
        some = np.flatnonzero(draw.random(count) < WINDOWS_SHARE)
        if len(some):
            windows = self._windows(sorted_accounts[some], sorted_times[some], offsets[some], number)
            found.append(self._section("account_windows", moment, windows, sorted_times[some]))
        if part == 0 and len(some):
            row = some[:1]
            alert = self._alert(sorted_accounts[row], sorted_times[row], offsets[row], number)
            found.append(self._section("alerts", moment, alert, sorted_times[row]))
        return found

    def _section(self, name: str, moment: datetime, rows: pa.Table, times: Any) -> Section:
        return Section(name, moment.date().isoformat(), moment.hour, rows, int(times.min()), int(times.max()))

    def _access(self, accounts: Any, times: Any, offsets: Any, number: int) -> pa.Table:
        draw, count = self._draw, len(accounts)
        latency = draw.integers(100, 9_000, count)
        prefix = (draw.random(count) ** 3 * PREFIXES).astype(np.int64)
        choice = draw.integers(0, 1 << 30, count)
        given = {
            "event_time": times, "account_id": self._names.take(pa.array(accounts)),
            "request_id": pa.array(draw.bytes(count * 12).hex("-", 12).split("-")),
            "api_key_id": _chosen("key_{:05d}", accounts * 2 + choice % 2),
            "client_ip": _chosen("10.{0}.0.1", accounts % 5_000), "country": _of(("BR", "DE", "IN", "US"), accounts),
            "user_agent": _of(("OpenAI/Python 1.4", "litellm/1.17", "curl/8.4"), accounts),
            "operation": _of(("chat",), accounts), "model": _of(("large-4", "medium-3", "small-2"), choice),
            "status": np.where(choice % 40 == 0, 429, 200), "stream": choice % 3 == 0,
            "temperature": (choice % 11) / 10, "max_tokens": (accounts % 4 + 1) * 512, "message_count": choice % 9 + 1,
            "input_tokens": draw.integers(20, 4_000, count), "output_tokens": draw.integers(1, 2_000, count),
            "latency_ms": latency, "finish_reason": _of(("stop", "stop", "stop", "length"), choice),
            "prompt_chars": draw.integers(50, 9_000, count), "prompt_prefix_hash": self._prefixes.take(pa.array(prefix)),
            "kafka_time": times + latency * 1000,
        }  # fmt: skip
        return _table(ACCESS_SCHEMA, given, offsets, number)

    def _windows(self, accounts: Any, times: Any, offsets: Any, number: int) -> pa.Table:
        count = len(accounts)
        risk = self._draw.random(count).astype(np.float32)
        values = self._draw.random((len(NAMES), count)).astype(np.float32).round(3)
        features = pa.StructArray.from_arrays(
            [pa.array(column) for column in values], fields=list(WINDOWS_SCHEMA.field("features").type)
        )
        given = {
            "account_id": self._names.take(pa.array(accounts)), "scored_at": times, "kind": _of(("count", "tick"), accounts),
            "exchanges": self._draw.integers(8, 900, count), "output_tokens": self._draw.integers(100, 90_000, count),
            "first_seen": times - _HOUR_US, "risk": risk, **dict.fromkeys(PARTS, risk), "features": features,
            "reasons": pa.array([[]] * count, WINDOWS_SCHEMA.field("reasons").type), "versions": _of(("{}",), accounts),
        }  # fmt: skip
        return _table(WINDOWS_SCHEMA, given, offsets, number)

    def _alert(self, accounts: Any, times: Any, offsets: Any, number: int) -> pa.Table:
        maps = ALERT_SCHEMA.field("features").type, ALERT_SCHEMA.field("versions").type
        given = {
            "alert_id": pa.array([uuid.uuid4().hex]), "rule": pa.array(["bench"]), "rule_version": np.array([1]),
            "state": pa.array(["live"]), "severity": pa.array(["high"]), "entity_type": pa.array(["account"]),
            "entity_id": self._names.take(pa.array(accounts)), "window_start": times, "raised_at": times,
            "first_seen": times, "exchanges": np.array([9]), "output_tokens": np.array([9]), "risk": np.array([0.9]),
            "reasons": pa.array([["loud"]]), "features": pa.array([[]], maps[0]), "versions": pa.array([[]], maps[1]),
        }  # fmt: skip
        return _table(ALERT_SCHEMA, given, offsets, number)


def _of(names: tuple[str, ...], numbers: Any) -> pa.Array:
    return pa.array(names).take(pa.array(numbers % len(names)))


def _chosen(form: str, numbers: Any) -> pa.Array:
    known, places = np.unique(numbers, return_inverse=True)
    return pa.array([form.format(number) for number in known.tolist()]).take(pa.array(places))


def _table(schema: pa.Schema, given: dict[str, Any], offsets: Any, number: int) -> pa.Table:
    count = len(offsets)
    given |= {"topic": _of(("bench",), offsets), "partition": np.full(count, number), "offset": offsets}
    columns = []
    for field in schema:
        value = given.get(field.name)
        array = (
            pa.nulls(count, field.type) if value is None else value if isinstance(value, pa.Array) else pa.array(value)
        )
        columns.append(array.cast(field.type))
    return pa.table(columns, schema=schema)


def _land(  # all of a commit
    lake: Lake, catalog: Catalog, partition: Partition, epoch: int, first: int, sections: list[Section]
) -> None:
    """By the steps of the job's own commit."""
    events = len(sections[0].rows)
    now_us = int(datetime.now(UTC).timestamp() * 1e6)
    commit = Commit(uuid.uuid4().hex, partition, first, first + events, events, 0, now_us, "bench")
    files = lake.stage(commit, sections)
    catalog.commit(commit, epoch, files)
    lake.place(commit, files)
    catalog.publish(commit.commit_id)
