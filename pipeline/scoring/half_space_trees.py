"""The part that needs no labels: River's half-space trees on ranks among the running population.

River makes the trees; rows are counted and scored on arrays of their nodes, as River would, many at once.

Tan, Ting, Liu: Fast anomaly detection for streaming data, IJCAI 2011.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from river import anomaly

from pipeline.scoring.scaling import Floats

N_TREES: Final = 15
HEIGHT: Final = 7
WINDOW: Final = 256
"""Rows after which the masses that are scored with are replaced by those just learned."""
SEED: Final = 7

_NODES: Final = (1 << HEIGHT + 1) - 1

Masses = npt.NDArray[np.int32]
Nodes = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class TreeMasses:
    """What half-space trees have learned; their shape follows from the seed and the number of features.

    Attributes:
        scored_with: int32[T, M]: River's `r_mass`, nodes level by level.
        learning: int32[T, M]: River's `l_mass`.
        learned: rows in the unfinished window.
        is_cold: whether the first window is not full yet.
    """

    scored_with: Masses
    learning: Masses
    learned: int
    is_cold: bool


class HalfSpaceTrees:
    """`river.anomaly.HalfSpaceTrees` over F features that are ranks in [0, 1], scored many rows at once."""

    def __init__(self, features: int, masses: TreeMasses | None = None) -> None:
        self._river, self._branches = _trees(features)
        nothing = np.zeros((N_TREES, _NODES), dtype=np.int32)
        start = masses or TreeMasses(nothing, nothing, learned=0, is_cold=True)
        self._scored_with, self._learning = start.scored_with, start.learning
        self._learned, self._is_cold = start.learned, start.is_cold

    @property
    def is_cold(self) -> bool:
        """Whether no window is full yet, so that there is nothing to score with."""
        return self._is_cold

    def learn(self, ranks: Floats) -> int:
        """Learn rows float64[n, F] in order, as River's `learn_one` does; says how many windows became full."""
        windows, start = 0, 0
        while start < len(ranks):
            stop = min(len(ranks), start + WINDOW - self._learned)
            self._learning = self._learning + self._visits(ranks[start:stop])
            self._learned += stop - start
            if self._learned == WINDOW:
                self._scored_with, self._learning = self._learning, np.zeros_like(self._learning)
                self._is_cold, self._learned = False, 0
                windows += 1
            start = stop
        return windows

    def _visits(self, ranks: Floats) -> Masses:
        """How many of the rows come by each node, int32[T, M]."""
        visits = np.zeros(self._learning.size, dtype=np.int64)
        for node in self._walk(ranks):
            visits += np.bincount(node, minlength=len(visits))
        return visits.reshape(self._learning.shape).astype(np.int32)

    def _walk(self, ranks: Floats) -> Iterator[Nodes]:
        """The node of each row in each tree, int64[T * n] as places in the flattened masses, level by level."""
        flat, row = np.ascontiguousarray(ranks).ravel(), np.arange(len(ranks)) * ranks.shape[1]
        node = np.repeat(np.arange(N_TREES) * _NODES, len(ranks))
        row, back = np.tile(row, N_TREES), 1 - node
        yield node
        for _ in range(HEIGHT):
            branch = self._branches.take(node, mode="clip")
            asked = row + branch.view(np.int64)[0::2]
            right = flat.take(asked, mode="clip") >= branch.view(np.float64)[1::2]
            node = 2 * node + back + right  # within a tree, node i has its children at 2i + 1 and 2i + 2
            yield node

    def score(self, ranks: Floats) -> Floats:
        """River's `score_one` of each row, float64[n] in [0, 1], high where rows are rare; NaN while cold."""
        if self.is_cold:
            return np.full(len(ranks), np.nan)
        masses = self._scored_with.ravel()
        total = np.zeros(N_TREES * len(ranks))
        goes_on = np.ones(len(total), dtype=np.bool_)
        for level, node in enumerate(self._walk(ranks)):
            mass = masses.take(node, mode="clip")
            total += np.where(goes_on, mass * float(1 << level), 0.0)
            goes_on &= mass >= self._river.size_limit
        # Masses are whole numbers, so that their sums are exact in any order.
        score: Floats = 1.0 - total.reshape(N_TREES, -1).sum(axis=0) / self._river._max_score  # noqa: SLF001
        return score

    @property
    def masses(self) -> TreeMasses:
        """What was learned so far."""
        return TreeMasses(self._scored_with, self._learning, self._learned, self._is_cold)


@cache
def _trees(features: int) -> tuple[Any, npt.NDArray[np.complex128]]:
    """River's trees, which are the same for every partition and never change, and what each of their branches asks for.

    A branch is sixteen bytes, one look into memory: the feature as int64 and the threshold as float64.
    """
    river: Any = anomaly.HalfSpaceTrees(n_trees=N_TREES, height=HEIGHT, window_size=WINDOW, seed=SEED)
    river.learn_one(dict.fromkeys(range(features), 0.5))  # River makes the trees with its first row
    packed = np.zeros((N_TREES, _NODES), [("feature", "i8"), ("threshold", "f8")])
    for number, tree in enumerate(river.trees):
        branches = _level_by_level(tree)[: (1 << HEIGHT) - 1]
        packed["feature"][number, : len(branches)] = [node.feature for node in branches]
        packed["threshold"][number, : len(branches)] = [node.threshold for node in branches]
    return river, packed.ravel().view(np.complex128)


def _level_by_level(root: Any) -> list[Any]:
    """All nodes of a full binary tree, so that node i has its children at 2i + 1 and 2i + 2."""
    nodes = [root]
    for branch in range((1 << HEIGHT) - 1):
        nodes.extend(nodes[branch].children)
    return nodes
