"""Payloads → (events, rejects), thousands at a time.

Two ways lead to a row, and they agree on every payload:

* the quick way (`pipeline.decoding.quick`): payloads that are written alike are taken apart together, and the bytes
  *prove* for each of them that nothing was bent or lost on the way;
* the exact way (`pipeline.decoding.exact`): one payload at a time, by the rules of `schemas/access.v1.json`, with a
  reason in words for each refusal.

Whatever the quick way cannot prove goes the exact way: wrong types, values out of range, nested values, broken JSON.
So the exact way alone decides what is an event, and a bad record never costs its neighbours anything but time.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.batch import Decoded, Records
from pipeline.decoding import exact
from pipeline.decoding.quick import QuickDecoder
from pipeline.events import ACCESS_FIELDS, DECODED_SCHEMA, EXTRA, REJECT_SCHEMA, TIME
from pipeline.text_views import reordered, taken

_EVENT_SCHEMA = pa.schema(
    [DECODED_SCHEMA.field(field.name) for field in ACCESS_FIELDS] + [DECODED_SCHEMA.field(EXTRA.name)]
)


class Decoder:
    """Turns records into rows: a function of the records, and not to be shared between threads."""

    def __init__(self, quick: QuickDecoder | None = None) -> None:
        """Make one.

        Args:
            quick: another one than usual.
        """
        self._quick = quick or QuickDecoder()

    def decode(self, records: Records) -> Decoded:
        """Decode consecutive records of one partition.

        Args:
            records: as fetched.

        Returns:
            Every record in exactly one of `events` and `rejects`, both in offset order.
        """
        at, quick = self._quick.decode(records.values, records.timestamps)
        if len(at) == len(records):
            return Decoded(_in_order(_with_lineage(quick, records, at), at), REJECT_SCHEMA.empty_table())
        taken_quickly = np.zeros(len(records), dtype=np.bool_)
        taken_quickly[at] = True
        rows, rows_at, rejects = _exactly(records, np.flatnonzero(~taken_quickly))
        at = np.concatenate([at, rows_at])
        events = pa.concat_tables([quick, rows])
        return Decoded(_in_order(_with_lineage(events, records, at), at), rejects)


def _in_order(events: pa.Table, at: npt.NDArray[np.int64]) -> pa.Table:
    return events if (at[1:] > at[:-1]).all() else reordered(events, np.argsort(at, kind="stable"))


def _exactly(records: Records, at: npt.NDArray[np.int64]) -> tuple[pa.Table, npt.NDArray[np.int64], pa.Table]:
    """Decode the records at the given positions one by one: their rows, the rows' positions, and the rejects."""
    rows: list[dict[str, object]] = []
    rows_at: list[int] = []
    refusals: list[exact.Refusal] = []
    refused_at: list[int] = []
    for position, value in zip(at.tolist(), taken(records.values, at).to_pylist(), strict=True):
        try:
            row = exact.decode(value, int(records.timestamps[position]))
        except exact.Refusal as refusal:
            refusals.append(refusal)
            refused_at.append(position)
        else:
            rows.append(row)
            rows_at.append(position)
    where = np.array(refused_at, dtype=np.int64)
    said = pa.table(
        {
            "error_type": pa.array([refusal.error_type for refusal in refusals], pa.string()),
            "field": pa.array([refusal.field for refusal in refusals], pa.string()),
            "reason": pa.array([refusal.reason for refusal in refusals], pa.string()),
            "raw": taken(records.values, where).cast(pa.binary()),
        }
    )
    rejects = _with_lineage(said, records, where).select(REJECT_SCHEMA.names).cast(REJECT_SCHEMA)
    return pa.Table.from_pylist(rows, schema=_EVENT_SCHEMA), np.array(rows_at, dtype=np.int64), rejects


def _with_lineage(table: pa.Table, records: Records, at: npt.NDArray[np.int64]) -> pa.Table:
    """Add the columns of LINEAGE for the records at the given positions."""
    times = records.timestamps[at]
    known = (times >= 0) & (times < exact.TIME_MAX_US // 1000)  # a producer may send any number, say microseconds
    columns = {
        "topic": pa.repeat(pa.scalar(records.partition.topic, pa.string_view()), len(at)),
        "partition": pa.repeat(pa.scalar(records.partition.number, pa.int32()), len(at)),
        "offset": pa.array(records.offsets[at]),
        "kafka_time": pa.array(np.where(known, times, 0) * 1000, pa.int64(), mask=~known).cast(TIME),
    }
    for name, column in columns.items():
        table = table.append_column(DECODED_SCHEMA.field(name), column)
    return table
