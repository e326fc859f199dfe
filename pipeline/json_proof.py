r"""Prove from the bytes of JSON objects that typed columns hold all that they say, without parsing them.

A parser that is told which fields to read says nothing of those it was not told of, bends what does not fit (text "200"
becomes the number 200), and of a field that is there twice takes the first where others take the last.  Counting shows
it.  If an object holds as many texts, numbers and booleans as columns came out of it, each number and boolean under a
name that such a value may have, and no null under a name whose column has a value, then no field was unknown, there
twice, or of another kind.

Every `:` in JSON either follows a key's closing quote or stands inside a text.  Inside a text each quote is escaped, so
`":` there reads `\":`.  What is in doubt (white space before a colon, a backslash at a key's end, a nested value, a
comma before a closing brace) is not decided here but called unsure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Counts = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

_QUOTE, _COLON, _COMMA, _BACKSLASH, _SPACE = b'":,\\ '
_CLOSING: Final = ord("}")
"""`}` is `]` with one bit more."""
_BITS: Final = 15
"""Each kind is counted in its own bits of one integer; an object with more values than fit is unsure."""
_BLOCK_ROWS: Final = 2_048
"""Rows looked at together: a megabyte or so, which stays in the CPU's cache from one step to the next."""

_PADDING: Final = np.zeros(4, dtype=np.uint8)
_MASK: Final = (1 << _BITS) - 1
TEXT, NUMBER, BOOLEAN, _UNSURE = (1 << _BITS * i for i in range(4))
_NULL: Final = 0
"""As good as absent."""
_IN_TEXT: Final = -1
"""A colon that follows no key."""
_EITHER: Final = -1
_KIND: Final = np.full(256, _UNSURE, dtype=np.int64)
_KIND[_QUOTE] = TEXT
_KIND[np.frombuffer(b"-0123456789", dtype=np.uint8)] = NUMBER
_KIND[np.frombuffer(b"tf", dtype=np.uint8)] = BOOLEAN
_KIND[ord("n")] = _NULL
_HASH_FACTOR: Final = np.uint64(0x100000001B3)
_BEFORE_KEY: Final = b"{, \t\r\n"


@dataclass(frozen=True, slots=True)
class Names:
    """Which kind of value each known field may have, in the forms that the scan needs.

    Attributes:
        kind_by_end: indexed by a key's last byte and its last but two, the kind that a value after such a key may have
            if it is no text; 0 if it must be one, `_EITHER` where known fields of several kinds end so.
        hashes: of the names, ascending.
        fields: which field each hash is of.
        length_max: bytes of the longest name.
    """

    kind_by_end: Counts
    hashes: npt.NDArray[np.uint64]
    fields: Counts
    length_max: int


@dataclass(frozen=True, slots=True)
class ValueCounts:
    """How many values of each kind each object holds; where `unsure`, the numbers mean nothing.

    Attributes:
        texts: by object.
        numbers: by object.
        booleans: by object.
        unsure: by object.
        null_rows: the object of each null under a known name.
        null_fields: the field, by its place in `Names`, of each such null.
    """

    texts: Counts
    numbers: Counts
    booleans: Counts
    unsure: npt.NDArray[np.bool_]
    null_rows: Counts
    null_fields: Counts


def names_of(kinds: Mapping[str, int]) -> Names:
    """Prepare the known fields.

    Args:
        kinds: TEXT, NUMBER or BOOLEAN for each name; names are ASCII.
    """
    table = np.zeros((256, 256), dtype=np.int64)
    for name, kind in kinds.items():
        key = b'"' + name.encode("ascii")
        # A name of one letter: before its opening quote stands whatever may stand before a key.
        for third in [key[-3]] if len(key) > 2 else _BEFORE_KEY:  # noqa: PLR2004
            known = table[key[-1], third]
            table[key[-1], third] = kind if known in (0, kind) else _EITHER
    table[table == TEXT] = 0
    names = list(kinds)
    hashes = np.array([_hash(name.encode("ascii")) for name in names], dtype=np.uint64)
    order = np.argsort(hashes)
    return Names(table, hashes[order], order.astype(np.int64), max(map(len, names)))


def count_values(objects: pa.LargeStringArray, names: Names) -> ValueCounts:
    """Count the values of each JSON object by kind.

    Args:
        objects: valid JSON in UTF-8, no nulls; objects (anything else is unsure or counts to nothing).
        names: the known fields.
    """
    starts = np.frombuffer(objects.buffers()[1], dtype=np.int64)[objects.offset : objects.offset + len(objects) + 1]
    data = np.frombuffer(objects.buffers()[2] or b"", dtype=np.uint8)
    blocks = [
        _count_block(data, starts[row : row + _BLOCK_ROWS + 1], names, row)
        for row in range(0, len(objects), _BLOCK_ROWS)
    ]
    if not blocks:
        none = np.zeros(0, dtype=np.int64)
        return ValueCounts(none, none, none, none.astype(np.bool_), none, none)
    return ValueCounts(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))


def _count_block(data: Bytes, starts: Counts, names: Names, first_row: int) -> tuple[npt.NDArray[Any], ...]:
    """The fields of `ValueCounts` for consecutive objects, the first of which is row `first_row`."""
    begin = int(starts[0])
    padded = np.concatenate([_PADDING, data[begin : starts[-1]], _PADDING])  # looking around a byte stays inside
    starts = starts - begin + len(_PADDING)
    code_at, code, null_at = _codes(padded, names)
    null_at, null_fields, strange = _null_fields(padded, null_at, names)
    doubtful = np.concatenate([_trailing_commas(padded), strange])
    if len(doubtful):
        code_at = np.concatenate([code_at, doubtful])
        order = np.argsort(code_at, kind="stable")
        code_at, code = code_at[order], np.concatenate([code, np.full(len(doubtful), _UNSURE)])[order]
    total = np.concatenate([[0], np.cumsum(code)])
    edge = np.searchsorted(code_at, starts)
    packed = np.diff(total[edge])
    return (
        packed & _MASK,
        (packed >> _BITS) & _MASK,
        (packed >> 2 * _BITS) & _MASK,
        ((packed >> 3 * _BITS) > 0) | (np.diff(edge) > _MASK),
        np.searchsorted(starts, null_at, side="right") - 1 + first_row,
        null_fields,
    )


def _codes(padded: Bytes, names: Names) -> tuple[Counts, Counts, Counts]:
    """Positions of colons, ascending; what each says of a value; the positions of those that stand before a null."""
    colon = np.flatnonzero(padded == _COLON)
    before, key_end, first = padded[colon - 1], padded[colon - 2], padded[colon + 1]
    code = _KIND[first]
    spaced = np.flatnonzero(first == _SPACE)
    code[spaced] = _KIND[padded[colon[spaced] + 2]]
    code[before != _QUOTE] = _IN_TEXT
    code[before <= _SPACE] = _UNSURE
    escaped = np.flatnonzero((key_end == _BACKSLASH) & (before == _QUOTE))
    code[escaped] = np.where(padded[colon[escaped] - 3] == _BACKSLASH, _UNSURE, _IN_TEXT)
    plain = np.flatnonzero((code == NUMBER) | (code == BOOLEAN))
    allowed = names.kind_by_end[key_end[plain], padded[colon[plain] - 4]]
    misplaced = (allowed != code[plain]) & (allowed != _EITHER)
    code[plain[misplaced]] = _UNSURE
    nulls = np.flatnonzero(code == _NULL)
    second = padded[colon[nulls] + 2 + (first[nulls] == _SPACE)]
    code[nulls[second != ord("u")]] = _UNSURE  # DuckDB takes `nan` for a number, in any case
    null_at = colon[code == _NULL]
    code[code == _IN_TEXT] = 0
    return colon, code, null_at


def _null_fields(padded: Bytes, colon: Counts, names: Names) -> tuple[Counts, Counts, Counts]:
    """Look at the keys of nulls, from their last byte to their opening quote.

    Returns:
        Colons after a known name, which field that is, and colons after a key that cannot be read here.
    """
    value = np.zeros(len(colon), dtype=np.uint64)
    odd = np.zeros(len(colon), dtype=np.bool_)
    reading = np.arange(len(colon))
    for back in range(2, names.length_max + 3):
        byte = padded[colon[reading] - back]
        odd[reading[byte == _BACKSLASH]] = True
        inside = (byte != _QUOTE) & (byte != _BACKSLASH)
        reading = reading[inside]
        value[reading] = (value[reading] ^ byte[inside]) * _HASH_FACTOR
    odd[reading] = True  # longer than any name, as written; an escape further on might make it one
    place = np.minimum(np.searchsorted(names.hashes, value), len(names.hashes) - 1)
    known = ~odd & (names.hashes[place] == value)
    return colon[known], names.fields[place[known]], colon[odd]


def _hash(name: bytes) -> int:
    """Of a name, byte by byte from its end, as `_null_fields` does it."""
    value = 0
    for byte in reversed(name):
        value = ((value ^ byte) * int(_HASH_FACTOR)) & (2**64 - 1)
    return value


def _trailing_commas(padded: Bytes) -> Counts:
    """Closing braces and brackets before which a comma may stand: DuckDB reads over it, JSON forbids it."""
    before = padded[:-1]
    doubtful = (before == _COMMA) | (before <= _SPACE)
    doubtful &= (padded[1:] | 0x20) == _CLOSING
    if not doubtful.any():
        return np.zeros(0, dtype=np.int64)
    closing = np.flatnonzero(doubtful) + 1
    further = padded[closing - 2]
    return np.asarray(closing[(padded[closing - 1] == _COMMA) | (further == _COMMA) | (further <= _SPACE)])
