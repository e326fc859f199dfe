"""Sets of offsets, as runs of those that follow one another: a log's are few, however many records it holds.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Some offsets.

    Attributes:
        firsts: int64, the first of each run, rising.
        nexts: int64, the one after its last; runs neither overlap nor touch.
    """

    firsts: Ints
    nexts: Ints

    @classmethod
    def of(cls, offsets: Ints) -> Self:
        """The runs of some offsets, in any order."""
        known = np.unique(offsets)
        edges = np.flatnonzero(np.diff(known) > 1)
        if not len(known):
            return cls(known, known)
        return cls(known[np.concatenate([[0], edges + 1])], known[np.concatenate([edges, [-1]])] + 1)

    @classmethod
    def merged(cls, spans: Iterable[tuple[int, int]]) -> Self:
        """The runs of spans, half-open, in any order; they may overlap, and be empty."""
        found: list[list[int]] = []
        for first, following in sorted(spans):
            if first >= following:
                continue
            if found and first <= found[-1][1]:
                found[-1][1] = max(found[-1][1], following)
            else:
                found.append([first, following])
        ends = np.array(found, np.int64).reshape(-1, 2)
        return cls(ends[:, 0].copy(), ends[:, 1].copy())

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Its runs, half-open."""
        return list(zip(self.firsts.tolist(), self.nexts.tolist(), strict=True))

    @property
    def ends(self) -> tuple[int, int]:
        """The first offset, and the one after the last; 0 and 0 without any."""
        return (int(self.firsts[0]), int(self.nexts[-1])) if len(self.firsts) else (0, 0)

    def __len__(self) -> int:
        return int((self.nexts - self.firsts).sum())

    def holds(self, offsets: Ints) -> Bools:
        """Which offsets are among them."""
        if not len(self.firsts):
            return np.zeros(len(offsets), np.bool_)
        at = np.searchsorted(self.firsts, offsets, side="right") - 1
        inside: Bools = (at >= 0) & (offsets < self.nexts[at])
        return inside

    def covers(self, first: int, following: int) -> bool:
        """Whether all from one offset up to another are among them."""
        at = int(np.searchsorted(self.firsts, first, side="right")) - 1
        return first >= following or (at >= 0 and following <= int(self.nexts[at]))
