"""Extremely randomised trees: the model that carries furthest to harvests that it has not seen, grown before shipping.

They look at all rows and labels at once, which no online model does; what they cannot do is learn from a verdict, which
is the Mondrian forest's part.  scikit-learn grows them when `stillwatch train` runs; what ships is their arrays.

Geurts, Ernst, Wehenkel: Extremely randomized trees, Machine Learning 63, 2006.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError
from pipeline.scoring.kinds import KINDS
from pipeline.scoring.mondrian_trees import MondrianTrees
from pipeline.scoring.scaling import Floats

TREES: Final = 120
LEAF_ROWS_MIN: Final = 3
FEATURES_TRIED: Final = 0.2
"""Share of the features that a split chooses among."""


def grow(values: Floats, kind: npt.NDArray[np.int8], weights: Floats, seed: int) -> MondrianTrees:
    """Grow trees and turn them into arrays.

    Args:
        values: float64[n, F], see `Scaling.filled`.
        kind: int8[n]: 0 for honest, else the kind of harvesting.
        weights: float64[n].
        seed: the same rows and seed give the same trees.

    Raises:
        ConfigError: scikit-learn is not installed.
    """
    try:
        import sklearn.ensemble  # noqa: PLC0415  # for training alone: it is not shipped
    except ImportError:
        raise ConfigError("training needs scikit-learn: pip install 'stillwatch[train]'") from None
    grown = sklearn.ensemble.ExtraTreesClassifier(
        TREES, min_samples_leaf=LEAF_ROWS_MIN, max_features=FEATURES_TRIED, random_state=seed, n_jobs=1
    ).fit(values.astype(np.float32), kind, sample_weight=weights)
    trees = [_nodes_of(one.tree_, grown.classes_) for one in grown.estimators_]
    starts = np.cumsum([0, *(len(tree["feature"]) for tree in trees)])
    joined = {name: np.concatenate([tree[name] for tree in trees]) for name in ("feature", "threshold", "probability")}
    left = np.concatenate([tree["left"] + start for tree, start in zip(trees, starts[:-1], strict=True)])
    return MondrianTrees(starts[:-1].astype(np.int32), left=left.astype(np.int32), **joined)


def _nodes_of(tree: Any, classes: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    """One tree's nodes, level by level, so that a right child follows its left sibling."""
    order: list[int] = [0]
    left: list[int] = []
    for node in order:
        child = int(tree.children_left[node])
        left.append(len(left) if child < 0 else len(order))
        if child >= 0:
            order += [child, int(tree.children_right[node])]
    counts = tree.value[order, 0, :]
    probability = np.zeros((len(order), len(KINDS) + 1), np.float64)
    probability[:, classes.astype(np.int64)] = counts / counts.sum(axis=1, keepdims=True)
    is_leaf = tree.children_left[order] < 0
    return {
        "feature": np.where(is_leaf, 0, tree.feature[order]).astype(np.int32),
        "threshold": np.where(is_leaf, np.inf, tree.threshold[order]),
        "left": np.array(left, np.int64),
        "probability": probability[:, 1:].astype(np.float32).astype(np.float64),
    }
