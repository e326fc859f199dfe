"""When a sink is tried again, when an alert is given up, and when many become one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.delivery.parcels import Later, Refused
from pipeline.delivery.rate import Allowance, Digest, Single, Wait, plan
from pipeline.delivery.retrying import ASKED_MAX_S, LONGEST_S, REFUSALS_MAX, Patience, Tried, is_dead, pause_s

PATIENT = Patience(retries=10, give_up_after_s=3600)
FAILED, DOWN, NO = Later("500"), Later("no connection", unreachable=True), Refused("400")


@pytest.mark.parametrize(
    ("outcome", "tried", "dead"),
    (
        (FAILED, Tried(10, 0, 0, 60), False),
        (FAILED, Tried(11, 0, 0, 60), True),
        (FAILED, Tried(30, 20, 0, 60), False),  # mostly nobody was there
        (DOWN, Tried(1_000, 1_000, 0, 3599), False),
        (DOWN, Tried(1, 1, 0, 3600), True),
        (NO, Tried(1, 0, 1, 0), True),
        (NO, Tried(1, 0, REFUSALS_MAX, 0), True),
        (NO, Tried(1, 0, REFUSALS_MAX + 1, 0), False),  # what is wrong is the sink
        (NO, Tried(1, 0, REFUSALS_MAX + 1, 3600), True),
    ),
)
def test_an_alert_is_given_up(outcome: Later | Refused, tried: Tried, dead: bool) -> None:
    assert is_dead(outcome, tried, PATIENT) is dead


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_pauses_grow_to_a_limit_and_may_be_nothing(failures: int, chance: float) -> None:
    longest = pause_s(FAILED, failures, lambda: 1.0)
    assert longest == min(LONGEST_S, 2.0 ** max(failures - 1, 0) if failures < 100 else LONGEST_S)
    assert 0 <= pause_s(FAILED, failures, lambda: chance) <= longest


def test_a_sink_is_left_alone_for_as_long_as_it_asks_but_not_for_ever() -> None:
    assert pause_s(Later("429", after_s=120), 1, lambda: 0.5) == 120
    assert pause_s(Later("429", after_s=1e12), 1, lambda: 0.5) == ASKED_MAX_S
    assert pause_s(Later("429", after_s=0), 3, lambda: 0.5) == 2


def test_without_a_limit_all_go_by_themselves() -> None:
    assert plan(500, 0, Allowance(0, 0), None) == Single(500)


@pytest.mark.parametrize(
    ("waiting", "left", "wanted"),
    (
        (5, 20.0, Single(5)),
        (20, 7.9, Single(7)),
        (20, 0.5, Wait(1.5)),
        (21, 20.0, Digest()),
        (21, 0.0, Digest()),
    ),
)
def test_more_than_a_minute_of_messages_becomes_one(waiting: int, left: float, wanted: object) -> None:
    assert plan(waiting, 20, Allowance(left, 0), None) == wanted


def test_there_is_a_digest_a_minute_at_most() -> None:
    assert plan(21, 20, Allowance(20, 100_000_000), 70_000_000) == Wait(30)
    assert plan(21, 20, Allowance(20, 100_000_000), 40_000_000) == Digest()
    assert plan(21, 20, Allowance(20, 100_000_000), 900_000_000) == Digest(), "a clock that was set back"


def test_an_allowance_fills_up_within_a_minute() -> None:
    allowance = Allowance(0, 0)
    assert allowance.at(30_000_000, 20).left == 10
    assert allowance.at(90_000_000, 20).left == 20
    assert allowance.at(-5, 20).left == 0
    assert Allowance(0.5, 0).less(1).left == 0
