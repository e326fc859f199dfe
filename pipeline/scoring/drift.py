"""Drift of scores and of verdicts: noticed and told, never acted upon.

River's ADWIN keeps its state in compiled code.  What is kept here beside it is the values that it has seen since it
last began anew, a bounded number, so that the same detector can be made again by showing it the same values.

Bifet and Gavaldà: Learning from time-changing data with adaptive windowing, SDM 2007.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from river import drift

from pipeline.drifts import Drift

VALUES_MAX: Final = 4096
"""Values after which a detector begins anew, so that a snapshot is bounded: a million rows of 256 a value."""


def _new_adwin() -> Any:
    return drift.ADWIN()  # type: ignore[no-untyped-call]


class DriftDetector:
    """ADWIN over one signal.

    Args:
        signal: its name.
        values: what the detector has seen since it began anew.
        count: changes noticed so far.
    """

    def __init__(self, signal: str, values: Iterable[float] = (), count: int = 0) -> None:
        self.signal = signal
        self.values: list[float] = []
        self.count = count
        self._adwin: Any = _new_adwin()
        for value in values:
            self._see(value)

    def update(self, value: float, rows: int) -> Drift | None:
        """See one more value; `rows` is how many rows the ensemble has learned."""
        if len(self.values) == VALUES_MAX:
            self._adwin, self.values = _new_adwin(), []
        before = self._adwin.estimation
        self._see(value)
        if not self._adwin.drift_detected:
            return None
        self.count += 1
        noticed = Drift(self.signal, self.count, rows, before, self._adwin.estimation)
        self._adwin, self.values = _new_adwin(), []
        return noticed

    def _see(self, value: float) -> None:
        self._adwin.update(value)
        self.values.append(value)
