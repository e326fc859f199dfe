"""Panes into generations, and generations into views.

A view is two generations: the present one and the one before, in lines `2 row + (number & 1)` of the view's matrix.
So "24 h" is the last 12 to 24 hours of the account's own time.  What was when within a generation is not kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.accounts import Facts
from pipeline.features.clock import HALF, NEVER
from pipeline.features.fields import Layout, Matrix, View

Ints = npt.NDArray[np.int64]
Lines = npt.NDArray[np.uint8]
Columns = dict[str, npt.NDArray[Any]]

_LINES_AT_ONCE: Final = 512

GENERATION: Final = {View.HOUR: 1, View.DAY: 24, View.WEEK: 168}
"""Length of a generation, in half hours."""


def fold(layout: Layout, columns: Columns, row: Ints, half: Ints, panes: tuple[Sequence[Matrix], slice]) -> None:
    """Merge one pane each into rows, turning their generations first.

    Args:
        layout: of the fields.
        columns: the state's; the clock column still says when the rows' last events were.
        row: int64[n], no two alike.
        half: int64[n], half hour of each pane.
        panes: records, and which of them.
    """
    clock = columns["clock"][row]
    was = np.where(clock > -NEVER, (clock + columns["phase"][row]) // HALF, half)  # a new row is empty: nothing to turn
    turned = np.flatnonzero(half != was)
    for view in View:
        lines = columns[view.name]
        length = GENERATION[view]
        if len(turned):
            _turn(lines, row[turned], half[turned] // length, was[turned] // length)
        _merge(layout, lines, 2 * row + (half // length & 1), panes, view)


def _merge(layout: Layout, lines: Lines, at: Ints, panes: tuple[Sequence[Matrix], slice], view: View) -> None:
    """Merge panes into lines, so few at once that they stay in the cache from the first operation to the last."""
    whole, (records, rows) = _items(lines), panes
    for start in range(0, len(at), _LINES_AT_ONCE):
        some = at[start : start + _LINES_AT_ONCE]
        first = rows.start + start
        present = whole.take(some, mode="clip")
        into = present.view(np.uint8).reshape(len(some), -1)
        layout.merge_panes(into, records, slice(first, first + len(some)), view)
        whole[some] = present


def _items(lines: Lines) -> npt.NDArray[np.void]:
    """Each line as one item, which NumPy copies at once."""
    return lines.view(f"V{lines.shape[1]}")[:, 0]


def _taken(lines: Lines, at: Ints) -> Lines:
    return _items(lines).take(at, mode="clip").view(np.uint8).reshape(len(at), -1)


def _turn(lines: Lines, row: Ints, now: Ints, was: Ints) -> None:
    """Empty the generation that becomes the present one, and the other too if that is older than the one before."""
    other = now != was
    row, now, was = row[other], now[other], was[other]
    lines[2 * row + (now & 1)] = 0
    far = now - was > 1
    lines[2 * row[far] + (~now[far] & 1)] = 0


@dataclass(frozen=True, slots=True)
class Views:
    """What n accounts look like, each as of its own clock.

    Attributes:
        layout: of the fields.
        lines: uint8[n, bytes] of each view, its two generations merged.
        row: int64[n], rows of the state.
        key: uint64[n], hash of the account.
        clock: int64[n], the account's clock, milliseconds since the epoch.
        phase: int64[n], milliseconds.
        seq: int64[n], events of the account's present life.
        tokens: int64[n], output tokens of its present life.
        born: int64[n], when its present life began, milliseconds since the epoch.
        facts: what the accounts feed says of them; None without a feed.
    """

    layout: Layout
    lines: dict[View, Lines]
    row: Ints
    key: npt.NDArray[np.uint64]
    clock: Ints
    phase: Ints
    seq: Ints
    tokens: Ints
    born: Ints
    facts: Facts | None = None

    def __len__(self) -> int:
        return len(self.row)

    def cells(self, view: View, name: str) -> Matrix:
        """A field in a view, [n, width]."""
        return self.layout.part(self.lines[view], view, name)

    def hour(self, name: str) -> npt.NDArray[Any]:
        """A field of one integer in the 1 h view, [n]."""
        return self.cells(View.HOUR, name)[:, 0]

    def day(self, name: str) -> npt.NDArray[Any]:
        """A field of one integer in the 24 h view, [n]."""
        return self.cells(View.DAY, name)[:, 0]

    def week(self, name: str) -> npt.NDArray[Any]:
        """A field of one integer in the 7 d view, [n]."""
        return self.cells(View.WEEK, name)[:, 0]

    def with_facts(self, facts: Facts | None) -> Views:
        """The same accounts, with what the feed says of them."""
        return replace(self, facts=facts)

    @classmethod
    def concat(cls, parts: Sequence[Views]) -> Views:
        """One of several, in their order; at least one must be given."""
        names = [field.name for field in fields(cls) if field.name not in ("layout", "lines", "facts")]
        lines = {view: np.concatenate([part.lines[view] for part in parts]) for view in View}
        columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        return cls(parts[0].layout, lines, **columns)

    def merged(self) -> Views:
        """The same of what `views` gave, whose memory is used up."""
        size = self.layout.line_bytes
        lines = {
            view: self.layout.merge_lines(both[:, : size[view]], both[:, size[view] :], view)
            for view, both in self.lines.items()
        }
        return replace(self, lines=lines)


def views(layout: Layout, columns: Columns, row: Ints) -> Views:
    """The views of rows, as of each account's own clock, with both generations in a line: they are not `merged` yet.

    Args:
        layout: of the fields.
        columns: the state's.
        row: int64[n].
    """
    lines = {view: _taken(columns[view.name].reshape(-1, 2 * layout.line_bytes[view]), row) for view in View}
    own: dict[str, Any] = {name: columns[name][row] for name in ("key", "clock", "phase", "seq", "tokens", "born")}
    return Views(layout, lines, row, **own)
