"""Ranks: monotone, bounded, the same for any unit; unknown values are in the middle."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.scoring.scaling import Scaling
from pipeline.scoring.zscores import Z_MAX, Population, zscore_contributions

NUMBERS = st.floats(-1e6, 1e6, width=32)


@settings(deadline=None)
@given(st.lists(st.none() | NUMBERS, min_size=1, max_size=200), st.lists(NUMBERS, min_size=2, max_size=20))
def test_ranks_are_monotone_and_bounded(population: list[float | None], values: list[float]) -> None:
    known = np.array([[np.nan if value is None else value] for value in population], dtype=np.float32)
    ranks = Scaling.fit(known).ranks(np.sort(np.array(values, dtype=np.float32))[:, np.newaxis])[:, 0]
    assert (np.diff(ranks) >= 0).all()
    assert ((ranks >= 0) & (ranks <= 1)).all()


def test_ranks_do_not_depend_on_the_unit() -> None:
    values = np.random.default_rng(0).lognormal(size=(500, 1))
    doubled = values * 1024.0
    np.testing.assert_allclose(Scaling.fit(values).ranks(values), Scaling.fit(doubled).ranks(doubled))


def test_an_unknown_value_has_the_rank_of_the_median() -> None:
    scaling = Scaling.fit(np.array([[0.0], [0.0], [0.0], [1.0], [2.0]]))
    ranks = scaling.ranks(np.array([[np.nan], [0.0], [2.0]]))[:, 0]
    assert ranks[0] == ranks[1] < ranks[2] == 1.0


def test_a_feature_that_nobody_knows_tells_nothing() -> None:
    population = Population(np.full((4, 1), np.nan, dtype=np.float32))
    values = np.array([[1.0], [np.nan]], dtype=np.float32)
    assert population.ranks(values).tolist() == [[0.5], [0.5]]
    assert np.isnan(population.zscores(values)).all()


def test_zscores_are_robust_and_cut() -> None:
    """Around the median, in standard deviations of a normal population; a wild value in it changes little."""
    values = np.random.default_rng(0).normal(10, 2, size=(2000, 1)).astype(np.float32)
    values[0] = 1e9
    z = Population(values).zscores(np.array([[10], [12], [6], [1e6], [-1e6], [np.nan]], dtype=np.float32))[:, 0]
    np.testing.assert_allclose(z[:3], [0, 1, -2], atol=0.15)
    assert z[3:5].tolist() == [Z_MAX, -Z_MAX]
    assert np.isnan(z[5])


def test_zscores_of_a_population_that_is_all_alike() -> None:
    population = Population(np.ones((10, 1), dtype=np.float32))
    assert population.zscores(np.array([[1], [2], [0]], dtype=np.float32))[:, 0].tolist() == [0, Z_MAX, -Z_MAX]


def test_zscores_of_a_population_that_is_mostly_alike() -> None:
    """Where the quartiles are one value the tails give the spread."""
    values = np.array([0.0] * 90 + [1.0] * 10, dtype=np.float32)[:, np.newaxis]
    z = Population(values).zscores(np.array([[0], [1]], dtype=np.float32))[:, 0]
    assert z[0] == 0
    assert 0 < z[1] <= Z_MAX


def test_zscore_contributions_add_up_to_the_mean_of_what_is_known() -> None:
    zscores = np.array([[1.0, np.nan, -2.0, 4.0], [np.nan] * 4])
    added = zscore_contributions(zscores, np.array([1.0, 1.0, -1.0, 0.0]))
    assert added.tolist() == [[0.5, 0.0, 1.0, 0.0], [0.0] * 4]


def test_the_population_keeps_its_size_and_its_latest_rows() -> None:
    population = Population(np.zeros((4, 1), dtype=np.float32))
    for value in range(1, 7):
        population.learn(np.array([[value]], dtype=np.float32))
    assert sorted(population.rows[:, 0].tolist()) == [3, 4, 5, 6]
    assert population.scaling.median[0] == 0
    population.refresh()
    assert population.scaling.median[0] == 4.5
