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

from pipeline.alerts import Alert, alerts_table
from pipeline.batch import Decoded
from pipeline.events import ACCESS_SCHEMA, CONTENT_COLUMNS, CONTENT_SCHEMA
from pipeline.lake_tables import TABLES
from pipeline.text_views import Positions, kept, one_chunk, reordered

_HOUR_US: Final = 3_600_000_000


@dataclass(frozen=True, slots=True)
class Section:
    """The rows of one table and one hour: what becomes one file.

    Attributes:
        table: name of the lake's table.
        dt: day in UTC, `YYYY-MM-DD`.
        hour: hour in UTC, 0 to 23.
        rows: of the table's schema, texts of events as views (`pipeline.events.with_views`); events sorted by account,
            time, then offset, rejects by offset.
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
        yield from _cut("rejects", rejects.take(order), times[order])


def _event_sections(events: pa.Table) -> Iterator[Section]:
    times = one_chunk(events["event_time"]).cast(pa.int64()).to_numpy()
    order = _order(one_chunk(events["account_id"]), times)
    events, times = reordered(events, order), times[order]
    yield from _cut("access", events.select(ACCESS_SCHEMA.names), times)
    content = events.select(CONTENT_SCHEMA.names)
    some = np.zeros(len(content), dtype=np.bool_)
    for name in CONTENT_COLUMNS:
        some |= content[name].is_valid().to_numpy()
    if not some.all():
        content, times = kept(content, some), times[some]
    if len(content):
        yield from _cut("content", content, times)


def window_sections(windows: pa.Table) -> Iterator[Section]:
    """Divide scored rows of one partition, in the order of their emission, into hours of `scored_at`."""
    if len(windows):
        yield from _sorted_sections("account_windows", windows)


def alert_sections(alerts: Sequence[Alert]) -> Iterator[Section]:
    """Divide alerts of one partition, in the order in which they were raised, into hours of `raised_at`."""
    if alerts:
        yield from _sorted_sections("alerts", alerts_table(alerts))


def _sorted_sections(table: str, rows: pa.Table) -> Iterator[Section]:
    name, time, _ = TABLES[table].order
    rows = rows.take(pa.array(np.argsort(rows["offset"].to_numpy(), kind="stable")))
    times = one_chunk(rows[time]).cast(pa.int64()).to_numpy()
    order = _order(one_chunk(rows[name]), times)
    yield from _cut(table, reordered(rows, order), times[order])


def _order(accounts: pa.Array, times: Positions) -> Positions:
    """The order of rows by hour, account, time, and then offset, in which they come.

    Accounts are few beside events, so their names are ranked once and the rows sorted by numbers.
    """
    names = accounts.dictionary_encode()
    ranks = np.empty(len(names.dictionary), dtype=np.int64)
    ranks[pc.sort_indices(names.dictionary.cast(pa.string())).to_numpy()] = np.arange(len(ranks))
    rank = ranks[names.indices.to_numpy()]
    hour = times // _HOUR_US
    span = len(ranks) * (int(hour.max()) - int(hour.min()) + 1)
    if span > np.iinfo(np.int64).max // _HOUR_US:
        return np.lexsort((times, rank, hour))
    key = ((hour - hour.min()) * len(ranks) + rank) * _HOUR_US + (times - hour * _HOUR_US)
    order = np.argsort(key)  # several times as quick as a stable sort
    equal = np.diff(key[order]) == 0
    if equal.any():
        tied = np.flatnonzero(np.append(equal, False) | np.insert(equal, 0, False))
        order[tied] = order[tied][np.lexsort((order[tied], key[order[tied]]))]
    return order


def _cut(table: str, rows: pa.Table, times: Positions) -> Iterator[Section]:
    """Slice rows that are sorted by hour; zero copy."""
    hours = times // _HOUR_US
    edges = np.flatnonzero(np.diff(hours)) + 1
    for start, stop in zip([0, *edges.tolist()], [*edges.tolist(), len(hours)], strict=True):
        moment = datetime.fromtimestamp(int(hours[start]) * 3600, UTC)
        cut = rows.slice(start, stop - start)
        known = cut[TABLES[table].time].null_count == 0
        yield Section(
            table=table,
            dt=moment.date().isoformat(),
            hour=moment.hour,
            rows=cut,
            time_min_us=int(times[start:stop].min()) if known else None,
            time_max_us=int(times[start:stop].max()) if known else None,
        )
