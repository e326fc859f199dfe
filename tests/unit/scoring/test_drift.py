"""Drift is noticed, counted and told; a detector made again from its values goes on alike."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.scoring import Ensemble, drift
from pipeline.scoring.drift import DriftDetector
from pipeline.scoring.ensemble import JudgedValues
from pipeline.scoring.kinds import GROWN
from pipeline.scoring.snapshots import restore, snapshot
from tests.unit.scoring import traffic

SIGNAL = np.r_[
    np.random.default_rng(0).normal(0.1, 0.02, 300), np.random.default_rng(1).normal(0.4, 0.02, 300)
].tolist()


def test_a_jump_is_noticed_once_and_says_what_changed() -> None:
    detector = DriftDetector("risk")
    noticed = [found for value in SIGNAL if (found := detector.update(value, 7)) is not None]
    assert [found.count for found in noticed] == [1]
    assert noticed[0].signal == "risk"
    assert noticed[0].after > noticed[0].before


@pytest.mark.parametrize("cut", (0, 100, 299, 310, 350, 599))
def test_a_detector_made_again_goes_on_alike(cut: int) -> None:
    kept = DriftDetector("risk")
    for value in SIGNAL[:cut]:
        kept.update(value, 0)
    again = DriftDetector("risk", kept.values, kept.count)
    for value in SIGNAL[cut:]:
        assert kept.update(value, 0) == again.update(value, 0)
    assert kept.values == again.values


def test_values_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "VALUES_MAX", 50)
    detector = DriftDetector("risk")
    for value in SIGNAL[:200]:
        detector.update(value, 0)
        assert len(detector.values) <= 50


def test_verdicts_that_turn_are_told_and_reset_nothing() -> None:
    """A drift is an event for whoever takes it; it survives a restart until then."""
    ensemble = Ensemble(traffic.models())
    values = traffic.values_like(np.random.default_rng(0), np.zeros(200, dtype=np.bool_))
    ensemble.judge([JudgedValues(n + 1, n, n >= 100, GROWN, row) for n, row in enumerate(values)])
    population, untouched = (snapshot(one)["population"] for one in (ensemble, Ensemble(traffic.models())))
    assert traffic.as_bytes(population) == traffic.as_bytes(untouched)
    restored = restore(traffic.models(), snapshot(ensemble))
    drifts = ensemble.take_drifts()
    assert [noticed.signal for noticed in drifts] == ["verdicts"]
    assert restored.take_drifts() == drifts
    assert ensemble.take_drifts() == ()
