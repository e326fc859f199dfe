"""A drift that the models notice is handed out once, and the job says it; nothing else comes of it."""

from __future__ import annotations

import dataclasses

import structlog

from pipeline.analysis import Analysis
from pipeline.drifts import Drift
from pipeline.watching import Watched, WatchLimits
from tests.stages import RunningMean, stand_ins
from tests.unit.test_analysis import EVENTS, P0, WHOLE

DRIFT = Drift("risk", count=1, rows=256, before=0.01, after=0.2)


class Turned(RunningMean):
    """Models that noticed a change before their first step."""

    noticed: tuple[Drift, ...] = (DRIFT,)

    def take_drifts(self) -> tuple[Drift, ...]:
        taken, self.noticed = self.noticed, ()
        return taken


WATCH = dataclasses.replace(stand_ins(), ensemble=Turned)


def test_a_drift_is_handed_out_once_and_changes_no_row() -> None:
    analysis = Analysis(P0, WATCH)
    first, second = analysis.step(EVENTS.slice(0, 60)), analysis.step(EVENTS.slice(60))
    assert (first.drifts, second.drifts) == ((DRIFT,), ())
    assert Analysis(P0, WATCH).step(EVENTS).windows.equals(WHOLE.windows)


def test_the_job_says_it() -> None:
    watched = Watched(Analysis(P0, WATCH), WatchLimits(), 0.0, ahead=0, based=True)
    watched.add(EVENTS, EVENTS.nbytes, 0.0)
    with structlog.testing.capture_logs() as lines:
        watched.cut(len(EVENTS), 1.0, (), last=False)
    (line,) = [line for line in lines if "drifted" in line["event"]]
    assert (line["partition"], line["signal"], line["before"], line["after"]) == (str(P0), "risk", 0.01, 0.2)
