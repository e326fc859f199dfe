"""What accounts have in common adds to what trees say, and takes nothing from those who share nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.features import FEATURES
from pipeline.scoring.boosted_trees import Boosting
from pipeline.scoring.combination import log_odds_of
from pipeline.scoring.corroboration import FEATURE, MOST, Corroboration, corroboration_of
from pipeline.scoring.ensemble import Ensemble
from pipeline.scoring.growing import Curriculum, grow_trees
from pipeline.scoring.kinds import EARLY, GROWN, LOOKS, QUIET
from pipeline.scoring.scaling import Floats, Scaling
from pipeline.scoring.staged_trees import StagedTrees
from pipeline.scoring.training import TrainingSettings, settings_for, train
from tests.unit.scoring import traffic

ANY = LOOKS.index("any")
SHARED = traffic.NAMES.index("day_share")
TOLD = traffic.NAMES.index("single_turn")


def grown(column: int, share: float = 0.5) -> tuple[StagedTrees, Floats]:
    rows = traffic.labelled()
    curriculum = Curriculum(
        Scaling.fit(rows.values), ((1,),), 0.3, seed=1, boosted_share=share, boosting=Boosting(forests=1, rounds=10),
        corroboration=Corroboration(column, 6.0, 3.0),
    )  # fmt: skip
    return grow_trees(rows, curriculum), curriculum.scaling.filled(rows.values)


def test_it_adds_to_the_log_odds_up_to_a_bound_and_never_takes_away() -> None:
    added = Corroboration(1, slope=6.0, most=3.0).added(np.array([[9.0, 0.0], [9.0, 0.25], [9.0, 0.9], [9.0, -1.0]]))
    assert added.tolist() == [0.0, 1.5, 3.0, 0.0]


def test_at_every_stage_it_tells_whether_a_row_is_any_harvest_and_nothing_of_kinds() -> None:
    trees, filled = grown(SHARED)
    stage = np.resize([EARLY, QUIET, GROWN], len(filled))
    alone = replace(trees, corroboration=None).predict_proba(filled, stage)
    both = trees.predict_proba(filled, stage)
    added = np.clip(filled[:, SHARED] * 6.0, 0.0, 3.0)
    assert 0 < (added > 0).mean() < 1
    inside = (alone[:, ANY] > 0.01) & (alone[:, ANY] < 0.5)
    np.testing.assert_allclose(
        log_odds_of(both[inside, ANY]), log_odds_of(alone[inside, ANY]) + added[inside], atol=1e-9
    )
    np.testing.assert_array_equal(both[:, :ANY], alone[:, :ANY])
    np.testing.assert_array_equal(both[added == 0], alone[added == 0])


def test_trees_do_not_look_at_it() -> None:
    """Though it tells the classes apart best of all."""
    trees, filled = grown(TOLD)
    stage = np.resize([EARLY, GROWN], len(filled))
    moved = filled.copy()
    moved[:, TOLD] = np.random.default_rng(0).permutation(moved[:, TOLD])
    alone = replace(trees, corroboration=None)
    np.testing.assert_array_equal(alone.predict_proba(filled, stage), alone.predict_proba(moved, stage))


@pytest.mark.parametrize("share", (0.0, 0.5))
@pytest.mark.parametrize("stage", (EARLY, GROWN))
def test_contributions_say_what_it_added(share: float, stage: int) -> None:
    trees, filled = grown(SHARED, share)
    stages, look = np.full(len(filled), stage), np.full(len(filled), ANY)
    moved = trees.contributions(filled, look, stages)
    added = np.clip(filled[:, SHARED] * 6.0, 0.0, 3.0)
    np.testing.assert_allclose(moved[:, SHARED], added, atol=1e-9)
    told = log_odds_of(trees.predict_proba(filled, stages)[:, ANY])
    rest = (told - moved.sum(axis=1))[(added > 0) & (np.abs(told) < 6)]  # the same for all: what nobody has moved
    assert len(rest) > 10
    assert np.ptp(rest) < 1e-6
    of_kinds = trees.contributions(filled, np.zeros(len(filled), np.int64), stages)
    assert (of_kinds[:, SHARED] == 0).all()


def test_it_is_found_by_the_name_of_its_feature() -> None:
    found = settings_for(FEATURES, TrainingSettings()).corroboration
    assert found is not None
    assert FEATURES[found.column].name == FEATURE
    assert found.most == MOST
    assert found.column not in settings_for(FEATURES, TrainingSettings()).unused
    assert corroboration_of([one for one in FEATURES if one.name != FEATURE]) is None


def test_scores_and_their_reasons_tell_of_it() -> None:
    settings = replace(traffic.SETTINGS, parts=("extra_trees",), corroboration=Corroboration(SHARED, 6.0, 3.0))
    models = train(traffic.labelled(), traffic.NAMES, traffic.HASH, settings)
    rows = traffic.feature_rows(60)
    scored = {}
    for share in (0.0, 1.0):
        values = rows.values.copy()
        values[:, SHARED] = share
        scored[share] = traffic.score(Ensemble(models), replace(rows, values=values))
    known = ~np.isnan(scored[0.0].risk)
    assert (scored[1.0].risk[known] >= scored[0.0].risk[known]).all()
    assert scored[1.0].risk[known].mean() > scored[0.0].risk[known].mean()
    told = (scored[1.0].top[known] == SHARED) & (scored[1.0].contribution[known] > 0)
    assert told.any()
    assert not (scored[0.0].top == SHARED).any()
