"""Which scores are worth a look, and where a feature stands."""

from __future__ import annotations

import math

import numpy as np

from pipeline.dossier import ScoredMoment
from pipeline.dossier.measures import measures_of
from pipeline.dossier.notable import NOTABLE_MAX, notable
from pipeline.dossier.plots import POINTS_MAX, thinned
from pipeline.features import NAMES
from pipeline.scoring.scaling import Scaling


def history(*risks: float | None) -> list[ScoredMoment]:
    return [ScoredMoment(1000 * place, "count", 8 * place, 0, risk, place) for place, risk in enumerate(risks)]


def test_the_first_the_highest_the_steepest_and_the_latest_are_worth_a_look() -> None:
    assert notable(history(None, 0.1, 0.2, 0.7, 0.75, 0.3), {}) == [
        (1, "the first risk"),
        (3, "the steepest rise"),
        (4, "the highest risk"),
        (5, "the latest"),
    ]


def test_what_raised_an_alert_is_and_there_are_never_many() -> None:
    scores = history(*[0.5] * 50)
    found = notable(scores, {(1000 * place, place): f"rule_{place}" for place in range(10, 40)})
    assert len(found) == NOTABLE_MAX
    assert any("raised rule_39" in why for _, why in found)
    assert notable(scores, {(1000, 2): "of another moment"})[0] == (0, "the highest risk, the first risk")


def test_of_unknown_risks_the_latest_is_and_of_nothing_nothing() -> None:
    assert notable(history(None, None), {}) == [(1, "the latest")]
    assert notable([], {}) == []


def test_a_feature_stands_where_its_value_lies_and_the_unusual_come_first() -> None:
    population = Scaling.fit(np.tile(np.linspace(0, 1, 1001)[:, None], (1, len(NAMES))))
    values = {NAMES[0]: 0.5, NAMES[1]: 0.99, NAMES[2]: -3.0}
    first, second, third, *rest = measures_of(values, population)
    assert [one.name for one in (first, second, third)] == [NAMES[2], NAMES[1], NAMES[0]]
    assert (first.place, third.place) == (0.0, 0.5)
    assert [one.unusual for one in (first, second, third)] == [True, True, False]
    assert first.band is not None
    assert first.band[0] == 0.0
    assert all(0.0 <= place <= 1.0 for place in first.band)
    assert all((one.value, one.place, one.said) == (None, None, "") for one in rest)


def test_where_nobody_of_the_population_is_known_no_place_is_made_up() -> None:
    population = Scaling.fit(np.full((10, len(NAMES)), math.nan))
    (one, *_) = [one for one in measures_of({NAMES[0]: 0.5}, population) if one.value is not None]
    assert (one.place, one.band, one.median) == (None, None, "")


def test_a_long_history_is_drawn_by_its_peaks() -> None:
    scores = history(*[0.1] * 5_000, 0.9, *[0.1] * 5_000)
    shown = thinned(scores)
    assert len(shown) <= POINTS_MAX + 1
    assert max(moment.risk for moment in shown) == 0.9
    assert shown[-1] is scores[-1]
    assert thinned(scores[:10]) == scores[:10]
