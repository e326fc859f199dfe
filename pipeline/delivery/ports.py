"""What a sink's worker needs of the world, and the words that it and the book share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from pipeline.alerts import Alert
from pipeline.delivery.parcels import DigestParcel, Outcome, Parcel
from pipeline.delivery.rate import Allowance

STEPS: Final = ("acquired", "sent", "marked")
"""After which a test may let a deliverer die: it holds a sink; the sink has something; the book says so."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which alerts a sink gets; empty: all."""

    severities: Sequence[str] = ()
    rules: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a sink is, and how it fares.

    Attributes:
        cursor: place in the log; whatever is before it is done.
        failures: in a row, whatever was tried.
        refusals: in a row, whatever was tried.
        head: key of what was tried and failed; empty: nothing.
        attempts: that failed at it.
        unreachable: how many of them say nothing of it.
        next_try_us: not before; 0: at once.
        error: of the last failure.
        error_at_us: when.
        sent_at_us: last success.
        digest_at_us: last digest.
        allowance: of messages.
        sent: alerts so far, each by itself.
        digested: alerts so far, in digests.
    """

    cursor: int
    failures: int
    refusals: int
    head: str
    attempts: int
    unreachable: int
    next_try_us: int
    error: str
    error_at_us: int | None
    sent_at_us: int | None
    digest_at_us: int | None
    allowance: Allowance
    sent: int
    digested: int


@dataclass(frozen=True, slots=True)
class Lease:
    """Who holds a sink, alone.

    Attributes:
        sink: its name.
        epoch: of this holder; a later holder's is higher.
        holder: who.
        until_us: until when, wall clock.
        marks: how often it was marked: what is compared when a mark is made.
        standing: of the sink.
    """

    sink: str
    epoch: int
    holder: str
    until_us: int
    marks: int
    standing: Standing


@dataclass(frozen=True, slots=True)
class AlertItem:
    """An alert that waits.

    Attributes:
        seq: its place in the log.
        since_us: since when it waits, wall clock.
        alert: it.
        replayed: somebody asked for it again.
    """

    seq: int
    since_us: int
    alert: Alert
    replayed: bool = False

    @property
    def key(self) -> str:
        """Of the parcel."""
        return self.alert.alert_id


@dataclass(frozen=True, slots=True)
class DigestItem:
    """A digest that waits: of the alerts from one place in the log to another, both included."""

    digest_id: str
    first_seq: int
    last_seq: int
    since_us: int

    @property
    def key(self) -> str:
        """Of the parcel."""
        return self.digest_id


Item = AlertItem | DigestItem


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits for a sink.

    Attributes:
        items: the first of them, in order.
        end: where the cursor may go once these are done.
        log_end: the place after the log's last.
        from_log: they are new, and none of them was asked for again.
    """

    items: Sequence[Item]
    end: int
    log_end: int
    from_log: bool


@dataclass(slots=True)
class Done:
    """What became of items since the last mark.

    Attributes:
        sent: by themselves.
        dead: with why and after how many attempts.
        suppressed: with the exception's id.
        digests: with the state that each is in now, how many alerts it held, and why where it is dead.
    """

    sent: list[AlertItem] = field(default_factory=list)
    dead: list[tuple[AlertItem, str, int]] = field(default_factory=list)
    suppressed: list[tuple[AlertItem, str]] = field(default_factory=list)
    digests: list[tuple[DigestItem, str, int, str]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.sent or self.dead or self.suppressed or self.digests)

    def __len__(self) -> int:
        return len(self.sent) + len(self.dead) + len(self.suppressed) + len(self.digests)


class Sink(Protocol):
    """Where parcels go; `pipeline.io.sinks`.

    Attributes:
        batch_max: parcels that `send` takes at once.
        unmarked_max: parcels that may be sent again after a crash.
    """

    batch_max: int
    unmarked_max: int

    def send(self, parcels: Sequence[Parcel]) -> Sequence[Outcome]:
        """Send, within the sink's time-out; outcomes of the first of them in order, up to the first `Later`."""

    def close(self) -> None:
        """Let go of connections."""


class Book(Protocol):
    """The record; `pipeline.io.desk.delivery_book`."""

    def acquire(self, sink: str, holder: str, lease_s: float, now_us: int) -> Lease | None:
        """Hold a sink, unless another holds it."""

    def look(self, lease: Lease) -> Lease:
        """The lease as it stands."""

    def mark(self, lease: Lease, standing: Standing, done: Done, now_us: int, lease_s: float) -> Lease:
        """Record what became of items, and hold the sink for longer."""

    def release(self, lease: Lease) -> None:
        """Let others have the sink."""

    def queue(self, lease: Lease, wanted: Wanted, limit: int) -> Queue:
        """What waits."""

    def waiting(self, cursor: int, wanted: Wanted, at_most: int) -> int:
        """How many alerts wait in the log; not counted further than `at_most`."""

    def covered(self, alerts: Sequence[Alert], now_us: int) -> Mapping[str, str]:
        """Which of these an exception covers by now: its id, by the alert's."""

    def sweep_covered(self, lease: Lease, wanted: Wanted, last_seq: int, now_us: int, lease_s: float) -> Lease:
        """Set aside what exceptions cover by now, up to a place in the log."""

    def open_digest(self, lease: Lease, last_seq: int, now_us: int, lease_s: float) -> Lease:
        """Let all that waits up to a place in the log be a digest."""

    def digest(self, sink: str, item: DigestItem, wanted: Wanted) -> DigestParcel | None:
        """What a digest says; None: nothing is left of it."""


Step = Callable[[str], None]
