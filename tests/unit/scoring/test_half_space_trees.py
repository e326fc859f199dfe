"""Half-space trees score what River scores, cold or warm, and go on from their masses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from river import anomaly
from river.checks import common

from pipeline.scoring.half_space_trees import HEIGHT, N_TREES, SEED, WINDOW, HalfSpaceTrees
from pipeline.scoring.scaling import Scaling
from tests.unit.scoring import traffic

FEATURES = 6


def ranks_of(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).beta(2, 5, size=(count, FEATURES))


def test_scores_are_rivers() -> None:
    """Over several windows, with the same rows learned; the one row that makes the trees is not counted."""
    ours = HalfSpaceTrees(FEATURES)
    river = anomaly.HalfSpaceTrees(n_trees=N_TREES, height=HEIGHT, window_size=WINDOW, seed=SEED)
    for part in range(5):
        learned, asked = ranks_of(200, part), ranks_of(50, 100 + part)
        ours.learn(learned)
        for row in learned.tolist():
            river.learn_one(dict(enumerate(row)))
        expected = [river.score_one(dict(enumerate(row))) for row in asked.tolist()]
        if ours.is_cold:
            assert expected == [0] * 50
        else:
            assert ours.score(asked).tolist() == expected


def test_cold_trees_say_unknown() -> None:
    trees = HalfSpaceTrees(FEATURES)
    assert np.isnan(trees.score(ranks_of(3))).all()
    assert trees.learn(ranks_of(WINDOW - 1)) == 0
    assert np.isnan(trees.score(ranks_of(3))).all()
    assert trees.learn(ranks_of(1)) == 1
    assert not np.isnan(trees.score(ranks_of(3))).any()


def test_scoring_changes_nothing() -> None:
    trees = HalfSpaceTrees(FEATURES)
    trees.learn(ranks_of(300))
    before = trees.masses
    trees.score(ranks_of(100, 1))
    assert before.learning.tobytes() == trees.masses.learning.tobytes()
    assert before.scored_with.tobytes() == trees.masses.scored_with.tobytes()


def test_masses_are_all_there_is_to_know() -> None:
    kept = HalfSpaceTrees(FEATURES)
    kept.learn(ranks_of(400))
    again = HalfSpaceTrees(FEATURES, kept.masses)
    for trees in (kept, again):
        trees.learn(ranks_of(300, 1))
    assert kept.score(ranks_of(50, 2)).tolist() == again.score(ranks_of(50, 2)).tolist()
    assert kept.masses.learned == again.masses.learned == 700 % WINDOW


def test_rare_rows_score_higher() -> None:
    trees = HalfSpaceTrees(FEATURES)
    trees.learn(ranks_of(WINDOW * 2))
    assert trees.score(np.full((1, FEATURES), 0.99))[0] > trees.score(ranks_of(200, 3)).mean()


@pytest.mark.parametrize(
    "check",
    (
        common.check_learn_one,
        common.check_predict_one_pure,
        common.check_shuffle_features_no_impact,
        common.check_seeding_is_idempotent,
        common.check_no_state_aliasing_with_input,
    ),
)
def test_rivers_own_checks(check: Any) -> None:
    """Those of `river.checks` that need no scikit-learn, on rows such as ours."""
    rows = traffic.labelled(20)
    ranks = Scaling.fit(rows.values).ranks(rows.values).tolist()
    dataset = [(dict(enumerate(row)), label) for row, label in zip(ranks, rows.harvesting.tolist(), strict=True)]
    check(anomaly.HalfSpaceTrees(n_trees=2, height=3, window_size=20, seed=SEED), dataset)
