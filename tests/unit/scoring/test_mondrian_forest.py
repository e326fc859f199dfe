"""The forest's arrays say what River's trees say, and follow from rows and seed."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from river import forest
from river.checks import common

from pipeline.scoring import mondrian_forest
from pipeline.scoring.kinds import looks_of
from pipeline.scoring.mondrian_forest import ForestSettings, ForestStart, LabelledValues, MondrianForest
from pipeline.scoring.mondrian_trees import MondrianTrees
from pipeline.scoring.scaling import Scaling
from tests.unit.scoring import traffic

SETTINGS = ForestSettings(n_estimators=4)


def start_of(settings: ForestSettings = SETTINGS, seed: int = 0) -> ForestStart:
    rows = traffic.labelled(60, seed)
    scaling = Scaling.fit(rows.values)
    stretch = np.linspace(0.2, 1.0, rows.values.shape[1])
    return ForestStart.grow(settings, scaling, stretch, LabelledValues(rows.values, rows.kind))


def ranks_like(start: ForestStart, seed: int, count: int = 200) -> np.ndarray:
    random = np.random.default_rng(seed)
    return start.scaling.ranks(traffic.values_like(random, random.random(count) < 0.5))


def same_trees(one: MondrianTrees, other: MondrianTrees) -> bool:
    return all(getattr(one, f.name).tobytes() == getattr(other, f.name).tobytes() for f in fields(MondrianTrees))


@pytest.mark.parametrize(
    "settings",
    (
        SETTINGS,
        replace(SETTINGS, use_aggregation=False),
        replace(SETTINGS, split_pure=True, dirichlet=2.0),
        replace(SETTINGS, step=0.25),
    ),
)
def test_arrays_predict_what_river_predicts(settings: ForestSettings) -> None:
    start = start_of(settings)
    river, ranks = start.river_forest(), ranks_like(start, 5)
    said = [river.predict_proba_one(dict(enumerate(row))) for row in (ranks * start.stretch).tolist()]
    expected = looks_of(np.array([[of_row.get(kind, 0.0) for kind in (1, 2, 3)] for of_row in said]))
    np.testing.assert_allclose(MondrianForest(start).predict_proba(ranks), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("labels", ([1], [0], [0, 1], [3, 0, 2]))
def test_a_forest_of_few_rows_predicts_what_river_predicts(labels: list[int]) -> None:
    river = forest.AMFClassifier(n_estimators=2, seed=1)
    for place, label in enumerate(labels):
        river.learn_one({0: place / 2}, label)
    said = river.predict_proba_one({0: 0.2})
    found = MondrianTrees.of(river, 3).predict_proba(np.array([[0.2]]))[0]
    expected = looks_of(np.array([[said.get(kind, 0.0) for kind in (1, 2, 3)]]))[0]
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-12)


def test_a_row_is_predicted_alike_in_any_company() -> None:
    start = start_of()
    ranks = ranks_like(start, 6)
    together = MondrianForest(start).predict_proba(ranks)
    alone = [MondrianForest(start).predict_proba(ranks[row : row + 1])[0].tolist() for row in range(len(ranks))]
    assert together.tolist() == alone


def test_the_same_rows_and_seed_give_the_same_trees() -> None:
    assert same_trees(start_of().trees, start_of().trees)
    assert not same_trees(start_of().trees, start_of(replace(SETTINGS, seed=2)).trees)


def test_trees_survive_a_table() -> None:
    trees = start_of().trees
    assert same_trees(MondrianTrees.from_table(trees.to_table()), trees)


def test_contributions_and_base_add_up_to_the_prediction() -> None:
    start = start_of()
    ranks = ranks_like(start, 7)
    grown = MondrianForest(start)
    kind = np.arange(len(ranks)) % 3
    total = grown.contributions(ranks, kind).sum(axis=1) + grown.trees.base[kind]
    np.testing.assert_allclose(total, grown.predict_proba(ranks)[np.arange(len(ranks)), kind], rtol=0, atol=1e-12)


def test_verdicts_one_by_one_or_together_give_the_same_trees() -> None:
    start, rows = start_of(), traffic.labelled(4, seed=9)
    verdicts = LabelledValues(rows.values, rows.kind)
    one_by_one, together = MondrianForest(start), MondrianForest(start)
    for row in range(len(verdicts)):
        one_by_one.learn(LabelledValues(verdicts.values[row : row + 1], verdicts.kind[row : row + 1]))
    together.learn(verdicts)
    assert same_trees(one_by_one.trees, together.trees)
    assert not same_trees(together.trees, start.trees)


def test_a_forest_made_again_from_its_verdicts_goes_on_alike() -> None:
    start, rows = start_of(), traffic.labelled(6, seed=9)
    first = LabelledValues(rows.values[:9], rows.kind[:9])
    second = LabelledValues(rows.values[9:], rows.kind[9:])
    kept = MondrianForest(start)
    kept.learn(first)
    again = MondrianForest(start, kept.verdicts, kept.trees)
    kept.learn(second)
    again.learn(second)
    assert same_trees(kept.trees, again.trees)


def test_a_verdict_moves_the_risk_towards_it() -> None:
    start = start_of()
    values = traffic.values_like(np.random.default_rng(3), np.array([False]))
    ranks = start.scaling.ranks(values)
    taught = MondrianForest(start)
    before = taught.predict_proba(ranks)[0]
    taught.learn(LabelledValues(values, np.array([3], dtype=np.int8)))
    assert taught.predict_proba(ranks)[0, 2] > before[2]


def test_verdicts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mondrian_forest, "VERDICTS_MAX", 20)
    start, rows = start_of(), traffic.labelled(30, seed=4)
    taught = MondrianForest(start)
    for begin in range(0, 90, 6):
        taught.learn(LabelledValues(rows.values[begin : begin + 6], rows.kind[begin : begin + 6]))
        assert len(taught.verdicts) <= 20
    anew = MondrianForest(start)
    anew.learn(taught.verdicts)
    assert same_trees(anew.trees, taught.trees), "the forest is that of the verdicts kept"


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
    check(forest.AMFClassifier(n_estimators=2, seed=1), dataset)
