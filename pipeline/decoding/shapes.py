r"""Flat JSON objects taken apart by their shape: thousands that have the same keys in the same order at once.

A log's producer writes its keys in one order, or in a few.  Where the bytes between any two values of an object are,
byte for byte, what its shape says (`,"model":`), the values are what lies between them, and nothing has to be parsed to
find them.

Every `:` in JSON either follows a key's closing quote or stands inside a text.  Inside a text each quote is escaped, so
`":` there reads `\":`.  So the colons of an object's keys are found by looking at the two bytes before each colon.
Where that errs, the object does not fit its shape or fails the count of quotes below, and counts as unproven: it is
never decided here that something is wrong.

What makes it a proof that such an object is JSON and holds these values and nothing else:

* the object begins with `{` and its first key, each value is followed by `,` and the next key, the last one by `}`;
* each value that is no text is a number, a boolean or null to its last byte (`pipeline.decoding.values`);
* each text begins and ends with a quote, and holds none between: the object has as many quotes as its keys and texts
  need, those behind a backslash left out; a text with a backslash in it is read in full (`pipeline.decoding.texts`);
* it is UTF-8 without control characters.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.text_views import LOW_BYTES, Mask, Pairs, Positions, Words, word_of, words_of

_QUOTE, _COLON, _BACKSLASH, _SPACE, _CLOSE = b'":\\ }'
_WORD_BYTES: Final = 8
_PAIR_BYTES: Final = 16
_KEYS_MAX: Final = 256
"""Objects with more keys than the schema could ever have are not looked at."""
_LITERAL_BYTES_MAX: Final = 256
"""No key that anybody reads is longer; what is worked out for a key is kept."""
_BLANKS_MAX: Final = 16
_TRIES_MAX: Final = 8
"""How often rows that look alike are divided further before the rest is left alone."""
_ALL: Final = np.uint64(0xFFFFFFFFFFFFFFFF)
_ONES: Final = np.uint64(0x0101010101010101)
_QUOTES: Final = _ONES * np.uint64(_QUOTE)
_HIGH_BITS: Final = _ONES * np.uint64(0x80)
_WEIGHTS: Final = np.random.default_rng(0).integers(1, 2**63, _KEYS_MAX, dtype=np.uint64) | np.uint64(1)
"""Any odd numbers: rows are told apart by sums over them, and proven by comparison."""
_BLANKS: Final = np.zeros(256, dtype=np.bool_)
_BLANKS[list(b" \t\r\n")] = True


class Shape(NamedTuple):
    """The keys of an object, in order, and how it is written between its values.

    Attributes:
        names: of the keys.
        literals: what stands before each value: from the comma (or brace) before its key to the colon, and the space
            behind that if there is one.
        gap: how far behind its colon a value begins.
    """

    names: tuple[str, ...]
    literals: tuple[bytes, ...]
    gap: int


class Members(NamedTuple):
    """Where the values of some objects are.

    Attributes:
        rows: which objects, ascending.
        keys: how many keys each of them has.
        values: by key, where the value of each of them begins and ends; for one that lacks the key, a `null` elsewhere.
        shapes: the names of each shape's keys, in order.
    """

    rows: Positions
    keys: npt.NDArray[np.int64]
    values: dict[str, tuple[Positions, Positions]]
    shapes: list[tuple[str, ...]]


class Objects:
    """The bytes of some JSON objects, looked at together.

    Attributes:
        buffer: all of them behind each other, then `NULL`.
        data: the same as bytes.
        words: the little-endian word at each position of `data`.
        starts: where each begins; one more for where the last one ends.
        ends: where each ends, blanks behind it left out.
        backslashes: position of each backslash.
        odd: those that cannot be proven, because of a control character in them.
    """

    def __init__(self, buffer: pa.Buffer, starts: Positions) -> None:
        """Scan the bytes.

        Args:
            buffer: UTF-8, with `NULL` behind the last object.
            starts: where each object begins, and where the last one ends.
        """
        self.buffer = buffer
        self.data = np.frombuffer(buffer, dtype=np.uint8)
        self.words: Words = words_of(self.data)
        self._pairs = Pairs(self.data)
        self.starts = starts
        self._inner = self.data[: starts[-1]]
        self.ends = self._without_blanks()
        self.odd = self._with_control_characters()
        self.backslashes = np.flatnonzero(self._inner == _BACKSLASH)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def members(self, wanted: Callable[[Sequence[str]], bool], rows_min: int) -> Members:
        """Find the values of objects, shape by shape.

        Args:
            wanted: says of the names of a shape's keys whether its objects are wanted.
            rows_min: fewer objects of one shape are not worth it.
        """
        null = int(self.starts[-1])
        keys = np.zeros(len(self), dtype=np.int64)
        values: dict[str, tuple[Positions, Positions]] = {}
        shapes = []
        for shape, rows, colons in self._by_shape(wanted, rows_min):
            shapes.append(shape.names)
            whole = len(rows) == len(self)
            keys[rows] = len(shape.names)
            for index, name in enumerate(shape.names):
                start, end = colons[index] + shape.gap, self._end(shape, rows, colons, index)
                if whole:
                    values[name] = start, end
                    continue
                if name not in values:
                    values[name] = np.full(len(self), null), np.full(len(self), null + len("null"))
                values[name][0][rows], values[name][1][rows] = start, end
        found = np.flatnonzero(keys)
        if len(found) < len(self):
            values = {name: (start[found], end[found]) for name, (start, end) in values.items()}
        return Members(found, keys[found], values, shapes)

    @functools.cached_property
    def quotes(self) -> Positions:
        """How many quotes each object has."""
        counts: Positions = np.diff(np.searchsorted(np.flatnonzero(self._inner == _QUOTE), self.starts))
        return counts

    def quotes_in_all(self) -> int:
        """How many quotes all objects have together; much quicker than to count them one by one."""
        return int(np.count_nonzero(self._inner == _QUOTE))

    def _by_shape(
        self, wanted: Callable[[Sequence[str]], bool], rows_min: int
    ) -> Iterator[tuple[Shape, Positions, Positions]]:
        """A shape, the objects that have it, and the position of the colon of each key by key and object."""
        colons = np.flatnonzero(self._inner == _COLON)
        keys = colons[(self.data[colons - 1] == _QUOTE) & (self.data[colons - 2] != _BACKSLASH)]
        edges = np.searchsorted(keys, self.starts)
        counts = np.diff(edges)
        left = (counts > 0) & (counts <= _KEYS_MAX) & ~self.odd
        if np.count_nonzero(left) < rows_min:
            return
        if left.all() and (counts == counts[0]).all():  # most logs have one shape: is that of the first the others'?
            for found in self._divided(np.arange(len(self)), keys, edges, wanted, tries_max=1, rows_min=rows_min):
                yield found
                left[found[1]] = False
        if np.count_nonzero(left) >= rows_min:
            for alike in _alike(self._name_endings(keys), edges, counts, left):
                yield from self._divided(alike, keys, edges, wanted, tries_max=_TRIES_MAX, rows_min=rows_min)

    def _divided(  # where the keys are, and what is worth it
        self,
        rows: Positions,
        keys: Positions,
        edges: Positions,
        wanted: Callable[[Sequence[str]], bool],
        *,
        tries_max: int,
        rows_min: int,
    ) -> Iterator[tuple[Shape, Positions, Positions]]:
        """Divide objects that have as many keys by their shape, until few are left."""
        for _ in range(tries_max):
            if len(rows) < rows_min:
                return
            shape = self._shape_of(int(rows[0]), keys[edges[rows[0]] : edges[rows[0] + 1]])
            if shape is None or not wanted(shape.names):
                rows = rows[1:]
                continue
            places = keys.reshape(len(rows), -1) if len(rows) == len(self) else _gathered(keys, edges, rows)
            places = np.ascontiguousarray(places.T)
            same = self._has_literals(shape, rows, places)
            if same.all():
                yield shape, rows, places
                return
            if same.any():
                yield shape, rows[same], np.ascontiguousarray(places[:, same])
            rows = rows[~same]

    def _name_endings(self, keys: Positions) -> Words:
        """A number for the last sixteen letters of each key's name."""
        begin = keys - 1 - _PAIR_BYTES
        pairs = self._pairs[np.maximum(begin, 0)]
        for early in np.flatnonzero(begin < 0):  # keys of the first object
            before = self.data[: keys[early] - 1].tobytes().rjust(_PAIR_BYTES, b"\0")
            pairs[early] = [word_of(before[:_WORD_BYTES]), word_of(before[_WORD_BYTES:])]
        far, near = pairs[:, 0], pairs[:, 1]
        behind_far, behind_near = _behind_quote(far), _behind_quote(near)
        far = np.where(behind_near == _ALL, far & behind_far, np.uint64(0))
        names: Words = (near & behind_near) * _WEIGHTS[0] + far * _WEIGHTS[1]
        return names

    def _end(self, shape: Shape, rows: Positions, colons: Positions, index: int) -> Positions:
        """Where the value of a key ends in each object."""
        if index + 1 == len(shape.names):
            ends: Positions = self.ends[rows] - 1
            return ends
        before_next: Positions = colons[index + 1] - (len(shape.literals[index + 1]) - shape.gap)
        return before_next

    def _without_blanks(self) -> Positions:
        ends = self.starts[1:].copy()
        rows = np.arange(len(self))
        for _ in range(_BLANKS_MAX):  # with more behind it an object ends in none of the ways that are looked for
            rows = rows[_BLANKS[self.data[ends[rows] - 1]] & (ends[rows] > self.starts[rows])]
            if not len(rows):
                break
            ends[rows] -= 1
        return ends

    def _with_control_characters(self) -> Mask:
        odd = np.zeros(len(self), dtype=np.bool_)
        if self._inner.min(initial=255) < _SPACE:
            places = np.flatnonzero(self._inner < _SPACE)
            rows = np.searchsorted(self.starts, places, side="right") - 1
            odd[rows[places < self.ends[rows]]] = True
        return odd

    def _shape_of(self, row: int, colons: Positions) -> Shape | None:
        """The shape of one object; None if it is written in a way that is not looked for."""
        begin = int(self.starts[row])
        value = self.data[begin : self.ends[row]].tobytes()
        at = [int(colon) - begin for colon in colons]
        spaced = value[at[0] + 1 : at[0] + 2] == b" "
        names: list[str] = []
        literals: list[bytes] = []
        for colon in at:
            opening = value.rfind(b'"', 0, colon - 1)
            before = opening - (2 if value[opening - 1 : opening] == b" " else 1)
            if opening < 1 or value[before : before + 1] != (b"," if names else b"{") or (not names and before):
                return None
            name = value[opening + 1 : colon - 1]
            if not name.isascii() or b"\\" in name or b":" in name:
                return None
            literal = value[before : colon + 1] + (b" " if spaced else b"")
            if len(literal) > _LITERAL_BYTES_MAX:
                return None
            names.append(name.decode())
            literals.append(literal)
        return Shape(tuple(names), tuple(literals), 2 if spaced else 1)

    def _has_literals(self, shape: Shape, rows: Positions, colons: Positions) -> Mask:
        """Which objects are written as the shape says, from the first byte to the last but for the values."""
        first = colons[0] + shape.gap - len(shape.literals[0])
        ends = self.ends[rows]
        same: Mask = (
            (first == self.starts[rows]) & (self.data[ends - 1] == _CLOSE) & (ends - 1 >= colons[-1] + shape.gap)
        )
        for literal, colon in zip(shape.literals, colons, strict=True):
            for back, words in _in_pairs(literal):
                found = self._pairs[colon + (shape.gap - back)]
                for half, (word, mask) in enumerate(words):
                    same &= (found[:, half] if mask is None else found[:, half] & mask) == word
        return same


@functools.lru_cache(maxsize=1_024)
def _in_pairs(literal: bytes) -> list[tuple[int, list[tuple[np.uint64, np.uint64 | None]]]]:
    """A literal as pairs of words to compare: how far from its end they begin, and the words.

    A word that the literal does not fill has a mask.
    """
    last = len(literal) - _PAIR_BYTES
    found = []
    for offset in [*range(0, last, _PAIR_BYTES), max(last, 0)]:
        middle = offset + _WORD_BYTES
        parts = (literal[offset:middle], literal[middle : offset + _PAIR_BYTES])
        words = [(word_of(part), None if len(part) == _WORD_BYTES else LOW_BYTES[len(part)]) for part in parts if part]
        found.append((len(literal) - offset, words))
    return found


def _alike(names: Words, edges: Positions, counts: Positions, wanted: Mask) -> Iterator[Positions]:
    """Rows that have as many keys, and most likely of the same names in the same order.

    Args:
        names: a number for each key's name.
        edges: where the keys of each row begin, and where those of the last one end.
        counts: how many keys each row has.
        wanted: which rows.
    """
    index = np.arange(len(names)) - np.repeat(edges[:-1], counts)
    placed = names * _WEIGHTS[np.minimum(index, _KEYS_MAX - 1)]
    total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(placed)])
    rows = np.flatnonzero(wanted)
    signature, counts = (total[edges[1:]] - total[edges[:-1]])[rows], counts[rows]
    order = np.lexsort((signature, counts))
    differs = (np.diff(signature[order]) != 0) | (np.diff(counts[order]) != 0)
    yield from np.split(rows[order], np.flatnonzero(differs) + 1)


def _behind_quote(word: Words) -> Words:
    """A mask for the bytes behind the last quote of each word; all of them if there is none."""
    other = word ^ _QUOTES
    found = (other - _ONES) & ~other & _HIGH_BITS  # the high bit of each quote
    for shift in (8, 16, 32):
        found |= found >> np.uint64(shift)
    behind: Words = ~((found >> np.uint64(7)) * np.uint64(0xFF))
    return behind


def _gathered(keys: Positions, edges: Positions, rows: Positions) -> Positions:
    """Positions of the keys of some rows that all have as many."""
    count = int(edges[rows[0] + 1] - edges[rows[0]])
    gathered: Positions = keys[edges[rows][:, None] + np.arange(count)]
    return gathered
