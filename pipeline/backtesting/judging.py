"""Verdicts in a backtest of a lake: each counts from the very event on from which it counted in the live job."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa

from pipeline.analysis import Analysed
from pipeline.decisions import Verdict
from pipeline.windows import joined


class Judges(Protocol):
    """All that is known of one partition so far; see `pipeline.analysis.Analysis`."""

    def step(self, events: pa.Table, /) -> Analysed:
        """Take the next events."""

    def judge(self, verdicts: Sequence[Verdict], /) -> None:
        """Take verdicts in."""


class Judged:
    """An analysis that takes verdicts in where the live job did."""

    def __init__(self, analysis: Judges, marks: Sequence[tuple[int, int]], verdicts: Sequence[Verdict]) -> None:
        """Say which verdicts, and when.

        Args:
            analysis: new.
            marks: (offset, up to which verdict) of its partition, in offset order.
            verdicts: all, in their order.
        """
        self._analysis, self._marks, self._verdicts = analysis, deque(marks), deque(verdicts)

    def step(self, events: pa.Table) -> Analysed:
        """Take the next events, and the verdicts between them."""
        pieces = [self._analysis.step(piece) for piece in self._pieces(events)]
        alerts = tuple(alert for piece in pieces for alert in piece.alerts)
        drifts = tuple(drift for piece in pieces for drift in piece.drifts)
        suppressed: Counter[str] = Counter()
        for piece in pieces:
            suppressed.update(piece.suppressed)
        return Analysed(joined([piece.windows for piece in pieces]), alerts, drifts, suppressed)

    def _pieces(self, events: pa.Table) -> Iterator[pa.Table]:
        offsets = events["offset"].to_numpy()
        first = 0
        while self._marks and len(offsets) and self._marks[0][0] <= offsets[-1]:
            offset, up_to = self._marks.popleft()
            stop = int(np.searchsorted(offsets, offset))
            if stop > first:
                yield events.slice(first, stop - first)
            first = stop
            self._judge(up_to)
        yield events.slice(first)

    def _judge(self, up_to: int) -> None:
        now = []
        while self._verdicts and self._verdicts[0].seq <= up_to:
            now.append(self._verdicts.popleft())
        self._analysis.judge(now)
