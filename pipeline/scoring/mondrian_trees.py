"""A Mondrian forest as arrays: many rows descend all trees at once.

The prediction of an aggregated Mondrian tree depends on the leaf alone: the mixture over all prunings of the tree is a
recursion along the path to the root.  So it is worked out once for each leaf, and scoring only looks for leaves.

Mourtada, Gaïffas, Scornet: AMF: Aggregated Mondrian forests for online learning, JRSS B 83(3), 2021.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.compiled import LOOPS, NODE, Nodes
from pipeline.scoring.kinds import looks_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]
Places = npt.NDArray[np.int64]

_LEVELS_AT_ONCE: Final = 6
_PATHS_AT_ONCE: Final = 1 << 15


@dataclass(frozen=True, slots=True, eq=False)
class _Room:
    """Memory for one level of so many paths, used again for each level: new memory is not in the cache."""

    found: npt.NDArray[np.complex128]
    asked: Places
    value: Floats
    is_right: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, paths: int) -> Self:
        """For so many paths."""
        return cls(np.empty(paths, complex), np.empty(paths, np.int64), np.empty(paths), np.empty(paths, bool))

    def first(self, paths: int) -> tuple[npt.NDArray[np.complex128], Places, Floats, npt.NDArray[np.bool_]]:
        """For so many of them."""
        return self.found[:paths], self.asked[:paths], self.value[:paths], self.is_right[:paths]


@dataclass(frozen=True, eq=False)
class MondrianTrees:
    """The nodes of all trees, one tree after the other; a right child follows its left sibling.

    Attributes:
        roots: int32[T]: each tree's first node.
        feature: int32[N]: what a branch splits on; 0 for a leaf.
        threshold: float64[N]: a row goes left if its value is at most this; infinite for a leaf.
        left: int32[N]: the left child; a leaf is its own, so that descending further does nothing.
        probability: float64[N, K]: of each of `kinds.LOOKS`.  For a leaf what the tree predicts
            there; for a branch the mean of the leaves below it, weighted by the rows that they learned.  Of boosted
            trees it is one log-odds.
    """

    roots: Ints
    feature: Ints
    threshold: Floats
    left: Ints
    probability: Floats

    @classmethod
    def of(cls, forest: Any, kinds: int) -> Self:
        """The arrays of a River `AMFClassifier` that has learned rows labelled 0 (honest) to `kinds`."""
        trees = [_nodes_of(tree, forest, kinds) for tree in forest]
        starts = np.cumsum([0, *(len(tree["feature"]) for tree in trees)])
        names = ("feature", "threshold", "probability")
        joined = {name: np.concatenate([tree[name] for tree in trees]) for name in names}
        left = np.concatenate([tree["left"] + start for tree, start in zip(trees, starts[:-1], strict=True)])
        return cls(starts[:-1].astype(np.int32), left=left.astype(np.int32), **joined)

    @classmethod
    def of_tree(cls, left: Places, right: Places, feature: Places, threshold: Floats, told: Floats) -> Self:
        """One tree of scikit-learn's, whose nodes are in another order.

        Args:
            left: int64[N], the left child of each node, the root first; negative for a leaf.
            right: int64[N], the right one.
            feature: int64[N], what a branch splits on; whatever for a leaf.
            threshold: float64[N], a row goes left if its value is at most this; whatever for a leaf.
            told: float64[N, K], see `probability`.
        """
        order, places = _level_by_level(left.tolist(), right.tolist())
        is_leaf = left[order] < 0
        return cls(
            roots=np.zeros(1, np.int32),
            feature=np.where(is_leaf, 0, feature[order]).astype(np.int32),
            threshold=np.where(is_leaf, math.inf, threshold[order]),
            left=places,
            probability=told[order],
        )

    @classmethod
    def lone_leaf(cls, told: Floats) -> Self:
        """A tree that says the same of all rows; `told` float64[K]."""
        none = np.zeros(1, np.int32)
        return cls(none, none, np.full(1, math.inf), none, np.asarray(told, np.float64)[np.newaxis])

    def leaves(self, values: Floats) -> Places:
        """The leaf of each row in each tree, int64[T, n]; `values` float64[n, F] without NaN."""
        if LOOPS is not None:
            return LOOPS.leaves(self._nodes, self._starts, self._asked(values))
        leaves = np.empty((len(self.roots), len(values)), np.int64)
        flat, row = self._asked(values).ravel(), np.arange(len(values)) * len(self._columns)
        at_once = min(len(self.roots), max(1, _PATHS_AT_ONCE // max(1, len(values))))
        room = _Room.of(at_once * len(values))
        for tree in range(0, len(self.roots), at_once):
            roots = self.roots[tree : tree + at_once].astype(np.int64)
            leaves[tree : tree + at_once] = self._descended(roots, row, flat, room)
        return leaves

    @cached_property
    def _columns(self) -> Places:
        """The features that any node asks for, and the first one, which stands for none."""
        return np.unique(np.append(self.feature, 0)).astype(np.int64)

    def _asked(self, values: Floats) -> Floats:
        """The columns that nodes ask for, side by side: float64[n, columns]."""
        return np.ascontiguousarray(values.take(self._columns, axis=1))

    def _descended(self, roots: Places, rows: Places, flat: Floats, room: _Room) -> Places:
        """The leaf of each row in some trees, int64[trees, n]: paths of one tree are neighbours, as its nodes are."""
        leaf, row = np.repeat(roots, len(rows)), np.tile(rows, len(roots))
        # Most paths are short and a few are very long: every few levels those that have arrived are put aside.
        going, node = np.arange(len(leaf)), leaf.copy()
        while len(going):
            found, asked, value, is_right = room.first(len(going))
            whole, threshold = found.view(np.int32).reshape(-1, 4), found.view(np.float64)[1::2]
            for _ in range(_LEVELS_AT_ONCE):  # as `_below`, in memory that is in the cache already
                self._packed.take(node, out=found, mode="clip")
                np.add(row, whole[:, 1], out=asked)
                flat.take(asked, out=value, mode="clip")
                np.greater(value, threshold, out=is_right)
                np.add(whole[:, 0], is_right, out=node)
            leaf[going] = node
            far = np.flatnonzero(self.left.take(node) != node)
            going, row, node = going[far], row[far], node[far]
        return leaf.reshape(len(roots), len(rows))

    @classmethod
    def joined(cls, lots: Sequence[Self]) -> Self:
        """The trees of all of `lots`, at least one; a row's probability is the mean over all of them."""
        starts = np.cumsum([0, *(len(lot.feature) for lot in lots)])[:-1]
        shifted = {
            name: np.concatenate([getattr(lot, name) + start for lot, start in zip(lots, starts, strict=True)])
            for name in ("roots", "left")
        }
        same = {n: np.concatenate([getattr(lot, n) for lot in lots]) for n in ("feature", "threshold", "probability")}
        return cls(shifted["roots"].astype(np.int32), left=shifted["left"].astype(np.int32), **same)

    @cached_property
    def _starts(self) -> Places:
        return self.roots.astype(np.int64)

    @cached_property
    def _nodes(self) -> Nodes:
        """Left child, column and threshold of each node side by side in 16 bytes: one look into memory for all."""
        self.check()
        nodes = np.empty(len(self.left), NODE)
        nodes["left"], nodes["threshold"] = self.left, self.threshold
        nodes["column"] = np.searchsorted(self._columns, self.feature)
        return nodes

    def check(self) -> None:
        """Descending goes where nodes point: that must end, and within the arrays.

        Raises:
            ValueError: it would not.
        """
        count = len(self.left)
        if not len(self.roots) or {len(self.feature), len(self.threshold), len(self.probability)} != {count}:
            raise ValueError("there are no trees, or their nodes are not all described")
        here, left = np.arange(count), self.left.astype(np.int64)
        is_leaf = left == here
        leads_on = (left > here) & (left + 1 < count)  # children come after their parents
        stays = self.threshold == math.inf  # no value is above it: a leaf is not left
        if not np.where(is_leaf, stays, leads_on).all() or self.feature.min(initial=0) < 0:
            raise ValueError("the nodes of trees do not lead from their roots to leaves")
        if ((self.roots < 0) | (self.roots >= count)).any():
            raise ValueError("the roots of trees are not among their nodes")

    @cached_property
    def _packed(self) -> npt.NDArray[np.complex128]:
        """The same as numbers of 16 bytes, which NumPy looks up faster."""
        return self._nodes.view(np.complex128)

    def _below(self, node: Places, row: Places, flat: Floats) -> tuple[Places, Places]:
        """The next node of each path, and the place in `flat` of the value that the present one asks for."""
        found = self._packed.take(node, mode="clip")  # that no place is out of bounds need not be looked at again
        whole, threshold = found.view(np.int32).reshape(-1, 4), found.view(np.float64)[1::2]
        asked = row + whole[:, 1]
        below: Places = np.add(whole[:, 0], flat.take(asked, mode="clip") > threshold, dtype=np.int64)
        return below, asked

    @cached_property
    def _told(self) -> Floats:
        return np.ascontiguousarray(self.probability)

    @cached_property
    def _by_kind(self) -> tuple[Floats, ...]:
        return tuple(np.ascontiguousarray(column) for column in self.probability.T)

    def predict_proba(self, values: Floats) -> Floats:
        """Probability of each look, float64[n, K]: what River's `predict_proba_one` gives, summed for any.

        Of boosted trees the log-odds.
        """
        return self.proba_at(self.leaves(values))

    def proba_at(self, leaves: Places) -> Floats:
        """The same of rows whose leaves are known, int64[T, n]."""
        rows = leaves.shape[1]
        if LOOPS is not None:
            return LOOPS.told_at(np.ascontiguousarray(leaves), self._told) / len(self.roots)
        if rows == 1:  # NumPy adds a lone column up in another order: a row must not notice if it is alone
            leaves = leaves.repeat(2, axis=1)
        sums = [kind.take(leaves, mode="clip").sum(axis=0)[:rows] for kind in self._by_kind]
        return np.column_stack(sums) / len(self.roots)

    @property
    def base(self) -> Floats:
        """The probabilities before anything is known of a row, float64[K]: the mean over the roots."""
        base: Floats = self.probability[self.roots].mean(axis=0)
        return base

    def contributions(self, values: Floats, kind: npt.NDArray[np.int64]) -> Floats:
        """How much each feature moved each row's probability of a kind (or log-odds) away from `base`, float64[n, F].

        Args:
            values: float64[n, F].
            kind: int64[n]: column of `probability` for each row.

        Raises:
            IndexError: there is no such column.

        Each step down a path moves the node's probability, and the feature that was split on is credited with it; so a
        row's contributions and `base` add up to its probability (Saabas: Interpreting random forests, 2014).
        """
        moved = np.zeros(values.shape)
        if len(kind) and not 0 <= kind.min() <= kind.max() < self.probability.shape[1]:
            raise IndexError("trees say nothing of that kind")
        if LOOPS is not None:
            asked = self._asked(values)
            moved[:, self._columns] = LOOPS.moved_by(
                self._nodes, self._starts, asked, self._told, np.ascontiguousarray(kind)
            )
            return moved / len(self.roots)
        at_once = max(1, _PATHS_AT_ONCE // len(self.roots))
        for start in range(0, len(values), at_once):
            some = slice(start, start + at_once)
            moved[some, self._columns] = self._moved(self._asked(values[some]), kind[some])
        return moved / len(self.roots)

    def _moved(self, values: Floats, kind: npt.NDArray[np.int64]) -> Floats:
        """The sum over all trees, float64[n, columns]; paths of one tree are neighbours, as its nodes are."""
        flat, told, kinds = values.ravel(), self.probability.ravel(), self.probability.shape[1]
        node = np.repeat(self.roots.astype(np.int64), len(values))
        row = np.tile(np.arange(len(values)) * values.shape[1], len(self.roots))
        asked = np.tile(kind, len(self.roots))
        moved, now = np.zeros(values.size), told.take(node * kinds + asked)
        while len(node):
            node, place = self._below(node, row, flat)
            then = told.take(node * kinds + asked)
            moved += np.bincount(place, then - now, minlength=values.size)
            far = np.flatnonzero(self.left.take(node) != node)
            row, node, asked, now = row.take(far), node.take(far), asked.take(far), then.take(far)
        return moved.reshape(values.shape)

    def to_table(self) -> pa.Table:
        """One row a node: tree int32, feature int32, threshold, left int32, probability_1 and so on."""
        tree = np.repeat(np.arange(len(self.roots)), np.diff([*self.roots, len(self.feature)])).astype(np.int32)
        columns = {name: getattr(self, name) for name in ("feature", "threshold", "left")}
        of_kinds = {f"probability_{kind}": of_kind for kind, of_kind in enumerate(self.probability.T.copy(), start=1)}
        return pa.table({"tree": tree, **columns, **of_kinds})

    @classmethod
    def from_table(cls, table: pa.Table) -> Self:
        """The arrays that `to_table` wrote.

        Raises:
            ValueError: they are no trees.
        """
        columns = {name: table[name].to_numpy() for name in ("feature", "threshold", "left")}
        of_kinds = [table[name].to_numpy() for name in table.column_names if name.startswith("probability_")]
        columns["probability"] = np.column_stack(of_kinds)
        _, roots = np.unique(table["tree"].to_numpy(), return_index=True)
        trees = cls(roots.astype(np.int32), **columns)
        trees.check()
        return trees


def _level_by_level(left: Sequence[int], right: Sequence[int]) -> tuple[Places, Ints]:
    """A tree's nodes in an order in which a right child follows its left sibling.

    Args:
        left: the left child of each node, the root first; negative for a leaf.
        right: the right one.

    Returns:
        The nodes int64[N] in that order, and for each the place of its left child there, int32[N]; a leaf's is its own.
    """
    order = [0]
    places: list[int] = []
    for node in order:
        is_leaf = left[node] < 0
        places.append(len(places) if is_leaf else len(order))
        order.extend(() if is_leaf else (int(left[node]), int(right[node])))
    return np.array(order, np.int64), np.array(places, np.int32)


@dataclass(frozen=True, slots=True)
class _Family:
    """A tree's nodes, level by level, and where each one's parent and left child are (itself for a leaf)."""

    nodes: list[Any]
    parent: list[int]
    left: list[int]


def _nodes_of(tree: Any, forest: Any, kinds: int) -> dict[str, npt.NDArray[Any]]:
    """One tree's nodes from its root on, level by level, so that siblings are neighbours."""
    nodes, parent, left = [tree._root], [-1], []  # noqa: SLF001 - River names no public way to its nodes
    for index, node in enumerate(nodes):
        left.append(index if node.is_leaf else len(nodes))
        if not node.is_leaf:
            nodes.extend(node.children)
            parent.extend((index, index))
    own = _own_probabilities(nodes, tree, forest, kinds)
    return {
        "feature": np.array([0 if node.is_leaf else node.feature for node in nodes], dtype=np.int32),
        "threshold": np.array([math.inf if node.is_leaf else node.threshold for node in nodes]),
        "left": np.array(left, dtype=np.int64),
        "probability": _mixed(_Family(nodes, parent, left), own, forest.use_aggregation),
    }


def _own_probabilities(nodes: list[Any], tree: Any, forest: Any, kinds: int) -> Floats:
    """What each node alone would predict, float64[nodes, kinds]: the share of rows of each kind in it, smoothed."""
    classes = tree._idx_to_class  # noqa: SLF001
    own = np.zeros((len(nodes), kinds + 1))
    for index, node in enumerate(nodes):
        own[index, classes] = node.predict(forest.dirichlet, len(classes))
    return looks_of(own[:, 1:])


def _mixed(family: _Family, own: Floats, use_aggregation: bool) -> Floats:
    """Down the tree, the mixture of the nodes above as `given + left_over * (what comes below)`; then means upwards."""
    nodes, parent, left = family.nodes, family.parent, family.left
    given, left_over = np.zeros_like(own), [1.0] * len(nodes)
    probability = own.copy()
    for index in range(len(nodes)):
        above = parent[index]
        if above >= 0:
            node = nodes[above]
            share = 0.5 * math.exp(node.weight - node.log_weight_tree) if use_aggregation else 0.0
            given[index] = given[above] + left_over[above] * share * own[above]
            left_over[index] = left_over[above] * (1.0 - share)
        if nodes[index].is_leaf:
            probability[index] = given[index] + left_over[index] * own[index]
    for index in reversed(range(len(nodes))):
        if not nodes[index].is_leaf:
            a, b = left[index], left[index] + 1
            rows_a, rows_b = max(nodes[a].n_samples, 1), max(nodes[b].n_samples, 1)
            probability[index] = (probability[a] * rows_a + probability[b] * rows_b) / (rows_a + rows_b)
    return probability
