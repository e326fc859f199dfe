"""What was sent where, as both databases keep it."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from pipeline.delivery.ports import AlertItem, DigestItem, Done, Lease, Wanted
from pipeline.errors import ConfigError, FencedError, RetryableError
from pipeline.io.catalog import Catalog
from pipeline.io.catalog_alerts import NEW, PAST, ROUTED
from pipeline.io.desk import delivery_records
from pipeline.io.desk.audit_log import AuditFilter
from pipeline.io.desk.delivery_told import told
from pipeline.io.rewriting.ledger import RewriteLedger
from tests.contract.catalog_commits import P0, alert_of, commit_of, insist
from tests.contract.test_desk import NOW_US, entry_of

ALL = Wanted()
LEASE_S = 60.0
MINUTE_US = 60_000_000


def commit(catalog: Catalog, numbers: range, **changed: Any) -> list[str]:
    """Commit alerts of one moment; their ids, in the order in which they will be routed."""
    claim = catalog.take(P0) or catalog.start_at(P0, 0)
    alerts = [alert_of(number, **changed) for number in numbers]
    made = replace(commit_of(P0, claim.next_offset, claim.next_offset + 10), committed_at_us=NOW_US + numbers.start)
    catalog.commit(made, claim.epoch, [], alerts=alerts)
    return sorted(alert.alert_id for alert in alerts)


def hold(catalog: Catalog, sink: str = "soc", holder: str = "one", now_us: int = NOW_US) -> Lease:
    lease = catalog.desk.deliveries.acquire(sink, holder, LEASE_S, now_us)
    assert lease is not None
    return lease


def keys(catalog: Catalog, lease: Lease, wanted: Wanted = ALL, limit: int = 100) -> list[str]:
    return [item.key for item in catalog.desk.deliveries.queue(lease, wanted, limit).items]


def pass_all(catalog: Catalog, lease: Lease, **done: Any) -> Lease:
    """Mark everything that waits as passed."""
    queue = catalog.desk.deliveries.queue(lease, ALL, 10_000)
    standing = replace(lease.standing, cursor=queue.end)
    return catalog.desk.deliveries.mark(lease, standing, Done(**done), NOW_US, LEASE_S)


def dead(catalog: Catalog, lease: Lease) -> Lease:
    """Let everything that waits die."""
    items = catalog.desk.deliveries.queue(lease, ALL, 10_000).items
    return pass_all(catalog, lease, dead=[(item, "it answered 400", 1) for item in items])


def test_alerts_are_routed_once_and_in_the_order_of_their_commits(catalog: Catalog) -> None:
    book = catalog.desk.deliveries
    book.register(["soc"], NOW_US)
    early, late = commit(catalog, range(3)), commit(catalog, range(10, 12))
    assert book.route(NOW_US) == 5
    assert book.route(NOW_US) == 0
    assert set(catalog.outbox().values()) == {ROUTED}
    lease = hold(catalog)
    assert keys(catalog, lease) == [*early, *late]
    assert keys(catalog, pass_all(catalog, lease)) == []


def test_more_than_one_transaction_of_alerts_is_routed(catalog: Catalog) -> None:
    catalog.desk.deliveries.register(["soc"], NOW_US)
    ids = commit(catalog, range(1_200))
    assert catalog.desk.deliveries.route(NOW_US) == 1_200
    assert keys(catalog, hold(catalog), limit=2_000) == ids


def test_of_several_that_route_at_once_each_alert_gets_one_place(url: str, catalog: Catalog) -> None:
    catalog.desk.deliveries.register(["soc"], NOW_US)
    ids = commit(catalog, range(600))
    counts: list[int] = []

    def route() -> None:
        with contextlib.closing(Catalog.open(url, create=False)) as mine:
            counts.append(insist(mine.desk.deliveries.route, NOW_US))

    threads = [threading.Thread(target=route) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 600
    assert sorted(keys(catalog, hold(catalog), limit=2_000)) == ids


def test_a_sink_gets_what_is_routed_from_its_first_start_on(catalog: Catalog) -> None:
    book = catalog.desk.deliveries
    book.register(["soc"], NOW_US)
    commit(catalog, range(2))
    book.route(NOW_US)
    book.register(["soc", "late"], NOW_US)
    after = commit(catalog, range(10, 11))
    book.route(NOW_US)
    assert len(keys(catalog, hold(catalog, "soc"))) == 3
    assert keys(catalog, hold(catalog, "late")) == after


def test_a_sink_gets_what_it_wants_and_its_cursor_passes_the_rest(catalog: Catalog) -> None:
    book = catalog.desk.deliveries
    book.register(["soc"], NOW_US)
    high = commit(catalog, range(2))
    low = commit(catalog, range(10, 12), severity="low", rule="other")
    book.route(NOW_US)
    lease = hold(catalog)
    assert keys(catalog, lease, Wanted(severities=("low",))) == low
    assert keys(catalog, lease, Wanted(rules=("harvest",))) == high
    assert keys(catalog, lease, Wanted(severities=("low",), rules=("harvest",))) == []
    assert book.waiting(lease.standing.cursor, Wanted(severities=("low",)), 100) == 2
    assert book.waiting(lease.standing.cursor, ALL, 3) == 3
    assert book.queue(lease, Wanted(rules=("nobody",)), 100).end == 5


def test_one_holds_a_sink_until_the_lease_ends_or_is_given_back(catalog: Catalog) -> None:
    book = catalog.desk.deliveries
    book.register(["soc"], NOW_US)
    first = hold(catalog)
    assert book.acquire("soc", "two", LEASE_S, NOW_US + MINUTE_US - 1) is None
    second = hold(catalog, holder="two", now_us=NOW_US + MINUTE_US)
    assert second.epoch > first.epoch
    book.release(first)  # the sink is another's by now
    assert book.acquire("soc", "three", LEASE_S, NOW_US + MINUTE_US) is None
    book.release(second)
    assert book.acquire("soc", "three", LEASE_S, NOW_US + MINUTE_US) is not None


def test_who_wakes_up_too_late_marks_nothing(catalog: Catalog) -> None:
    book = catalog.desk.deliveries
    book.register(["soc"], NOW_US)
    ids = commit(catalog, range(3))
    book.route(NOW_US)
    sleeper = hold(catalog)
    items = book.queue(sleeper, ALL, 10).items
    waker = hold(catalog, holder="two", now_us=NOW_US + MINUTE_US)
    for act in (
        lambda: pass_all(catalog, sleeper, sent=list(items)),
        lambda: book.look(sleeper),
        lambda: book.open_digest(sleeper, 3, NOW_US, LEASE_S),
    ):
        with pytest.raises(FencedError, match="taken it over"):
            act()
    assert keys(catalog, waker) == ids
    assert not [record for record in catalog.desk.audit.records() if record.action == "delivery.sent"]


def test_a_mark_whose_answer_was_lost_is_made_once(catalog: Catalog) -> None:
    book = catalog.desk.deliveries
    book.register(["soc"], NOW_US)
    commit(catalog, range(3))
    book.route(NOW_US)
    lease = hold(catalog)
    items = list(book.queue(lease, ALL, 10).items)
    first = pass_all(catalog, lease, sent=items)
    assert pass_all(catalog, lease, sent=items) == first
    records = catalog.desk.audit.records(AuditFilter(action="delivery.sent"))
    assert [record.details["alerts"] for record in records] == [3]


def test_what_is_dead_steps_aside_and_is_replayed_before_what_is_new(catalog: Catalog) -> None:
    book, records = catalog.desk.deliveries, catalog.desk.delivery_records
    book.register(["soc", "other"], NOW_US)
    ids = commit(catalog, range(3))
    book.route(NOW_US)
    lease = dead(catalog, hold(catalog))
    new = commit(catalog, range(10, 11))
    book.route(NOW_US)
    assert keys(catalog, lease) == new
    why = "dead (`stillwatch deliver status` says why)"
    with catalog.transaction() as tx:
        assert told(tx, [*ids, *new, "f" * 32]) == {
            **dict.fromkeys(ids, f"other: waits; soc: {why}"),
            new[0]: "other: waits; soc: waits",
        }
    state = {one.sink: one for one in records.state({"soc": ALL, "other": ALL}, 2).sinks}
    assert (state["soc"].dead, state["soc"].waiting, state["other"].waiting) == (3, 1, 4)
    assert [(one.error, one.attempts) for one in records.state({}, 2).dead] == [("it answered 400", 1)] * 2
    assert records.replay("other", "", "ana", NOW_US) == 0
    assert records.replay("soc", records.dead_id(ids[1][:20]), "ana", NOW_US) == 1
    assert records.replay("", "", "ana", NOW_US) == 2
    queue = book.queue(lease, ALL, 10)
    assert [item.key for item in queue.items] == ids
    lease = book.mark(lease, lease.standing, Done(sent=list(queue.items)), NOW_US, LEASE_S)
    assert keys(catalog, lease) == new
    with catalog.transaction() as tx:
        assert told(tx, ids) == dict.fromkeys(ids, "other: waits; soc: done")
    assert {one.sink: one.dead for one in records.state({}, 2).sinks} == {"other": 0, "soc": 0}
    assert [record.actor for record in catalog.desk.audit.records(AuditFilter(action="delivery.replayed"))] == [
        "ana"
    ] * 2


def test_more_than_one_transaction_is_replayed(catalog: Catalog) -> None:
    book = catalog.desk.deliveries
    book.register(["soc"], NOW_US)
    ids = commit(catalog, range(1_100))
    book.route(NOW_US)
    lease = dead(catalog, hold(catalog))
    assert catalog.desk.delivery_records.replay("soc", "", "ana", NOW_US) == 1_100
    assert keys(catalog, lease, limit=2_000) == ids


def test_an_id_of_nothing_that_is_dead_is_said_so(catalog: Catalog) -> None:
    with pytest.raises(ConfigError, match="no id of what is dead begins so"):
        catalog.desk.delivery_records.dead_id("abc")


def test_alerts_that_are_held_back_go_out_when_somebody_asks(catalog: Catalog) -> None:
    book, records = catalog.desk.deliveries, catalog.desk.delivery_records
    book.register(["soc"], NOW_US)
    catalog.alerts_are = PAST
    ids = commit(catalog, range(3))
    assert book.route(NOW_US) == 0
    assert records.release([PAST], ids[0], "ana", NOW_US) == 1
    assert catalog.outbox()[ids[0]] == NEW
    assert records.release([PAST], "", "ana", NOW_US) == 2
    assert records.release([PAST], "", "ana", NOW_US) == 0
    assert book.route(NOW_US) == 3


def test_a_digest_says_what_waits_and_moves_the_cursor_past_it(catalog: Catalog) -> None:
    book = catalog.desk.deliveries
    book.register(["soc"], NOW_US)
    commit(catalog, range(3))
    commit(catalog, range(10, 12), severity="critical", rule="other")
    book.route(NOW_US)
    lease = book.open_digest(hold(catalog), 5, NOW_US, LEASE_S)
    late = commit(catalog, range(20, 21))
    book.route(NOW_US)
    queue = book.queue(lease, ALL, 10)
    (item,) = queue.items
    assert isinstance(item, DigestItem)
    said = book.digest("soc", item, ALL)
    assert said is not None
    assert (said.count, said.accounts_count, said.severity) == (5, 5, "critical")
    assert list(said.severities.items()) == [("critical", 2), ("high", 3)]
    assert said.rules == [("harvest", 3), ("other", 2)]
    assert [alert.severity for alert in said.worst] == ["critical"] * 2 + ["high"] * 3
    assert (said.first_raised_us, said.last_raised_us) == (0, 11_000)
    standing = replace(lease.standing, cursor=queue.end)
    lease = book.mark(lease, standing, Done(digests=[(item, "sent", 5, "")]), NOW_US, LEASE_S)
    assert keys(catalog, lease) == late
    records = catalog.desk.audit.records(AuditFilter(action="delivery.digested"))
    assert [record.details["alerts"] for record in records] == [5]


def test_a_dead_digest_is_replayed(catalog: Catalog) -> None:
    book, records = catalog.desk.deliveries, catalog.desk.delivery_records
    book.register(["soc"], NOW_US)
    commit(catalog, range(3))
    book.route(NOW_US)
    lease = book.open_digest(hold(catalog), 3, NOW_US, LEASE_S)
    queue = book.queue(lease, ALL, 10)
    (item,) = queue.items
    assert isinstance(item, DigestItem)
    standing = replace(lease.standing, cursor=queue.end)
    lease = book.mark(lease, standing, Done(digests=[(item, "dead", 3, "it answered 400")]), NOW_US, LEASE_S)
    assert keys(catalog, lease) == []
    state = records.state({"soc": ALL}, 5)
    assert (state.sinks[0].dead_digests, state.dead[0].key, state.dead[0].alerts) == (1, item.digest_id, 3)
    assert records.replay("", records.dead_id(item.digest_id[:8]), "ana", NOW_US) == 1
    assert keys(catalog, lease) == [item.digest_id]


def test_an_exception_that_came_later_covers_what_was_not_sent(catalog: Catalog) -> None:
    book = catalog.desk.deliveries
    book.register(["soc"], NOW_US)
    commit(catalog, range(1, 4))
    book.route(NOW_US)
    alerts = [alert_of(number) for number in range(1, 4)]
    assert book.covered(alerts, NOW_US) == {}
    catalog.desk.exceptions.add(entry_of())  # of account-1
    covered = book.covered(alerts, NOW_US)
    assert list(covered) == [alert_of(1).alert_id]
    lease = book.sweep_covered(hold(catalog), ALL, 3, NOW_US, LEASE_S)
    assert catalog.desk.exceptions.suppressed() == {entry_of().exception_id: 1}
    lease = book.open_digest(lease, 3, NOW_US, LEASE_S)
    (item,) = book.queue(lease, ALL, 10).items
    assert isinstance(item, DigestItem)
    said = book.digest("soc", item, ALL)
    assert said is not None
    assert said.count == 2
    (state,) = catalog.desk.delivery_records.state({"soc": ALL}, 0).sinks
    assert (state.suppressed, state.waiting) == (1, 2)


def test_an_erased_account_is_sent_to_nobody(catalog: Catalog) -> None:
    book = catalog.desk.deliveries
    book.register(["soc"], NOW_US)
    commit(catalog, range(1, 4))
    book.route(NOW_US)
    RewriteLedger(catalog, "test:1").erase_account(alert_of(1).entity_id, NOW_US)
    lease = hold(catalog)
    items = book.queue(lease, ALL, 10).items
    assert {item.alert.entity_id for item in items if isinstance(item, AlertItem)} == {"account-2", "account-3"}


def test_a_batch_is_marked_by_a_handful_of_rows(url: str, catalog: Catalog) -> None:
    """A storm must not fill the catalog, nor hold its lock: the cursor moves, and one audit record says so."""
    book = catalog.desk.deliveries
    book.register(["soc"], NOW_US)
    commit(catalog, range(500))
    book.route(NOW_US)
    lease = hold(catalog)
    before = _rows(url)
    pass_all(catalog, lease, sent=list(book.queue(lease, ALL, 500).items))
    assert _rows(url) - before == 1


def _rows(url: str) -> int:
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        names = sa.inspect(engine).get_table_names()
        count = sum(connection.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar_one() for name in names)
    engine.dispose()
    return count


def test_a_sink_is_forgotten_with_all_that_is_its_own_and_nobody_elses(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_records, "_ROWS_MAX", 2)
    book, records = catalog.desk.deliveries, catalog.desk.delivery_records
    book.register(["soc", "pager"], NOW_US)
    commit(catalog, range(5))
    book.route(NOW_US)
    lease, other = dead(catalog, hold(catalog)), dead(catalog, hold(catalog, "pager"))
    commit(catalog, range(5, 8))
    book.route(NOW_US)
    with pytest.raises(ConfigError, match="sends to it at this moment"):
        records.forget("soc", "ana", NOW_US)
    state = records.forget("soc", "ana", lease.until_us)
    assert (state.waiting, state.dead) == (3, 5)
    (left,) = records.state({}, 100).sinks
    assert (left.sink, left.waiting, left.dead) == ("pager", 3, 5)
    with pytest.raises(RetryableError, match="not in the catalog any more"):
        book.look(lease)
    assert book.look(other) == other
    with pytest.raises(ConfigError, match="there is no sink 'soc' on record; there are: pager"):
        records.forget("soc", "ana", lease.until_us)
    book.register(["soc"], NOW_US)
    again = next(one for one in records.state({}, 100).sinks if one.sink == "soc")
    assert (again.waiting, again.dead, again.sent) == (0, 0, 0), "a new one"


def test_a_sink_whose_forgetting_was_killed_is_taken_by_nobody_and_forgotten_by_the_next(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    book, records = catalog.desk.deliveries, catalog.desk.delivery_records
    book.register(["soc"], NOW_US)
    commit(catalog, range(2))
    book.route(NOW_US)
    with monkeypatch.context() as patched:
        patched.setattr(type(records), "_forget_rows", _die)
        with pytest.raises(KeyboardInterrupt):
            records.forget("soc", "ana", NOW_US)
    assert book.acquire("soc", "one", LEASE_S, NOW_US + 10**12) is None
    records.forget("soc", "ana", NOW_US)
    assert records.state({}, 1).sinks == ()


def _die(*_arguments: object) -> None:
    raise KeyboardInterrupt
