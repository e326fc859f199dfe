"""Boosted trees: whether a grown account harvests at all, each tree learning what those before it got wrong.

Extremely randomised trees look at every account alike; boosted ones spend theirs on the accounts that are hard to
tell, which are those that hide a little harvesting in ordinary traffic.  Half and half they find two thirds of such
accounts of unseen families; alone, either finds fewer of these or of others
(docs/adr/0017-boosted-trees-beside-randomised-ones.md).
scikit-learn grows them when `stillwatch train` runs; what ships is their arrays.

Friedman: Greedy function approximation: a gradient boosting machine, Annals of Statistics 29, 2001; with histograms as
of Ke et al.: LightGBM, NeurIPS 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.scoring.combination import log_odds_of
from pipeline.scoring.extra_trees import Lesson, training_library
from pipeline.scoring.mondrian_trees import MondrianTrees
from pipeline.scoring.scaling import Floats


@dataclass(frozen=True, slots=True)
class Boosting:
    """How trees are boosted, as measured on unseen families; nothing hangs on any one of these numbers.

    Attributes:
        forests: so many times, with another seed each, and the mean of all.
        rounds: trees of each.
        rate: of what a tree says, so much counts.
        leaves: of a tree at most.
        rows_min: of a leaf.
        penalty: on the size of what a leaf says (L2), in rows.
        features_tried: share of the features that a split chooses among.
    """

    forests: int = 2
    rounds: int = 100
    rate: float = 0.06
    leaves: int = 31
    rows_min: int = 10
    penalty: float = 5.0
    features_tried: float = 0.3


def boost(lesson: Lesson, boosting: Boosting, seed: int) -> MondrianTrees:
    """Trees whose mean is the log-odds of label 1, both labels counting the same; a lesson and a seed give one result.

    Where the lesson knows one label only, a lone leaf says so.

    Args:
        lesson: with labels 0 and 1.
        boosting: see there.
        seed: of the features that splits choose among.

    Raises:
        ConfigError: scikit-learn is not installed.
    """
    library = training_library()
    of_label = np.bincount(lesson.label, lesson.weights, minlength=2)
    if not of_label.all():
        return MondrianTrees.lone_leaf(log_odds_of(of_label[1:] / of_label.sum()))
    from threadpoolctl import threadpool_limits  # noqa: PLC0415 - comes with scikit-learn, which training alone needs

    weights = lesson.even_weights
    weights *= len(weights) / weights.sum()
    lots = []
    for number in range(boosting.forests):
        unfitted = library.HistGradientBoostingClassifier(
            max_iter=boosting.rounds,
            learning_rate=boosting.rate,
            max_leaf_nodes=boosting.leaves,
            min_samples_leaf=boosting.rows_min,
            l2_regularization=boosting.penalty,
            max_features=boosting.features_tried,
            early_stopping=False,
            random_state=seed * boosting.forests + number,
        )
        with threadpool_limits(1, "openmp"):  # so few rows are grown no faster by more, and other processes slower
            model = unfitted.fit(lesson.values, lesson.label, sample_weight=weights)
        # scikit-learn names no public way to the nodes of such trees
        trees = [_arrays(round_[0].nodes) for round_ in model._predictors]  # noqa: SLF001
        joined = MondrianTrees.joined(trees)
        told = joined.probability * len(trees) + float(model._baseline_prediction.item())  # noqa: SLF001
        lots.append(MondrianTrees(joined.roots, joined.feature, joined.threshold, joined.left, told))
    return MondrianTrees.joined(lots)


def _arrays(nodes: npt.NDArray[Any]) -> MondrianTrees:
    """One tree's nodes; a branch says the mean of the leaves below it, weighted by their rows.

    Their number is all that scikit-learn keeps of how much rows count.  What branches say explains scores; leaves alone
    make them.
    """
    is_leaf = nodes["is_leaf"].astype(np.bool_)
    left, right = (np.where(is_leaf, -1, nodes[side].astype(np.int64)) for side in ("left", "right"))
    rows = nodes["count"].astype(np.float64)
    said: Floats = nodes["value"].astype(np.float64)
    for node in np.flatnonzero(~is_leaf)[::-1]:  # children come after their parents
        below = [left[node], right[node]]
        said[node] = np.average(said[below], weights=rows[below])
    return MondrianTrees.of_tree(left, right, nodes["feature_idx"], nodes["num_threshold"], said[:, np.newaxis])
