"""The laws of the ensemble: scores depend on the rows and not on how they arrive, restart or are looked at."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import SchemaError
from pipeline.features.rows import COUNT
from pipeline.scoring import BLOCK, Ensemble, Explainer, Scores
from pipeline.scoring.ensemble import JudgedValues
from pipeline.scoring.kinds import COLD, stage_of
from pipeline.scoring.snapshots import FORMAT, restore, snapshot
from pipeline.scoring.teachers import DailyTeachers
from tests.unit.scoring import traffic

ROWS = traffic.feature_rows(1400)
WHOLE = traffic.run(Ensemble(traffic.models()), ROWS)
CUTS = st.lists(st.integers(0, len(ROWS)), max_size=8).map(lambda cuts: [0, *sorted(cuts), len(ROWS)])


def test_the_traffic_exercises_the_models() -> None:
    """Otherwise the laws below would hold for nothing: normal moves, some rows are risky, some unknown."""
    ensemble = Ensemble(traffic.models())
    before = ensemble.half_space_trees.masses.scored_with.tobytes()
    traffic.run(ensemble, ROWS)
    assert ensemble.half_space_trees.masses.scored_with.tobytes() != before
    assert np.isnan(WHOLE.risk).any()
    assert (WHOLE.risk > 0.3).any()
    assert ensemble.blocks == len(ROWS) // BLOCK


@settings(deadline=None, max_examples=8)
@given(CUTS)
def test_scores_do_not_depend_on_how_rows_are_cut(cuts: list[int]) -> None:
    ensemble = Ensemble(traffic.models())
    parts = [traffic.run(ensemble, ROWS.slice(start, stop)) for start, stop in pairwise(cuts)]
    assert traffic.same_scores(Scores.concat(parts), WHOLE)


@settings(deadline=None, max_examples=8)
@given(st.integers(0, len(ROWS)))
def test_a_restart_anywhere_changes_no_score(cut: int) -> None:
    before = Ensemble(traffic.models())
    first = traffic.run(before, ROWS.slice(0, cut))
    tables = snapshot(before)
    after = restore(traffic.models(), tables)
    assert traffic.same_tables(snapshot(after), tables)
    second = traffic.run(after, ROWS.slice(cut, len(ROWS)))
    assert traffic.same_scores(Scores.concat([first, second]), WHOLE)
    traffic.run(before, ROWS.slice(cut, len(ROWS)))
    assert traffic.same_tables(snapshot(after), snapshot(before))


def judged(count: int, first_seq: int = 1) -> list[JudgedValues]:
    rows = traffic.labelled(count, seed=8)
    said = zip(rows.harvesting.tolist(), rows.stage.tolist(), rows.values, strict=True)
    return [
        JudgedValues(first_seq + n, 1000 + n, harvests, stage, row) for n, (harvests, stage, row) in enumerate(said)
    ]


def test_a_restart_after_verdicts_changes_no_score() -> None:
    before = Ensemble(traffic.models())
    traffic.run(before, ROWS.slice(0, 300))
    before.judge(judged(5))
    after = restore(traffic.models(), snapshot(before))
    rest = ROWS.slice(300, 700)
    scores = traffic.run(before, rest)
    assert traffic.same_scores(traffic.run(after, rest), scores)
    assert next(after.scored(rest))[1].versions["verdicts"] == "15"
    assert scores.precedents.any()
    assert not traffic.same_scores(scores, traffic.run(Ensemble(traffic.models()), ROWS.slice(300, 700)))
    before.judge(judged(5, 16))
    after.judge(judged(5, 16))
    assert traffic.same_tables(snapshot(after), snapshot(before))


def test_a_part_that_the_risk_does_not_listen_to_is_not_taught() -> None:
    """To grow the Mondrian forest anew takes half a minute a partition."""
    deaf = replace(traffic.models(), combination=replace(traffic.models().combination, weights=(0, 0, 0, 0, 1.0)))
    ensemble = Ensemble(deaf)
    ensemble.judge(judged(5))
    assert len(ensemble.mondrian_forest.verdicts) == 0
    assert ensemble.logistic_regression.learned is deaf.linear
    assert traffic.score(ensemble, ROWS.slice(0, 50)).precedents.any()


def test_scoring_changes_nothing() -> None:
    ensemble = Ensemble(traffic.models())
    traffic.run(ensemble, ROWS.slice(0, 300))
    before = snapshot(ensemble)
    first, second = (traffic.score(ensemble, ROWS.slice(300, 400)) for _ in range(2))
    assert traffic.same_scores(first, second)
    assert traffic.same_tables(snapshot(ensemble), before)


def test_accounts_with_few_exchanges_are_unknown() -> None:
    cold = stage_of(ROWS.exchanges, ROWS.kind == COUNT) == COLD
    assert 10 < cold.sum() < 200
    assert np.isnan(WHOLE.risk).tolist() == cold.tolist()
    for part in WHOLE.parts.values():
        assert np.isnan(part).tolist() == cold.tolist()
    assert (WHOLE.top[cold] == -1).all()


def test_harvesters_get_the_higher_risk() -> None:
    harvesting = np.array([int(name.split("-")[1]) % 5 == 0 for name in ROWS.account_id])
    assert np.nanmedian(WHOLE.risk[harvesting]) > 5 * np.nanmedian(WHOLE.risk[~harvesting])


def test_a_row_of_which_nothing_is_known_gets_a_risk() -> None:
    rows = traffic.feature_rows(4)
    rows.values[:] = np.nan
    rows.exchanges[:] = 100
    risk = traffic.score(Ensemble(traffic.models()), rows).risk
    assert ((risk > 0) & (risk < 1)).all()


def test_extreme_values_get_a_risk() -> None:
    rows = traffic.feature_rows(4)
    rows.values[:] = np.array([[np.inf], [-np.inf], [3e38], [-3e38]], dtype=np.float32)
    rows.exchanges[:] = 100
    scores = traffic.score(Ensemble(traffic.models()), rows)
    assert ((scores.risk >= 0) & (scores.risk <= 1)).all()
    assert np.isfinite(scores.contribution).all()


def test_the_suspect_do_not_teach() -> None:
    ensemble = Ensemble(traffic.models())
    before = snapshot(ensemble)
    for piece, scores in ensemble.scored(ROWS.slice(0, BLOCK)):
        ensemble.learn(piece, scores, np.zeros(len(piece), dtype=np.bool_))
    after = snapshot(ensemble)
    for name in ("population", "masses", "teachers", "linear"):
        assert traffic.as_bytes(after[name]) == traffic.as_bytes(before[name])


def test_an_account_teaches_once_a_day() -> None:
    teachers = DailyTeachers()
    key = np.array([1, 1, 2, 1, 1], dtype=np.uint64)
    at = np.array([0, 5, 6, traffic.DAY_US, traffic.DAY_US + 1])
    assert teachers.admit(key, at).tolist() == [True, False, True, True, False]


def test_a_clock_that_jumps_ahead_keeps_nobody_out() -> None:
    teachers = DailyTeachers()
    teachers.days[:] = 100_000
    assert teachers.admit(np.array([1], dtype=np.uint64), np.array([0])).tolist() == [True]


def test_memory_does_not_grow() -> None:
    """What a snapshot holds is what there is to hold, but for the bounded rows and values that wait."""
    ensemble = Ensemble(traffic.models())
    sizes = []
    for seed in range(6):
        traffic.run(ensemble, traffic.feature_rows(BLOCK * 4, seed=seed, accounts=5000))
        sizes.append(sum(table.nbytes for table in snapshot(ensemble).values()))
    assert max(sizes) - min(sizes) < 4096


def test_no_piece_goes_beyond_its_block() -> None:
    ensemble, sizes = Ensemble(traffic.models()), []
    for start, stop in ((0, 100), (100, BLOCK * 3 + 1)):
        for piece, scores in ensemble.scored(ROWS.slice(start, stop)):
            ensemble.learn(piece, scores, np.ones(len(piece), dtype=np.bool_))
            sizes.append(len(piece))
    assert sizes == [100, BLOCK - 100, BLOCK, BLOCK, 1]


def test_reasons_say_value_median_and_place() -> None:
    ensemble = Ensemble(traffic.models())
    row = int(np.nanargmax(WHOLE.risk))
    words = tuple(f"the {name}" for name in traffic.NAMES)
    explainer = Explainer(traffic.NAMES, words, ensemble.population.scaling)
    reasons = explainer.reasons(ROWS.values[row], WHOLE.top[row], WHOLE.contribution[row])
    assert reasons[0].contribution > 0
    assert reasons[0].words.startswith("the ")
    assert reasons[0].words.endswith("raises the risk")
    assert "median" in reasons[0].words
    assert abs(reasons[0].contribution) == max(abs(reason.contribution) for reason in reasons)


@pytest.mark.parametrize("spoil", ("models", "format", "missing", "shape", "json"))
def test_a_snapshot_that_does_not_fit_is_refused(spoil: str) -> None:
    tables = snapshot(Ensemble(traffic.models()))
    state = tables["state"]["state"][0].as_py()
    if spoil == "models":
        state = state.replace(traffic.models().version, "000000000000")
    elif spoil == "format":
        state = state.replace(f'"format": {FORMAT}', '"format": 99')
    elif spoil == "json":
        state = state[:-5]
    elif spoil == "missing":
        del tables["masses"]
    else:
        tables["population"] = tables["population"].slice(0, 10)
    tables["state"] = tables["state"].set_column(0, "state", [[state]])
    with pytest.raises(SchemaError):
        restore(traffic.models(), tables)
