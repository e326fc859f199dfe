"""A sink's worker on a real catalog: order, back-off, the dead, digests, exceptions, and two workers at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.delivery.parcels import AlertParcel, DigestParcel, Later, Outcome, Parcel, Refused, Sent
from pipeline.delivery.ports import Wanted
from pipeline.delivery.records import SinkState
from pipeline.delivery.retrying import REFUSALS_MAX, Patience
from pipeline.delivery.worker import SinkWorker, Terms
from pipeline.errors import RetryableError
from pipeline.io.catalog import Catalog, sqlite_url
from pipeline.io.desk.audit_log import AuditFilter
from tests.contract.catalog_commits import P0, commit_of
from tests.contract.test_desk import entry_of
from tests.fakes import FakeClock
from tests.parcels import NOW_US, alert

LEASE_S = 60.0


class Sink:
    """Takes what comes, unless it was told what to say."""

    def __init__(self, batch_max: int = 1, unmarked_max: int = 1) -> None:
        self.batch_max, self.unmarked_max = batch_max, unmarked_max
        self.answers: dict[str, list[Outcome]] = {}
        self.always: Outcome = Sent()
        self.tried: list[str] = []
        self.got: list[Parcel] = []
        self.during: Callable[[], None] = lambda: None

    def send(self, parcels: Sequence[Parcel]) -> Sequence[Outcome]:
        outcomes: list[Outcome] = []
        for parcel in parcels:
            self.tried.append(parcel.key)
            waiting = self.answers.get(parcel.key, [])
            outcomes.append(waiting.pop(0) if waiting else self.always)
            if isinstance(outcomes[-1], Sent):
                self.got.append(parcel)
            if isinstance(outcomes[-1], Later):
                break
        self.during()
        return outcomes

    def close(self) -> None:
        """Nothing is open."""

    @property
    def keys(self) -> list[str]:
        return [parcel.key for parcel in self.got]


class Desk:
    """A catalog with alerts, a clock, and workers."""

    def __init__(self, catalog: Catalog, clock: FakeClock) -> None:
        self.catalog, self.clock, self.sink = catalog, clock, Sink()
        self.book, self.records = catalog.desk.deliveries, catalog.desk.delivery_records
        self.book.register(["soc"], clock.now_us())

    def raise_alerts(self, numbers: range, **changed: Any) -> list[str]:
        claim = self.catalog.take(P0) or self.catalog.start_at(P0, 0)
        made = [alert(number, **changed) for number in numbers]
        commit = replace(commit_of(P0, claim.next_offset, claim.next_offset + 10), committed_at_us=self.clock.now_us())
        self.catalog.commit(commit, claim.epoch, [], alerts=made)
        self.book.route(self.clock.now_us())
        return [one.alert_id for one in made]

    def worker(self, holder: str = "one", **terms: Any) -> SinkWorker:
        made = Terms(**{
            "wanted": Wanted(), "per_minute": 0, "patience": Patience(3, 3600), "lease_s": LEASE_S,
            "link": "https://triage.example/{alert_id}", "rules": {}, **terms,
        })  # fmt: skip
        return SinkWorker("soc", self.sink, self.book, self.clock, made, holder=holder, chance=lambda: 1.0)

    def drain(self, worker: SinkWorker) -> str:
        """Turns until there is nothing to do at once; the last one's state."""
        while (turn := worker.turn()).state == "busy":
            pass
        return turn.state

    def state(self) -> SinkState:
        (state,) = self.records.state({"soc": Wanted()}, 0).sinks
        return state

    def audited(self, action: str) -> list[Any]:
        return [record.details for record in reversed(self.catalog.desk.audit.records(AuditFilter(action=action)))]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with contextlib.closing(Catalog.open(sqlite_url(tmp_path / "catalog.db"), create=True)) as catalog:
        clock = FakeClock()
        yield Desk(catalog, clock)


def test_all_that_waits_is_sent_in_order_and_once(desk: Desk) -> None:
    ids = desk.raise_alerts(range(5))
    worker = desk.worker()
    assert desk.drain(worker) == "idle"
    assert desk.sink.keys == ids
    more = desk.raise_alerts(range(10, 12))
    assert desk.drain(worker) == "idle"
    assert desk.sink.keys == [*ids, *more]
    assert isinstance(desk.sink.got[0], AlertParcel)
    assert desk.sink.got[0].link == f"https://triage.example/{ids[0]}"
    assert (desk.state().sent, desk.state().waiting, desk.state().sent_at_us) == (7, 0, NOW_US)


def test_while_the_first_one_fails_the_others_wait(desk: Desk) -> None:
    ids = desk.raise_alerts(range(3))
    desk.sink.answers[ids[0]] = [Later("it answered 500"), Later("it answered 500")]
    worker = desk.worker()
    assert desk.drain(worker) == "failing"
    assert worker.turn().state == "failing", "not before its pause is over"
    assert desk.sink.tried == ids[:1]
    state = desk.state()
    assert (state.failures, state.error, state.next_try_us) == (1, "it answered 500", NOW_US + 1_000_000)
    desk.clock.sleep(1.0)
    assert desk.drain(worker) == "failing"
    assert desk.state().next_try_us == desk.clock.now_us() + 2_000_000
    desk.clock.sleep(2.0)
    assert desk.drain(worker) == "idle"
    assert desk.sink.keys == ids
    assert desk.state().failures == 0


def test_one_that_breaks_the_sink_again_and_again_steps_aside(desk: Desk) -> None:
    ids = desk.raise_alerts(range(3))
    desk.sink.answers[ids[0]] = [Later("it answered 500")] * 10
    worker = desk.worker()
    for _ in range(10):
        desk.drain(worker)
        desk.clock.sleep(300.0)
    assert desk.sink.tried == [ids[0]] * 4 + ids[1:]
    assert desk.state().dead == 1
    assert desk.audited("delivery.dead")[0]["attempts"] == 4


def test_an_outage_kills_nothing_until_it_has_lasted_too_long(desk: Desk) -> None:
    ids = desk.raise_alerts(range(2))
    desk.sink.always = Later("no connection", unreachable=True)
    worker = desk.worker()
    for _ in range(11):
        desk.drain(worker)
        desk.clock.sleep(300.0)
    assert (desk.state().dead, desk.state().waiting) == (0, 2)
    desk.clock.sleep(300.0)
    desk.drain(worker)
    assert (desk.state().dead, desk.state().waiting) == (1, 1), "one a pause, and not all at once"
    desk.sink.always = Sent()
    desk.clock.sleep(300.0)
    assert desk.drain(worker) == "idle"
    assert desk.sink.keys == ids[1:]


def test_what_is_refused_steps_aside_at_once(desk: Desk) -> None:
    ids = desk.raise_alerts(range(3))
    desk.sink.answers[ids[1]] = [Refused("it answered 400")]
    assert desk.drain(desk.worker()) == "idle"
    assert desk.sink.keys == [ids[0], ids[2]]
    assert desk.state().dead == 1


def test_a_sink_that_refuses_everything_does_not_kill_everything(desk: Desk) -> None:
    """A token that was withdrawn is no reason to give up every alert."""
    ids = desk.raise_alerts(range(20))
    desk.sink.always = Refused("it answered 401")
    worker = desk.worker()
    for _ in range(5):
        assert desk.drain(worker) == "failing"
        desk.clock.sleep(300.0)
    assert (desk.state().dead, desk.state().waiting) == (REFUSALS_MAX, 20 - REFUSALS_MAX)
    desk.sink.always = Sent()
    assert desk.drain(worker) == "idle"
    assert desk.sink.keys == ids[REFUSALS_MAX:]
    assert desk.records.replay("soc", "", "ana", desk.clock.now_us()) == REFUSALS_MAX
    assert desk.drain(worker) == "idle"
    assert sorted(desk.sink.keys) == ids
    assert desk.state().dead == 0


def test_a_busy_sink_is_left_alone_for_as_long_as_it_asks(desk: Desk) -> None:
    ids = desk.raise_alerts(range(1))
    desk.sink.answers[ids[0]] = [Later("it answered 429", unreachable=True, after_s=120)]
    worker = desk.worker()
    desk.drain(worker)
    desk.clock.sleep(119.0)
    assert desk.drain(worker) == "failing"
    desk.clock.sleep(1.0)
    assert desk.drain(worker) == "idle"
    assert len(desk.sink.tried) == 2


def test_who_asks_for_one_try_gets_it_at_once(desk: Desk) -> None:
    ids = desk.raise_alerts(range(1))
    desk.sink.answers[ids[0]] = [Later("it answered 500")]
    worker = desk.worker()
    desk.drain(worker)
    assert worker.turn(eager=True).state == "busy"
    assert desk.sink.keys == ids


def test_a_replay_that_somebody_asks_for_is_tried_at_once(desk: Desk) -> None:
    ids = desk.raise_alerts(range(2))
    desk.sink.answers[ids[0]] = [Refused("it answered 400")]
    desk.sink.answers[ids[1]] = [Later("it answered 500", after_s=3000)]
    worker = desk.worker()
    assert desk.drain(worker) == "failing"
    desk.records.replay("", ids[0], "ana", desk.clock.now_us())
    assert desk.drain(worker) == "idle"
    assert desk.sink.keys == ids


# ---- storms


def test_a_storm_is_one_message(desk: Desk) -> None:
    desk.raise_alerts(range(1_000))
    worker = desk.worker(per_minute=20)
    assert desk.drain(worker) == "idle"
    (digest,) = desk.sink.got
    assert isinstance(digest, DigestParcel)
    assert digest.count == 1_000
    state = desk.state()
    assert (state.digested, state.digests, state.sent, state.waiting) == (1_000, 1, 0, 0)
    assert [said["alerts"] for said in desk.audited("delivery.digested")] == [1_000]
    assert len(desk.audited("delivery")) == 2, "the sink's first start, and the digest"


def test_a_storm_that_goes_on_is_a_message_a_minute(desk: Desk) -> None:
    worker = desk.worker(per_minute=20)
    for start in range(0, 12_000, 100):
        desk.raise_alerts(range(start, start + 100))
        desk.drain(worker)
        desk.clock.sleep(1.0)
    assert len(desk.sink.got) == 2
    desk.clock.sleep(60.0)
    desk.drain(worker)
    assert [parcel.count for parcel in desk.sink.got if isinstance(parcel, DigestParcel)] == [100, 6_000, 5_900]


def test_a_few_go_by_themselves_as_fast_as_the_rate_allows(desk: Desk) -> None:
    ids = desk.raise_alerts(range(20))
    worker = desk.worker(per_minute=20)
    desk.drain(worker)
    assert desk.sink.keys == ids
    more = desk.raise_alerts(range(100, 103))
    assert desk.drain(worker) == "slowed"
    assert desk.sink.keys == ids
    for _ in range(20):
        desk.clock.sleep(1.0)
        desk.drain(worker)
    assert desk.sink.keys == [*ids, *more]


def test_a_digest_that_fails_is_sent_again_as_it_was(desk: Desk) -> None:
    desk.raise_alerts(range(100))
    worker = desk.worker(per_minute=20)
    desk.sink.always = Later("it answered 500")
    assert desk.drain(worker) == "failing"
    desk.raise_alerts(range(200, 300))
    desk.sink.always = Sent()
    desk.clock.sleep(60.0)
    desk.drain(worker)
    first, *_ = desk.sink.got
    assert desk.sink.tried[0] == desk.sink.tried[1] == first.key
    assert isinstance(first, DigestParcel)
    assert first.count == 100
    desk.clock.sleep(60.0)
    desk.drain(worker)
    assert len(desk.sink.got) == 2
    assert desk.state().waiting == 0


def test_a_refused_digest_is_dead_and_can_be_replayed(desk: Desk) -> None:
    desk.raise_alerts(range(100))
    worker = desk.worker(per_minute=20)
    desk.sink.always = Refused("it answered 413")
    assert desk.drain(worker) == "idle"
    assert (desk.state().dead_digests, desk.state().waiting) == (1, 0)
    desk.sink.always = Sent()
    assert desk.records.replay("soc", "", "ana", desk.clock.now_us()) == 1
    desk.clock.sleep(60.0)
    assert desk.drain(worker) == "idle"
    assert [parcel.count for parcel in desk.sink.got if isinstance(parcel, DigestParcel)] == [100]


# ---- exceptions


def exception_on(desk: Desk, number: int) -> str:
    now_us = desk.clock.now_us()
    entry = entry_of(subject=f"acct_{number}", created_at_us=now_us, expires_at_us=now_us + 3_600_000_000)
    desk.catalog.desk.exceptions.add(entry)
    return entry.exception_id


@pytest.mark.parametrize("batch_max", (1, 10))
def test_an_exception_that_came_before_the_sending_holds(desk: Desk, batch_max: int) -> None:
    ids = desk.raise_alerts(range(4))
    exception = exception_on(desk, 2)
    desk.sink = Sink(batch_max)
    assert desk.drain(desk.worker()) == "idle"
    assert desk.sink.keys == [ids[0], ids[1], ids[3]]
    assert desk.catalog.desk.exceptions.suppressed() == {exception: 1}
    assert desk.audited("delivery.suppressed")[0]["alert_ids"] == [ids[2]]
    assert (desk.state().suppressed, desk.state().waiting) == (1, 0)


def test_an_exception_that_ends_before_the_sending_suppresses_nothing(desk: Desk) -> None:
    ids = desk.raise_alerts(range(4))
    exception_on(desk, 2)
    desk.sink = Sink(batch_max=10)
    desk.sink.answers[ids[1]] = [Later("it answered 500")]
    worker = desk.worker()
    assert desk.drain(worker) == "failing"
    desk.clock.sleep(3_600.0)
    assert desk.drain(worker) == "idle"
    assert desk.sink.keys == ids
    assert desk.catalog.desk.exceptions.suppressed() == {}


def test_a_digest_leaves_out_what_an_exception_covers(desk: Desk) -> None:
    desk.raise_alerts(range(100))
    exception = exception_on(desk, 2)
    desk.drain(desk.worker(per_minute=20))
    (digest,) = desk.sink.got
    assert isinstance(digest, DigestParcel)
    assert digest.count == 99
    assert desk.catalog.desk.exceptions.suppressed() == {exception: 1}


def test_a_digest_of_which_nothing_is_left_is_not_sent(desk: Desk) -> None:
    desk.raise_alerts(range(100), entity_id="acct_2")
    exception_on(desk, 2)
    assert desk.drain(desk.worker(per_minute=20)) == "idle"
    assert desk.sink.tried == []
    assert desk.state().waiting == 0


# ---- crashes and two at once


def test_what_was_sent_and_not_marked_is_sent_again(desk: Desk) -> None:
    ids = desk.raise_alerts(range(3))

    def die() -> None:
        raise KeyboardInterrupt

    desk.sink.during = die
    with pytest.raises(KeyboardInterrupt):
        desk.worker().turn()
    desk.sink.during = lambda: None
    assert desk.worker("two").turn().state == "held"
    desk.clock.sleep(LEASE_S)
    assert desk.drain(desk.worker("two")) == "idle"
    assert desk.sink.keys == [ids[0], *ids]


def test_who_wakes_up_after_its_lease_sends_no_more_and_marks_nothing(desk: Desk) -> None:
    ids = desk.raise_alerts(range(5))
    sleeper, other = desk.worker(), desk.worker("two")

    def sleep() -> None:
        if desk.sink.tried == ids[:1]:
            desk.clock.sleep(LEASE_S + 1)
            assert desk.drain(other) == "idle"

    desk.sink.during = sleep
    assert sleeper.turn().state == "held"
    assert desk.sink.tried == [ids[0], *ids], "the one that was under way, and then all of them by the other"
    assert desk.state().sent == 5
    assert desk.drain(sleeper) == "held"


def test_who_lets_go_hands_over_at_once(desk: Desk) -> None:
    first = desk.worker()
    assert desk.drain(first) == "idle"
    assert desk.worker("two").turn().state == "held"
    first.close()
    assert desk.worker("two").turn().state == "idle"


def test_a_sink_is_held_while_nothing_happens(desk: Desk) -> None:
    worker = desk.worker()
    for _ in range(10):
        assert worker.turn().state == "idle"
        assert desk.worker("two").turn().state == "held"
        desk.clock.sleep(LEASE_S / 2 + 1)


def test_a_locked_catalog_is_waited_for_and_nothing_is_sent_twice(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = desk.raise_alerts(range(3))
    worker, real, failed = desk.worker(), desk.book.mark, []

    def mark(*arguments: Any) -> Any:
        if len(failed) < 3:
            failed.append(1)
            raise RetryableError("locked")
        return real(*arguments)

    monkeypatch.setattr(desk.book, "mark", mark)
    assert desk.drain(worker) == "idle"
    assert desk.sink.tried == ids


def test_many_are_marked_together_and_few_at_once(desk: Desk) -> None:
    desk.raise_alerts(range(1_000))
    desk.sink = Sink(batch_max=100, unmarked_max=500)
    desk.drain(desk.worker())
    assert [said["alerts"] for said in desk.audited("delivery.sent")] == [500, 500]


def test_after_a_long_lock_the_sink_is_taken_again_and_what_was_not_marked_sent_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = desk.raise_alerts(range(2))
    worker = desk.worker()
    with monkeypatch.context() as broken:

        def mark(*_arguments: Any) -> Any:
            raise RetryableError("locked")

        broken.setattr(desk.book, "mark", mark)
        with pytest.raises(RetryableError):
            worker.turn()
    assert desk.drain(worker) == "idle"
    assert desk.sink.tried == [ids[0], *ids]
    assert desk.state().sent == 2
