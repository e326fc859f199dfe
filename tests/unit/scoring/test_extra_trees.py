"""The arrays of extremely randomised trees say what scikit-learn's trees say."""

from __future__ import annotations

import numpy as np
import sklearn.ensemble

from pipeline.scoring import extra_trees
from tests.unit.scoring import traffic


def test_arrays_predict_what_scikit_learn_predicts() -> None:
    rows = traffic.labelled()
    values, weights = np.nan_to_num(rows.values.astype(np.float64)), np.ones(len(rows))
    trees = extra_trees.grow(values, rows.kind, weights, seed=1)
    theirs = sklearn.ensemble.ExtraTreesClassifier(
        extra_trees.TREES,
        min_samples_leaf=extra_trees.LEAF_ROWS_MIN,
        max_features=extra_trees.FEATURES_TRIED,
        random_state=1,
    ).fit(values.astype(np.float32), rows.kind)
    expected = np.zeros((len(rows), 4))
    expected[:, theirs.classes_] = theirs.predict_proba(values.astype(np.float32))
    np.testing.assert_allclose(trees.predict_proba(values), expected[:, 1:], rtol=0, atol=1e-6)


def test_the_same_rows_and_seed_give_the_same_trees() -> None:
    rows = traffic.labelled()
    values, weights = np.nan_to_num(rows.values.astype(np.float64)), np.ones(len(rows))
    one, other, third = (extra_trees.grow(values, rows.kind, weights, seed) for seed in (1, 1, 2))
    assert one.to_table().equals(other.to_table())
    assert not one.to_table().equals(third.to_table())
