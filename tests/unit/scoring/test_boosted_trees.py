"""The arrays of boosted trees say what scikit-learn's trees say, and count half of what is said of grown accounts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import sklearn.ensemble

from pipeline.scoring.boosted_trees import Boosting, boost
from pipeline.scoring.combination import log_odds_of, probability_of
from pipeline.scoring.extra_trees import Lesson
from pipeline.scoring.growing import Curriculum, grow_trees
from pipeline.scoring.kinds import EARLY, GROWN, LOOKS, QUIET
from pipeline.scoring.scaling import Scaling
from pipeline.scoring.staged_trees import StagedTrees
from tests.unit.scoring import traffic

BOOSTING = Boosting(rounds=12)
ANY = LOOKS.index("any")


def lesson() -> Lesson:
    rows = traffic.labelled()
    values = np.nan_to_num(rows.values.astype(np.float64))
    return Lesson(values, rows.harvesting.astype(np.int64), 2, np.linspace(0.5, 1.5, len(rows)))


def test_arrays_say_what_scikit_learn_says() -> None:
    learned = lesson()
    of_label = np.bincount(learned.label, learned.weights)
    weights = learned.weights / of_label[learned.label]
    weights *= len(weights) / weights.sum()
    theirs = [
        sklearn.ensemble.HistGradientBoostingClassifier(
            max_iter=12, learning_rate=0.06, max_leaf_nodes=31, min_samples_leaf=10, l2_regularization=5.0,
            max_features=0.3, early_stopping=False, random_state=seed,
        ).fit(learned.values, learned.label, sample_weight=weights)
        for seed in (2, 3)
    ]  # fmt: skip
    expected = np.mean([model.decision_function(learned.values) for model in theirs], axis=0)
    np.testing.assert_allclose(boost(learned, BOOSTING, 1).predict_proba(learned.values)[:, 0], expected, atol=1e-12)
    assert np.ptp(expected) > 1


def test_the_same_rows_and_seed_give_the_same_trees() -> None:
    one, other, third = (boost(lesson(), BOOSTING, seed).to_table() for seed in (1, 1, 2))
    assert one.equals(other)
    assert not one.equals(third)


def test_contributions_explain_what_was_said() -> None:
    learned = lesson()
    trees = boost(learned, BOOSTING, 1)
    moved = trees.contributions(learned.values, np.zeros(len(learned.values), np.int64))
    np.testing.assert_allclose(moved.sum(axis=1) + trees.base[0], trees.predict_proba(learned.values)[:, 0], atol=1e-9)


@pytest.mark.parametrize(("label", "sign"), ((0, -1), (1, 1)))
def test_where_one_label_is_known_a_lone_leaf_says_so(label: int, sign: int) -> None:
    learned = replace(lesson(), label=np.full(len(lesson().label), label))
    trees = boost(learned, BOOSTING, 1)
    assert len(trees.feature) == 1
    assert (trees.predict_proba(learned.values) * sign > 5).all()


def grown_by(share: float) -> tuple[StagedTrees, np.ndarray[tuple[int, int], np.dtype[np.float64]]]:
    rows = traffic.labelled()
    curriculum = Curriculum(Scaling.fit(rows.values), (), 0.3, seed=1, boosted_share=share, boosting=BOOSTING)
    return grow_trees(rows, curriculum), curriculum.scaling.filled(rows.values)


def test_boosted_trees_count_where_grown_accounts_are_asked_whether_they_harvest_at_all() -> None:
    trees, filled = grown_by(0.25)
    stage = np.resize([EARLY, QUIET, GROWN], len(filled))
    alone = replace(trees, boosted_share=0.0).predict_proba(filled, stage)
    both = trees.predict_proba(filled, stage)
    expected = alone.copy()
    is_grown = stage == GROWN
    boosted = trees.boosted.predict_proba(filled[is_grown])[:, 0]
    expected[is_grown, ANY] = probability_of(0.75 * log_odds_of(alone[is_grown, ANY]) + 0.25 * boosted)
    np.testing.assert_allclose(both, expected, atol=1e-12)
    assert np.abs(both - alone).max() > 0.01


@pytest.mark.parametrize("share", (0.0, 0.5, 1.0))
def test_contributions_say_how_experts_and_boosted_trees_moved_the_log_odds(share: float) -> None:
    trees, filled = grown_by(share)
    look, stage = np.full(len(filled), ANY), np.full(len(filled), GROWN)
    moved = trees.contributions(filled, look, stage)
    by_experts = trees.grown.contributions(filled, look)
    told = trees.grown.proba_of(trees.grown.seen(filled))[:, ANY]
    base = log_odds_of(told - by_experts.sum(axis=1)) * (1 - share) + trees.boosted.base[0] * share
    found = trees.predict_proba(filled, stage)[:, ANY]
    if share:
        np.testing.assert_allclose(moved.sum(axis=1) + base, log_odds_of(found), atol=1e-6)
    else:
        np.testing.assert_array_equal(moved, by_experts)


def test_without_a_share_no_trees_are_boosted() -> None:
    assert len(grown_by(0.0)[0].boosted.feature) == 1
