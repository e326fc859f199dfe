"""Payloads → (events, rejects), thousands at a time.

Three ways lead to a row, and they agree on every payload:

* the direct way (`pipeline.decoding.direct`), where compiled code is installed: flat objects of known fields, in one
  pass over their bytes;
* the quick way (`pipeline.decoding.quick`): payloads that are written alike are taken apart together, and the bytes
  *prove* for each of them that nothing was bent or lost on the way;
* the exact way (`pipeline.decoding.exact`): one payload at a time, by the rules of `schemas/access.v1.json`, with a
  reason in words for each refusal.

Whatever the others cannot prove goes the exact way: wrong types, values out of range, nested values, broken JSON.
So the exact way alone decides what is an event, and a bad record never costs its neighbours anything but time.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.batch import Decoded, Records
from pipeline.compiled import LOOPS
from pipeline.decoding import exact
from pipeline.decoding.direct import DirectDecoder
from pipeline.decoding.pieces import Proven
from pipeline.decoding.quick import QuickDecoder
from pipeline.events import ACCESS_FIELDS, DECODED_SCHEMA, EXTRA, REJECT_SCHEMA, TIME
from pipeline.text_views import Positions, reordered, taken

_EVENT_SCHEMA = pa.schema(
    [DECODED_SCHEMA.field(field.name) for field in ACCESS_FIELDS] + [DECODED_SCHEMA.field(EXTRA.name)]
)


class Way(Protocol):
    """A way to decode thousands of payloads, as far as it can prove what they say."""

    def decode(self, values: pa.Array, timestamps: npt.NDArray[np.int64]) -> Proven:
        """Decode payloads (`binary_view`), with Kafka's timestamps in milliseconds, negative where there is none."""


def _ways() -> tuple[Way, ...]:
    return (QuickDecoder(),) if LOOPS is None else (DirectDecoder(LOOPS), QuickDecoder())


class Decoder:
    """Turns records into rows: a function of the records, and not to be shared between threads."""

    def __init__(self, *ways: Way) -> None:
        """Make one.

        Args:
            ways: for thousands of payloads, the quickest first, if not all that there are.
        """
        self._ways = ways or _ways()

    def decode(self, records: Records) -> Decoded:
        """Decode consecutive records of one partition.

        Args:
            records: as fetched.

        Returns:
            Every record in exactly one of `events` and `rejects`, both in offset order.
        """
        at, events = self._proven(records)
        if len(at) == len(records):
            return Decoded(_in_order(_with_lineage(events, records, at), at), REJECT_SCHEMA.empty_table())
        rows, rows_at, rejects = _exactly(records, _without(np.arange(len(records)), at))
        at = np.concatenate([at, rows_at])
        events = pa.concat_tables([events, rows])
        return Decoded(_in_order(_with_lineage(events, records, at), at), rejects)

    def _proven(self, records: Records) -> Proven:
        """What the ways for thousands of payloads prove between them, each of what those before it left."""
        left, parts = np.arange(len(records)), []
        for way in self._ways:
            whole = len(left) == len(records)
            values = records.values if whole else taken(records.values, left)
            at, events = way.decode(values, records.timestamps if whole else records.timestamps[left])
            parts.append(Proven(left[at], events))
            if len(at) == len(left):
                break
            left = _without(left, left[at])
        return Proven.joined(parts)


def _without(rows: Positions, others: Positions) -> Positions:
    """Those of ascending positions that are not among others."""
    is_left = np.ones(len(rows), dtype=np.bool_)
    is_left[np.searchsorted(rows, others)] = False
    return rows[is_left]


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
