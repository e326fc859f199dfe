"""How a family declares what it keeps of an account, and how all families' fields lie in memory.

State consists of integers under associative operations only, so that it does not matter how a stream was cut:
`(a + b) + c` is `a + (b + c)` to the last bit, which no sum of floats is.  Saturating addition of unsigned integers is
associative too; wrapping would be, but gives a wrong number instead of a bounded one.

Fields of one type and operation lie side by side (a *group*), so that folding a pane costs a few NumPy calls for all
families together; within a group, fields are ordered by where they live, so that every view is one stretch of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[Any]

_ALIGNED: Final = 8


class Merge(Enum):
    """How two values of a field become one."""

    ADD = "add"  # signed sums, for which 2^63 is out of reach
    SATURATE = "saturate"  # unsigned counts: min(largest of the type, a + b)
    MAX = "max"
    OR = "or"


class View(Enum):
    """Spans of an account's own time that are looked at; each is two generations, the present and the former."""

    HOUR = "1h"  # two half hours
    DAY = "24h"  # two times 12 hours
    WEEK = "7d"  # two times 84 hours

    __hash__ = object.__hash__  # members are looked up for every field of every pane


HOUR_UP: Final = frozenset(View)
DAY_UP: Final = frozenset({View.DAY, View.WEEK})
WEEK: Final = frozenset({View.WEEK})
DAY: Final = frozenset({View.DAY})
HOUR_DAY: Final = frozenset({View.HOUR, View.DAY})

_ORDER: Final = (WEEK, DAY_UP, HOUR_UP, HOUR_DAY, DAY)
"""In this order, the fields of every view are neighbours."""


@dataclass(frozen=True, slots=True)
class Field:
    """Some integers that are kept for every account.

    Attributes:
        name: unique among all families.
        dtype: NumPy type of one integer: `u1`, `u2`, `u4`, `u8` or `i8`.
        merge: how two values become one.
        width: how many integers.
        views: where it lives: `WEEK` unless there is a reason, for each view costs two generations of it.
    """

    name: str
    dtype: str
    merge: Merge
    width: int = 1
    views: frozenset[View] = WEEK


def counter(name: str, views: frozenset[View] = WEEK) -> Field:
    """A count of events, up to four thousand million."""
    return Field(name, "u4", Merge.SATURATE, 1, views)


def total(name: str, views: frozenset[View] = WEEK) -> Field:
    """A sum of integers per event."""
    return Field(name, "i8", Merge.ADD, 1, views)


def mix(name: str, cells: int, views: frozenset[View] = WEEK) -> Field:
    """Counts of events by a hash's first bits; a cell stops at 65,535."""
    return Field(name, "u2", Merge.SATURATE, cells, views)


def registers(name: str, count: int, views: frozenset[View] = WEEK) -> Field:
    """HyperLogLog registers, for the number of distinct values."""
    return Field(name, "u1", Merge.MAX, count, views)


def bitmap(name: str, words: int = 1, views: frozenset[View] = WEEK) -> Field:
    """64 bits a word; for the number of distinct values by linear counting, or for a set of small numbers."""
    return Field(name, "u8", Merge.OR, words, views)


def merge_into(into: Matrix, other: Matrix, merge: Merge) -> None:
    """`into := into + other`, by the operation of the field.

    Args:
        into: [n, width], changed in place.
        other: [n, width] of the same type.
        merge: the operation.
    """
    if merge is Merge.ADD:
        np.add(into, other, out=into)
    elif merge is Merge.MAX:
        np.maximum(into, other, out=into)
    elif merge is Merge.OR:
        np.bitwise_or(into, other, out=into)
    else:
        np.add(into, other, out=into)
        over = into < other  # then the sum wrapped around
        if over.any():
            into[over] = np.iinfo(into.dtype).max


@dataclass(frozen=True, slots=True)
class Stretch:
    """A group's part of a view: columns `start` to `stop` of the group, at byte `at` of the view's line."""

    start: int
    stop: int
    at: int
    end: int


@dataclass(frozen=True, slots=True)
class Group:
    """Fields of one type and operation.

    Attributes:
        dtype: of all of them.
        merge: the operation.
        width: integers of all of them.
        stretches: which of them each view has.
        is_of_single: whether every field is one integer: then families write whole columns of it.
    """

    dtype: np.dtype[Any]
    merge: Merge
    width: int
    stretches: dict[View, Stretch]
    is_of_single: bool


class Layout:
    """Where every field lies: in the records of panes and in the lines of the views.

    Args:
        fields: all families' fields.

    Raises:
        ValueError: two fields of one name, or views that the layout has no order for.
    """

    def __init__(self, fields: Sequence[Field]) -> None:
        names = [field.name for field in fields]
        if len(set(names)) < len(names):
            raise ValueError(f"two fields have the same name: {sorted(n for n in set(names) if names.count(n) > 1)}")
        self.fields: Final = {field.name: field for field in fields}
        self.place: Final[dict[str, tuple[int, int]]] = {}
        """Field → (number of its group, first column in it)."""
        self.line_bytes: Final = dict.fromkeys(View, 0)
        """Bytes of one generation of one account, by view."""
        kinds = sorted({(-np.dtype(f.dtype).itemsize, f.dtype, f.merge.value) for f in fields})
        self.groups: Final = [self._group(number, kind[1], Merge(kind[2])) for number, kind in enumerate(kinds)]
        self._within: Final = {
            view: [
                (number, group.dtype, group.merge, group.stretches[view])
                for number, group in enumerate(self.groups)
                if view in group.stretches
            ]
            for view in View
        }
        for view, size in self.line_bytes.items():
            self.line_bytes[view] = -(-size // _ALIGNED) * _ALIGNED

    def _group(self, number: int, dtype: str, merge: Merge) -> Group:
        mine = [field for field in self.fields.values() if field.dtype == dtype and field.merge is merge]
        mine.sort(key=lambda field: _ORDER.index(field.views))
        size, width = np.dtype(dtype).itemsize, 0
        bounds: dict[View, tuple[int, int]] = {}
        for field in mine:
            self.place[field.name] = (number, width)
            for view in field.views:
                bounds[view] = (bounds.get(view, (width, 0))[0], width + field.width)
            width += field.width
        stretches = {}
        for view, (start, stop) in bounds.items():
            at = self.line_bytes[view]
            self.line_bytes[view] = end = at + (stop - start) * size
            stretches[view] = Stretch(start, stop, at, end)
        return Group(np.dtype(dtype), merge, width, stretches, all(field.width == 1 for field in mine))

    def part(self, lines: npt.NDArray[np.uint8], view: View, name: str) -> Matrix:
        """The columns of a field in lines of a view, without a copy.

        Raises:
            KeyError: the field does not live in that view.
        """
        number, column = self.place[name]
        group, field = self.groups[number], self.fields[name]
        if view not in field.views:
            raise KeyError(f"{name} is not kept in the view of {view.value}")
        stretch = group.stretches[view]
        at = stretch.at + (column - stretch.start) * group.dtype.itemsize
        return lines[:, at : at + field.width * group.dtype.itemsize].view(group.dtype)

    def merge_lines(
        self, into: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8], view: View
    ) -> npt.NDArray[np.uint8]:
        """Merge lines of a view into others of the same number, and return them."""
        for _, dtype, merge, stretch in self._within[view]:
            merge_into(
                into[:, stretch.at : stretch.end].view(dtype), other[:, stretch.at : stretch.end].view(dtype), merge
            )
        return into

    def merge_panes(self, into: npt.NDArray[np.uint8], panes: Sequence[Matrix], rows: slice, view: View) -> None:
        """Merge records of panes, one array a group, into as many lines of a view."""
        for number, dtype, merge, stretch in self._within[view]:
            merge_into(
                into[:, stretch.at : stretch.end].view(dtype), panes[number][rows, stretch.start : stretch.stop], merge
            )
