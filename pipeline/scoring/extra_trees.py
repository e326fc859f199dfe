"""Extremely randomised trees: the model that carries furthest to harvests that it has not seen, grown before shipping.

They look at all rows and labels at once, which no online model does.  They do not learn from verdicts: what these say
is counted in their leaves (`precedents.py`).  scikit-learn grows them when `stillwatch train` runs; what ships is their
arrays.

Geurts, Ernst, Wehenkel: Extremely randomized trees, Machine Learning 63, 2006.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError
from pipeline.scoring.mondrian_trees import MondrianTrees
from pipeline.scoring.scaling import Floats

LEAF_ROWS_MIN: Final = 3

SHARPNESS: Final = 4
"""Power of what the gate says: the likeliest source is heard most of all, as measured on unseen families."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Where experts' trees lead n rows.

    Attributes:
        values: the rows, float64[n, F].
        leaves: of each expert, int64[T, n].
        likeness: float64[n, sources]: how far each expert is heard; a row's add up to 1.
    """

    values: Floats
    leaves: tuple[Ints, ...]
    likeness: Floats


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

    def seen(self, values: Floats) -> Seen:
        """Where the trees lead rows, `values` float64[n, F], see `Scaling.filled`."""
        return Seen(values, tuple(expert.leaves(values) for expert in self.experts), self._likeness(values))

    def proba_of(self, seen: Seen) -> Floats:
        """Probability of each look, float64[n, K]."""
        pairs = zip(self.experts, seen.leaves, strict=True)
        return _heard([expert.proba_at(leaves) for expert, leaves in pairs], seen.likeness)

    def contributions(self, values: Floats, look: Ints) -> Floats:
        """How much each feature moved each row's probability of a look, float64[n, F]; `look` int64[n], from 0."""
        return _heard([expert.contributions(values, look) for expert in self.experts], self._likeness(values))

    def _likeness(self, values: Floats) -> Floats:
        likeness = self.gate.predict_proba(values) ** SHARPNESS
        likeness /= likeness.sum(axis=1, keepdims=True)
        return likeness


def _heard(said: Sequence[Floats], likeness: Floats) -> Floats:
    parts = [by_expert * likeness[:, [number]] for number, by_expert in enumerate(said)]
    heard: Floats = np.sum(parts, axis=0)
    return heard


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

    @property
    def even_weights(self) -> Floats:
        """The weights with which all labels that are there count the same, float64[n]: each label's add up to 1."""
        even: Floats = self.weights / np.bincount(self.label, self.weights)[self.label]
        return even


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
        raise ConfigError(
            "training needs scikit-learn: pip install 'stillwatch[train]', or in a checkout: sh infra/bootstrap.sh dev"
        ) from None
    return sklearn.ensemble


def _arrays(tree: Any, classes: Ints, labels: int) -> MondrianTrees:
    counts = tree.value[:, 0, :]
    probability = np.zeros((len(counts), labels), np.float64)
    probability[:, classes] = counts / counts.sum(axis=1, keepdims=True)
    told = probability.astype(np.float32).astype(np.float64)
    return MondrianTrees.of_tree(tree.children_left, tree.children_right, tree.feature, tree.threshold, told)
