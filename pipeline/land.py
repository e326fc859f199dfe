"""Decoded rows → the lake's tables, cut by hour and sorted as the files are.

Pure: tables in, tables out.  What comes out depends on the rows only, not on how they were batched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np
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
    events = events.combine_chunks()  # gathering from one chunk takes half as long as from many
    order = _order(events)
    events = pa.table([_taken(column, order) for column in events.columns], schema=events.schema)
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


def _order(events: pa.Table) -> pa.Array:
    """The order of rows by hour, account, time, and then offset, in which they come.

    Accounts are few beside events, so their names are ranked once and the rows sorted by numbers.
    """
    accounts = _one_chunk(events["account_id"]).dictionary_encode()
    ranks = np.empty(len(accounts.dictionary), dtype=np.int64)
    ranks[pc.sort_indices(accounts.dictionary).to_numpy()] = np.arange(len(ranks))
    times = events["event_time"].cast(pa.int64()).to_numpy()
    return pa.array(np.lexsort((times, ranks[accounts.indices.to_numpy()], times // _HOUR_US)))


def _taken(column: pa.ChunkedArray, order: pa.Array) -> pa.Array:
    """The column in another order; a column that nobody fills costs nothing."""
    if column.null_count == len(column):
        return pa.nulls(len(column), column.type)
    return _one_chunk(column).take(order)


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


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
