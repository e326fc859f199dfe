"""Decoded rows → the lake's tables, cut by hour and sorted as the files are.

Pure: tables in, tables out.  What comes out depends on the rows only, not on how they were batched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.batch import Decoded
from pipeline.events import ACCESS_SCHEMA, CONTENT_COLUMNS, CONTENT_SCHEMA, REJECT_SCHEMA

_HOUR_US: Final = 3_600_000_000


@dataclass(frozen=True, slots=True)
class Section:
    """The rows of one table and one hour: what becomes one file.

    Attributes:
        table: name of the lake's table.
        dt: day in UTC, `YYYY-MM-DD`.
        hour: hour in UTC, 0 to 23.
        rows: of the table's schema; events sorted by account, time, then offset, rejects by offset.
        time_min_us: earliest time among the rows, microseconds since the epoch; null where one has none.
        time_max_us: latest.
    """

    table: str
    dt: str
    hour: int
    rows: pa.Table
    time_min_us: int | None
    time_max_us: int | None


def sections(decoded: Sequence[Decoded]) -> Iterator[Section]:
    """Divide rows of one partition into the lake's tables and hours.

    Args:
        decoded: in offset order.

    Yields:
        Sections, table by table and hour by hour.  Events go by event time, rejects by Kafka time (1970-01-01 where
        they have none).
    """
    events = pa.concat_tables([part.events for part in decoded])
    if len(events):
        yield from _event_sections(events)
    rejects = pa.concat_tables([part.rejects for part in decoded])
    if len(rejects):
        times = pc.fill_null(rejects["kafka_time"].cast(pa.int64()), 0).to_numpy()
        order = np.argsort(times // _HOUR_US, kind="stable")
        yield from _cut("rejects", rejects.take(order), times[order], REJECT_SCHEMA)


def _event_sections(events: pa.Table) -> Iterator[Section]:
    keys = pl.from_arrow(events.select(["event_time", "account_id"]))
    if not isinstance(keys, pl.DataFrame):
        raise TypeError("a table became a series")
    order = keys.select(
        pl.arg_sort_by(pl.col("event_time").dt.truncate("1h"), "account_id", "event_time", maintain_order=True)
    ).to_series()
    events = pa.Table.from_batches(events.take(order.to_arrow()).combine_chunks().to_batches())
    times = events["event_time"].cast(pa.int64()).to_numpy()
    yield from _cut("access", events.select(ACCESS_SCHEMA.names), times, ACCESS_SCHEMA)
    content = events.select(CONTENT_SCHEMA.names)
    some = np.zeros(len(content), dtype=np.bool_)
    for name in CONTENT_COLUMNS:
        some |= content[name].is_valid().to_numpy()
    if not some.all():
        content, times = content.filter(pa.array(some)), times[some]
    if len(content):
        yield from _cut("content", content, times, CONTENT_SCHEMA)


def _cut(table: str, rows: pa.Table, times: np.ndarray, schema: pa.Schema) -> Iterator[Section]:
    """Slice rows that are sorted by hour; zero copy."""
    hours = times // _HOUR_US
    edges = np.flatnonzero(np.diff(hours)) + 1
    for start, stop in zip([0, *edges.tolist()], [*edges.tolist(), len(hours)], strict=True):
        moment = datetime.fromtimestamp(int(hours[start]) * 3600, UTC)
        cut = rows.slice(start, stop - start).cast(schema)
        known = table != "rejects" or cut["kafka_time"].null_count == 0
        yield Section(
            table=table,
            dt=moment.date().isoformat(),
            hour=moment.hour,
            rows=cut,
            time_min_us=int(times[start:stop].min()) if known else None,
            time_max_us=int(times[start:stop].max()) if known else None,
        )
