"""Events wait for a step of the analysis until they are many, large or old; that they waited changes nothing."""

from __future__ import annotations

import pyarrow as pa
import pytest
import structlog

from pipeline.analysis import Analysis
from pipeline.config import Settings
from pipeline.features import engine
from pipeline.watch import load_watch
from pipeline.watching import STEP_BYTES, STEP_EVENTS, STEP_WAIT_S, Watched, WatchLimits
from tests.stages import stand_ins
from tests.unit.features.logs import log
from tests.unit.test_analysis import EVENTS, P0, WHOLE


@pytest.fixture
def watched() -> Watched:
    return Watched(Analysis(P0, stand_ins()), WatchLimits(), 0.0, ahead=0, based=True)


def test_few_small_and_young_events_wait(watched: Watched) -> None:
    watched.add(EVENTS, STEP_BYTES - 1, 0.0)
    assert watched.step_if_due(STEP_WAIT_S / 2) == 0
    assert watched.accounts == 0


@pytest.mark.parametrize(
    ("times", "size", "now_s"), ((STEP_EVENTS // len(EVENTS) + 1, 1, 0.0), (1, STEP_BYTES, 0.0), (1, 1, STEP_WAIT_S))
)
def test_many_large_or_old_ones_are_taken_in(watched: Watched, times: int, size: int, now_s: float) -> None:
    watched.add(_again(times), size, 0.0)
    watched.step_if_due(now_s)
    assert watched.accounts > 0


def test_what_comes_of_them_does_not_depend_on_how_they_waited(watched: Watched) -> None:
    for start in range(0, len(EVENTS), 50):
        watched.add(EVENTS.slice(start, 50), STEP_BYTES // 2, 0.0)
        watched.step_if_due(0.0)
    found = watched.cut(len(EVENTS), 0.0, (), last=False)
    assert found.windows.equals(WHOLE.windows)
    assert tuple(found.alerts) == WHOLE.alerts


def test_it_is_said_when_accounts_are_forgotten_for_want_of_room() -> None:
    """The setting is the engineer's bound on memory: whoever meets it must see that it was met."""
    watch = load_watch(Settings(accounts_max=1_000))
    many = log(engine.CHECK_EVERY, account_id=[f"a{number % 1_500}" for number in range(engine.CHECK_EVERY)])
    watched = Watched(Analysis(P0, watch), WatchLimits(), 0.0, ahead=0, based=True)
    with structlog.testing.capture_logs() as lines:
        watched.add(many, 1, 0.0)
        watched.step_if_due(STEP_WAIT_S)
    (line,) = [line for line in lines if "accounts_max" in line["event"]]
    assert (line["partition"], line["forgotten"], line["kept"]) == (str(P0), 500, 1_000)
    assert watched.accounts == 1_000


def _again(times: int) -> pa.Table:
    """The events over and over, with offsets that go on."""
    many = pa.concat_tables([EVENTS] * times)
    place = many.schema.get_field_index("offset")
    return many.set_column(place, many.schema.field(place), pa.array(range(len(many))))
