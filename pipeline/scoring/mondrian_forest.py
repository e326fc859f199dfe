"""The labelled model: River's aggregated Mondrian forest, started from shipped rows and taught by verdicts.

A Mondrian forest grows with every row that it learns, so what is kept is the rows: the starting rows, and the latest
verdict rows up to a limit.  The trees follow from the rows and the seed; they are grown only when a verdict must be
learned.  Scoring uses their arrays (`mondrian_trees.py`), which ship with the rows.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from river import forest

from pipeline.scoring.mondrian_trees import MondrianTrees
from pipeline.scoring.scaling import Floats, Scaling, Values

VERDICTS_MAX: Final = 1024
"""Verdict rows kept.  When they are full the older half goes and the forest is grown anew."""


@dataclass(frozen=True, slots=True)
class ForestSettings:
    """Parameters of `river.forest.AMFClassifier`, as measured on families that training had not seen.

    Attributes:
        n_estimators: number of trees.
        step: learning rate of the aggregation weights.
        dirichlet: smoothing of a node's share of positive rows.
        split_pure: whether nodes of one class are split too.
        use_aggregation: whether a tree predicts with the mixture of its prunings, or with the leaf alone.
        verdict_repeats: how often a verdict row is learned, to be heard among the starting rows.
        seed: of the first tree; the others follow from it.
    """

    n_estimators: int = 15
    step: float = 0.5
    dirichlet: float = 1.0
    split_pure: bool = False
    use_aggregation: bool = True
    verdict_repeats: int = 3
    seed: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class LabelledValues:
    """Rows to learn from: `values` float32[n, F] and `harvesting` bool[n], in the order in which they are learned."""

    values: Values
    harvesting: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.values)

    def then(self, other: LabelledValues) -> LabelledValues:
        """These rows, and `other` after them."""
        joined = np.concatenate([self.values, other.values])
        return LabelledValues(joined, np.concatenate([self.harvesting, other.harvesting]))

    def last(self, count: int) -> LabelledValues:
        """The last `count` rows, or all if there are fewer."""
        start = max(len(self) - count, 0)
        return LabelledValues(self.values[start:], self.harvesting[start:])

    @staticmethod
    def none(width: int) -> LabelledValues:
        """No rows of `width` features."""
        return LabelledValues(np.empty((0, width), dtype=np.float32), np.empty(0, dtype=np.bool_))


@dataclass(frozen=True, slots=True, eq=False)
class ForestStart:
    """What a forest begins with, shared by all partitions.

    Attributes:
        settings: parameters of the forest.
        scaling: quantiles that turn values into ranks; they never change, or learned trees would lose their meaning.
        stretch: float64[F]: factor of each feature's rank.  A Mondrian tree splits on a feature in proportion to its
            range, so features that tell the classes apart are stretched.
        rows: the starting rows.
        trees: the forest that they give.
    """

    settings: ForestSettings
    scaling: Scaling
    stretch: Floats
    rows: LabelledValues
    trees: MondrianTrees

    @classmethod
    def grow(cls, settings: ForestSettings, scaling: Scaling, stretch: Floats, rows: LabelledValues) -> ForestStart:
        """Learn the starting rows."""
        start = cls(settings, scaling, stretch, rows, trees=_NO_TREES)
        return cls(settings, scaling, stretch, rows, MondrianTrees.of(start.river_forest()))

    def river_forest(self) -> Any:
        """A new River forest that has learned the starting rows; takes milliseconds a row."""
        settings = asdict(self.settings)
        settings.pop("verdict_repeats")
        grown = forest.AMFClassifier(**settings)
        self.teach(grown, self.rows, repeats=1)
        return grown

    def teach(self, grown: Any, rows: LabelledValues, repeats: int) -> None:
        """Let a River forest learn rows, each of them `repeats` times."""
        places = self.scaling.ranks(rows.values) * self.stretch
        for place, harvesting in zip(places.tolist(), rows.harvesting.tolist(), strict=True):
            row = dict(enumerate(place))
            for _ in range(repeats):
                grown.learn_one(row, harvesting)


class MondrianForest:
    """One partition's forest.

    Args:
        start: what it begins with.
        verdicts: verdict rows that it learned before, oldest first.
        trees: the forest that start and verdicts gave; None if there are no verdicts.
    """

    def __init__(
        self, start: ForestStart, verdicts: LabelledValues | None = None, trees: MondrianTrees | None = None
    ) -> None:
        self.start = start
        self.verdicts = verdicts if verdicts is not None else LabelledValues.none(start.rows.values.shape[1])
        self.trees = trees or start.trees
        self._grown: Any = None

    def predict_proba(self, ranks: Floats) -> Floats:
        """Probability of harvesting among the starting rows' mix of classes, float64[n].

        Args:
            ranks: float64[n, F], by the start's scaling.
        """
        return self.trees.predict_proba(ranks * self.start.stretch)

    def contributions(self, ranks: Floats) -> Floats:
        """How much each feature moved each row's probability, float64[n, F]."""
        return self.trees.contributions(ranks * self.start.stretch)

    def learn(self, rows: LabelledValues) -> None:
        """Learn verdict rows; the first time, and when the oldest must go, the whole forest is grown anew."""
        if not len(rows):
            return
        repeats = self.start.settings.verdict_repeats
        known = self.verdicts.then(rows)
        if len(known) > VERDICTS_MAX:
            known, self._grown = known.last(VERDICTS_MAX // 2), None
            rows = known
        if self._grown is None:
            self._grown, rows = self.start.river_forest(), known
        self.start.teach(self._grown, rows, repeats)
        self.verdicts = known
        self.trees = MondrianTrees.of(self._grown)


_NO_INTS, _NO_FLOATS = np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float64)
_NO_TREES: Final = MondrianTrees(_NO_INTS, _NO_INTS, _NO_FLOATS, _NO_INTS, _NO_FLOATS)
