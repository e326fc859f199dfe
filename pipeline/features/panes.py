"""Records of panes: where families put what a slice's events contribute."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.features.clock import Cut
from pipeline.features.fields import Layout, Matrix, Merge
from pipeline.features.integers import Hashes, Ints, register_of

_WORD: Final = np.uint64(63)
_ONE: Final = np.uint64(1)
_LANES: Final = 8
"""Counts of 8 bits side by side in a word of 64: one pass adds so many flags up.  `emission` ends a pane before 256."""


class Panes:
    """One record a pane, all fields zero until a family contributes.

    Every method takes values of a slice's events in the order of `Events`.  Absent inputs must contribute nothing.

    Args:
        layout: of all families' fields.
        cut: the slice's panes.
    """

    def __init__(self, layout: Layout, cut: Cut) -> None:
        self._layout = layout
        self._cut = cut
        count = len(cut.heads)
        self._starts, self._stops = cut.begin, cut.last + 1
        self._tallies: list[tuple[str, npt.NDArray[np.bool_]]] = []
        """Flags that are not counted yet."""
        self._cells: dict[int, Ints] = {}
        """Where each event's record begins among all numbers of a group, by group."""
        self.records: Final[list[Matrix]] = [
            np.zeros((count, group.width), group.dtype, order="F" if group.is_of_single else "C")
            for group in layout.groups
        ]
        """One array a group of the layout, [panes, columns of the group], in the order of `Cut`; in memory column by
        column where columns are written, pane by pane where events of many panes fall in cells here and there."""

    def _column(self, name: str, merge: Merge) -> tuple[Matrix, int]:
        number, column = self._layout.place[name]
        if self._layout.groups[number].merge is not merge:
            raise TypeError(f"the field {name} is not merged by {merge.value}")
        return self.records[number], column

    def _cell(self, name: str, events: Ints | None = None) -> Ints:
        """The place of a field's first number in each event's record, among all numbers of its group."""
        number, column = self._layout.place[name]
        if number not in self._cells:
            self._cells[number] = self._cut.of_event * self._layout.groups[number].width
        cells = self._cells[number]
        return (cells if events is None else cells.take(events)) + column

    def add(self, name: str, values: npt.NDArray[Any]) -> None:
        """Sum integers into a `total`."""
        record, column = self._column(name, Merge.ADD)
        until = np.zeros(len(values) + 1, np.int64)
        np.cumsum(values, out=until[1:])  # it may wrap around, but differences of what does are right
        record[:, column] = until.take(self._stops) - until.take(self._starts)

    def tally(self, name: str, flags: npt.NDArray[np.bool_]) -> None:
        """Count events in a `counter`; the flags must stay as they are until `close`."""
        self._column(name, Merge.SATURATE)
        self._tallies.append((name, flags))
        if len(self._tallies) == _LANES:
            self.close()

    def close(self) -> None:
        """Count what waits to be counted: to be called after the last contribution."""
        if not self._tallies:
            return
        lanes = np.zeros((len(self._cut.of_event) + 1, _LANES), np.uint8)
        for lane, (_, flags) in enumerate(self._tallies):
            lanes[1:, lane] = flags
        until = lanes.view(np.uint64)[:, 0]
        np.cumsum(until, out=until)  # lanes may run over into each other, but differences of what does are right
        counts = (until.take(self._stops) - until.take(self._starts)).view(np.uint8).reshape(-1, _LANES)
        for lane, (name, _) in enumerate(self._tallies):
            record, column = self._column(name, Merge.SATURATE)
            record[:, column] = counts[:, lane]
        self._tallies = []

    def largest(self, name: str, values: npt.NDArray[Any]) -> None:
        """Keep the largest of unsigned integers; 0 is "none"."""
        record, column = self._column(name, Merge.MAX)
        record[:, column] = np.maximum.reduceat(values, self._cut.heads)[self._cut.by_rank]

    def bits(self, name: str, words: Hashes, column: int = 0) -> None:
        """Or words into one word of a `bitmap`."""
        record, start = self._column(name, Merge.OR)
        record[:, start + column] = np.bitwise_or.reduceat(words, self._cut.heads)[self._cut.by_rank]

    def members(self, name: str, numbers: Hashes, present: npt.NDArray[np.bool_]) -> None:
        """Set the bit of each number, modulo the bits of the `bitmap`, where it is present."""
        words = self._layout.fields[name].width
        bit = np.where(present, _ONE << (numbers & _WORD), np.uint64(0))
        if words == 1:
            self.bits(name, bit)
            return
        word = (numbers >> np.uint64(6)) % np.uint64(words)
        for column in range(words):
            self.bits(name, np.where(word == column, bit, np.uint64(0)), column)

    def values(self, name: str, hashes: Hashes) -> None:
        """Note distinct values in a `bitmap` by their hashes; 0 is absent."""
        self.members(name, hashes, hashes != 0)

    def ranks(self, name: str, hashes: Hashes) -> None:
        """Note distinct values in `registers` by their hashes; 0 is absent."""
        record, _ = self._column(name, Merge.MAX)
        register, rank = register_of(hashes, self._layout.fields[name].width)
        np.maximum.at(record.reshape(-1), self._cell(name) + register, rank)

    def count(self, name: str, cells: Ints, counted: npt.NDArray[np.bool_], events: Ints | None = None) -> None:
        """Count events in the cells of a `mix`.

        Args:
            name: field.
            cells: int64[n], from 0 to its width.
            counted: which of them count.
            events: the events that they are of, if not all: indices into the slice's arrays; may repeat.
        """
        record, _ = self._column(name, Merge.SATURATE)
        np.add.at(record.reshape(-1), self._cell(name, events) + cells, counted.astype(record.dtype))

    def rows(self, name: str, events: Ints, values: npt.NDArray[Any]) -> None:
        """Sum rows of integers into a field of some width.

        Args:
            name: field.
            events: the events that they are of: ascending indices into the slice's arrays.
            values: [events, width of the field].
        """
        record, column = self._column(name, Merge.ADD)
        order = np.argsort(self._cut.of_event[events], kind="stable")
        pane = self._cut.of_event[events][order]
        heads = np.flatnonzero(np.diff(pane, prepend=-1))
        size = np.diff(heads, append=len(pane))
        sums = values[order[heads]].astype(record.dtype)
        many = size > 1  # most panes have one row, which is its own sum
        if many.any():
            starts = np.cumsum(size[many]) - size[many]
            sums[many] = np.add.reduceat(values[order[np.repeat(many, size)]], starts, axis=0)
        record[pane[heads], column : column + values.shape[1]] += sums

    def mix(self, name: str, hashes: Hashes, counted: npt.NDArray[np.bool_]) -> None:
        """Count events in a `mix` by the first bits of their hashes; a hash of 0 is absent."""
        bits = self._layout.fields[name].width.bit_length() - 1
        cells = (hashes >> np.uint64(64 - bits)).astype(np.int64)
        self.count(name, cells, counted & (hashes != 0))
