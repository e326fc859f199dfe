"""Numbers and booleans of JSON, thousands at once, straight from their bytes.

Each function reads values of which it is known where they begin and end, and says of each whether it is sure of it.
What it is not sure of is for `pipeline.decoding.exact` to decide: nothing is refused here.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from pipeline.text_views import LOW_BYTES, Mask, Positions, Words, word_of

_WORD_BYTES: Final = 8
_DIGITS_MAX: Final = 18
"""So many digits always fit an int64."""
_INTEGER: Final = re.compile(rb"-?[1-9][0-9]{0,18}")
_INTEGER_BYTES_MAX: Final = 20
_INT64_MAX: Final = 2**63 - 1
_TOKEN_BYTES_MAX: Final = 64
"""No JSON number that a producer writes is longer."""
_FLOATS_KEPT_MAX: Final = 4_096
_NO_TOKEN: Final[Words] = np.zeros(1, dtype=np.uint64)
"""No characters at all: a value that is not there."""


_NULL, _TRUE, _FALSE, _MINUS, _ZERO = map(word_of, (b"null", b"true", b"false", b"-", b"0"))
_ZEROS: Final = word_of(b"00000000")
_LOW_7: Final = np.uint64(0x7F7F7F7F7F7F7F7F)
_OVER_9: Final = np.uint64(0x7676767676767676)
_HIGH_BIT: Final = np.uint64(0x8080808080808080)
_FIRST: Final = LOW_BYTES[1]


class Values(NamedTuple):
    """Some values of one field.

    Attributes:
        values: of no meaning where not valid or not sure.
        valid: those that are not null; None if none is.
        sure: those that are proven; None if all are.
    """

    values: npt.NDArray[Any]
    valid: Mask | None
    sure: Mask | None


def is_null(words: Words, start: Positions, length: Positions) -> Mask:
    """Which values are `null`."""
    null: Mask = (length == len("null")) & ((words[start] & LOW_BYTES[4]) == _NULL)
    return null


def integers(words: Words, start: Positions, length: Positions) -> Values:
    """Read integers: digits, with a minus before them or not; int64."""
    first = words[start]
    values, sure = _digits(first, length)
    sure &= (length >= 1) & (length <= _WORD_BYTES) & (((first & _FIRST) != _ZERO) | (length == 1))  # 007 is no JSON
    if sure.all():
        return Values(values, None, None)
    rest = np.flatnonzero(~sure)
    start, length = start[rest], length[rest]
    null = is_null(words, start, length)
    values[rest], sure[rest] = _longer_integers(words, start, length)
    for row in np.flatnonzero(~sure[rest] & ~null & (length <= _INTEGER_BYTES_MAX)).tolist():
        number = _integer(_token(words, int(start[row]), int(length[row])))
        if number is not None:
            values[rest[row]], sure[rest[row]] = number, True
    sure[rest[null]] = True
    return _values(values, rest[null], sure)


def _digits(word: Words, length: Positions) -> tuple[Positions, Mask]:
    """The number that the first one to eight characters of each word make, and whether they are all digits.

    The first digit is a word's lowest byte.  Shifted up, zeros stand before the number; then digits are added up by
    pairs, pairs by pairs, and these by pairs.
    """
    shift = ((_WORD_BYTES - length) * 8).astype(np.uint64)  # of no meaning, but harmless, for other lengths
    digit = (word << shift) ^ (_ZEROS << shift)
    strange = (((digit & _LOW_7) + _OVER_9) | digit) & _HIGH_BIT
    number = (digit * np.uint64(10) + (digit >> np.uint64(8))) & np.uint64(0x00FF00FF00FF00FF)
    number = (number * np.uint64(100) + (number >> np.uint64(16))) & np.uint64(0x0000FFFF0000FFFF)
    number = (number * np.uint64(10_000) + (number >> np.uint64(32))) & np.uint64(0xFFFFFFFF)
    return number.view(np.int64), strange == 0


def _longer_integers(words: Words, start: Positions, length: Positions) -> tuple[Positions, Mask]:
    """Integers with a minus, or of more than eight digits, word by word."""
    negative = (words[start] & _FIRST) == _MINUS
    start, length = start + negative, length - negative
    leading_zero = (words[start] & _FIRST) == _ZERO  # 007 is no JSON, and -0 no integer
    sure = (length >= 1) & (length <= _DIGITS_MAX) & (~leading_zero | ((length == 1) & ~negative))
    total = np.zeros(len(start), dtype=np.int64)
    for offset in range(0, _DIGITS_MAX, _WORD_BYTES):
        here = np.flatnonzero(sure & (length > offset))
        size = np.minimum(length[here] - offset, _WORD_BYTES)
        part, digits_only = _digits(words[start[here] + offset], size)
        total[here] = total[here] * 10**size + part
        sure[here] &= digits_only
    return np.where(negative, -total, total), sure


def booleans(words: Words, start: Positions, length: Positions) -> Values:
    """Read `true`, `false` and `null`; bool."""
    first = words[start]
    four = first & LOW_BYTES[4]
    true = (four == _TRUE) & (length == len("true"))
    null = (four == _NULL) & (length == len("null"))
    sure = true | null | (((first & LOW_BYTES[5]) == _FALSE) & (length == len("false")))
    return _values(true, np.flatnonzero(null), sure)


class Floats:
    """Reads numbers as float64; keeps those it has seen, for most logs have few different ones."""

    def __init__(self) -> None:
        self._tokens: Words = _NO_TOKEN
        self._numbers = np.full(1, math.nan)

    def read(self, words: Words, start: Positions, length: Positions) -> Values:
        """Read numbers, and `null`."""
        short = (length >= 1) & (length <= _WORD_BYTES)
        token = words[start] & LOW_BYTES[np.where(short, length, 0)]
        place = self._places(token)
        if (self._tokens[place] != token).any():
            self._learn(np.unique(token[self._tokens[place] != token]))
            place = self._places(token)
        found = self._numbers[place]
        for row in np.flatnonzero(~short).tolist():
            found[row] = _number(_token(words, int(start[row]), int(length[row])))
        null, number = np.isinf(found), np.isfinite(found)
        return _values(np.where(number, found, 0.0), np.flatnonzero(null), number | null)

    def _places(self, token: Words) -> Positions:
        return np.minimum(np.searchsorted(self._tokens, token), len(self._tokens) - 1)

    def _learn(self, tokens: Words) -> None:
        if len(self._tokens) + len(tokens) > _FLOATS_KEPT_MAX:
            self._forget()
        numbers = [_number(int(token).to_bytes(_WORD_BYTES, "little").rstrip(b"\0")) for token in tokens]
        every = np.concatenate([self._tokens, tokens])
        order = np.argsort(every)
        self._tokens, self._numbers = every[order], np.concatenate([self._numbers, numbers])[order]

    def _forget(self) -> None:
        self._tokens = _NO_TOKEN
        self._numbers = np.full(1, math.nan)


def _token(words: Words, start: int, length: int) -> bytes:
    """The bytes of one value; none where it is too long for a number."""
    return (words[start : start + length] & _FIRST).astype(np.uint8).tobytes() if length <= _TOKEN_BYTES_MAX else b""


def _integer(token: bytes) -> int | None:
    """A JSON integer that fits in 64 bits; None for what is none."""
    number = orjson.loads(token) if _INTEGER.fullmatch(token) else None
    return number if isinstance(number, int) and number <= _INT64_MAX else None


def _number(token: bytes) -> float:
    """A JSON number; infinity stands for null, and nan for what is neither."""
    try:
        found = orjson.loads(token)
    except orjson.JSONDecodeError:
        return math.nan
    if found is None:
        return math.inf
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        return math.nan
    return float(found)


def _values(values: npt.NDArray[Any], nulls: Positions, sure: Mask) -> Values:
    valid = None
    if len(nulls):
        valid = np.ones(len(values), dtype=np.bool_)
        valid[nulls] = False
    return Values(values, valid, None if sure.all() else sure)
