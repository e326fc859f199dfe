"""Which account has which row: ids looked up many at once, by their hashes, and compared byte by byte."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.features.flat import Bytes, flat
from pipeline.features.hash_table import HashTable
from pipeline.features.hashing import Hashes, grouped, hashes

if TYPE_CHECKING:
    import polars as pl
else:
    from pipeline.late import polars as pl

Ints = npt.NDArray[np.int64]

_WORD: Final = 8
_WORDS_MAX: Final = 8
"""An id of more than so many words of eight bytes is compared as a text, one by one."""

_MASKS: Final = np.array([(1 << 8 * size) - 1 for size in range(_WORD + 1)], np.uint64)
_NOBODY: Final = -1


class AccountIds:
    """Rows of accounts by their ids, and ids by rows.

    An account id is whatever somebody writes into a log: that many hashes have one beginning, or that two ids have one
    hash, must cost nobody but whoever looked for them.
    """

    def __init__(self) -> None:
        self.chars = 0
        """Length of all ids."""
        self._names: list[str | None] = []
        self._free: list[int] = []
        self._table = HashTable()
        self._row_of_place = np.zeros(self._table.places, np.int64)
        self._hashes = np.zeros(0, np.uint64)
        self._sizes = np.zeros(0, np.int64)
        self._words = [np.zeros(0, np.uint64) for _ in range(_WORDS_MAX)]
        """By row: the id's hash, its bytes' number, and the first of them."""
        self._twins: dict[str, int] = {}
        """Ids whose hash is another id's."""

    def __len__(self) -> int:
        return len(self._names) - len(self._free)

    @property
    def rows_used(self) -> int:
        """Rows below this number may be an account's."""
        return len(self._names)

    def name(self, row: int) -> str | None:
        """The account of a row; None for nobody's."""
        return self._names[row]

    def names(self, rows: Ints) -> list[Any]:
        """The accounts of rows."""
        return [self._names[row] for row in rows.tolist()]

    def taken(self) -> Ints:
        """All rows that are somebody's, ascending."""
        free = np.zeros(len(self._names), np.bool_)
        free[self._free] = True
        return np.flatnonzero(~free)

    def rows(self, ids: pa.LargeStringArray) -> tuple[Ints, Ints, Hashes]:
        """Rows of accounts, given where they are new.

        Args:
            ids: no two alike, none null.

        Returns:
            The row of each, which of them are new, and XXH3-64 of each.
        """
        texts = pl.Series(pl.from_arrow(ids))
        hashed, (data, ends) = hashes(texts), flat(texts)
        sizes = np.diff(ends)
        words = _words_of(data, ends[:-1], sizes)
        place, known = self._table.find(self._key(hashed))
        rows = np.where(known, self._row_of_place[place], _NOBODY)
        self._compare(rows, ids, sizes, words)
        new = np.flatnonzero(rows < 0)
        if self._twins and len(new):
            rows[new] = [self._twins.get(ids[at].as_py(), _NOBODY) for at in new.tolist()]
            new = new[rows[new] < 0]
        if len(new):
            rows[new] = self._settled(ids.take(pa.array(new)).to_pylist())
            self._note(rows[new], hashed[new], sizes[new], [word[new] for word in words])
        return rows, new, hashed

    def _compare(self, rows: Ints, ids: pa.LargeStringArray, sizes: Ints, words: list[Hashes]) -> None:
        """Set to `_NOBODY` the rows that are another id's."""
        if not len(self._sizes):
            return
        same = sizes == self._sizes.take(rows, mode="clip")
        for number, word in enumerate(words):
            same &= word == self._words[number].take(rows, mode="clip")
        rows[~same] = _NOBODY
        for at in np.flatnonzero((sizes > _WORD * _WORDS_MAX) & (rows >= 0)).tolist():
            if self._names[rows[at]] != ids[at].as_py():
                rows[at] = _NOBODY

    def _settled(self, names: list[str]) -> Ints:
        reused = [self._free.pop() for _ in range(min(len(names), len(self._free)))]
        start = len(self._names)
        rows = [*reused, *range(start, start + len(names) - len(reused))]
        self._names.extend([None] * (len(names) - len(reused)))
        for row, name in zip(rows, names, strict=True):
            self._names[row] = name
        self.chars += sum(map(len, names))
        return np.array(rows, np.int64)

    def _note(self, rows: Ints, hashed: Hashes, sizes: Ints, words: list[Hashes]) -> None:
        """Make new rows findable."""
        size = len(self._names)
        if size > len(self._sizes):
            room = max(size, len(self._sizes) * 5 // 4)
            for column in (self._hashes, self._sizes, *self._words):
                column.resize(room, refcheck=False)
        self._hashes[rows], self._sizes[rows] = hashed, sizes
        for number, column in enumerate(self._words):
            column[rows] = words[number] if number < len(words) else 0
        first, _ = grouped(self._key(hashed))
        first = first[~self._table.find(self._key(hashed[first]))[1]]
        self._put(rows[first])
        for at in np.setdiff1d(np.arange(len(rows)), first).tolist():
            row = int(rows[at])
            self._twins[str(self._names[row])] = row

    def _put(self, rows: Ints) -> None:
        if moves := self._table.make_room(len(rows)):
            self._row_of_place = moves.of(self._row_of_place)
        self._row_of_place[self._table.put(self._key(self._hashes[rows]))[0]] = rows

    @staticmethod
    def _key(hashed: Hashes) -> Hashes:
        return np.maximum(hashed, np.uint64(1))  # 0 is an empty place

    def drop(self, rows: Ints) -> None:
        """Forget accounts; their rows are given to others."""
        if not len(rows):
            return
        for row in rows.tolist():
            name = self._names[row]
            self.chars -= len(name or "")
            self._twins.pop(name or "", None)
            self._names[row] = None
        self._free.extend(rows.tolist())
        left = np.setdiff1d(self.taken(), list(self._twins.values()))
        self._table = HashTable(len(left))
        self._row_of_place = np.zeros(self._table.places, np.int64)
        self._put(left)


def _words_of(data: Bytes, starts: Ints, sizes: Ints) -> list[Hashes]:
    """The first bytes of texts as words, as many as the longest text has, or `_WORDS_MAX`; zeros after their ends."""
    count = min(-(-int(sizes.max(initial=0)) // _WORD), _WORDS_MAX)
    padded = np.append(data, np.zeros(_WORD, np.uint8))
    every = np.ndarray((len(data) + 1,), "<u8", padded, strides=(1,))  # the word that begins at each byte
    words = []
    for number in range(count):
        left = np.clip(sizes - number * _WORD, 0, _WORD)
        words.append(every[np.minimum(starts + number * _WORD, len(data))] & _MASKS[left])
    return words
