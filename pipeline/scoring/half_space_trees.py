"""The part that needs no labels: River's half-space trees on ranks among the running population.

River makes the trees; rows are counted and scored on arrays of their nodes, as River would, many at once.

Tan, Ting, Liu: Fast anomaly detection for streaming data, IJCAI 2011.
"""

from __future__ import annotations

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

Masses = npt.NDArray[np.int32]


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
        self._river, self._feature, self._threshold = _trees(features)
        nothing = np.zeros((N_TREES, (1 << HEIGHT + 1) - 1), dtype=np.int32)
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
        rows, trees = np.arange(len(ranks))[:, np.newaxis], np.arange(N_TREES)[np.newaxis, :]
        node = np.zeros((len(ranks), N_TREES), dtype=np.int64)
        size = self._learning.shape[1]
        visits = np.bincount((trees * size + node).ravel(), minlength=self._learning.size)
        for _ in range(HEIGHT):
            right = ranks[rows, self._feature[trees, node]] >= self._threshold[trees, node]
            node = 2 * node + 1 + right
            visits += np.bincount((trees * size + node).ravel(), minlength=self._learning.size)
        return visits.reshape(self._learning.shape).astype(np.int32)

    def score(self, ranks: Floats) -> Floats:
        """River's `score_one` of each row, float64[n] in [0, 1], high where rows are rare; NaN while cold."""
        if self.is_cold:
            return np.full(len(ranks), np.nan)
        rows, trees = np.arange(len(ranks))[:, np.newaxis], np.arange(N_TREES)[np.newaxis, :]
        node = np.zeros((len(ranks), N_TREES), dtype=np.int64)
        mass = self._scored_with[trees, node]
        total = mass.astype(np.float64)
        goes_on = mass >= self._river.size_limit
        for level in range(1, HEIGHT + 1):
            right = ranks[rows, self._feature[trees, node]] >= self._threshold[trees, node]
            node = 2 * node + 1 + right
            mass = self._scored_with[trees, node]
            total += np.where(goes_on, mass * float(1 << level), 0.0)
            goes_on &= mass >= self._river.size_limit
        score: Floats = 1.0 - total.sum(axis=1) / self._river._max_score  # noqa: SLF001
        return score

    @property
    def masses(self) -> TreeMasses:
        """What was learned so far."""
        return TreeMasses(self._scored_with, self._learning, self._learned, self._is_cold)


@cache
def _trees(features: int) -> tuple[Any, npt.NDArray[np.int32], Floats]:
    """River's trees, which are the same for every partition and never change, and what each branch asks for."""
    river: Any = anomaly.HalfSpaceTrees(n_trees=N_TREES, height=HEIGHT, window_size=WINDOW, seed=SEED)
    river.learn_one(dict.fromkeys(range(features), 0.5))  # River makes the trees with its first row
    branches = [_level_by_level(tree)[: (1 << HEIGHT) - 1] for tree in river.trees]
    feature = np.array([[node.feature for node in nodes] for nodes in branches], dtype=np.int32)
    return river, feature, np.array([[node.threshold for node in nodes] for nodes in branches])


def _level_by_level(root: Any) -> list[Any]:
    """All nodes of a full binary tree, so that node i has its children at 2i + 1 and 2i + 2."""
    nodes = [root]
    for branch in range((1 << HEIGHT) - 1):
        nodes.extend(nodes[branch].children)
    return nodes
