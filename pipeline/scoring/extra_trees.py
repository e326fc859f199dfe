"""Extremely randomised trees: the model that carries furthest to harvests that it has not seen, grown before shipping.

They look at all rows and labels at once, which no online model does; what they cannot do is learn from a verdict, which
is the Mondrian forest's part.  scikit-learn grows them when `stillwatch train` runs; what ships is their arrays.

Geurts, Ernst, Wehenkel: Extremely randomized trees, Machine Learning 63, 2006.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError
from pipeline.scoring.kinds import COLD, GROWN, LOOKS
from pipeline.scoring.mondrian_trees import MondrianTrees
from pipeline.scoring.scaling import Floats

LEAF_ROWS_MIN: Final = 3

SHARPNESS: Final = 4
"""Power of what the gate says: the likeliest source is heard most of all, as measured on unseen families."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Experts:
    """Trees of several sources of traffic, each heard as far as a row looks like its traffic.

    Trees that learn sources together split on what tells the sources apart and tell less of either: what is odd in one
    is usual in another.  After Jacobs, Jordan, Nowlan and Hinton: Adaptive mixtures of local experts, Neural
    Computation 3, 1991; but here the experts learn apart, and the gate learns which source a row is from.

    Attributes:
        experts: of each source, with the probabilities of `kinds.LOOKS`.
        gate: trees with a probability of each source.
    """

    experts: tuple[MondrianTrees, ...]
    gate: MondrianTrees

    def predict_proba(self, values: Floats) -> Floats:
        """Probability of each look, float64[n, K], of `values` float64[n, F], see `Scaling.filled`."""
        return self._heard(values, lambda expert: expert.predict_proba(values))

    def contributions(self, values: Floats, look: Ints) -> Floats:
        """How much each feature moved each row's probability of a look, float64[n, F]; `look` int64[n], from 0."""
        return self._heard(values, lambda expert: expert.contributions(values, look))

    def _heard(self, values: Floats, said: Callable[[MondrianTrees], Floats]) -> Floats:
        likeness = self.gate.predict_proba(values) ** SHARPNESS
        likeness /= likeness.sum(axis=1, keepdims=True)
        parts = [said(expert) * likeness[:, [number]] for number, expert in enumerate(self.experts)]
        heard: Floats = np.sum(parts, axis=0)
        return heard


@dataclass(frozen=True, slots=True, eq=False)
class StagedTrees:
    """Trees for young accounts and trees for grown ones: each row is told by those of its stage.

    Attributes:
        young: for rows at the stages `EARLY` and `QUIET`; they learned all rows.
        grown: for rows at the stage `GROWN`; they learned such rows alone.
    """

    young: Experts
    grown: Experts

    def predict_proba(self, values: Floats, stage: Ints) -> Floats:
        """Probability of each of `kinds.LOOKS`, float64[n, K]; NaN for cold rows.

        Args:
            values: float64[n, F], see `Scaling.filled`.
            stage: int64[n].
        """
        return self._by_stage(stage, len(LOOKS), lambda experts, rows: experts.predict_proba(values[rows]))

    def contributions(self, values: Floats, look: Ints, stage: Ints) -> Floats:
        """How much each feature moved each row's probability of a look, float64[n, F]; `look` int64[n], from 0."""
        return self._by_stage(
            stage, values.shape[1], lambda experts, rows: experts.contributions(values[rows], look[rows])
        )

    def _by_stage(self, stage: Ints, width: int, said: Callable[[Experts, Ints], Floats]) -> Floats:
        out = np.full((len(stage), width), np.nan)
        young = (stage != COLD) & (stage != GROWN)
        for chosen, experts in ((young, self.young), (stage == GROWN, self.grown)):
            rows = np.flatnonzero(chosen)
            if len(rows):
                out[rows] = said(experts, rows)
        return out


@dataclass(frozen=True, slots=True)
class Growth:
    """How trees are grown: how many, which share of the features a split chooses among, and the seed."""

    trees: int
    features_tried: float
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """What trees learn: `values` float64[n, F], `label` int64[n] in [0, labels), `weights` float64[n]."""

    values: Floats
    label: Ints
    labels: int
    weights: Floats


def grow(lesson: Lesson, growth: Growth) -> MondrianTrees:
    """Trees as arrays, with a probability of each label; the same lesson and seed give the same trees.

    Raises:
        ConfigError: scikit-learn is not installed.
    """
    sklearn_ensemble = training_library()
    grown = sklearn_ensemble.ExtraTreesClassifier(
        growth.trees,
        min_samples_leaf=LEAF_ROWS_MIN,
        max_features=growth.features_tried,
        random_state=growth.seed,
        n_jobs=1,
    ).fit(lesson.values.astype(np.float32), lesson.label, sample_weight=lesson.weights)
    classes = grown.classes_.astype(np.int64)
    return MondrianTrees.joined([_arrays(one.tree_, classes, lesson.labels) for one in grown.estimators_])


def training_library() -> Any:
    """`sklearn.ensemble`, which training alone needs: it is not shipped.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import sklearn.ensemble  # noqa: PLC0415
    except ImportError:
        raise ConfigError("training needs scikit-learn: pip install 'stillwatch[train]'") from None
    return sklearn.ensemble


def _arrays(tree: Any, classes: Ints, labels: int) -> MondrianTrees:
    """One tree's nodes, level by level, so that a right child follows its left sibling."""
    order: list[int] = [0]
    left: list[int] = []
    for node in order:
        child = int(tree.children_left[node])
        left.append(len(left) if child < 0 else len(order))
        if child >= 0:
            order += [child, int(tree.children_right[node])]
    counts = tree.value[order, 0, :]
    probability = np.zeros((len(order), labels), np.float64)
    probability[:, classes] = counts / counts.sum(axis=1, keepdims=True)
    is_leaf = tree.children_left[order] < 0
    return MondrianTrees(
        roots=np.zeros(1, np.int32),
        feature=np.where(is_leaf, 0, tree.feature[order]).astype(np.int32),
        threshold=np.where(is_leaf, np.inf, tree.threshold[order]),
        left=np.array(left, np.int32),
        probability=probability.astype(np.float32).astype(np.float64),
    )
