"""How deliveries stand, for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SinkState:
    """How one sink stands.  Times are wall clock, microseconds since the epoch.

    Attributes:
        sink: its name.
        configured: it stands in the settings.
        waiting: alerts that it has not got yet; those to be replayed, too.
        oldest_waiting_us: since when the first of them waits.
        sent: alerts, each by itself.
        digested: alerts in digests.
        digests: sent.
        dead: alerts that were given up.
        dead_digests: digests that were given up.
        suppressed: alerts that an exception covered before they were sent.
        failures: in a row; 0: the last try went well.
        attempts: at what waits first.
        next_try_us: when it is tried again, while it fails.
        error: of the last failure.
        error_at_us: when that was.
        sent_at_us: last success.
        holder: who sends to it; empty: nobody.
        held_until_us: until when, unless the holder says more.
    """

    sink: str
    configured: bool
    waiting: int
    oldest_waiting_us: int | None
    sent: int
    digested: int
    digests: int
    dead: int
    dead_digests: int
    suppressed: int
    failures: int
    attempts: int
    next_try_us: int | None
    error: str
    error_at_us: int | None
    sent_at_us: int | None
    holder: str
    held_until_us: int | None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An alert that was given up, or a digest.

    Attributes:
        sink: that did not take it.
        key: id of the alert or the digest.
        alerts: how many it holds; 1 for an alert.
        error: why.
        attempts: that failed; 0: not known.
        at_us: when it was given up, wall clock.
        is_digest: it is a digest.
    """

    sink: str
    key: str
    alerts: int
    error: str
    attempts: int
    at_us: int
    is_digest: bool = False


@dataclass(frozen=True, slots=True)
class DeliveryState:
    """How all deliveries stand.

    Attributes:
        sinks: each, by name.
        outbox: how many alerts are in each state of the outbox.
        dead: the latest that were given up.
    """

    sinks: tuple[SinkState, ...]
    outbox: Mapping[str, int]
    dead: tuple[DeadLetter, ...]
