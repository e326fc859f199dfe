"""Where each record of some Kafka record batches begins.

A record starts where the one before it ends, so finding the starts is a walk from record to record: the only step of
decoding that cannot take all records at once.  What can be done is many walks side by side.  Each batch is one, and a
large batch is cut into several: at positions that merely look like starts, for a cut needs no proof in advance.  A walk
depends on nothing but where it begins, so if the walk before a cut lands on it, then the cut is a start, and all that
was walked from there is what a single walk would have found.  Where one has not landed, it goes on alone until it does,
past cuts that are no starts.

Compiled code simply walks (`pipeline.compiled`): a step takes it as long as a look into memory.
"""

from __future__ import annotations

import struct
from itertools import accumulate, pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline import text_views
from pipeline.compiled import LOOPS

Int64Array = npt.NDArray[np.int64]

PADDING: Final = bytes(text_views.PADDING)
"""What follows the records in a buffer, so that words can be read from any of their positions."""

MORE: Final = 128
"""The bit of a varint's byte that says: another one follows."""

DIGIT: Final = 127
"""The other seven."""

CUT_RECORDS: Final = 40
"""Records between two cuts, about: a cut costs as much as four steps from record to record, and a step side by side
as much as fifty."""

SIDE_BY_SIDE_MIN: Final = 64
"""So many records must be passed in one step side by side (5 µs) to beat passing one after the other (0.08 µs each)."""

_END_BYTES: Final = 2  # of a record: the last one of its value, often always the same, and the number of headers
_STEPS_PER_LOOK: Final = 4  # of all walks, before it is asked whether they have ended
_ALONE_MAX: Final = 16  # so few walks that have not ended go on singly: that costs less than more steps of all
_LENGTH_VARINT_BYTES_MAX: Final = 5
_read_uint16 = struct.Struct("<H").unpack_from


class IrregularBatchError(Exception):
    """Not shown to be regular: read these batches record by record."""


def _steps() -> list[int]:
    """How far the next record is, by a record's first two bytes (little-endian); 0 if these do not tell."""
    steps = [0] * 65536
    for low in range(0, 256, 2):  # an odd first byte is a negative length
        for high in range(256):
            if low < MORE:
                steps[low | high << 8] = 1 + (low >> 1)
            elif high < MORE:
                steps[low | high << 8] = 2 + ((low & DIGIT) >> 1) + (high << 6)
    return steps


_STEPS: Final = _steps()
_STEPS_ARRAY: Final = np.array(_STEPS, dtype=np.int64)


def record_positions(buffer: bytes, ends: list[int], counts: list[int]) -> Int64Array:
    """Find the position of each record's length.

    Args:
        buffer: the records of batches, one behind the other from position 0 on, and `PADDING`.
        ends: where each batch ends.
        counts: how many records its header says it has.

    Raises:
        IrregularBatchError: a batch does not end after so many records.
    """
    if LOOPS is not None:
        walked = LOOPS.record_positions(buffer, ends, counts)
        if walked is None:
            raise IrregularBatchError
        return walked
    return walked_in_passes(buffer, ends, counts)


def walked_in_passes(buffer: bytes, ends: list[int], counts: list[int]) -> Int64Array:
    """The same without compiled code."""
    pieces = [max(count // CUT_RECORDS, 1) for count in counts]
    longest = max(-(-count // number) for count, number in zip(counts, pieces, strict=True))
    total = sum(counts)
    # Side by side pays where many walks share a step, and not where most have ended long before the longest one.
    if longest * SIDE_BY_SIDE_MIN <= total and longest * sum(pieces) <= 4 * total:
        cuts = _cuts(buffer, ends, pieces)
        if len(cuts) * 4 > sum(pieces) * 3:  # else the pieces are longer than was thought
            positions = _walk_side_by_side(buffer, cuts, 4 * longest)
            if positions is not None and _batches_end(positions, ends, counts):
                return positions
    return np.array(_walk(buffer, ends, counts), dtype=np.int64)


def _cuts(buffer: bytes, ends: list[int], pieces: list[int]) -> list[int]:
    """The ends of all batches, and between them positions that follow what a batch's first and last record end in."""
    cuts = [0]
    for start, end, number in zip([0, *ends], ends, pieces, strict=False):
        if number > 1:
            record_end = buffer[end - _END_BYTES : end]
            second = start + _STEPS[buffer[start] | buffer[start + 1] << 8]
            size = (end - start) // number
            alike = buffer.startswith(record_end, max(second - _END_BYTES, 0))
            for middle in range(start + size, end - size, size) if alike else ():
                found = buffer.find(record_end, middle, middle + size)
                if found >= 0:
                    cuts.append(found + _END_BYTES)
        cuts.append(end)
    return cuts


def _batches_end(positions: Int64Array, ends: list[int], counts: list[int]) -> bool:
    """Whether each batch ends after as many records as it should, if the walk ended where the last one does."""
    last = list(accumulate(counts))
    return len(positions) == last[-1] and bool((np.append(positions, ends[-1])[last] == ends).all())


def _walk_side_by_side(buffer: bytes, cuts: list[int], steps_max: int) -> Int64Array | None:
    """Walk from each cut to the next, so many steps together; None if the last cut is not where a record ends."""
    numbers = np.ndarray((len(buffer) - 1,), "<u2", buffer, strides=(1,))
    limit = len(numbers) - 1  # beyond all cuts: a walk that goes astray lands on none
    begin, end = np.array(cuts[:-1]), np.array(cuts[1:])
    places = np.empty((steps_max + 1, len(begin)), dtype=np.int64)
    places[0] = begin
    for step, (place, following) in enumerate(pairwise(places)):  # walks that have ended go on; that is not used
        if step % _STEPS_PER_LOOK == 0:
            under_way = place < end
            if np.count_nonzero(under_way) <= _ALONE_MAX:
                break
            if step:
                _take_long_steps(buffer, place, under_way & (place == places[step - 1]), limit)
        np.minimum(place + _STEPS_ARRAY[numbers[place]], limit, out=following)
    else:
        step = steps_max
    walks = places[: step + 1].T
    inside = walks[:, :step] < end[:, None]
    lengths = inside.sum(axis=1)
    stand = walks[np.arange(len(begin)), lengths]
    positions = walks[:, :step][inside]
    if (stand != end).any():
        try:
            positions = _mended(buffer, cuts, positions, lengths, stand)
        except (struct.error, IndexError, IrregularBatchError):
            return None
    moved: Int64Array = positions[np.diff(positions, prepend=-1) > 0]  # who waited for a long step stood where he was
    return moved


def _take_long_steps(buffer: bytes, place: Int64Array, stuck: npt.NDArray[np.bool_], limit: int) -> None:
    """Let those go on who stand before a record whose length takes more than two bytes."""
    for number in np.flatnonzero(stuck).tolist():
        position = int(place[number])
        try:
            place[number] = min(position + _long_step(buffer, position), limit)
        except IrregularBatchError:
            place[number] = limit


def _mended(
    buffer: bytes, cuts: list[int], positions: Int64Array, lengths: Int64Array, stand: Int64Array
) -> Int64Array:
    """Go on singly from where a walk does not stand on the next cut, past the cuts that are no starts.

    Args:
        buffer: records and `PADDING`.
        cuts: where the walks began, and where the last one should end.
        positions: that the walks have passed, walk after walk.
        lengths: how many of them each has passed.
        stand: where each is now.

    Raises:
        IndexError: the last cut is not where a record ends.
        struct.error: the same.
        IrregularBatchError: the same.
    """
    numbers = {cut: number for number, cut in enumerate(cuts)}
    offsets = [0, *np.cumsum(lengths).tolist()]
    found: list[Int64Array] = []
    joined = 0  # walks before this one
    for missed in np.flatnonzero(stand != cuts[1:]).tolist():
        if missed < joined:  # it began where no record does
            continue
        found.append(positions[offsets[joined] : offsets[missed + 1]])
        position = int(stand[missed])
        singly: list[int] = []
        while numbers.get(position, missed) <= missed:
            singly.append(position)
            position += _STEPS[_read_uint16(buffer, position)[0]] or _long_step(buffer, position)
        found.append(np.array(singly, dtype=np.int64))
        joined = numbers[position]
    return np.concatenate([*found, positions[offsets[joined] :]])


def _walk(buffer: bytes, ends: list[int], counts: list[int]) -> list[int]:
    """Go from record to record."""
    positions: list[int] = []
    position = 0
    append, read, steps = positions.append, _read_uint16, _STEPS  # local names: the loop's body is as short as this
    try:
        for end, count in zip(ends, counts, strict=True):
            for _ in range(count):
                append(position)
                position += steps[read(buffer, position)[0]] or _long_step(buffer, position)
            if position != end:
                raise IrregularBatchError
    except (struct.error, IndexError) as error:
        raise IrregularBatchError from error
    return positions


def _long_step(buffer: bytes, position: int) -> int:
    """Bytes from a record's start to the next record's, where its length takes three to five bytes."""
    length = shift = size = 0
    while True:
        byte = buffer[position + size]
        length |= (byte & DIGIT) << shift
        shift += 7
        size += 1
        if byte < MORE:
            break
        if size == _LENGTH_VARINT_BYTES_MAX:
            raise IrregularBatchError
    return size + (length >> 1)  # of a negative length too: decoding refuses it
