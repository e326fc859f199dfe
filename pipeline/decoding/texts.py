r"""Texts of JSON, thousands at once: views into the bytes that they came in, or into new ones where they had escapes.

Most texts have no backslash and are what stands between their quotes.  In those that have one, the escapes that are two
characters long (`\n`, `\"`) are taken out all together.  `\u` escapes are left to a JSON reader, text by text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from pipeline.decoding.shapes import Objects
from pipeline.decoding.values import is_null
from pipeline.text_views import PADDING, Mask, Positions, ViewsBuilder

_QUOTE, _LONG = b'"u'
_UNESCAPED: Final = np.zeros(256, dtype=np.uint8)
"""What stands for the character behind a backslash, by that character; 0: no such escape of two characters."""
for _escape, _character in zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True):
    _UNESCAPED[_escape] = _character


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts of one field.

    Attributes:
        array: `string_view`.
        length: bytes of each; of no meaning where not valid.
        valid: those that are not null.
        sure: those that are proven, but for quotes inside a text without a backslash: count those.
        backslashes: how many were seen.
        quotes: by text, how many quotes stand behind a backslash, the one that ends the text left out.
    """

    array: pa.Array
    length: Positions
    valid: Mask
    sure: Mask
    backslashes: int
    quotes: Positions | None


def texts(objects: Objects, start: Positions, end: Positions, *, escapes: bool) -> Texts:
    """Read texts and nulls.

    Args:
        objects: their bytes.
        start: where each value begins.
        end: where it ends.
        escapes: look for backslashes.
    """
    data = objects.data
    length = end - start - 2
    valid = (data[start] == _QUOTE) & (data[end - 1] == _QUOTE) & (length >= 0)
    sure, some = valid, None
    if not valid.all():
        some = valid
        sure = valid | is_null(objects.words, start, end - start)
        length = np.where(valid, length, 0)
    start = start + 1
    builder = ViewsBuilder(len(start))
    builder.put(objects.buffer, start, length)
    if not escapes:
        return Texts(builder.array(some), length, valid, sure, 0, None)
    low = np.searchsorted(objects.backslashes, start)
    high = np.searchsorted(objects.backslashes, start + length)
    rows = np.flatnonzero(high - low)
    if not len(rows):
        return Texts(builder.array(some), length, valid, sure, 0, None)
    seen, quotes = int((high - low).sum()), np.zeros(len(start), dtype=np.int64)
    sure = sure.copy()
    long = _counts_of_long_escapes(objects)
    is_long = long[high[rows]] > long[low[rows]]
    short, in_full = rows[~is_long], rows[is_long]
    if len(short):
        found = _without_escapes(objects, start[short], length[short], low[short], (high - low)[short])
        quotes[short], sure[short] = found.quotes, found.sure
        good = short[found.sure]
        length[good] = found.length[found.sure]
        builder.put(found.buffer, found.start[found.sure], length[good], good)
    read: list[bytes] = []
    for row in in_full.tolist():
        literal = data[start[row] - 1 : end[row]].tobytes()
        text = _read(literal)
        sure[row] = text is not None
        quotes[row] = literal.count(b'"') - 2
        read.append(text or b"")
    if read:
        length[in_full] = [len(text) for text in read]
        joined = np.frombuffer(b"".join(read) + bytes(PADDING), dtype=np.uint8)
        builder.put(joined, np.cumsum(length[in_full]) - length[in_full], length[in_full], in_full)
    return Texts(builder.array(some), length, valid, sure, seen, quotes)


def _counts_of_long_escapes(objects: Objects) -> Positions:
    """How many of the first so many backslashes stand before a `u`."""
    is_long = objects.data[objects.backslashes + 1] == _LONG
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(is_long)])


def _read(literal: bytes) -> bytes | None:
    """What a text says, in UTF-8; None if it is no JSON."""
    try:
        text = orjson.loads(literal)
    except orjson.JSONDecodeError:
        return None
    return text.encode() if isinstance(text, str) else None


class _Unescaped(NamedTuple):
    """Texts with their escapes taken out.

    Attributes:
        buffer: holds them.
        start: where each begins.
        length: bytes of each.
        sure: those whose escapes are all of two characters, and end before the text does.
        quotes: escaped quotes in each.
    """

    buffer: npt.NDArray[np.uint8]
    start: Positions
    length: Positions
    sure: Mask
    quotes: Positions


def _without_escapes(
    objects: Objects, start: Positions, length: Positions, low: Positions, count: Positions
) -> _Unescaped:
    """Take escapes out of texts.

    Args:
        objects: their bytes.
        start: where each text begins, behind its quote.
        length: bytes of each.
        low: where in `objects.backslashes` those of each text begin.
        count: how many each text has, at least one.
    """
    places, text = _escapes(objects.backslashes, low, count)
    escape = objects.data[places + 1]
    character = _UNESCAPED[escape]
    sure = np.ones(len(start), dtype=np.bool_)
    sure[text[(character == 0) | (places + 1 >= (start + length)[text])]] = False
    # Pieces between escapes, each up to and with the backslash behind it, which gives its place to the character.
    escapes = np.bincount(text, minlength=len(start))
    first = np.cumsum(escapes) - escapes + np.arange(len(start))
    piece = np.arange(len(places)) + text
    begin, stop = np.empty(len(places) + len(start), np.int64), np.empty(len(places) + len(start), np.int64)
    begin[first], begin[piece + 1] = start, places + 2
    stop[first + escapes], stop[piece] = start + length, places + 1
    pieces = ViewsBuilder(len(begin))
    pieces.put(objects.buffer, begin, np.maximum(stop - begin, 0))
    _, offsets_buffer, moved = pieces.array().cast(pa.large_string()).buffers()
    offsets = np.frombuffer(offsets_buffer, dtype=np.int64)[: len(begin) + 1]
    joined = np.zeros(int(offsets[-1]) + PADDING, dtype=np.uint8)
    joined[: offsets[-1]] = np.frombuffer(moved, dtype=np.uint8)[: offsets[-1]]
    joined[offsets[piece + 1] - 1] = character
    begins = offsets[first]
    ends = offsets[first + escapes + 1]
    return _Unescaped(joined, begins, ends - begins, sure, np.bincount(text[escape == _QUOTE], minlength=len(start)))


def _escapes(backslashes: Positions, low: Positions, count: Positions) -> tuple[Positions, Positions]:
    """The backslashes that begin an escape, and which text each is in: of those in a row, every other one."""
    text = np.repeat(np.arange(len(low)), count)
    places = backslashes[np.arange(len(text)) + np.repeat(low - (np.cumsum(count) - count), count)]
    follows = np.zeros(len(places), dtype=np.bool_)
    follows[1:] = (np.diff(places) == 1) & (np.diff(text) == 0)
    if not follows.any():
        return places, text
    index = np.arange(len(places))
    run = np.maximum.accumulate(np.where(follows, 0, index))
    begins = (index - run) % 2 == 0
    return places[begins], text[begins]
