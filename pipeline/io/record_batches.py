"""Kafka record batches (message format v2) to columns, without one Python object per record.

Where the records start is found by `pipeline.io.record_walk`.  Everything else is read for all records of many batches
at once: a field's varints are looked up by their first two bytes; where some are longer, each is loaded as one 8-byte
word and taken apart by a dozen numpy operations.

Decoding here either proves that the bytes are regular, and then its columns are what a reader going record by record
would have got, or it raises `IrregularBatchError` and says nothing: the caller then reads the same bytes record by
record.  So corrupt bytes, whatever is wrong with them, are judged in one place only, and that place is not here.

Format: https://kafka.apache.org/documentation/#messageformat (record batch, record, record header).
Arrow views: https://arrow.apache.org/docs/format/Columnar.html#variable-size-binary-view-layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from operator import attrgetter
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.io.batch_headers import APPEND_TIME, BatchHeader
from pipeline.io.record_walk import DIGIT, MORE, PADDING, IrregularBatchError, record_positions
from pipeline.text_views import ViewsBuilder, words_of

IntArray = npt.NDArray[np.signedinteger[Any]]
Int64Array = npt.NDArray[np.int64]
Word64Array = npt.NDArray[np.uint64]

RECORD_BYTES_MIN: Final = 7
"""A byte at least for each of length, attributes, timestamp, offset, key length, value length and header count."""

RECORD_COLUMN_BYTES: Final = 64
"""What a record takes beside its own bytes: view, offset, timestamp, and its share of what decoding needs."""

VIEW_BUFFER_BYTES_MAX: Final = 2**31 - 1
"""An Arrow view addresses its buffer with an int32."""

HEADERS_MAX: Final = 64
"""Records with more headers are left to the record-by-record reader: a round of numpy per header must have a bound."""

_CONTINUATION_BITS: Final = np.uint64(0x8080808080808080)


def _short_varints() -> npt.NDArray[np.int16]:
    """A varint of one or two bytes by these (little-endian): four times its value, plus its size; 0 if it is longer."""
    low, high = np.divmod(np.arange(65536), 256)[::-1]
    one, two = low < MORE, high < MORE
    raw = np.where(one, low, low & DIGIT | high << 7)
    value = (raw >> 1) ^ -(raw & 1)
    return np.where(one | two, value << 2 | np.where(one, 1, 2), 0).astype(np.int16)


_SHORT_VARINTS: Final = _short_varints()


@dataclass(frozen=True, slots=True)
class Columns:
    """The records of some batches.

    Attributes:
        values: `binary_view`; null where the record had no value.
        offsets: strictly increasing.
        timestamps: milliseconds since the epoch.
        records_read: records decoded, those dropped for their offset among them.
        bytes_read: their size, as kafka-python counts it for its metrics.
    """

    values: pa.Array
    offsets: Int64Array
    timestamps: Int64Array
    records_read: int
    bytes_read: int


class GatheredBatches:
    """The uncompressed records of consecutive batches, to be decoded in one go.

    Producers often send a few kilobytes at a time; a numpy operation costs a microsecond before it touches a byte.
    Copying many batches behind each other costs less than decoding each on its own.

    Attributes:
        headers: one a batch.
        stored: all bytes of each batch as they came.
        floors: no record of the batch may have a lower offset: the next offset of the batch before.
    """

    __slots__ = ("_payloads", "_regular", "_weight", "floors", "headers", "stored")

    def __init__(self) -> None:
        self.headers: list[BatchHeader] = []
        self.stored: list[memoryview] = []
        self.floors: list[int] = []
        self._payloads: list[bytes | memoryview] = []
        self._weight = 0
        self._regular = True

    def has_room(self, payload_bytes: int, records: int, bytes_max: int) -> bool:
        """Whether a batch of this size still fits; an empty one takes a batch of any size."""
        return not self.headers or self._weight + payload_bytes + records * RECORD_COLUMN_BYTES <= bytes_max

    def add(self, header: BatchHeader, stored: memoryview, payload: bytes | memoryview, floor: int) -> None:
        """Keep a batch.

        Args:
            header: of the batch.
            stored: all its bytes.
            payload: its records, uncompressed.
            floor: see `floors`.
        """
        self.headers.append(header)
        self.stored.append(stored)
        self.floors.append(floor)
        self._payloads.append(payload)
        size, records = len(payload), header.records
        self._weight += size + records * RECORD_COLUMN_BYTES
        # A count that the bytes cannot hold must not size anything.
        if not 0 <= records * RECORD_BYTES_MIN <= size or header.base_offset < floor:
            self._regular = False

    def columns(self, fetch_offset: int) -> Columns:
        """Decode all batches; records below `fetch_offset` are dropped.

        Raises:
            IrregularBatchError: the bytes are corrupt, or merely unusual.
        """
        ends = list(accumulate(map(len, self._payloads)))
        if not self._regular or ends[-1] > VIEW_BUFFER_BYTES_MAX - len(PADDING):
            raise IrregularBatchError
        buffer = b"".join([*self._payloads, PADDING])
        positions = record_positions(buffer, ends, [header.records for header in self.headers])
        try:
            return _decode(buffer, positions, self.headers, fetch_offset)
        except IndexError as error:  # a length led out of the buffer
            raise IrregularBatchError from error


class _Cursor:
    """A reading position in each of many records, all moved together."""

    __slots__ = ("_buffer", "_ends", "position")

    def __init__(self, buffer: bytes, position: Int64Array, ends: Int64Array) -> None:
        self._buffer = buffer
        self._ends = ends
        self.position = position

    def varint(self) -> IntArray:
        """Read a zigzag varint of each record."""
        value, size = varints_at(self._buffer, self.position)
        self.skip(size)
        return value

    def skip(self, size: IntArray) -> None:
        """Move on, never back: where that led beyond a record is asked by `check`."""
        self.position = self.position + size

    def check(self) -> None:
        """Raise if a position is beyond its record's end: then these are not records."""
        if (self.position > self._ends).any():
            raise IrregularBatchError

    def only(self, rows: npt.NDArray[np.intp]) -> _Cursor:
        """A cursor over some of the records."""
        return _Cursor(self._buffer, self.position[rows], self._ends[rows])

    def at_end(self) -> npt.NDArray[np.bool_]:
        """Which records are read to their last byte."""
        at_end: npt.NDArray[np.bool_] = self.position == self._ends
        return at_end


def _decode(buffer: bytes, position: Int64Array, headers: list[BatchHeader], fetch_offset: int) -> Columns:
    """Columns of the records at these positions, if every record ends exactly where its length says."""
    length, size = varints_at(buffer, position)
    start = position + size
    # Attributes of a record: one byte that means nothing yet. Kafka reads it as such, kafka-python as a varint.
    if (np.frombuffer(buffer, np.uint8)[start] >= MORE).any() or (length < RECORD_BYTES_MIN - 1).any():
        raise IrregularBatchError
    cursor = _Cursor(buffer, start + 1, start + length)
    timestamp_delta = cursor.varint()
    offset_delta = cursor.varint()
    cursor.skip(np.maximum(cursor.varint(), 0))  # the key
    value_length = cursor.varint()
    value_start = cursor.position
    cursor.skip(np.maximum(value_length, 0))
    header_count = cursor.varint()
    cursor.check()
    _skip_headers(buffer, cursor, header_count)

    counts = _column(headers, "records")
    offsets = np.repeat(_column(headers, "base_offset"), counts) + offset_delta
    if (offset_delta < 0).any() or (offsets[1:] <= offsets[:-1]).any() or _overlap(offsets, headers, counts):
        raise IrregularBatchError
    first = int(np.searchsorted(offsets, fetch_offset))
    return Columns(
        values=binary_views(buffer, value_start[first:], value_length[first:]),
        offsets=offsets[first:],
        timestamps=_timestamps(headers, counts, timestamp_delta)[first:],
        records_read=len(offsets),
        bytes_read=int(length.sum()),
    )


def _column(headers: list[BatchHeader], name: str) -> Int64Array:
    """A field of many headers."""
    return np.fromiter(map(attrgetter(name), headers), np.int64, len(headers))


def varints_at(buffer: bytes, position: Int64Array) -> tuple[IntArray, IntArray]:
    """Decode the varint at each position.

    Returns:
        The values, and how many bytes each took.

    Raises:
        IndexError: a position is not in the buffer.
        IrregularBatchError: a varint is longer than eight bytes.
    """
    # Two bytes at every position; indexing copies those asked for, `take` would copy all.
    found = _SHORT_VARINTS[np.ndarray((max(len(buffer) - 1, 0),), "<u2", buffer, strides=(1,))[position]]
    if found.all():
        return found >> 2, found & 3
    return zigzag_varints(words_of(np.frombuffer(buffer, np.uint8))[position])


def zigzag_varints(words: Word64Array) -> tuple[Int64Array, Int64Array]:
    """Decode the varint that each little-endian word begins with.

    Returns:
        The values, and how many bytes each took.

    Raises:
        IrregularBatchError: a varint is longer than eight bytes.
    """
    stops = ~words & _CONTINUATION_BITS
    if not stops.all():
        raise IrregularBatchError
    own_bits = stops ^ (stops - np.uint64(1))  # all bits up to the first byte without a continuation bit
    size = (np.bitwise_count(own_bits) >> 3).astype(np.int64)
    value = words & np.uint64(DIGIT)
    words = words & own_bits
    for group in range(1, int(size.max(initial=0))):
        value |= (words >> np.uint64(group)) & np.uint64(DIGIT << 7 * group)
    signed = value.view(np.int64)
    return (signed >> 1) ^ -(signed & 1), size


def _skip_headers(buffer: bytes, cursor: _Cursor, count: IntArray) -> None:
    """Check that the headers of each record fill it to its end and have names in UTF-8, as kafka-python demands."""
    if (count < 0).any() or (count > HEADERS_MAX).any() or not cursor.at_end()[count == 0].all():
        raise IrregularBatchError
    rows = np.flatnonzero(count)
    count, cursor = count[rows], cursor.only(rows)
    while len(count):
        name_length = cursor.varint()
        if (name_length < 0).any():
            raise IrregularBatchError
        name_start = cursor.position
        cursor.skip(name_length)
        cursor.check()
        names = binary_views(buffer, name_start, name_length)
        try:
            names.cast(pa.string_view())
        except pa.ArrowInvalid as error:
            raise IrregularBatchError from error
        cursor.skip(np.maximum(cursor.varint(), 0))
        cursor.check()
        count = count - 1
        if not cursor.at_end()[count == 0].all():
            raise IrregularBatchError
        rows = np.flatnonzero(count)
        count, cursor = count[rows], cursor.only(rows)


def _overlap(offsets: Int64Array, headers: list[BatchHeader], counts: Int64Array) -> bool:
    """Whether a batch holds a record beyond the last offset that its header names."""
    filled = counts > 0
    last = _column(headers, "base_offset") + _column(headers, "last_offset_delta")
    return bool((offsets[np.cumsum(counts)[filled] - 1] > last[filled]).any())


def _timestamps(headers: list[BatchHeader], counts: Int64Array, delta: IntArray) -> Int64Array:
    """Timestamp of each record; sums wrap at 64 bits, as they do in Kafka's own client."""
    base = _column(headers, "first_timestamp")
    appended = _column(headers, "attributes") & APPEND_TIME != 0
    if appended.any():  # the broker's clock stands for the whole batch
        base = np.where(appended, _column(headers, "max_timestamp"), base)
        delta = np.where(np.repeat(appended, counts), 0, delta)
    return np.repeat(base, counts) + delta


def binary_views(buffer: bytes, start: Int64Array, length: IntArray) -> pa.Array:
    """Arrow `binary_view` array over a buffer, without a copy; a negative length is null.

    Args:
        buffer: at most `VIEW_BUFFER_BYTES_MAX` bytes, the last 16 of them padding.
        start: where each value begins.
        length: bytes of each value.
    """
    builder = ViewsBuilder(len(start))
    builder.put(buffer, start, np.maximum(length, 0).astype(np.int64, copy=False))
    nulls = length < 0
    return builder.array(~nulls if nulls.any() else None, kind=pa.binary_view())
