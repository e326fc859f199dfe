"""Training: bounded, repeatable, honest about what its parts had seen, calibrated to the prior that it states."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import linear_model, optim

from pipeline.errors import ConfigError
from pipeline.scoring import growing
from pipeline.scoring.combination import PARTS, Combination, fit_combination
from pipeline.scoring.extra_trees import Experts
from pipeline.scoring.kinds import EARLY, FEW, GROWN
from pipeline.scoring.labelled import LabelledRows, split_of, spread_rows
from pipeline.scoring.leave_one_out import Plan, combined, held_out_scores, leave_one_out_report
from pipeline.scoring.logistic_regression import L2, LEARNING_RATE, LinearWeights, LogisticRegression
from pipeline.scoring.scaling import Scaling
from pipeline.scoring.training import starting_rows, train, without_some
from tests.unit.scoring import traffic


def test_the_same_rows_and_seed_give_the_same_models() -> None:
    again = train(traffic.labelled(), traffic.NAMES, traffic.HASH, traffic.SETTINGS)
    assert again.version == traffic.models().version
    other = train(traffic.labelled(), traffic.NAMES, traffic.HASH, replace(traffic.SETTINGS, seed=2))
    assert other.version != again.version


def test_starting_rows_are_bounded() -> None:
    rows = traffic.labelled()
    assert len(starting_rows(rows, replace(traffic.SETTINGS, rows_max=50))) == 50
    one_each = starting_rows(rows, replace(traffic.SETTINGS, rows_per_account=1))
    assert len(one_each) == len(np.unique(rows.account))
    assert (one_each.exchanges == 64).all(), "the last row of each account knows most"


def test_rows_are_spread_over_an_accounts_life() -> None:
    rows = traffic.labelled(4)
    assert spread_rows(rows, 2).tolist() == [0, 2, 3, 5, 6, 8, 9, 11]
    assert spread_rows(rows, 5).tolist() == list(range(12))


def test_trees_learn_the_last_rows_of_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stretch ends where exchanges double, and where the stage changes."""
    rows = traffic.labelled(1).take(np.zeros(6, np.int64))
    rows = replace(
        rows,
        account=np.array(["a", "a", "a", "a", "b", "b"]),
        exchanges=np.array([4, 7, 8, 60, 60, 62]),
        stage=np.array([FEW, EARLY, EARLY, GROWN, GROWN, GROWN]),
    )
    assert rows.ends_doubling.tolist() == [False, True, True, True, False, True]
    assert rows.ends_stage.tolist() == [True, False, True, True, False, True]
    learned: list[LabelledRows] = []

    def note(rows: LabelledRows, *_: object) -> Experts:
        learned.append(rows)
        return traffic.models().trees.young

    monkeypatch.setattr(growing, "_experts", note)
    growing.grow_trees(rows, growing.Curriculum(Scaling.fit(rows.values), (), 0.0, 1))
    assert [list(zip(of.account, of.exchanges, strict=True)) for of in learned] == [
        [("a", 4), ("a", 7), ("a", 8), ("a", 60), ("b", 62)],
        [("a", 60), ("b", 62)],
    ]


def test_a_share_of_rows_is_learned_without_what_may_be_withheld() -> None:
    rows = traffic.labelled()
    rows.values[:] = 1.0
    lacking = np.isnan(
        without_some(rows, replace(traffic.SETTINGS, withheld=((0, 1), (2,)), withheld_share=0.25)).values
    )
    assert (lacking[:, 0] == lacking[:, 1]).all()
    assert not (lacking[:, 0] & lacking[:, 2]).any()
    np.testing.assert_allclose(lacking[:, [0, 2]].mean(axis=0), 0.25, atol=0.06)
    assert not lacking[:, 3:].any()


@pytest.mark.parametrize("spoil", ("no honest", "one family", "cold"))
def test_too_little_to_learn_from_is_refused(spoil: str) -> None:
    rows = traffic.labelled()
    if spoil == "no honest":
        rows = rows.take(rows.harvesting)
    elif spoil == "one family":
        rows = rows.take(~rows.harvesting | (rows.family == "alpha"))
    else:
        rows.exchanges[:] = 3
    with pytest.raises(ConfigError, match="training needs"):
        train(rows, traffic.NAMES, traffic.HASH, traffic.SETTINGS)


def test_logistic_regression_is_rivers() -> None:
    ranks = np.random.default_rng(0).random((200, 4))
    labels = ranks[:, 0] > 0.5
    ours = LogisticRegression(LinearWeights.none(4))
    ours.learn(ranks[:100], labels[:100])
    ours = LogisticRegression(ours.learned)
    ours.learn(ranks[100:], labels[100:])
    river = linear_model.LogisticRegression(optim.SGD(LEARNING_RATE), l2=L2, intercept_lr=LEARNING_RATE)
    for row, label in zip((ranks - 0.5).tolist(), labels.tolist(), strict=True):
        river.learn_one(dict(enumerate(row)), label)
    expected = [river.predict_proba_one(dict(enumerate(row)))[True] for row in (ranks - 0.5).tolist()]
    np.testing.assert_allclose(1 / (1 + np.exp(-ours.log_odds(ranks))), expected, rtol=0, atol=1e-12)


def parts_of(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    harvesting = random.random(count) < 0.3
    parts = random.normal(size=(count, len(PARTS))) + harvesting[:, np.newaxis] * np.array([1.0, 0.0, 2.0, -1.0, 0.5])
    return parts, harvesting


def test_no_part_counts_against_harvesting() -> None:
    parts, harvesting = parts_of(3000)
    weights = fit_combination(parts, harvesting, np.ones(3000), 0.02).weights
    assert weights[3] == 0
    assert min(weights) >= 0
    assert weights[2] > weights[0] > 0


@settings(deadline=None)
@given(st.integers(0, 4), st.floats(-10, 10), st.floats(0, 5))
def test_the_risk_never_falls_when_a_part_rises(part: int, value: float, more: float) -> None:
    parts, harvesting = parts_of(500)
    combination = fit_combination(parts, harvesting, np.ones(500), 0.02)
    row = np.full((2, len(PARTS)), value)
    row[1, part] += more
    low, high = combination.risk(row)
    assert low <= high


@pytest.mark.parametrize("prior", (0.005, 0.02, 0.3))
def test_the_risk_is_a_probability_at_the_stated_prior(prior: float) -> None:
    """Among rows drawn with that share of harvesters, those with a risk about p harvest with frequency p."""
    parts, harvesting = parts_of(40_000)
    combination = fit_combination(parts, harvesting, np.ones(40_000), prior)
    parts, harvesting = parts_of(400_000, seed=1)
    weight = np.where(harvesting, prior / harvesting.mean(), (1 - prior) / (1 - harvesting.mean()))
    risk = combination.risk(parts)
    for low, high in ((0.02, 0.1), (0.1, 0.3), (0.3, 0.7)):
        chosen = (risk >= low) & (risk < high)
        expected = np.average(risk[chosen], weights=weight[chosen])
        assert np.average(harvesting[chosen], weights=weight[chosen]) == pytest.approx(expected, rel=0.15)
    assert np.average(risk, weights=weight) == pytest.approx(prior, rel=0.1)


def test_an_unknown_part_counts_nothing() -> None:
    combination = Combination((1.0, 2.0, 3.0, 4.0, 5.0), -1.0, 0.5)
    assert combination.log_odds(np.array([[1.0, np.nan, 1.0, 0.0, 0.0]])).tolist() == [3.0]


def test_splits_follow_the_id_alone() -> None:
    accounts = traffic.labelled().account
    splits = split_of(accounts, 5)
    assert set(splits.tolist()) == {0, 1, 2, 3, 4}
    order = np.random.default_rng(0).permutation(len(accounts))
    assert (split_of(accounts[order], 5) == splits[order]).all()


def test_leaving_one_family_out() -> None:
    """Each family is held out with each split; what was held out was not learned, and the report knows the separation."""
    rows = traffic.labelled(180)
    views = {"everything": np.ones(8, dtype=np.bool_), "blind": np.zeros(8, dtype=np.bool_)}
    settings = replace(traffic.SETTINGS, rows_per_account=1)
    held = held_out_scores(rows, None, Plan(settings, views, splits=2, run_splits=2, processes=1))
    assert [(one.family, one.split) for one in held] == [(f, s) for f in traffic.FAMILIES for s in (0, 1)]
    for one in held:
        assert set(one.rows.family.tolist()) == {one.family, ""}
    risks = combined(held, "everything", settings)
    report = leave_one_out_report(held, risks)
    assert report["auc"]["mean"] > 0.85
    assert set(report["thresholds"]["0.01"]["by_variant"]) == {"loud", "hydra"}
    blind = leave_one_out_report(held, combined(held, "blind", settings))
    assert blind["auc"]["mean"] == pytest.approx(0.5)
    baseline = leave_one_out_report(held, combined(held, "everything", settings, ("zscore",)))
    assert baseline["auc"]["mean"] != report["auc"]["mean"]


def test_rows_are_taken_and_joined_whole() -> None:
    rows = traffic.labelled(6)
    again = LabelledRows.concat([rows.take(np.arange(9)), rows.take(np.arange(9, 18))])
    assert again.values.tobytes() == rows.values.tobytes()
    assert again.family.tolist() == rows.family.tolist()
