"""One sink's deliveries: what waits is sent in order, and the book told what became of it.

At least once: an alert is sent first and marked then, so a crash between the two sends it again, under the same id.
A sink's alerts are tried in the order in which they were routed.  While the first of them may still be taken, those
behind it wait; one that is dead steps aside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import structlog

from pipeline.delivery.parcels import AlertParcel, DigestParcel, Later, Outcome, Refused, RuleWords, Sent
from pipeline.delivery.ports import AlertItem, Book, DigestItem, Done, Item, Lease, Queue, Sink, Standing, Step, Wanted
from pipeline.delivery.rate import US_PER_S, Digest, Single, Wait, plan
from pipeline.delivery.retrying import REFUSALS_MAX, Patience, Tried, is_dead, pause_s
from pipeline.errors import FencedError, RetryableError
from pipeline.ports import Clock

IDLE_S: Final = 1.0
"""How often somebody looks whether anything is to be sent."""

_TURN_MAX: Final = 500
"""Alerts that are in memory for one sink."""

_MARK_S: Final = 1.0
"""What was sent is marked at least as often as this."""

_EXCEPTIONS_S: Final = 1.0
"""An exception holds for what is sent so long after it was made, or sooner."""

_MARK_TRIES: Final = 5

log = structlog.get_logger("deliver")


@dataclass(frozen=True, slots=True)
class Terms:
    """How a sink is to be treated, from its settings.

    Attributes:
        wanted: which alerts it gets.
        per_minute: messages; 0: no limit.
        patience: how long an alert is tried.
        lease_s: how long the sink is held beyond each mark; more than twice what one `send` may take.
        link: where people look at an alert, with `{alert_id}` in it.
        rules: what messages say of rules, by name.
    """

    wanted: Wanted
    per_minute: int
    patience: Patience
    lease_s: float
    link: str
    rules: Mapping[str, RuleWords]


@dataclass(frozen=True, slots=True)
class Turn:
    """What a turn came to.

    Attributes:
        state: `busy`: there may be more; `idle`: nothing waits; `slowed`: the rate allows no more just now;
            `failing`: what waits was tried in vain; `held`: another deliverer has the sink.
        wait_s: when the next turn makes sense.
    """

    state: Literal["busy", "idle", "slowed", "failing", "held"]
    wait_s: float = 0.0


class SinkWorker:
    """Sends to one sink.  For one thread."""

    def __init__(  # noqa: PLR0913  # the parts of the world, and how to treat them
        self,
        name: str,
        sink: Sink,
        book: Book,
        clock: Clock,
        terms: Terms,
        *,
        holder: str,
        chance: Callable[[], float],
        stopping: Callable[[], bool] = lambda: False,
        step: Step = lambda _name: None,
    ) -> None:
        self.name = name
        self._sink, self._book, self._clock, self._terms = sink, book, clock, terms
        self._holder, self._chance, self._stopping, self._step = holder, chance, stopping, step
        self._lease: Lease | None = None
        self._marked_s = 0.0
        self._covered: Mapping[str, str] = {}
        self._covered_s = 0.0

    def turn(self, *, eager: bool = False) -> Turn:
        """Send some of what waits.

        Args:
            eager: try at once, also where the sink was to be left alone for longer.

        Raises:
            RetryableError: the catalog does not answer; call again.
        """
        try:
            lease = self._hold()
            return Turn("held", IDLE_S) if lease is None else self._work(lease, eager=eager)
        except FencedError as error:
            self._lease = None
            log.warning("lost a sink to another deliverer", sink=self.name, reason=str(error))
            return Turn("held", IDLE_S)

    def close(self) -> None:
        """Let go of the sink."""
        self._sink.close()
        if self._lease is not None:
            self._book.release(self._lease)
            self._lease = None

    def _hold(self) -> Lease | None:
        now_us = self._clock.now_us()
        if self._lease is None:
            self._lease = self._book.acquire(self.name, self._holder, self._terms.lease_s, now_us)
            if self._lease is not None:
                self._marked_s = self._clock.elapsed_s()
                log.info("holds a sink", sink=self.name, epoch=self._lease.epoch)
                self._step("acquired")
        else:
            self._lease = self._book.look(self._lease)
        if self._lease is not None and self._is_short(self._lease):
            self._mark(self._lease.standing, Done())
        return self._lease

    def _is_short(self, lease: Lease) -> bool:
        """Whether the lease may end before another message is through, by either clock."""
        half_s = self._terms.lease_s / 2
        left_s = (lease.until_us - self._clock.now_us()) / US_PER_S
        return self._clock.elapsed_s() - self._marked_s > half_s or left_s < half_s

    def _work(self, lease: Lease, *, eager: bool) -> Turn:
        standing, now_us = lease.standing, self._clock.now_us()
        wait_s = (standing.next_try_us - now_us) / US_PER_S
        if standing.failures and wait_s > 0 and not eager:
            return Turn("failing", min(wait_s, IDLE_S))
        queue = self._book.queue(lease, self._terms.wanted, _TURN_MAX)
        if not queue.items:
            if queue.end > standing.cursor:
                self._mark(replace(standing, cursor=queue.end), Done())
            return Turn("idle", IDLE_S)
        allowed = self._allowed(lease, queue)
        if isinstance(allowed, Wait):
            return Turn("slowed", min(allowed.seconds, IDLE_S))
        if isinstance(allowed, Digest):
            self._begin_digest(lease, queue.log_end - 1)
            return Turn("busy")
        return self._send(lease, _first_of(queue, allowed.count))

    def _allowed(self, lease: Lease, queue: Queue) -> Single | Digest | Wait:
        rate, standing = self._terms.per_minute, lease.standing
        if not rate:
            return Single(len(queue.items))
        allowance = standing.allowance.at(self._clock.now_us(), rate)
        if queue.from_log:
            waiting = self._book.waiting(standing.cursor, self._terms.wanted, rate + 1)
            return plan(waiting, rate, allowance, standing.digest_at_us)
        return plan(min(len(queue.items), rate), rate, allowance, None)

    def _begin_digest(self, lease: Lease, last_seq: int) -> None:
        now_us, terms = self._clock.now_us(), self._terms
        swept = self._book.sweep_covered(lease, terms.wanted, last_seq, now_us, terms.lease_s)
        self._lease = self._book.open_digest(swept, last_seq, now_us, terms.lease_s)
        self._marked_s = self._clock.elapsed_s()

    def _send(self, lease: Lease, queue: Queue) -> Turn:
        """Send items until one fails, the lease gets short, or somebody wants the process to end."""
        standing, done = lease.standing, Done()
        size = self._sink.batch_max
        self._look_at_exceptions(queue.items)
        for start in range(0, len(queue.items), size):
            if self._stopping():
                break
            if self._clock.now_us() >= (self._lease or lease).until_us:
                raise FencedError(f"the lease of {self.name} ended while nothing was done")
            if self._clock.elapsed_s() - self._covered_s >= _EXCEPTIONS_S:
                self._look_at_exceptions(queue.items[start:])
            items = queue.items[start : start + size]
            standing, failed = self._try(lease.sink, standing, items, done)
            if start + size >= len(queue.items) and not failed:
                standing = replace(standing, cursor=max(standing.cursor, queue.end))
            if failed:
                self._mark(standing, done)
                return Turn("failing", min(max(0.0, self._until_next_s(standing)), IDLE_S))
            if len(done) >= self._sink.unmarked_max or self._clock.elapsed_s() - self._marked_s >= _MARK_S:
                self._mark(standing, done)
                done = Done()
        if done or standing != lease.standing:
            self._mark(standing, done)
        return Turn("busy")

    def _try(self, sink: str, standing: Standing, items: Sequence[Item], done: Done) -> tuple[Standing, bool]:
        """Send a few items at once; whether one of them is to be tried again."""
        covered = self._covered
        parcels = {item.key: self._parcel(sink, item) for item in items if item.key not in covered}
        full = [parcel for parcel in parcels.values() if parcel is not None]
        outcomes = dict(zip([parcel.key for parcel in full], self._sink.send(full), strict=False)) if full else {}
        if outcomes:
            self._step("sent")
        for item in items:
            parcel = parcels.get(item.key)
            if parcel is not None:
                standing, again = self._after(standing, item, parcel, outcomes[item.key], done)
                if again:
                    return standing, True
            elif isinstance(item, DigestItem):
                done.digests.append((item, "empty", 0, "nothing is left of it"))
                standing = _past(standing, item)
            else:
                done.suppressed.append((item, covered[item.key]))
                standing = _past(standing, item)
        return standing, False

    def _look_at_exceptions(self, items: Sequence[Item]) -> None:
        alerts = [item.alert for item in items if isinstance(item, AlertItem)]
        self._covered = self._book.covered(alerts, self._clock.now_us()) if alerts else {}
        self._covered_s = self._clock.elapsed_s()

    def _parcel(self, sink: str, item: Item) -> AlertParcel | DigestParcel | None:
        if isinstance(item, DigestItem):
            return self._book.digest(sink, item, self._terms.wanted)
        link = self._terms.link.replace("{alert_id}", item.key)
        return AlertParcel(item.alert, self._terms.rules.get(item.alert.rule), link)

    def _after(
        self, standing: Standing, item: Item, parcel: AlertParcel | DigestParcel, outcome: Outcome, done: Done
    ) -> tuple[Standing, bool]:
        """How the sink stands after an outcome, and whether the item is to be tried again."""
        now_us = self._clock.now_us()
        size = parcel.count if isinstance(parcel, DigestParcel) else 1
        if isinstance(outcome, Sent):
            return self._after_success(standing, item, size, done), False
        standing = self._after_failure(standing, item, outcome, now_us)
        tried = Tried(standing.attempts, standing.unreachable, standing.refusals, (now_us - item.since_us) / US_PER_S)
        dead = is_dead(outcome, tried, self._terms.patience)
        self._say(item, outcome, standing, dead=dead)
        if dead:
            if isinstance(item, DigestItem):
                done.digests.append((item, "dead", size, outcome.reason))
            else:
                done.dead.append((item, outcome.reason, standing.attempts))
            standing = replace(_past(standing, item), head="", attempts=0, unreachable=0)
            if isinstance(outcome, Refused) and standing.refusals <= REFUSALS_MAX:
                return replace(standing, next_try_us=0), False
        return standing, True

    def _say(self, item: Item, outcome: Later | Refused, standing: Standing, *, dead: bool) -> None:
        facts = {"sink": self.name, "key": item.key, "reason": outcome.reason, "attempts": standing.attempts}
        if dead:
            log.error("gave it up; `stillwatch deliver replay` sends it again", **facts)
        else:
            log.warning("could not deliver", **facts, next_try_in_s=round(self._until_next_s(standing), 1))

    def _after_success(self, standing: Standing, item: Item, size: int, done: Done) -> Standing:
        now_us, rate = self._clock.now_us(), self._terms.per_minute
        allowance = standing.allowance
        if isinstance(item, DigestItem):
            done.digests.append((item, "sent", size, ""))
            allowance = replace(allowance.at(now_us, rate), left=0.0)
            standing = replace(standing, digested=standing.digested + size, digest_at_us=now_us)
        else:
            done.sent.append(item)
            allowance = allowance.at(now_us, rate).less(1) if rate else allowance
            standing = replace(standing, sent=standing.sent + 1)
        return replace(
            _past(standing, item), failures=0, refusals=0, head="", attempts=0, unreachable=0, next_try_us=0,
            sent_at_us=now_us, allowance=allowance,
        )  # fmt: skip

    def _after_failure(self, standing: Standing, item: Item, outcome: Later | Refused, now_us: int) -> Standing:
        same = standing.head == item.key
        failures = standing.failures + 1
        pause_us = round(pause_s(outcome, failures, self._chance) * US_PER_S)
        unreachable = isinstance(outcome, Later) and outcome.unreachable
        rate = self._terms.per_minute
        return replace(
            standing, failures=failures,
            refusals=standing.refusals + 1 if isinstance(outcome, Refused) else 0, head=item.key,
            attempts=(standing.attempts if same else 0) + 1,
            unreachable=(standing.unreachable if same else 0) + unreachable, next_try_us=now_us + pause_us,
            error=outcome.reason, error_at_us=now_us,
            allowance=standing.allowance.at(now_us, rate).less(1) if rate else standing.allowance,
        )  # fmt: skip

    def _until_next_s(self, standing: Standing) -> float:
        return (standing.next_try_us - self._clock.now_us()) / US_PER_S

    def _mark(self, standing: Standing, done: Done) -> None:
        """Tell the book; a few times, for what was sent and is not marked is sent again."""
        if self._lease is None:
            raise FencedError(f"nobody holds the sink {self.name} here")
        for tries in range(1, _MARK_TRIES + 1):
            try:
                self._lease = self._book.mark(self._lease, standing, done, self._clock.now_us(), self._terms.lease_s)
            except RetryableError as error:
                if tries == _MARK_TRIES:
                    self._lease = None  # what the catalog holds is looked up again
                    raise
                log.warning("waiting for the catalog", sink=self.name, reason=str(error))
                self._clock.sleep(IDLE_S)
            else:
                self._marked_s = self._clock.elapsed_s()
                self._step("marked")
                return


def _past(standing: Standing, item: Item) -> Standing:
    """The cursor after an item; one that was asked for again is behind it already."""
    last_seq = item.last_seq if isinstance(item, DigestItem) else item.seq
    return replace(standing, cursor=max(standing.cursor, last_seq + 1))


def _first_of(queue: Queue, count: int) -> Queue:
    """The first items of a queue; if some are left out, its end is where the first of these is."""
    if count >= len(queue.items):
        return queue
    items = queue.items[:count]
    last = items[-1]
    end = last.seq + 1 if isinstance(last, AlertItem) and queue.from_log else 0
    return replace(queue, items=items, end=end)
