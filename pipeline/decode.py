"""Payloads → (events, rejects), thousands at a time.

Two ways lead to a row, and they agree on every payload:

* the quick way: DuckDB turns all values of a batch into typed columns in one pass, and a scan of the bytes *proves* for
  each row that nothing was bent or lost on the way (`pipeline.json_proof`);
* the exact way (`pipeline.exact`): one payload at a time, by the rules of `schemas/access.v1.json`, with a reason in
  words for each refusal.

Whatever the quick way cannot prove goes the exact way: unknown fields, wrong types, values out of range, broken JSON.
So the exact way alone decides what is an event, and a bad record never costs its neighbours anything but time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import duckdb
import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import exact
from pipeline.batch import Decoded, Records
from pipeline.events import ACCESS_FIELDS, EVENT_SCHEMA, EXTRA, REJECT_SCHEMA, TIME
from pipeline.json_proof import BOOLEAN, NUMBER, TEXT, count_values, names_of

QUICK_BYTES_MAX: Final = 1 << 20
"""Longer payloads go the exact way: DuckDB's parser may take sixteen bytes of memory for each byte of hostile JSON."""

_QUICK_BYTES_MIN: Final = 16
"""No payload this short holds the three required fields."""

_INTEGER_EXACT_MAX: Final = 2**53
"""Integers pass through float64 on the quick way, so that 1.5 is seen; beyond this they would lose digits."""

_STRUCTURE: Final = orjson.dumps(
    {
        field.name: "BOOLEAN"
        if field.arrow == pa.bool_()
        else "DOUBLE"
        if field.arrow in (pa.int64(), pa.float64())
        else "VARCHAR"
        for field in ACCESS_FIELDS
    }
).decode()
_TEXT_NAMES: Final = [f.name for f in ACCESS_FIELDS if f.arrow in (pa.string(), TIME)]
_NUMBER_NAMES: Final = [f.name for f in ACCESS_FIELDS if f.arrow in (pa.int64(), pa.float64())]
_BOOLEAN_NAMES: Final = [f.name for f in ACCESS_FIELDS if f.arrow == pa.bool_()]
_NAMES: Final = names_of(
    {
        field.name: TEXT if field.name in _TEXT_NAMES else NUMBER if field.name in _NUMBER_NAMES else BOOLEAN
        for field in ACCESS_FIELDS
    }
)
_RFC3339: Final = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$"

Mask = npt.NDArray[np.bool_]


class Decoder:
    """Turns records into rows.  Holds one DuckDB connection; pure otherwise, and not to be shared between threads."""

    def __init__(self) -> None:
        self._duckdb = duckdb.connect(config={"threads": 1})

    def decode(self, records: Records) -> Decoded:
        """Decode consecutive records of one partition.

        Args:
            records: as fetched.

        Returns:
            Every record in exactly one of `events` (EVENT_SCHEMA) and `rejects` (REJECT_SCHEMA), both in offset order.
        """
        values = records.values.cast(pa.large_binary())  # one buffer for the proof to scan; views have few kernels, too
        quick_rows, quick = self._quick(values, records.timestamps)
        taken = np.zeros(len(records), dtype=np.bool_)
        taken[quick_rows] = True
        rest = np.flatnonzero(~taken)
        if not len(rest):
            return Decoded(_with_lineage(quick, records, quick_rows), REJECT_SCHEMA.empty_table())
        rows, rows_at, rejects = _exactly(records, values, rest)
        events = pa.concat_tables([_with_lineage(quick, records, quick_rows), _with_lineage(rows, records, rows_at)])
        order = np.argsort(np.concatenate([quick_rows, rows_at]), kind="stable")
        if len(rows_at) and len(quick_rows):
            events = events.take(order)
        return Decoded(events.combine_chunks(), rejects)

    def _quick(
        self, values: pa.LargeBinaryArray, timestamps: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], pa.Table]:
        """The rows that can be proven right at once: their positions and their columns (EVENT_SCHEMA, no lineage)."""
        length = pc.fill_null(pc.binary_length(values), 0).to_numpy(zero_copy_only=False)
        at = np.flatnonzero((length >= _QUICK_BYTES_MIN) & (length <= QUICK_BYTES_MAX))
        if len(at) < len(values):
            values = values.take(pa.array(at))
        texts, ok = _converted(values, lambda array: array.cast(pa.large_string()))
        if not ok.all():
            at, texts = at[ok], texts.filter(pa.array(ok))
        try:
            columns = self._transform(texts)
        except (duckdb.Error, UnicodeDecodeError):
            # Malformed JSON somewhere, which DuckDB quotes in its error, cut anywhere, so that at times the error is no
            # text itself.  Leave those rows out and read the others again.
            valid = self._run("SELECT json_valid(value) AS valid FROM batch", texts)["valid"].to_numpy()
            at, texts = at[valid], texts.filter(pa.array(valid))
            columns = self._transform(texts)
        table, proven = _prove(columns, texts, timestamps[at])
        if not proven.all():
            at, table = at[proven], table.filter(pa.array(proven))
        return at, table

    def _transform(self, texts: pa.LargeStringArray) -> pa.Table:
        # One struct column, taken apart by Arrow: with `unnest`, planning the query takes twice as long.
        query = f"SELECT json_transform(value, '{_STRUCTURE}') AS event FROM batch"  # noqa: S608  # of our own making
        events = self._run(query, texts).column("event").combine_chunks()
        if isinstance(events, pa.ChunkedArray):  # how Arrow combines no chunks at all
            events = pa.concat_arrays(events.chunks) if events.num_chunks else pa.nulls(0, events.type)
        return pa.table(events.flatten(), names=[field.name for field in events.type])

    def _run(self, query: str, texts: pa.LargeStringArray) -> pa.Table:
        self._duckdb.register("batch", pa.table({"value": texts}))
        try:
            return self._duckdb.sql(query).to_arrow_table().combine_chunks()
        finally:
            self._duckdb.unregister("batch")


def _converted(array: pa.Array, convert: Callable[[pa.Array], pa.Array]) -> tuple[pa.Array, Mask]:
    """Convert an array whose conversion may fail; halve it until the culprits stand alone.

    Returns:
        The converted array with null for each culprit, and which elements were converted.
    """
    try:
        return convert(array), np.ones(len(array), dtype=np.bool_)
    except pa.ArrowInvalid:
        if len(array) == 1:
            return convert(pa.nulls(1, array.type)), np.zeros(1, dtype=np.bool_)
        half = len(array) // 2
        parts = [_converted(part, convert) for part in (array.slice(0, half), array.slice(half))]
        return pa.concat_arrays([part for part, _ in parts]), np.concatenate([ok for _, ok in parts])


def _prove(columns: pa.Table, texts: pa.LargeStringArray, timestamps: npt.NDArray[np.int64]) -> tuple[pa.Table, Mask]:
    """Check the quick way's columns against the bytes and the schema.

    Returns:
        Columns of EVENT_SCHEMA without lineage, and which rows are proven to be what the exact way would give.
    """
    counts = count_values(texts, _NAMES)
    proven = ~counts.unsure
    for place in np.unique(counts.null_fields):
        # Null and a value under one name: the last one counts, DuckDB takes the first.
        rows = counts.null_rows[counts.null_fields == place]
        proven[rows] &= (
            columns.column(ACCESS_FIELDS[place].name).combine_chunks().is_null().to_numpy(zero_copy_only=False)[rows]
        )
    for names, found in (
        (_TEXT_NAMES, counts.texts),
        (_NUMBER_NAMES, counts.numbers),
        (_BOOLEAN_NAMES, counts.booleans),
    ):
        proven &= _present(columns, names) == found
    out: list[pa.Array] = []
    for field in ACCESS_FIELDS:
        column = columns.column(field.name).combine_chunks()
        if field.arrow == TIME:
            proven &= _written_in_full(column)
            column, ok = _converted(column, lambda array: array.cast(TIME))
            proven &= ok & _in_time(column, timestamps)
        elif field.arrow in (pa.int64(), pa.float64()):
            proven &= _in_range(column, field.minimum, field.maximum)
            column, ok = _to_number(column, field.arrow)
            proven &= ok
        elif field.length_min and len(column):
            proven &= pc.fill_null(
                pc.greater_equal(pc.utf8_length(column), field.length_min), field.required ^ True
            ).to_numpy(zero_copy_only=False)
        out.append(column)
        if field.required and column.null_count:
            proven &= column.is_valid().to_numpy(zero_copy_only=False)
    out.append(pa.nulls(len(texts), EXTRA.type))
    names = [field.name for field in ACCESS_FIELDS] + [EXTRA.name]
    return pa.table(out, schema=pa.schema([EVENT_SCHEMA.field(name) for name in names])), proven


def _present(columns: pa.Table, names: list[str]) -> npt.NDArray[np.int64]:
    """How many of the named columns each row has a value in."""
    count = np.zeros(columns.num_rows, dtype=np.int64)
    for name in names:
        column = columns.column(name)
        if column.null_count == 0:
            count += 1
        elif column.null_count < len(column):
            count += column.is_valid().to_numpy()
    return count


def _in_range(column: pa.Array, minimum: float | None, maximum: float | None) -> Mask:
    if column.null_count == len(column):
        return np.ones(len(column), dtype=np.bool_)
    values = column.to_numpy(zero_copy_only=False)
    with np.errstate(invalid="ignore"):
        inside = ~(
            (values < (-np.inf if minimum is None else minimum)) | (values > (np.inf if maximum is None else maximum))
        )
    if column.null_count:
        return np.asarray(inside | column.is_null().to_numpy(zero_copy_only=False))
    return np.asarray(inside & ~np.isnan(values))


def _to_number(column: pa.Array, arrow: pa.DataType) -> tuple[pa.Array, Mask]:
    """Float64 as DuckDB gave it → the field's own type; a fraction or a lost digit in an integer is not proven."""
    if column.null_count == len(column):
        return pa.nulls(len(column), arrow), np.ones(len(column), dtype=np.bool_)
    values = pc.fill_null(column, 0.0).to_numpy(zero_copy_only=False)
    if arrow == pa.float64():
        return column, np.isfinite(values)
    with np.errstate(invalid="ignore"):
        whole = (np.abs(values) < _INTEGER_EXACT_MAX) & (np.floor(values) == values)
    integers = np.where(whole, values, 0).astype(np.int64)
    missing = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None
    return pa.array(integers, mask=missing), whole


def _written_in_full(column: pa.StringArray) -> Mask:
    """Which times are RFC 3339 with seconds and a zone with minutes: Arrow's parser takes less."""
    # What Arrow parses, ends in Z and is this long, holds all of it; most times are, and patterns cost more.
    full = pc.and_(pc.ends_with(column, "Z"), pc.greater_equal(pc.binary_length(column), len("2026-01-01T00:00:00Z")))
    if not pc.all(full, skip_nulls=False, min_count=0).as_py():
        full = pc.match_substring_regex(column, _RFC3339)
    return np.asarray(pc.fill_null(full, True).to_numpy(zero_copy_only=False))


def _in_time(column: pa.Array, timestamps: npt.NDArray[np.int64]) -> Mask:
    """Which event times are possible: see `exact.TIME_MIN_US` and `exact.AHEAD_MAX_MS`."""
    times = pc.fill_null(column.cast(pa.int64()), exact.TIME_MIN_US).to_numpy(zero_copy_only=False)
    possible = (times >= exact.TIME_MIN_US) & (times < exact.TIME_MAX_US)
    return np.asarray(possible & ((timestamps < 0) | (times <= (timestamps + exact.AHEAD_MAX_MS) * 1000)))


def _exactly(
    records: Records, values: pa.LargeBinaryArray, at: npt.NDArray[np.int64]
) -> tuple[pa.Table, npt.NDArray[np.int64], pa.Table]:
    """Decode the records at the given positions one by one: their rows, the rows' positions, and the rejects."""
    rows: list[dict[str, object]] = []
    rows_at: list[int] = []
    refusals: list[exact.Refusal] = []
    refused_at: list[int] = []
    for position, value in zip(at.tolist(), values.take(pa.array(at)).to_pylist(), strict=True):
        try:
            row = exact.decode(value, int(records.timestamps[position]))
        except exact.Refusal as refusal:
            refusals.append(refusal)
            refused_at.append(position)
        else:
            rows.append(row)
            rows_at.append(position)
    schema = pa.schema([EVENT_SCHEMA.field(field.name) for field in ACCESS_FIELDS] + [EXTRA])
    where = np.array(refused_at, dtype=np.int64)
    said = pa.table(
        {
            "error_type": pa.array([refusal.error_type for refusal in refusals], pa.string()),
            "field": pa.array([refusal.field for refusal in refusals], pa.string()),
            "reason": pa.array([refusal.reason for refusal in refusals], pa.string()),
            "raw": values.take(pa.array(where)).cast(pa.binary()),
        }
    )
    rejects = _with_lineage(said, records, where).select(REJECT_SCHEMA.names).cast(REJECT_SCHEMA)
    return pa.Table.from_pylist(rows, schema=schema), np.array(rows_at, dtype=np.int64), rejects


def _with_lineage(table: pa.Table, records: Records, at: npt.NDArray[np.int64]) -> pa.Table:
    """Add the columns of LINEAGE for the records at the given positions."""
    times = records.timestamps[at]
    known = (times >= 0) & (times < exact.TIME_MAX_US // 1000)  # a producer may send any number, say microseconds
    columns = {
        "topic": pa.repeat(pa.scalar(records.partition.topic), len(at)),
        "partition": pa.repeat(pa.scalar(records.partition.number, pa.int32()), len(at)),
        "offset": pa.array(records.offsets[at]),
        "kafka_time": pa.array(np.where(known, times, 0) * 1000, pa.int64(), mask=~known).cast(TIME),
    }
    for name, column in columns.items():
        table = table.append_column(EVENT_SCHEMA.field(name), column)
    return table
