"""How many messages a sink may get now, and when many alerts become one digest.

A sink of N messages a minute has an allowance that fills up to N within a minute.  While no more than N alerts wait,
each goes by itself.  More than that would take longer than a minute, and nobody reads so many: all that wait become
one digest, at most one a minute, which takes the whole allowance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

US_PER_S: Final = 1_000_000
MINUTE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Allowance:
    """Messages that may be sent.

    Attributes:
        left: at `at_us`.
        at_us: wall clock, microseconds since the epoch.
    """

    left: float
    at_us: int

    def at(self, now_us: int, per_minute: int) -> Allowance:
        """What it has become; a clock that was set back takes nothing away."""
        passed_s = max(0.0, (now_us - self.at_us) / US_PER_S)
        return Allowance(min(float(per_minute), max(0.0, self.left) + passed_s * per_minute / MINUTE_S), now_us)

    def less(self, messages: int) -> Allowance:
        """After so many messages."""
        return Allowance(max(0.0, self.left - messages), self.at_us)


@dataclass(frozen=True, slots=True)
class Single:
    """Send so many alerts, each by itself."""

    count: int


@dataclass(frozen=True, slots=True)
class Digest:
    """Send all that wait as one message."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Send nothing for so long."""

    seconds: float


Plan = Single | Digest | Wait


def plan(waiting: int, per_minute: int, allowance: Allowance, digest_at_us: int | None) -> Plan:
    """Decide what may be sent now.

    Args:
        waiting: alerts, or any number above `per_minute` where there are more.
        per_minute: 0: no limit.
        allowance: as it is now.
        digest_at_us: when the last digest was sent; None: never.
    """
    if per_minute == 0:
        return Single(waiting)
    if waiting > per_minute:
        since_s = MINUTE_S if digest_at_us is None else (allowance.at_us - digest_at_us) / US_PER_S
        return Digest() if since_s >= MINUTE_S or since_s < 0 else Wait(MINUTE_S - since_s)
    if allowance.left >= 1:
        return Single(min(waiting, int(allowance.left)))
    return Wait((1 - allowance.left) * MINUTE_S / per_minute)
