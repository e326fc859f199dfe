"""The measures against naive versions of themselves, and against examples by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.backtesting.metrics import Share, quantile_of_counts, steps, threshold_exceeded_by

Scored = list[tuple[float, bool]]
FEW_VALUES = st.lists(st.tuples(st.sampled_from((0.0, 0.1, 0.25, 0.5, 1.0)), st.booleans()), max_size=40)


def split(scored: Scored) -> tuple[np.ndarray, np.ndarray]:
    return np.array([score for score, _ in scored], float), np.array([positive for _, positive in scored], bool)


def naive_auc(scored: Scored) -> float | None:
    pairs = [(a, b) for a, up in scored if up for b, other in scored if not other]
    return sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs) if pairs else None


def naive_average_precision(scored: Scored) -> float | None:
    positives = [score for score, positive in scored if positive]
    precisions = [
        sum(other >= score and up for other, up in scored) / sum(other >= score for other, _ in scored)
        for score in positives
    ]
    return sum(precisions) / len(positives) if positives else None


@given(FEW_VALUES)
def test_auc_and_average_precision_agree_with_counting_pairs(scored: Scored) -> None:
    swept = steps(*split(scored))
    assert swept.auc == pytest.approx(naive_auc(scored))
    assert swept.average_precision == pytest.approx(naive_average_precision(scored))


def test_a_ranking_by_hand() -> None:
    swept = steps(*split([(0.9, True), (0.8, False), (0.7, True), (0.6, False)]))
    assert swept.auc == 0.75
    assert swept.average_precision == pytest.approx((1 + 2 / 3) / 2)
    assert swept.found.tolist() == [1, 1, 2, 2]
    assert swept.wrong.tolist() == [0, 1, 1, 2]


def test_equal_scores_are_one_threshold() -> None:
    swept = steps(*split([(0.5, True), (0.5, False), (0.5, False)]))
    assert swept.threshold.tolist() == [0.5]
    assert swept.auc == 0.5
    assert swept.average_precision == pytest.approx(1 / 3)


def test_nothing_to_rank_is_none_and_no_number() -> None:
    assert steps(*split([])).auc is None
    assert steps(*split([(0.5, False)])).average_precision is None
    assert Share(0, 0).value is None
    assert Share(0, 0).bounds is None
    assert quantile_of_counts(np.array([]), 0.5) is None


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.sampled_from((0.0, 0.001, 0.01, 0.1, 0.5)))
def test_no_more_than_the_share_exceed_the_threshold_and_a_lower_one_would_let_more(
    scores: list[float], share: float
) -> None:
    threshold = threshold_exceeded_by(np.array(scores), share)
    allowed = math.floor(share * len(scores) + 1e-9)
    assert sum(score > threshold for score in scores) <= allowed
    lower = [score for score in scores if score < threshold]
    if lower:
        assert sum(score > max(lower) for score in scores) > allowed


def test_of_a_thousand_one_may_exceed_a_thousandth_and_ten_a_hundredth() -> None:
    scores = np.arange(1000) / 1000
    assert threshold_exceeded_by(scores, 0.001) == 0.998
    assert threshold_exceeded_by(scores, 0.01) == 0.989


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    ((0, 10, 0.0, 0.27753), (5, 10, 0.23659, 0.76341), (10, 10, 0.72247, 1.0), (1, 1000, 0.00018, 0.00564)),
)
def test_wilson_intervals_are_those_of_the_tables(count: int, of: int, low: float, high: float) -> None:
    assert Share(count, of).bounds == pytest.approx((low, high), abs=1e-5)


def test_a_quantile_of_counts_is_one_of_them() -> None:
    assert quantile_of_counts(np.array([8.0, 9.0, 100.0, 7.0]), 0.5) == 8.0
    assert quantile_of_counts(np.array([8.0, 9.0, 100.0, 7.0]), 0.9) == 100.0
