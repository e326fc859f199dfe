"""The figures: each against a sum that can be done by hand or by a naive count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.scoring.evaluation import (
    AccountRisks,
    average_precision,
    exchanges_before_crossing,
    report,
    roc_auc,
    threshold_exceeded_by,
)
from pipeline.scoring.labelled import LabelledRows
from tests.unit.scoring import traffic

SCORED = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=30)


@given(SCORED)
def test_auc_is_the_share_of_pairs_in_order(scored: list[tuple[int, bool]]) -> None:
    risk, harvesting = np.array([s for s, _ in scored], dtype=float), np.array([h for _, h in scored])
    pairs = [(a > b) + (a == b) / 2 for a in risk[harvesting] for b in risk[~harvesting]]
    if pairs:
        assert roc_auc(risk, harvesting) == pytest.approx(np.mean(pairs))
    else:
        assert np.isnan(roc_auc(risk, harvesting))


@given(SCORED)
def test_average_precision_is_the_mean_precision_at_the_harvesters(scored: list[tuple[int, bool]]) -> None:
    risk, harvesting = np.array([s for s, _ in scored], dtype=float), np.array([h for _, h in scored])
    precisions = [harvesting[risk >= at].mean() for at in risk[harvesting]]
    if precisions:
        assert average_precision(risk, harvesting) == pytest.approx(np.mean(precisions))
    else:
        assert np.isnan(average_precision(risk, harvesting))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=300), st.sampled_from([0.001, 0.01, 0.05]))
def test_a_threshold_is_exceeded_by_no_more_than_its_share(honest: list[int], share: float) -> None:
    risk = np.array(honest, dtype=float)
    threshold = threshold_exceeded_by(risk, share)
    assert (risk > threshold).sum() <= share * len(risk)
    assert threshold == risk.min() or (risk >= threshold).sum() > share * len(risk), "no lower one would do"


def rows_like(accounts: list[tuple[str, bool, list[int], str]]) -> LabelledRows:
    """Rows from (account, harvesting, exchanges, variant or population)."""
    flat = [(account, harvests, count, kind) for account, harvests, counts, kind in accounts for count in counts]
    harvesting = np.array([harvests for _, harvests, _, _ in flat])
    kinds = np.array([kind for *_, kind in flat])
    return LabelledRows(
        np.zeros((len(flat), 1), dtype=np.float32),
        np.array([account for account, *_ in flat]),
        np.array([count for _, _, count, _ in flat]),
        np.zeros(len(flat), dtype=np.int64),
        harvesting,
        np.where(harvesting, "", kinds),
        np.where(harvesting, "family", ""),
        np.where(harvesting, kinds, ""),
        np.full(len(flat), "run"),
    )


ROWS = rows_like(
    [
        ("a", True, [8, 16, 32], "loud"),
        ("b", True, [8, 16], "faint"),
        ("c", False, [8, 16], "people"),
        ("d", False, [4], "etl"),
    ]
)
RISK = np.array([0.1, 0.6, 0.5, 0.2, 0.9, 0.3, 0.1, np.nan])


def test_an_accounts_risk_is_its_highest() -> None:
    risks = AccountRisks.of(ROWS, RISK)
    assert dict(zip(risks.account.tolist(), risks.risk.tolist(), strict=True)) == {
        "a": 0.6,
        "b": 0.9,
        "c": 0.3,
        "d": -1.0,
    }


def test_a_report_says_who_is_above_the_thresholds() -> None:
    out = report(AccountRisks.of(ROWS, RISK))
    assert out["auc"] == 1.0
    assert out["average_precision"] == 1.0
    at = out["thresholds"]["0.01"]
    assert at["threshold"] == 0.3
    assert at["by_variant"] == {"loud": 1.0, "faint": 1.0}
    assert at["false_positives_by_population"] == {"people": 0.0, "etl": 0.0}
    assert at["precision"] == 1.0


def test_exchanges_are_counted_to_the_first_crossing() -> None:
    out = exchanges_before_crossing(ROWS, RISK, 0.5)
    assert out["loud"] == {"crossed": 1.0, "median": 16.0, "p90": 16.0}
    assert out["faint"] == {"crossed": 1.0, "median": 16.0, "p90": 16.0}
    nobody = exchanges_before_crossing(ROWS, RISK, 0.95)
    assert nobody["loud"]["crossed"] == 0
    assert np.isnan(nobody["loud"]["median"])


def test_nobody_to_evaluate() -> None:
    empty = traffic.labelled(3).take(np.zeros(9, dtype=np.bool_))
    assert len(AccountRisks.of(empty, np.empty(0))) == 0
    assert threshold_exceeded_by(np.empty(0), 0.01) == float("inf")
