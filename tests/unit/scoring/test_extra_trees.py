"""The arrays of extremely randomised trees say what scikit-learn's trees say; experts are heard where they know best."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import sklearn.ensemble

from pipeline.scoring.extra_trees import LEAF_ROWS_MIN, SHARPNESS, Growth, Lesson, grow
from pipeline.scoring.growing import Curriculum, grow_trees
from pipeline.scoring.kinds import COLD, EARLY, GROWN, LOOKS, QUIET
from pipeline.scoring.labelled import LabelledRows
from pipeline.scoring.scaling import Scaling
from tests.unit.scoring import traffic

GROWTH = Growth(trees=30, features_tried=0.4, seed=1)


def lesson() -> Lesson:
    rows = traffic.labelled()
    values = np.nan_to_num(rows.values.astype(np.float64))
    return Lesson(values, rows.kind.astype(np.int64), 4, np.ones(len(rows)))


def test_arrays_predict_what_scikit_learn_predicts() -> None:
    learned = lesson()
    theirs = sklearn.ensemble.ExtraTreesClassifier(
        30, min_samples_leaf=LEAF_ROWS_MIN, max_features=0.4, random_state=1
    ).fit(learned.values.astype(np.float32), learned.label)
    expected = np.zeros((len(learned.label), 4))
    expected[:, theirs.classes_] = theirs.predict_proba(learned.values.astype(np.float32))
    np.testing.assert_allclose(grow(learned, GROWTH).predict_proba(learned.values), expected, rtol=0, atol=1e-6)


def test_the_same_rows_and_seed_give_the_same_trees() -> None:
    one, other, third = (grow(lesson(), replace(GROWTH, seed=seed)) for seed in (1, 1, 2))
    assert one.to_table().equals(other.to_table())
    assert not one.to_table().equals(third.to_table())


def two_sources() -> LabelledRows:
    """In the second source harvesters have less of what they have more of in the first, and all stand elsewhere."""
    here, there = traffic.labelled(seed=1), traffic.labelled(seed=2)
    values = there.values.copy()
    values[:, :2] *= -1
    values[:, 4] += 30
    there = replace(there.with_values(values), source=np.full(len(there), "other"))
    return LabelledRows.concat([here, replace(there, account=np.char.add("other/", there.account))])


def test_each_source_is_told_by_its_own_expert() -> None:
    rows = two_sources()
    curriculum = Curriculum(Scaling.fit(rows.values), (), 0.3, seed=1)
    trees = grow_trees(rows, curriculum)
    assert len(trees.grown.experts) == len(np.unique(rows.source)) == 2
    fresh = replace(two_sources(), values=two_sources().values)
    found = trees.predict_proba(curriculum.scaling.filled(fresh.values), np.full(len(fresh), GROWN))
    for source in np.unique(rows.source):
        of_source = fresh.source == source
        harvesting = fresh.harvesting[of_source]
        anything = found[of_source, LOOKS.index("any")]
        assert np.median(anything[harvesting]) > 2 * np.median(anything[~harvesting])
    likeness = trees.grown.gate.predict_proba(curriculum.scaling.filled(fresh.values))
    np.testing.assert_allclose(likeness.sum(axis=1), 1.0, atol=1e-6)
    of_other = fresh.source == "other"
    assert likeness[of_other, 1].mean() > 2 * likeness[~of_other, 1].mean()


def test_a_source_without_harvesters_teaches_all_experts() -> None:
    rows = two_sources()
    honest = rows.take((rows.source != "other") | ~rows.harvesting)
    assert len(grow_trees(honest, Curriculum(Scaling.fit(honest.values), (), 0.3, seed=1)).young.experts) == 1


@pytest.mark.parametrize("look", range(len(LOOKS)))
def test_contributions_explain_what_the_experts_said(look: int) -> None:
    rows = two_sources()
    curriculum = Curriculum(Scaling.fit(rows.values), (), 0.3, seed=1)
    experts = grow_trees(rows, curriculum).young
    filled = curriculum.scaling.filled(rows.values)
    moved = experts.contributions(filled, np.full(len(rows), look))
    likeness = experts.gate.predict_proba(filled) ** SHARPNESS
    likeness /= likeness.sum(axis=1, keepdims=True)
    base = sum(likeness[:, number] * expert.base[look] for number, expert in enumerate(experts.experts))
    np.testing.assert_allclose(moved.sum(axis=1) + base, experts.proba_of(experts.seen(filled))[:, look], atol=1e-9)


def test_cold_rows_are_told_nothing_of() -> None:
    rows = two_sources().take(np.arange(4))
    curriculum = Curriculum(Scaling.fit(rows.values), (), 0.3, seed=1)
    trees = grow_trees(two_sources(), curriculum)
    found = trees.predict_proba(curriculum.scaling.filled(rows.values), np.array([COLD, EARLY, QUIET, GROWN]))
    assert np.isnan(found).all(axis=1).tolist() == [True, False, False, False]
