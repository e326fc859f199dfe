"""What ways to decode many payloads at once have in common: pieces of payloads, and the rows that come of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.decoding import exact
from pipeline.decoding.values import Values
from pipeline.events import ACCESS_FIELDS, DECODED_SCHEMA, EXTRA, Field
from pipeline.text_views import PADDING, Mask, Positions, taken

PAYLOAD_BYTES_MAX: Final = 1 << 20
"""Longer payloads are left alone: one must not size what is done for thousands of others."""

PIECE_BYTES: Final = 4 << 20
"""Bytes looked at together: thousands of events, so that NumPy's cost per call vanishes, and near the CPU's cache."""

NULL: Final = b"null".ljust(2 * PADDING, b"\0")
"""Stands behind the last object of a piece: what a missing value is read from, and padding."""

SCHEMA: Final = pa.schema(
    [DECODED_SCHEMA.field(name) for name in (*(field.name for field in ACCESS_FIELDS), EXTRA.name)]
)
"""What becomes of payloads: `pipeline.events.DECODED_SCHEMA` without lineage."""

_ROWS_MAX: Final = 1 << 14
"""Payloads of a piece at most: room is made for each field of each of them, however short they are."""

_PAYLOAD_BYTES_MIN: Final = 60
"""No payload this short holds the required fields."""

_LAST: Final = pa.array([NULL], pa.binary_view())


class Proven(NamedTuple):
    """Events that were proven.

    Attributes:
        rows: which payloads.
        events: their fields, and `extra`: the columns of `SCHEMA`.
    """

    rows: Positions
    events: pa.Table

    @classmethod
    def joined(cls, parts: list[Proven]) -> Proven:
        """All of several."""
        if len(parts) == 1:
            return parts[0]
        rows = np.concatenate([np.zeros(0, np.int64), *(part.rows for part in parts)])
        return cls(rows, pa.concat_tables([SCHEMA.empty_table(), *(part.events for part in parts)]))


class Piece(NamedTuple):
    """Payloads that are few enough to be looked at together, and are UTF-8.

    Attributes:
        rows: which they are.
        buffer: their bytes behind each other, then `NULL`.
        starts: int64[n + 1], where each begins, and where the last one ends.
    """

    rows: Positions
    buffer: pa.Buffer
    starts: Positions


def pieces(values: pa.Array, piece_bytes: int = PIECE_BYTES) -> Iterator[Piece]:
    """Cut payloads into pieces; those that are null, too short or too long are in none.

    Args:
        values: `binary_view`.
        piece_bytes: how many bytes a piece has, about.
    """
    length = _lengths(values)
    fit = np.flatnonzero((length >= _PAYLOAD_BYTES_MIN) & (length <= PAYLOAD_BYTES_MAX))
    for rows in _cut(fit, length, piece_bytes):
        whole = len(rows) == rows[-1] + 1 - rows[0]
        piece = values.slice(rows[0], len(rows)) if whole else taken(values, rows)
        joined = pa.concat_arrays([piece, _LAST]).cast(pa.large_binary())
        readable, ok = converted(joined, lambda array: array.cast(pa.large_string()))
        if not ok.all():
            readable = readable.filter(pa.array(ok))
        _, offsets, data = readable.buffers()
        yield Piece(rows[ok[:-1]], data, np.frombuffer(offsets, np.int64)[: len(readable)])


def _lengths(values: pa.Array) -> npt.NDArray[np.int64]:
    """Bytes of each payload; 0 for null."""
    _, views, *_ = values.buffers()
    sizes = np.frombuffer(views, dtype=np.int32).reshape(-1, 4)[values.offset : values.offset + len(values), 0]
    if values.null_count:
        sizes = np.where(values.is_valid().to_numpy(zero_copy_only=False), sizes, 0)
    return sizes.astype(np.int64)


def _cut(rows: Positions, length: npt.NDArray[np.int64], piece_bytes: int) -> Iterator[Positions]:
    """Cut rows into pieces of about so many bytes."""
    if not len(rows):
        return
    piece, count = np.cumsum(length[rows]) // piece_bytes, np.arange(len(rows)) // _ROWS_MAX
    yield from np.split(rows, np.flatnonzero((np.diff(piece) != 0) | (np.diff(count) != 0)) + 1)


def converted(array: pa.Array, convert: Callable[[pa.Array], pa.Array]) -> tuple[pa.Array, Mask]:
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
        parts = [converted(part, convert) for part in (array.slice(0, half), array.slice(half))]
        return pa.concat_arrays([part for part, _ in parts]), np.concatenate([ok for _, ok in parts])


def checked(field: Field, found: Values) -> tuple[pa.Array, Mask]:
    """A column of values that are no texts, and which rows are sure and allowed by the schema."""
    values, valid, sure = found
    allowed = np.ones(len(values), dtype=np.bool_) if sure is None else sure
    if field.minimum is not None and values.min(initial=field.minimum) < field.minimum:
        allowed &= values >= field.minimum if valid is None else (values >= field.minimum) | ~valid
    if field.maximum is not None and values.max(initial=field.maximum) > field.maximum:
        allowed &= values <= field.maximum if valid is None else (values <= field.maximum) | ~valid
    return pa.array(values, field.arrow, mask=None if valid is None else ~valid), allowed


def can_be(times: npt.NDArray[np.int64], timestamps: npt.NDArray[np.int64]) -> Mask:
    """Which event times are possible: see `exact.TIME_MIN_US` and `exact.AHEAD_MAX_MS`.

    Args:
        times: in microseconds.
        timestamps: Kafka's, in milliseconds; negative where there is none.
    """
    possible: Mask = (times >= exact.TIME_MIN_US) & (times < exact.TIME_MAX_US)
    possible &= (timestamps < 0) | (times <= (timestamps + exact.AHEAD_MAX_MS) * 1000)
    return possible
