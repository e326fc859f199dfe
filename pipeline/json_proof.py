"""Count the values of JSON objects by kind, straight from their bytes, without parsing them.

A parser that is told which fields to read says nothing of those it was not told of, and bends what does not fit: text
"200" becomes the number 200.  Counting shows it.  If an object holds as many texts, numbers and booleans as columns came
out of it, then no field was unknown, twice there, or of another kind.

Every `:` in JSON either follows a key's closing quote or stands inside a text.  Inside a text each quote is escaped, so
`":` there reads `\\":`.  What is left to doubt (white space before a colon, a backslash at a key's end, a nested value, a
comma before a closing brace) is not decided here but called unsure.

Known limit: two wrongs in one object that balance, a number where text belongs and numeric text where a number
belongs, are not seen; the values are then taken as they convert.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Counts = npt.NDArray[np.int64]

_QUOTE, _COLON, _COMMA, _BACKSLASH, _SPACE = b'":,\\ '
_CLOSING: Final = ord("}")
"""`}` is `]` with one bit more."""
_BITS: Final = 15
"""Each kind is counted in its own bits of one integer; an object with more values than fit is unsure."""
_MASK: Final = (1 << _BITS) - 1
_TEXT, _NUMBER, _BOOLEAN, _UNSURE = (1 << _BITS * i for i in range(4))
_KIND: Final = np.full(256, _UNSURE, dtype=np.int64)
_KIND[_QUOTE] = _TEXT
_KIND[np.frombuffer(b"-0123456789", dtype=np.uint8)] = _NUMBER
_KIND[np.frombuffer(b"tf", dtype=np.uint8)] = _BOOLEAN
_KIND[ord("n")] = 0  # null: as good as absent


@dataclass(frozen=True, slots=True)
class ValueCounts:
    """How many values of each kind each object holds; where `unsure`, the numbers mean nothing."""

    texts: Counts
    numbers: Counts
    booleans: Counts
    unsure: npt.NDArray[np.bool_]


def count_values(objects: pa.LargeStringArray) -> ValueCounts:
    """Count the values of each JSON object by kind.

    Args:
        objects: valid JSON in UTF-8, no nulls; objects (anything else is unsure or counts to nothing).
    """
    starts = np.frombuffer(objects.buffers()[1], dtype=np.int64)[objects.offset : objects.offset + len(objects) + 1]
    data = np.frombuffer(objects.buffers()[2] or b"", dtype=np.uint8)[: starts[-1] if len(starts) else 0]
    code_at, code = _codes(data, int(starts[0]))
    total = np.concatenate([[0], np.cumsum(code)])
    edge = np.searchsorted(code_at, starts)
    packed = np.diff(total[edge])
    values = np.diff(edge)
    return ValueCounts(
        texts=packed & _MASK,
        numbers=(packed >> _BITS) & _MASK,
        booleans=(packed >> 2 * _BITS) & _MASK,
        unsure=((packed >> 3 * _BITS) > 0) | (values > _MASK),
    )


def _codes(data: npt.NDArray[np.uint8], begin: int) -> tuple[Counts, Counts]:
    """Positions that say something of a value, ascending, and what each says."""
    padded = np.concatenate([data, np.zeros(2, dtype=np.uint8)])
    colon = np.flatnonzero(data[begin:] == _COLON) + begin
    before, first = padded[colon - 1], padded[colon + 1]
    code = _KIND[first]
    spaced = np.flatnonzero(first == _SPACE)
    code[spaced] = _KIND[padded[colon[spaced] + 2]]
    code[before != _QUOTE] = 0
    code[before <= _SPACE] = _UNSURE
    escaped = np.flatnonzero((padded[colon - 2] == _BACKSLASH) & (before == _QUOTE))
    code[escaped] = np.where(padded[colon[escaped] - 3] == _BACKSLASH, _UNSURE, 0)
    doubtful = _trailing_commas(padded, begin)
    if not len(doubtful):
        return colon, code
    where = np.concatenate([colon, doubtful])
    order = np.argsort(where, kind="stable")
    return where[order], np.concatenate([code, np.full(len(doubtful), _UNSURE)])[order]


def _trailing_commas(data: npt.NDArray[np.uint8], begin: int) -> Counts:
    """Positions of closing braces and brackets before which a comma may stand: DuckDB reads over it, JSON forbids it."""
    closing = np.flatnonzero((data[begin:] | 0x20) == _CLOSING) + begin
    before = data[closing - 1]
    comma = before == _COMMA
    spaced = np.flatnonzero(before <= _SPACE)
    comma[spaced] = (data[closing[spaced] - 2] == _COMMA) | (data[closing[spaced] - 2] <= _SPACE)
    return closing[comma]
