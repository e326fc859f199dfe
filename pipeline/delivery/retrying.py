"""When a sink is tried again, and when an alert is given up.

Three failures are told apart.  A sink that does not answer, or says that it is busy, has nothing against the alert:
it is tried until the alert is too old.  A sink that fails at it may be broken by this very alert, so after some tries
the alert steps aside, dead, and those behind it have their turn.  A sink that refuses it will always do so: dead at
once; but if it refuses one alert after the other, what is wrong is the address or the secret, and the rest waits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pipeline.delivery.parcels import Later, Refused

FIRST_S: Final = 1.0
LONGEST_S: Final = 300.0
"""Longest pause between two tries, unless the sink asks for a longer one."""

ASKED_MAX_S: Final = 3600.0
"""No sink is left alone for longer, whatever it asks for."""

REFUSALS_MAX: Final = 5
"""After so many refusals in a row it is the sink and not the alerts."""

_DOUBLINGS_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an alert is tried for: `retries` and `give_up_after_s` of the sink's settings."""

    retries: int
    give_up_after_s: float


@dataclass(frozen=True, slots=True)
class Tried:
    """What is known when a try has failed.

    Attributes:
        attempts: that failed at this alert, this one included.
        unreachable: how many of them say nothing of the alert.
        refusals: in a row by this sink, whatever the alert, this one included.
        age_s: how long the alert has waited.
    """

    attempts: int
    unreachable: int
    refusals: int
    age_s: float


def is_dead(outcome: Later | Refused, tried: Tried, patience: Patience) -> bool:
    """Whether an alert steps aside after a failure."""
    if tried.age_s >= patience.give_up_after_s:
        return True
    if isinstance(outcome, Refused):
        return tried.refusals <= REFUSALS_MAX
    return not outcome.unreachable and tried.attempts - tried.unreachable > patience.retries


def pause_s(outcome: Later | Refused, failures: int, chance: Callable[[], float]) -> float:
    """How long a sink is left alone: exponential back-off with full jitter, and at least what the sink asked for.

    Args:
        outcome: of the last try.
        failures: in a row, this one included; 0: none.
        chance: gives numbers from 0 to below 1.
    """
    longest = min(LONGEST_S, FIRST_S * 2.0 ** min(max(failures - 1, 0), _DOUBLINGS_MAX))
    asked = (outcome.after_s or 0.0) if isinstance(outcome, Later) else 0.0
    return max(longest * chance(), min(asked, ASKED_MAX_S))
