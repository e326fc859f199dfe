"""Arrow views made, reordered and moved with NumPy: Arrow has few kernels for them.

A view is 16 bytes: the length of a text, and the text itself up to 12 bytes, else its first four bytes, which buffer it
lies in and where.  So a column of texts is made and sorted without a byte of text being moved.

Layout: https://arrow.apache.org/docs/format/Columnar.html#variable-size-binary-view-layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Positions = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

INLINE_BYTES_MAX: Final = 12
"""Arrow keeps a text up to this size inside its view."""

PADDING: Final = 16
"""Bytes that a buffer must hold beyond its last text: words are loaded at any position of a text."""

LOW_BYTES: Final = np.array([(1 << 8 * n) - 1 for n in range(9)], dtype=np.uint64)
"""Masks for the first `n` bytes of a little-endian word."""

_LOW_OF_FIRST: Final = LOW_BYTES[np.minimum(np.arange(INLINE_BYTES_MAX + 1), 8)]
_LOW_OF_SECOND: Final = LOW_BYTES[np.maximum(np.arange(INLINE_BYTES_MAX + 1) - 8, 0)]
_32: Final = np.uint64(32)
_STRING_VIEW: Final = pa.string_view()
_NULLS: Final[dict[pa.DataType, pa.Array]] = {}
_NULLS_MIN: Final = 1 << 16
_OWN_BUFFERS: Final = 2
"""Validity and views: an array of short texts needs no more."""


def word_of(text: bytes) -> np.uint64:
    """At most eight bytes as a little-endian word."""
    return np.uint64(int.from_bytes(text, "little"))


def words_of(data: npt.NDArray[np.uint8]) -> Words:
    """The little-endian 8-byte word at every byte position; a view: index it, for `take` would copy all."""
    return np.ndarray((max(len(data) - 7, 0),), "<u8", data, strides=(1,))


class Pairs:
    """The two little-endian 8-byte words at every byte position: NumPy gets sixteen bytes as quickly as eight."""

    def __init__(self, data: npt.NDArray[np.uint8]) -> None:
        self._at = np.ndarray((max(len(data) - 15, 0),), "<c16", data, strides=(1,))

    def __getitem__(self, positions: Positions) -> Words:
        return self._at[positions].view(np.uint64).reshape(-1, 2)


def _whole(views: Words) -> npt.NDArray[np.complex128]:
    """Views as one element each: NumPy moves these ten times as fast as rows of two."""
    return views.view(np.complex128).ravel()


class ViewsBuilder:
    """Views of texts, some in one buffer and some in another."""

    def __init__(self, count: int) -> None:
        self._views = np.empty((count, 2), dtype=np.uint64)
        self._buffers: list[pa.Buffer] = []

    def put(
        self, buffer: bytes | pa.Buffer | npt.NDArray[np.uint8], start: Positions, length: Positions, rows: Any = ...
    ) -> None:
        """Set the views of some rows.

        Args:
            buffer: holds the texts, with `PADDING` bytes after the last.
            start: where each text begins.
            length: bytes of each text.
            rows: which rows; all of them if not given.
        """
        pairs = Pairs(np.frombuffer(buffer, dtype=np.uint8))[start]
        if length.max(initial=0) <= INLINE_BYTES_MAX:
            _whole(self._views)[rows] = _whole(_inline(pairs, length))
            return
        number = np.uint64(len(self._buffers))
        self._buffers.append(pa.py_buffer(buffer))
        views = np.empty((len(start), 2), dtype=np.uint64)
        np.bitwise_or(pairs[:, 0] << _32, length.view(np.uint64), out=views[:, 0])
        np.bitwise_or(start.view(np.uint64) << _32, number, out=views[:, 1])
        if length.min(initial=INLINE_BYTES_MAX + 1) <= INLINE_BYTES_MAX:
            short = np.flatnonzero(length <= INLINE_BYTES_MAX)
            _whole(views)[short] = _whole(_inline(pairs[short], length[short]))
        _whole(self._views)[rows] = _whole(views)

    def array(self, valid: Mask | None = None, kind: pa.DataType = _STRING_VIEW) -> pa.Array:
        """The texts.

        Args:
            valid: false for nulls; none if there are no nulls.
            kind: `string_view`, or `binary_view` for bytes that may be no text.
        """
        if valid is not None:
            self._views[~valid] = 0
        return array_of(kind, self._views, self._buffers, valid)


def _inline(pairs: Words, length: Positions) -> Words:
    """Views that hold their texts."""
    first = pairs[:, 0] & _LOW_OF_FIRST[length]
    second = pairs[:, 1] & _LOW_OF_SECOND[length]
    views = np.empty_like(pairs)
    np.bitwise_or(first << _32, length.view(np.uint64), out=views[:, 0])
    np.bitwise_or(first >> _32, second << _32, out=views[:, 1])
    return views


def taken(array: pa.Array, order: Positions) -> pa.Array:
    """Elements of a `string_view` or `binary_view` array in another order; the texts stay where they are."""
    if array.null_count == len(array):
        return nulls(len(order), array.type)
    _, views, *buffers = array.buffers()
    own = np.frombuffer(views, dtype=np.complex128)[array.offset :]
    valid = None if array.null_count == 0 else array.is_valid().to_numpy(zero_copy_only=False)[order]
    return array_of(array.type, own[order], buffers, valid)


def heads(array: pa.Array, size: int) -> pa.Array:
    """The first bytes of each element of a view array, as `binary_view`; `size` is more than `INLINE_BYTES_MAX`."""
    views, buffers, valid = _parts(array)
    length = views.view(np.uint32)[:, 0]
    np.minimum(length, size, out=length)  # what is inside its view stays there, and the others begin where they did
    return array_of(pa.binary_view(), views, buffers, valid)


def tails(array: pa.Array, size: int) -> pa.Array:
    """The last bytes of each element of a view array, as `binary_view`; `size` is more than `INLINE_BYTES_MAX`."""
    views, buffers, valid = _parts(array)
    of_view = views.view(np.uint32)  # length, first bytes, number of the buffer, place in it
    long = np.flatnonzero(of_view[:, 0] > size)
    number, place = of_view[long, 2], of_view[long, 3] + (of_view[long, 0] - np.uint32(size))
    of_view[long, 0], of_view[long, 3] = size, place
    for index in np.flatnonzero(np.bincount(number)).tolist():
        data = np.frombuffer(buffers[index], np.uint8)
        words = np.ndarray((len(data) - 3,), "<u4", data, strides=(1,))
        some = np.flatnonzero(number == index)
        of_view[long.take(some), 1] = words[place.take(some)]
    return array_of(pa.binary_view(), views, buffers, valid)


def _parts(array: pa.Array) -> tuple[Words, list[pa.Buffer], Mask | None]:
    """The views of an array, to be changed; the buffers that they point into; what is valid, None for all."""
    _, views, *buffers = array.buffers()
    own = np.frombuffer(views, np.uint64)[2 * array.offset :][: 2 * len(array)].reshape(-1, 2).copy()
    valid = None if array.null_count == 0 else array.is_valid().to_numpy(zero_copy_only=False)
    if valid is not None:
        own[~valid] = 0  # what stands there is anybody's guess
    return own, buffers, valid


def moved(array: pa.Array) -> pa.Array:
    """The same texts in a buffer of their own: what they came in can be freed, and they are near each other."""
    return array.cast(pa.string()).cast(pa.string_view()) if len(array.buffers()) > _OWN_BUFFERS else array


def is_view(kind: pa.DataType) -> bool:
    """Whether a column of this type consists of views."""
    return kind in (pa.string_view(), pa.binary_view())


def reordered(table: pa.Table, order: Positions) -> pa.Table:
    """Rows of a table in another order; a column that nobody fills costs nothing."""
    columns = []
    for column in table.columns:
        if column.null_count == len(column):
            columns.append(nulls(len(order), column.type))
        elif is_view(column.type):
            columns.append(taken(one_chunk(column), order))
        else:
            columns.append(one_chunk(column).take(pa.array(order)))
    return pa.table(columns, schema=table.schema)


def kept(table: pa.Table, rows: Mask) -> pa.Table:
    """Some rows of a table."""
    return reordered(table, np.flatnonzero(rows))


def nulls(count: int, kind: pa.DataType) -> pa.Array:
    """A column that nobody fills: always of the same memory, for most logs leave many fields out."""
    known = _NULLS.get(kind)
    if known is None or len(known) < count:
        known = _NULLS[kind] = pa.nulls(max(count, _NULLS_MIN), kind)
    return known.slice(0, count)


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece."""
    if column.num_chunks == 0:
        return pa.nulls(0, column.type)
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def array_of(kind: pa.DataType, views: npt.NDArray[Any], buffers: Sequence[pa.Buffer], valid: Mask | None) -> pa.Array:
    """An array of a view type.

    Args:
        kind: its type.
        views: 16 bytes for each element; zeros for a null.
        buffers: that they point into.
        valid: false for nulls; none if there are no nulls.
    """
    nulls = 0 if valid is None else len(valid) - int(np.count_nonzero(valid))
    validity = pa.py_buffer(np.packbits(valid, bitorder="little")) if valid is not None and nulls else None
    return pa.Array.from_buffers(kind, len(views), [validity, pa.py_buffer(views), *buffers], nulls)
