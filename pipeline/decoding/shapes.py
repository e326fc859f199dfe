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

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.text_views import LOW_BYTES, Mask, Pairs, Positions, Words, words_of

_QUOTE, _COLON, _BACKSLASH, _SPACE, _CLOSE = b'":\\ }'
_WORD_BYTES: Final = 8
_PAIR_BYTES: Final = 16
_KEYS_MAX: Final = 256
"""Objects with more keys than the schema could ever have are not looked at."""
_BLANKS: Final = np.zeros(256, dtype=np.bool_)
_BLANKS[list(b" \t\r\n")] = True


@dataclass(frozen=True, slots=True)
class Shape:
    """The keys of an object, in order, and how it is written between its values.

    Attributes:
        names: of the keys.
        literals: what stands before each value: from the comma (or brace) before its key to the colon, and the space
            behind that if there is one.
        spaced: there is a space behind each colon.
    """

    names: tuple[str, ...]
    literals: tuple[bytes, ...]
    spaced: bool

    @property
    def gap(self) -> int:
        """How far behind its colon a value begins."""
        return 2 if self.spaced else 1


class Objects:
    """The bytes of some JSON objects, looked at together.

    Attributes:
        data: all of them behind each other, and padding.
        words: the little-endian word at each position of `data`.
        starts: where each begins; one more for where the last one ends.
        ends: where each ends, blanks behind it left out.
        backslashes: position of each backslash.
        odd: those that cannot be proven, because of a control character in them.
    """

    def __init__(self, buffer: pa.Buffer, starts: Positions) -> None:
        """Scan the bytes.

        Args:
            buffer: UTF-8, with `PADDING` zeros or more behind the last object.
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

    def by_shape(self, rows_min: int) -> Iterator[tuple[Shape, Positions, Positions]]:
        """Group the objects by their shape.

        Args:
            rows_min: fewer objects of one shape are not worth it.

        Yields:
            A shape, the rows that have it, ascending, and the position of the colon of each key by key and row.
        """
        colons = np.flatnonzero(self._inner == _COLON)
        keys = colons[(self.data[colons - 1] == _QUOTE) & (self.data[colons - 2] != _BACKSLASH)]
        edges = np.searchsorted(keys, self.starts)
        counts = np.diff(edges)
        left = (counts > 0) & (counts <= _KEYS_MAX) & ~self.odd
        if left.any() and (counts == counts[0]).all():  # most logs have one shape: look whether that of the first is it
            for shape, rows, places in self._of_shape(np.arange(len(self)), keys, edges):
                yield shape, rows, places
                left[rows] = False
        if np.count_nonzero(left) >= rows_min:
            for alike in _alike(self.words, keys, edges, counts, left):
                if len(alike) >= rows_min:
                    yield from self._of_shape(alike, keys, edges)

    def _of_shape(
        self, rows: Positions, keys: Positions, edges: Positions
    ) -> Iterator[tuple[Shape, Positions, Positions]]:
        """Those of some rows, all with as many keys, that have the shape of the first of them."""
        first = int(rows[0])
        shape = self._shape_of(first, keys[edges[first] : edges[first + 1]])
        if shape is None:
            return
        places = keys.reshape(len(rows), -1) if len(rows) == len(self) else _gathered(keys, edges, rows)
        places = np.ascontiguousarray(places.T)
        same = self._has_literals(shape, rows, places)
        if not same.all():
            rows, places = rows[same], np.ascontiguousarray(places[:, same])
        if len(rows):
            yield shape, rows, places

    def values(self, shape: Shape, rows: Positions, colons: Positions) -> Iterator[tuple[str, Positions, Positions]]:
        """Where the values are.

        Args:
            shape: of these objects.
            rows: which objects.
            colons: by key and row, as `by_shape` gives them.

        Yields:
            The key, and where each object's value begins and ends.
        """
        for index, name in enumerate(shape.names):
            start = colons[index] + shape.gap
            if index + 1 == len(shape.names):
                yield name, start, self.ends[rows] - 1
            else:
                yield name, start, colons[index + 1] - (len(shape.literals[index + 1]) - shape.gap)

    def backslashes_in(self, rows: Positions) -> int:
        """How many backslashes these objects have together."""
        if len(rows) == len(self) or not len(self.backslashes):
            return len(self.backslashes)
        return int(np.diff(np.searchsorted(self.backslashes, self.starts))[rows].sum())

    def quotes(self, rows: Positions) -> npt.NDArray[np.int64]:
        """How many quotes each object has."""
        places = np.flatnonzero(self._inner == _QUOTE)
        return np.diff(np.searchsorted(places, self.starts))[rows]

    def quotes_in_all(self) -> int:
        """How many quotes all objects have together; much quicker than to count them one by one."""
        return int(np.count_nonzero(self._inner == _QUOTE))

    def _without_blanks(self) -> Positions:
        ends = self.starts[1:].copy()
        while True:
            blank = _BLANKS[self.data[ends - 1]] & (ends > self.starts[:-1])
            if not blank.any():
                return ends
            ends -= blank

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
            names.append(name.decode())
            literals.append(value[before : colon + 1] + (b" " if spaced else b""))
        return Shape(tuple(names), tuple(literals), spaced)

    def _has_literals(self, shape: Shape, rows: Positions, colons: Positions) -> Mask:
        """Which objects are written as the shape says, from the first byte to the last but for the values."""
        first = colons[0] + shape.gap - len(shape.literals[0])
        ends = self.ends[rows]
        same: Mask = (
            (first == self.starts[rows]) & (self.data[ends - 1] == _CLOSE) & (ends - 1 >= colons[-1] + shape.gap)
        )
        for literal, colon in zip(shape.literals, colons, strict=True):
            begin = colon + (shape.gap - len(literal))
            for offset, words in _pairs_in(literal):
                found = self._pairs[begin + offset if offset else begin]
                for column, (word, mask) in enumerate(words):
                    same &= (found[:, column] if mask is None else found[:, column] & mask) == word
        return same


def _pairs_in(literal: bytes) -> Iterator[tuple[int, list[tuple[np.uint64, np.uint64 | None]]]]:
    """A literal as pairs of words to compare: offset, and the words, with a mask where one is filled in part."""
    last = len(literal) - _PAIR_BYTES
    for offset in [*range(0, last, _PAIR_BYTES), max(last, 0)]:
        middle = offset + _WORD_BYTES
        parts = (literal[offset:middle], literal[middle : offset + _PAIR_BYTES])
        yield (
            offset,
            [(_word(part), None if len(part) == _WORD_BYTES else LOW_BYTES[len(part)]) for part in parts if part],
        )


def _alike(words: Words, keys: Positions, edges: Positions, counts: Positions, wanted: Mask) -> Iterator[Positions]:
    """Rows whose keys, as many in the same order, end in the same letters."""
    endings = words[np.maximum(keys - 4, 0)] & LOW_BYTES[3]
    weights = np.random.default_rng(0).integers(1, 2**63, _KEYS_MAX, dtype=np.uint64) | np.uint64(1)
    index = np.arange(len(keys)) - np.repeat(edges[:-1], counts)
    total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(endings * weights[np.minimum(index, _KEYS_MAX - 1)])])
    signature = (total[edges[1:]] - total[edges[:-1]]) * np.uint64(_KEYS_MAX + 1) + counts.astype(np.uint64)
    rows = np.flatnonzero(wanted)
    _, group = np.unique(signature[rows], return_inverse=True)
    order = np.argsort(group, kind="stable")
    yield from np.split(rows[order], np.flatnonzero(np.diff(group[order])) + 1)


def _word(text: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(text, "little"))


def _gathered(keys: Positions, edges: Positions, rows: Positions) -> Positions:
    """Positions of the keys of some rows that all have as many."""
    count = int(edges[rows[0] + 1] - edges[rows[0]])
    gathered: Positions = keys[edges[rows][:, None] + np.arange(count)]
    return gathered
