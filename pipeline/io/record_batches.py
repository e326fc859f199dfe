"""Kafka record batches (message format v2) to columns, without one Python object per record.

Each record starts where the one before it ends, so finding the starts is a walk, record by record.  Everything else is
read for all records of many batches at once: a field's varints are loaded as one 8-byte word per record and taken apart
by a dozen numpy operations.

Decoding here either proves that the bytes are regular, and then its columns are what a reader going record by record
would have got, or it raises `IrregularBatchError` and says nothing: the caller then reads the same bytes record by
record.  So corrupt bytes, whatever is wrong with them, are judged in one place only, and that place is not here.

Format: https://kafka.apache.org/documentation/#messageformat (record batch, record, record header).
Arrow views: https://arrow.apache.org/docs/format/Columnar.html#variable-size-binary-view-layout.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Int64Array = npt.NDArray[np.int64]
Word64Array = npt.NDArray[np.uint64]

RECORD_BYTES_MIN: Final = 7
"""A byte at least for each of length, attributes, timestamp, offset, key length, value length and header count."""

RECORD_COLUMN_BYTES: Final = 64
"""What a record takes beside its own bytes: view, offset, timestamp, and its share of what decoding needs."""

INLINE_BYTES_MAX: Final = 12
"""Arrow keeps a value up to this size inside its view."""

VIEW_BUFFER_BYTES_MAX: Final = 2**31 - 1
"""An Arrow view addresses its buffer with an int32."""

SIDE_BY_SIDE_MIN: Final = 64
"""So many records must be read in one step of numpy (6 µs) to beat reading one after the other (0.1 µs each)."""

HEADERS_MAX: Final = 64
"""Records with more headers are left to the record-by-record reader: a round of numpy per header must have a bound."""

_PADDING: Final = bytes(16)  # a value's view may load 16 bytes from any position up to the last, and so stays inside
_MORE: Final = 128  # the bit of a varint's byte that says: another one follows
_DIGIT: Final = 127  # the other seven
_LENGTH_VARINT_BYTES_MAX: Final = 5
_CONTINUATION_BITS: Final = np.uint64(0x8080808080808080)
_LOW_BYTES: Final = np.array([(1 << 8 * n) - 1 for n in range(9)], dtype=np.uint64)
_read_uint16 = struct.Struct("<H").unpack_from


def _steps() -> list[int]:
    """How far the next record is, by a record's first two bytes (little-endian); 0 if these do not tell."""
    steps = [0] * 65536
    for low in range(0, 256, 2):  # an odd first byte is a negative length
        for high in range(256):
            if low < _MORE:
                steps[low | high << 8] = 1 + (low >> 1)
            elif high < _MORE:
                steps[low | high << 8] = 2 + ((low & _DIGIT) >> 1) + (high << 6)
    return steps


_STEPS: Final = _steps()
_STEPS_ARRAY: Final = np.array(_STEPS, dtype=np.int64)


class IrregularBatchError(Exception):
    """Not shown to be regular: read these batches record by record."""


class RecordBatch(Protocol):
    """What is used of a batch's header; `kafka.record.default_records.DefaultRecordBatch` has it."""

    @property
    def base_offset(self) -> int:
        """What the records' offset deltas are added to."""
        ...

    @property
    def next_offset(self) -> int:
        """The offset after the batch's last, whether or not that record is still there."""
        ...

    @property
    def first_timestamp(self) -> int:
        """What the records' timestamp deltas are added to."""
        ...

    @property
    def max_timestamp(self) -> int:
        """The timestamp of all records where the broker's clock counts."""
        ...

    @property
    def timestamp_type(self) -> int:
        """1 where the broker's clock counts, else 0."""
        ...


class Frame(NamedTuple):  # not a dataclass: one is made per batch, in a third of the time
    """Where one batch's records lie in the buffer of a `GatheredBatches`.

    Attributes:
        batch: the batch's header.
        records: how many it says it has.
        start: position of its first record.
        end: position after its last record.
        floor: no record of this batch may have a lower offset.
    """

    batch: RecordBatch
    records: int
    start: int
    end: int
    floor: int


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
    """The uncompressed records of consecutive batches in one buffer, to be decoded in one go.

    Producers often send a few kilobytes at a time; a numpy operation costs a microsecond before it touches a byte.
    Copying many batches behind each other costs less than decoding each on its own.
    """

    __slots__ = ("_buffer", "_regular", "_weight", "frames")

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self._buffer = bytearray()
        self._weight = 0
        self._regular = True

    def has_room(self, payload_bytes: int, records: int, bytes_max: int) -> bool:
        """Whether a batch of this size still fits; an empty one takes a batch of any size."""
        return not self.frames or self._weight + payload_bytes + records * RECORD_COLUMN_BYTES <= bytes_max

    def add(self, batch: RecordBatch, records: int, payload: bytes | memoryview, floor: int) -> None:
        """Copy a batch's records to the end of the buffer.

        Args:
            batch: its header.
            records: how many the header says it has.
            payload: its records, uncompressed.
            floor: no record may have a lower offset: the next offset of the batch before.
        """
        start = len(self._buffer)
        self._buffer += payload
        end = len(self._buffer)
        self.frames.append(Frame(batch, records, start, end, floor))
        self._weight += end - start + records * RECORD_COLUMN_BYTES
        # A count that the bytes cannot hold must not size anything.
        if not 0 <= records * RECORD_BYTES_MIN <= end - start or batch.base_offset < floor:
            self._regular = False

    def payload(self, frame: Frame) -> memoryview:
        """The records of one batch."""
        return memoryview(self._buffer)[frame.start : frame.end]

    def columns(self, fetch_offset: int) -> Columns:
        """Decode all batches; records below `fetch_offset` are dropped.  The columns share this object's buffer.

        Raises:
            IrregularBatchError: the bytes are corrupt, or merely unusual.
        """
        if not self._regular or len(self._buffer) > VIEW_BUFFER_BYTES_MAX - len(_PADDING):
            raise IrregularBatchError
        self._buffer += _PADDING
        positions = _record_positions(self._buffer, self.frames)
        return _decode(self._buffer, positions, self.frames, fetch_offset)


def _record_positions(buffer: bytearray, frames: list[Frame]) -> Int64Array:
    """Position of each record's length: the only step that goes record by record."""
    counts = np.array([frame.records for frame in frames])
    total, longest = int(counts.sum()), int(counts.max(initial=0))
    # Side by side pays where many batches share a step, and not where most have ended long before the longest one.
    if longest * SIDE_BY_SIDE_MIN <= total and longest * len(frames) <= 4 * total:
        positions = _walk_side_by_side(buffer, frames, counts)
        if positions is not None:
            return positions
    return np.array(_walk(buffer, frames), dtype=np.int64)


def _walk_side_by_side(buffer: bytearray, frames: list[Frame], counts: Int64Array) -> Int64Array | None:
    """Go to the first record of all batches, then to the second of all; None if that does not end where it should."""
    numbers = _words(buffer, "<u2")
    limit = len(numbers) - 1
    batches = np.arange(len(frames))
    places = np.empty((int(counts.max()) + 1, len(frames)), dtype=np.int64)
    places[0] = [frame.start for frame in frames]
    for place, following in pairwise(places):  # batches that have ended walk on, and what they find is not used
        np.minimum(place + _STEPS_ARRAY[numbers[place]], limit, out=following)
    if (places[counts, batches] != [frame.end for frame in frames]).any():
        return None
    positions: Int64Array = places[:-1].T[np.arange(len(places) - 1) < counts[:, None]]
    return positions


def _walk(buffer: bytearray, frames: list[Frame]) -> list[int]:
    """Go from record to record."""
    positions: list[int] = []
    append, read, steps = positions.append, _read_uint16, _STEPS  # local names: this loop is a fifth of all the time
    try:
        for frame in frames:
            position = frame.start
            for _ in range(frame.records):
                append(position)
                position += steps[read(buffer, position)[0]] or _long_step(buffer, position)
            if position != frame.end:
                raise IrregularBatchError
    except (struct.error, IndexError) as error:
        raise IrregularBatchError from error
    return positions


def _long_step(buffer: bytearray, position: int) -> int:
    """Bytes from a record's start to the next record's, where its length takes three to five bytes."""
    length = shift = size = 0
    while True:
        byte = buffer[position + size]
        length |= (byte & _DIGIT) << shift
        shift += 7
        size += 1
        if byte < _MORE:
            break
        if size == _LENGTH_VARINT_BYTES_MAX:
            raise IrregularBatchError
    return size + (length >> 1)  # of a negative length too: `_decode` refuses it


class _Cursor:
    """A reading position in each of many records, all moved together."""

    __slots__ = ("_ends", "_words", "position")

    def __init__(self, words: Word64Array, position: Int64Array, ends: Int64Array) -> None:
        self._words = words
        self._ends = ends
        self.position = position

    def varint(self) -> Int64Array:
        """Read a zigzag varint of each record."""
        value, size = zigzag_varints(self._words[self.position])
        self.skip(size)
        return value

    def skip(self, size: Int64Array) -> None:
        """Move on; a position beyond its record's end means that these are not records."""
        self.position = self.position + size
        if (self.position > self._ends).any():
            raise IrregularBatchError

    def only(self, rows: npt.NDArray[np.intp]) -> _Cursor:
        """A cursor over some of the records."""
        return _Cursor(self._words, self.position[rows], self._ends[rows])

    def at_end(self) -> npt.NDArray[np.bool_]:
        """Which records are read to their last byte."""
        at_end: npt.NDArray[np.bool_] = self.position == self._ends
        return at_end


def _decode(buffer: bytearray, position: Int64Array, frames: list[Frame], fetch_offset: int) -> Columns:
    """Columns of the records at these positions, if every record ends exactly where its length says."""
    words = _words(buffer, "<u8")
    length, size = zigzag_varints(words[position])
    start = position + size
    # Attributes of a record: one byte that means nothing yet. Kafka reads it as such, kafka-python as a varint.
    if (np.frombuffer(buffer, np.uint8)[start] >= _MORE).any() or (length < RECORD_BYTES_MIN - 1).any():
        raise IrregularBatchError
    cursor = _Cursor(words, start + 1, start + length)
    timestamp_delta = cursor.varint()
    offset_delta = cursor.varint()
    cursor.skip(np.maximum(cursor.varint(), 0))  # the key
    value_length = cursor.varint()
    value_start = cursor.position
    cursor.skip(np.maximum(value_length, 0))
    _skip_headers(buffer, cursor, cursor.varint())

    counts = np.array([frame.records for frame in frames])
    offsets = np.repeat(np.array([frame.batch.base_offset for frame in frames], dtype=np.int64), counts) + offset_delta
    if (offset_delta < 0).any() or (offsets[1:] <= offsets[:-1]).any() or _overlap(offsets, frames, counts):
        raise IrregularBatchError
    first = int(np.searchsorted(offsets, fetch_offset))
    return Columns(
        values=binary_views(buffer, value_start[first:], value_length[first:]),
        offsets=offsets[first:],
        timestamps=_timestamps(frames, counts, timestamp_delta)[first:],
        records_read=len(offsets),
        bytes_read=int(length.sum()),
    )


def _words(buffer: bytearray, dtype: str) -> npt.NDArray[Any]:
    """A word at every byte position of the buffer (indexing copies the words asked for; `take` would copy all)."""
    size = np.dtype(dtype).itemsize
    return np.ndarray((max(len(buffer) - size + 1, 0),), dtype, buffer, strides=(1,))


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
    value = words & np.uint64(_DIGIT)
    words = words & own_bits
    for group in range(1, int(size.max(initial=0))):
        value |= (words >> np.uint64(group)) & np.uint64(_DIGIT << 7 * group)
    signed = value.view(np.int64)
    return (signed >> 1) ^ -(signed & 1), size


def _skip_headers(buffer: bytearray, cursor: _Cursor, count: Int64Array) -> None:
    """Check that the headers of each record fill it to its end and have names in UTF-8, as kafka-python demands."""
    if (count < 0).any() or (count > HEADERS_MAX).any() or not cursor.at_end()[count == 0].all():
        raise IrregularBatchError
    rows = np.flatnonzero(count)
    count, cursor = count[rows], cursor.only(rows)
    while len(count):
        name_length = cursor.varint()
        if (name_length < 0).any():
            raise IrregularBatchError
        names = binary_views(buffer, cursor.position, name_length)
        cursor.skip(name_length)
        try:
            names.cast(pa.string_view())
        except pa.ArrowInvalid as error:
            raise IrregularBatchError from error
        cursor.skip(np.maximum(cursor.varint(), 0))
        count = count - 1
        if not cursor.at_end()[count == 0].all():
            raise IrregularBatchError
        rows = np.flatnonzero(count)
        count, cursor = count[rows], cursor.only(rows)


def _overlap(offsets: Int64Array, frames: list[Frame], counts: Int64Array) -> bool:
    """Whether a batch holds a record beyond the last offset that its header names."""
    filled = counts > 0
    last = offsets[np.cumsum(counts)[filled] - 1]
    return bool((last >= np.array([frame.batch.next_offset for frame in frames])[filled]).any())


def _timestamps(frames: list[Frame], counts: Int64Array, delta: Int64Array) -> Int64Array:
    """Timestamp of each record; sums wrap at 64 bits, as they do in Kafka's own client."""
    appended = np.array([frame.batch.timestamp_type == 1 for frame in frames])
    base = np.array(
        [
            f.batch.max_timestamp if at_append else f.batch.first_timestamp
            for f, at_append in zip(frames, appended, strict=True)
        ],
        dtype=np.int64,
    )
    if appended.any():  # the broker's clock stands for the whole batch
        delta = np.where(np.repeat(appended, counts), 0, delta)
    return np.repeat(base, counts) + delta


def binary_views(buffer: bytearray, start: Int64Array, length: Int64Array) -> pa.Array:
    """Arrow `binary_view` array over a buffer, without a copy; a negative length is null.

    Args:
        buffer: at most `VIEW_BUFFER_BYTES_MAX` bytes, the last 16 of them padding.
        start: where each value begins.
        length: bytes of each value.
    """
    views = np.zeros((len(start), 4), dtype=np.int32)
    views[:, 0] = np.maximum(length, 0)
    views[:, 1] = _words(buffer, "<i4")[start]
    views[:, 3] = start
    short = np.flatnonzero(length <= INLINE_BYTES_MAX)
    if len(short):
        words, at, size = _words(buffer, "<u8"), start[short], np.maximum(length[short], 0)
        views[short, 1:3] = (words[at] & _LOW_BYTES[np.minimum(size, 8)]).view(np.int32).reshape(-1, 2)
        views[short, 3] = (words[at + 8] & _LOW_BYTES[np.maximum(size - 8, 0)]).view(np.int32)[::2]
    nulls = int((length < 0).sum())
    validity = pa.py_buffer(np.packbits(length >= 0, bitorder="little")) if nulls else None
    buffers = [validity, pa.py_buffer(views), pa.py_buffer(buffer)]
    return pa.Array.from_buffers(pa.binary_view(), len(start), buffers, nulls)
