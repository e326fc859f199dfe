"""What was sent where: one log of alerts, and each sink's place in it.

An alert that a commit left in the outbox is *routed* once: it gets the next place in the log.  Each sink has a cursor
into the log, which moves past what is sent; so a batch of any size costs one row.  What a cursor cannot tell stands
aside, in rows of its own: what is dead, what is to be replayed, what an exception covers by now.

A sink is held by one deliverer at a time: by a lease that ends by itself, and an epoch that rises with each holder, so
that a holder that wakes up too late cannot mark anything.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final

import sqlalchemy as sa

from pipeline.alerts import Alert
from pipeline.delivery.parcels import DigestParcel
from pipeline.delivery.ports import AlertItem, DigestItem, Done, Lease, Queue, Standing, Wanted
from pipeline.delivery.rate import US_PER_S, Allowance
from pipeline.errors import FencedError, RetryableError
from pipeline.io import catalog_alerts, catalog_tables
from pipeline.io.desk import delivery_queue, exception_book
from pipeline.io.desk.audit_log import Act, append
from pipeline.io.desk.delivery_tables import delivery_asides, delivery_digests, delivery_log, delivery_sinks
from pipeline.io.desk.numbers import next_numbers
from pipeline.io.desk.transactions import Transaction

ACTOR: Final = "deliver"
DEAD, REPLAY, SUPPRESSED = "dead", "replay", "suppressed"
OPEN, SENT = "open", "sent"

_COUNTER: Final = "delivery_log"
_ROWS_MAX: Final = 500
"""Rows in one transaction that writes: SQLite lets one write at a time, and the main job must not wait."""

FULL: Final = 1e9
"""An allowance that is full: it shrinks to what a minute allows."""

_LOOK_MAX: Final = 5_000
_NAMED_MAX: Final = 20
"""Ids that a record of the audit log names; of more it names the places in the log."""


class DeliveryBook:
    """Everything about deliveries.  `Catalog.desk.deliveries` gives it."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def register(self, sinks: Iterable[str], now_us: int) -> None:
        """Let sinks have what is routed from now on; of one that is known already nothing changes."""
        with self._transaction() as tx:
            known = set(tx.execute(sa.select(delivery_sinks.c.sink)).scalars())
        new = [sink for sink in sinks if sink not in known]
        if not new:
            return
        with self._transaction(write=True) as tx:
            last = next_numbers(tx, _COUNTER, 0)  # locks the counter: nothing is routed meanwhile
            for sink in new:
                row = _new_row(sink, last + 1, now_us)
                added = catalog_tables.insert(tx.engine, delivery_sinks).values(row).on_conflict_do_nothing()
                if tx.execute(added.returning(delivery_sinks.c.sink)).first() is not None:
                    append(tx, Act("delivery.sink_added", ACTOR, "sink", sink), now_us)

    def route(self, now_us: int) -> int:
        """Give alerts of the outbox their places in the log, the earliest first; says how many, 0: there are none."""
        outbox = catalog_tables.outbox
        query = sa.select(outbox.c.alert_id).where(outbox.c.state == catalog_alerts.NEW)
        query = query.order_by(outbox.c.created_at_us, outbox.c.alert_id).limit(_LOOK_MAX)
        with self._transaction() as tx:
            ids = tx.execute(query).scalars().all()
        return sum(self._route(ids[start : start + _ROWS_MAX], now_us) for start in range(0, len(ids), _ROWS_MAX))

    def _route(self, ids: Sequence[str], now_us: int) -> int:
        outbox = catalog_tables.outbox
        # so written that SQLite takes them by their ids, and does not go over all that are new under the lock
        mine = (outbox.c.alert_id.in_(ids), sa.func.coalesce(outbox.c.state, "") == catalog_alerts.NEW)
        with self._transaction(write=True) as tx:
            taken = sa.update(outbox).where(*mine).values(state=catalog_alerts.ROUTED).returning(outbox.c.alert_id)
            found = set(tx.execute(taken).scalars())
            if not found:
                return 0
            first = next_numbers(tx, _COUNTER, len(found)) - len(found) + 1
            inorder = (alert_id for alert_id in ids if alert_id in found)
            rows = [
                {"seq": seq, "alert_id": alert_id, "routed_at_us": now_us}
                for seq, alert_id in enumerate(inorder, first)
            ]
            tx.execute(sa.insert(delivery_log), rows)
        return len(found)

    def acquire(self, sink: str, holder: str, lease_s: float, now_us: int) -> Lease | None:
        """Hold a sink from now on; None: another holds it.

        Args:
            sink: which.
            holder: who; nobody else ever has this name, so whoever has it may take its own sink again.
            lease_s: for how long.
            now_us: wall clock.
        """
        columns = delivery_sinks.c
        free = sa.or_(columns.holder.in_(["", holder]), columns.until_us <= now_us)
        with self._transaction() as tx:  # most looks find it held, and need no lock
            if tx.execute(sa.select(columns.sink).where(columns.sink == sink, free)).first() is None:
                return None
        taken = sa.update(delivery_sinks).where(columns.sink == sink, free)
        with self._transaction(write=True) as tx:
            until_us = now_us + round(lease_s * US_PER_S)
            done = tx.execute(taken.values(holder=holder, until_us=until_us, epoch=columns.epoch + 1))
            return _lease(tx, sink) if done.rowcount == 1 else None

    def look(self, lease: Lease) -> Lease:
        """The lease as it stands.

        Raises:
            FencedError: another holds the sink.
        """
        with self._transaction() as tx:
            found = _lease(tx, lease.sink)
        if found.epoch != lease.epoch:
            raise _fenced(lease)
        return found

    def mark(self, lease: Lease, standing: Standing, done: Done, now_us: int, lease_s: float) -> Lease:
        """Record what became of items, and hold the sink for longer; all of it or nothing.

        Raises:
            FencedError: another holds the sink; nothing was recorded.
            RetryableError: the database does not answer; calling again with the same lease is safe.
        """
        until_us = now_us + round(lease_s * US_PER_S)
        after = replace(lease, until_us=until_us, marks=lease.marks + 1, standing=standing)
        with self._transaction(write=True) as tx:
            if not self._move(tx, lease, after):
                return after  # by the call before, whose answer was lost
            _set_aside(tx, lease.sink, done, now_us)
            for item, state, alerts, error in done.digests:
                mine = delivery_digests.c.digest_id == item.digest_id
                values = {"state": state, "alerts": alerts, "error": error, "done_at_us": now_us}
                tx.execute(sa.update(delivery_digests).where(mine).values(**values))
            _audit(tx, lease.sink, done, now_us)
        return after

    def _move(self, tx: sa.Connection, lease: Lease, after: Lease) -> bool:
        """Write the sink's row, if this lease holds it; false: that was done before."""
        columns = delivery_sinks.c
        mine = (columns.sink == lease.sink, columns.epoch == lease.epoch, columns.marks == lease.marks)
        values = {"until_us": after.until_us, "marks": after.marks, **_standing_row(after.standing)}
        if tx.execute(sa.update(delivery_sinks).where(*mine).values(**values)).rowcount == 1:
            return True
        found = _lease(tx, lease.sink)
        if found.epoch != lease.epoch or found.marks != after.marks:
            raise _fenced(lease)
        return False

    def release(self, lease: Lease) -> None:
        """Let others have the sink; does nothing where they have it."""
        mine = (delivery_sinks.c.sink == lease.sink, delivery_sinks.c.epoch == lease.epoch)
        with self._transaction(write=True) as tx:
            tx.execute(sa.update(delivery_sinks).where(*mine).values(holder="", until_us=0))

    def queue(self, lease: Lease, wanted: Wanted, limit: int) -> Queue:
        """What waits for a sink: what was asked for again, then a digest that was begun, then what is new."""
        with self._transaction(snapshot=True) as tx:
            return delivery_queue.queue(tx, lease.sink, lease.standing.cursor, wanted, limit)

    def waiting(self, cursor: int, wanted: Wanted, at_most: int) -> int:
        """How many alerts wait in the log from a place on; not counted further than `at_most`."""
        with self._transaction() as tx:
            return delivery_queue.waiting(tx, cursor, wanted, at_most)

    def covered(self, alerts: Sequence[Alert], now_us: int) -> Mapping[str, str]:
        """Which of these alerts an exception covers by now: its id, by the alert's."""
        with self._transaction() as tx:
            if not exception_book.any_active(tx, now_us):
                return {}
            return exception_book.covered_since(tx, alerts, now_us)

    def sweep_covered(self, lease: Lease, wanted: Wanted, last_seq: int, now_us: int, lease_s: float) -> Lease:
        """Set aside what exceptions cover by now, from the sink's cursor up to a place in the log."""
        with self._transaction() as tx:
            if not exception_book.any_active(tx, now_us):
                return lease
        cursor = lease.standing.cursor
        while cursor <= last_seq:
            with self._transaction(snapshot=True) as tx:
                found = delivery_queue.from_log(tx, cursor, last_seq, wanted, _ROWS_MAX)
                covered = exception_book.covered_since(tx, [item.alert for item in found], now_us)
            done = Done(suppressed=[(item, covered[item.key]) for item in found if item.key in covered])
            if done:
                lease = self.mark(lease, lease.standing, done, now_us, lease_s)
            cursor = found[-1].seq + 1 if len(found) == _ROWS_MAX else last_seq + 1
        return lease

    def open_digest(self, lease: Lease, last_seq: int, now_us: int, lease_s: float) -> Lease:
        """Let all that waits, up to a place in the log, be one digest; the next `queue` begins with it."""
        after = replace(lease, until_us=now_us + round(lease_s * US_PER_S), marks=lease.marks + 1)
        row = {
            "digest_id": uuid.uuid4().hex, "sink": lease.sink, "first_seq": lease.standing.cursor,
            "last_seq": last_seq, "alerts": 0, "state": OPEN, "error": "", "created_at_us": now_us,
        }  # fmt: skip
        with self._transaction(write=True) as tx:
            if self._move(tx, lease, after):
                tx.execute(sa.insert(delivery_digests).values(**row))
        return after

    def digest(self, sink: str, item: DigestItem, wanted: Wanted) -> DigestParcel | None:
        """What a digest says; None: nothing is left of it."""
        with self._transaction(snapshot=True) as tx:
            return delivery_queue.digest(tx, sink, item, wanted)


def _new_row(sink: str, cursor: int, now_us: int) -> dict[str, Any]:
    standing = Standing(cursor, 0, 0, "", 0, 0, 0, "", None, None, None, Allowance(FULL, now_us), 0, 0)

    return {"sink": sink, "epoch": 0, "holder": "", "until_us": 0, "marks": 0, **_standing_row(standing)}


def _standing_row(standing: Standing) -> dict[str, Any]:
    row = {name: value for name, value in asdict(standing).items() if name != "allowance"}
    return {**row, "allowance": standing.allowance.left, "allowance_at_us": standing.allowance.at_us}


def standing_of(row: Any) -> Standing:
    """A sink's row."""
    names = [name for name in Standing.__slots__ if name != "allowance"]
    allowance = Allowance(row["allowance"], row["allowance_at_us"])
    return Standing(**{name: row[name] for name in names}, allowance=allowance)


def _lease(tx: sa.Connection, sink: str) -> Lease:
    row = tx.execute(sa.select(delivery_sinks).where(delivery_sinks.c.sink == sink)).mappings().one_or_none()
    if row is None:
        raise RetryableError(f"sink {sink} is not in the catalog any more; start `stillwatch deliver` anew")
    return Lease(sink, row["epoch"], row["holder"], row["until_us"], row["marks"], standing_of(row))


def _fenced(lease: Lease) -> FencedError:
    return FencedError(f"sink {lease.sink}: another deliverer has taken it over")


def _set_aside(tx: sa.Connection, sink: str, done: Done, now_us: int) -> None:
    rows = [_aside(sink, item, DEAD, attempts, error, now_us) for item, error, attempts in done.dead]
    rows += [_aside(sink, item, SUPPRESSED, 0, "", now_us) for item, _ in done.suppressed]
    if rows:
        new = catalog_tables.insert(tx.engine, delivery_asides)
        changed = {name: new.excluded[name] for name in ("state", "attempts", "error", "at_us")}
        tx.execute(new.on_conflict_do_update(index_elements=["sink", "alert_id"], set_=changed), rows)
    exception_book.note(tx, {item.key: exception_id for item, exception_id in done.suppressed}, now_us)
    again = [item.key for item in done.sent if item.replayed]
    if again:
        mine = (delivery_asides.c.sink == sink, delivery_asides.c.alert_id.in_(again))
        tx.execute(sa.delete(delivery_asides).where(*mine))


def _aside(sink: str, item: AlertItem, state: str, attempts: int, error: str, now_us: int) -> dict[str, Any]:
    return {
        "sink": sink, "alert_id": item.key, "seq": item.seq, "state": state, "attempts": attempts, "error": error,
        "at_us": now_us,
    }  # fmt: skip


def _audit(tx: sa.Connection, sink: str, done: Done, now_us: int) -> None:
    """One record for all that was sent by a mark, and for all that was suppressed; one for each that died."""
    for action, items in (("sent", done.sent), ("suppressed", [item for item, _ in done.suppressed])):
        if items:
            ids = {"alert_ids": [item.key for item in items]} if len(items) <= _NAMED_MAX else {}
            places = {"first_seq": items[0].seq, "last_seq": items[-1].seq, "alerts": len(items)}
            append(tx, Act(f"delivery.{action}", ACTOR, "sink", sink, {**places, **ids}), now_us)
    for item, error, attempts in done.dead:
        details = {"alert_id": item.key, "seq": item.seq, "error": error, "attempts": attempts}
        append(tx, Act("delivery.dead", ACTOR, "sink", sink, details), now_us)
    for digest, state, alerts, error in done.digests:
        details = {"digest_id": digest.digest_id, "first_seq": digest.first_seq, "last_seq": digest.last_seq}
        action = {SENT: "delivery.digested", DEAD: "delivery.dead"}.get(state, "delivery.digest_left_out")
        append(tx, Act(action, ACTOR, "sink", sink, {**details, "alerts": alerts, "error": error}), now_us)


def forget(tx: sa.Connection, alert_ids: Sequence[str]) -> None:
    """Remove alerts from the log: whoever has not got them will not."""
    for table in (delivery_log, delivery_asides):
        tx.execute(sa.delete(table).where(table.c.alert_id.in_(alert_ids)))
