"""Decoding left out, state and features of accounts alone, or all of the analysis; in memory, on one partition."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.accounts import Accounts
from pipeline.analysis import Analysis
from pipeline.batch import Partition, Records
from pipeline.config import read_settings
from pipeline.decode import Decoder
from pipeline.features import FAMILIES
from pipeline.features.engine import AccountStates
from pipeline.io.heap import keep_freed_memory
from pipeline.io.replay import open_lines
from pipeline.watch import load_watch
from tests.bench.peers.task import Task, measured

BATCH = 50_000
LIVE_ACCOUNTS = 200_000
LIVE_WARM = 8
"""Events of each live account before anything is measured: the texts of an account's first ones are all looked at."""

_WHERE = Partition("bench", 0)


def batches(path: Path) -> Iterator[pa.Table]:
    """The events of a log, decoded, in batches."""
    decoder, lines, start = Decoder(), [], 0
    with open_lines(path) as log:
        for line in log:
            lines.append(bytes(line).rstrip(b"\n"))
            if len(lines) == BATCH:
                yield _decoded(decoder, lines, start)
                start, lines = start + BATCH, []
    if lines:
        yield _decoded(decoder, lines, start)


def _decoded(decoder: Decoder, lines: list[bytes], start: int) -> pa.Table:
    offsets = np.arange(start, start + len(lines))
    records = Records(_WHERE, pa.array(lines, pa.binary_view()), offsets, np.full(len(lines), -1), start + len(lines))
    return decoder.decode(records).events.combine_chunks()


def live(tables: list[pa.Table], count: int) -> Iterator[pa.Table]:
    """The same events over and over as those of `LIVE_ACCOUNTS` accounts, 20,000 a second."""
    draw = np.random.default_rng(1)
    first = int(tables[0]["event_time"].cast(pa.int64())[0].as_py())
    whole = [table for table in tables if len(table) == BATCH] or tables
    for number in range(count):
        table = whole[number % len(whole)]
        at = np.arange(number * BATCH, number * BATCH + len(table))
        accounts = [f"acct_{one:012d}" for one in draw.integers(0, LIVE_ACCOUNTS, len(table)).tolist()]
        made = {
            "account_id": pa.array(accounts, pa.string()),
            "event_time": pa.array(first + at * 50),
            "offset": pa.array(at),
        }
        for name, column in made.items():
            place = table.schema.get_field_index(name)
            field = table.schema.field(place)
            table = table.set_column(place, field, column.cast(field.type))
        yield table


def run(task: Task) -> dict[str, float]:
    """Measure by `variant`: "dev" and "live" the states alone, "analysis" all of it."""
    tables = list(batches(Path(task.ndjson)))
    feed = task.out or None
    if task.variant == "analysis":
        return _analysis(tables, feed)
    accounts = Accounts.load(Path(feed)) if feed and task.variant == "dev" else None
    AccountStates(FAMILIES, accounts).step(tables[0])  # what libraries import when they are first asked
    states = AccountStates(FAMILIES, accounts)
    coming: Iterator[pa.Table] = iter(tables)
    if task.variant == "live":
        coming = live(tables, LIVE_WARM * LIVE_ACCOUNTS // BATCH + 12)
        for _ in range(LIVE_WARM * LIVE_ACCOUNTS // BATCH):
            states.step(next(coming))
    events, rows, cpu_s = 0, 0, 0.0
    for table in coming:
        began_s = time.process_time()
        rows += len(states.step(table))
        cpu_s += time.process_time() - began_s
        events += len(table)
    return {"measured": events, "rows": rows, "step_cpu_s": cpu_s, "accounts": len(states),
            "account_bytes": states.bytes_per_account}  # fmt: skip


def _analysis(tables: list[pa.Table], feed: str | None) -> dict[str, float]:
    watch = load_watch(read_settings(bootstrap="none:1", accounts=feed))
    Analysis(_WHERE, watch).step(tables[0])
    analysis, rows, alerts = Analysis(_WHERE, watch), 0, 0
    began_s = time.process_time()
    for table in tables:
        done = analysis.step(table)
        rows, alerts = rows + len(done.windows), alerts + len(done.alerts)
    cpu_s = time.process_time() - began_s
    return {"measured": sum(map(len, tables)), "rows": rows, "step_cpu_s": cpu_s, "alerts": alerts, "account_bytes": 0}


if __name__ == "__main__":
    given = Task.given()
    pa.set_memory_pool(pa.system_memory_pool())  # as `stillwatch run` does both
    keep_freed_memory()
    with measured() as facts:
        facts.update(run(given))
        facts["events"] = given.events
