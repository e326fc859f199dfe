"""The part that needs no labels: River's half-space trees on ranks among the running population.

River holds the trees and learns; scoring reads their masses off as arrays, which change only when a window is full.

Tan, Ting, Liu: Fast anomaly detection for streaming data, IJCAI 2011.
"""

from __future__ import annotations

from dataclasses import dataclass
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
        river: Any = anomaly.HalfSpaceTrees(n_trees=N_TREES, height=HEIGHT, window_size=WINDOW, seed=SEED)
        self._river = river
        river.learn_one(dict.fromkeys(range(features), 0.5))  # River makes the trees with its first row
        self._nodes = [_level_by_level(tree) for tree in self._river.trees]
        branches = [nodes[: (1 << HEIGHT) - 1] for nodes in self._nodes]
        self._feature = np.array([[node.feature for node in nodes] for nodes in branches], dtype=np.int32)
        self._threshold = np.array([[node.threshold for node in nodes] for nodes in branches])
        nothing = np.zeros((N_TREES, len(self._nodes[0])), dtype=np.int32)
        self._set(masses or TreeMasses(nothing, nothing, learned=0, is_cold=True))

    @property
    def is_cold(self) -> bool:
        """Whether no window is full yet, so that there is nothing to score with."""
        return bool(self._river._first_window)  # noqa: SLF001

    def learn(self, ranks: Floats) -> int:
        """Learn rows float64[n, F] in order; says how many windows became full."""
        windows = 0
        for row in ranks.tolist():
            self._river.learn_one(dict(enumerate(row)))
            if self._river.counter == 0:
                self._scored_with = self._read("r_mass")
                windows += 1
        return windows

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
        return TreeMasses(self._scored_with, self._read("l_mass"), self._river.counter, self.is_cold)

    def _set(self, masses: TreeMasses) -> None:
        for nodes, right, left in zip(self._nodes, masses.scored_with.tolist(), masses.learning.tolist(), strict=True):
            for node, r_mass, l_mass in zip(nodes, right, left, strict=True):
                node.r_mass, node.l_mass = r_mass, l_mass
        self._river.counter = masses.learned
        self._river._first_window = masses.is_cold  # noqa: SLF001
        self._scored_with = masses.scored_with

    def _read(self, name: str) -> Masses:
        return np.array([[getattr(node, name) for node in nodes] for nodes in self._nodes], dtype=np.int32)


def _level_by_level(root: Any) -> list[Any]:
    """All nodes of a full binary tree, so that node i has its children at 2i + 1 and 2i + 2."""
    nodes = [root]
    for branch in range((1 << HEIGHT) - 1):
        nodes.extend(nodes[branch].children)
    return nodes
