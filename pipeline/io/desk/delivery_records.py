"""How deliveries stand, and what is sent again: the book of deliveries, for those who look after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from pipeline.delivery.ports import Wanted
from pipeline.delivery.records import DeadLetter, DeliveryState, SinkState
from pipeline.errors import ConfigError
from pipeline.io import catalog_alerts
from pipeline.io.catalog_tables import outbox
from pipeline.io.desk import delivery_queue
from pipeline.io.desk.audit_log import Act, append
from pipeline.io.desk.delivery_book import DEAD, OPEN, REPLAY, SENT, SUPPRESSED
from pipeline.io.desk.delivery_tables import delivery_asides, delivery_digests, delivery_log, delivery_sinks
from pipeline.io.desk.transactions import Transaction

_ROWS_MAX: Final = 500
_NAMED_MAX: Final = 20
_GOING: Final = "(forgotten)"
"""Holds a sink that is being forgotten."""

_NEVER_US: Final = 1 << 62

_asides, _digests, _sinks = delivery_asides.c, delivery_digests.c, delivery_sinks.c


class DeliveryRecords:
    """What an operator sees and asks for.  `Catalog.desk.delivery_records` gives it."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def state(self, configured: Mapping[str, Wanted], dead_max: int) -> DeliveryState:
        """How all stands, of one moment.

        Args:
            configured: the sinks of the settings, and what each of them gets.
            dead_max: dead ones that are named at most.
        """
        with self._transaction(snapshot=True) as tx:
            rows = tx.execute(sa.select(delivery_sinks).order_by(_sinks.sink)).mappings().all()
            counts = sa.select(outbox.c.state, sa.func.count()).group_by(outbox.c.state)
            return DeliveryState(
                tuple(_sink_state(tx, row, configured.get(row["sink"])) for row in rows),
                {row[0]: row[1] for row in tx.execute(counts)},
                tuple(_dead(tx, dead_max)),
            )

    def replay(self, sink: str, alert_id: str, by: str, now_us: int) -> int:
        """Send what is dead again; says how many.

        Args:
            sink: of this sink; empty: of every one.
            alert_id: this alert or digest; empty: every one.
            by: who asks.
            now_us: wall clock.
        """
        columns = (_asides.sink == sink,) if sink else ()
        mine = (*columns, *((_asides.alert_id == alert_id,) if alert_id else ()), _asides.state == DEAD)
        count = self._replay_digests(sink, alert_id, by, now_us)
        while True:
            query = sa.select(_asides.sink, _asides.alert_id).where(*mine).order_by(_asides.sink, _asides.seq)
            with self._transaction(write=True) as tx:
                found = tx.execute(query.limit(_ROWS_MAX)).all()
                by_sink: dict[str, list[str]] = {}
                for row in found:
                    by_sink.setdefault(row.sink, []).append(row.alert_id)
                for name, ids in by_sink.items():
                    these = (_asides.sink == name, _asides.alert_id.in_(ids))
                    again = {"state": REPLAY, "at_us": now_us, "attempts": 0}
                    tx.execute(sa.update(delivery_asides).where(*these).values(**again))
                    _wake(tx, name, ids, by, now_us)
            count += len(found)
            if len(found) < _ROWS_MAX:
                return count

    def sink(self, name: str) -> SinkState:
        """How a sink stands that is not in the settings.

        Raises:
            ConfigError: there is none of this name.
        """
        with self._transaction(snapshot=True) as tx:
            return _sink_state(tx, _sink_row(tx, name), None)

    def forget(self, name: str, by: str, now_us: int) -> SinkState:
        """Forget a sink, with all that waits for it or is dead; the log of alerts is that of all sinks, and stays.

        Args:
            name: of the sink.
            by: who asks.
            now_us: wall clock.

        Returns:
            How it stood.

        Raises:
            ConfigError: there is none of this name, or somebody sends to it.
        """
        state = self.sink(name)
        with self._transaction(write=True) as tx:
            # from now on nobody can take it, or mark anything; should this end here, it is forgotten by the next call
            free = sa.or_(_sinks.holder.in_(["", _GOING]), _sinks.until_us <= now_us)
            take = sa.update(delivery_sinks).where(_sinks.sink == name, free)
            if tx.execute(take.values(holder=_GOING, until_us=_NEVER_US, epoch=_sinks.epoch + 1)).rowcount != 1:
                raise _held(_sink_row(tx, name), now_us)
        for table in (delivery_asides, delivery_digests):
            self._forget_rows(table, name)
        with self._transaction(write=True) as tx:
            if tx.execute(sa.delete(delivery_sinks).where(_sinks.sink == name)).rowcount:
                said = {"waiting": state.waiting, "dead": state.dead, "dead_digests": state.dead_digests}
                append(tx, Act("delivery.sink_forgotten", by, "sink", name, said), now_us)
        return state

    def _forget_rows(self, table: sa.Table, sink: str) -> None:
        """A portion at a time: the main job must not wait."""
        (key,) = (column for column in table.primary_key if column.name != "sink")
        query = sa.select(key).where(table.c.sink == sink).limit(_ROWS_MAX)
        while True:
            with self._transaction(write=True) as tx:
                some = tx.execute(query).scalars().all()
                tx.execute(sa.delete(table).where(table.c.sink == sink, key.in_(some)))
            if len(some) < _ROWS_MAX:
                return

    def dead_id(self, prefix: str) -> str:
        """The whole id of the one dead alert or digest that begins so.

        Raises:
            ConfigError: there is none, or there are several.
        """
        said = prefix.strip().lower()
        with self._transaction() as tx:
            found: set[str] = set()
            for key, state in ((_asides.alert_id, _asides.state), (_digests.digest_id, _digests.state)):
                within = (key >= said, key < f"{said}g", state == DEAD)
                found.update(tx.execute(sa.select(key).where(*within).distinct().limit(2)).scalars())
        if len(found) != 1:
            count = "several ids of what is dead begin" if found else "no id of what is dead begins"
            raise ConfigError(f"--alert {prefix[:40]!r}: {count} so; `stillwatch deliver status` shows some")
        return found.pop()

    def _replay_digests(self, sink: str, digest_id: str, by: str, now_us: int) -> int:
        mine = (
            _digests.state == DEAD,
            *((_digests.sink == sink,) if sink else ()),
            *((_digests.digest_id == digest_id,) if digest_id else ()),
        )
        again = sa.update(delivery_digests).where(*mine).values(state=OPEN, created_at_us=now_us, done_at_us=None)
        with self._transaction(write=True) as tx:
            found = tx.execute(again.returning(_digests.sink, _digests.digest_id)).all()
            for row in found:
                _wake(tx, row.sink, [row.digest_id], by, now_us)
        return len(found)

    def release(self, states: Sequence[str], alert_id: str, by: str, now_us: int) -> int:
        """Let alerts that are held back be sent to every sink; says how many.

        Args:
            states: of the outbox, in which nobody sends an alert unless somebody asks for it.
            alert_id: this one; empty: every one.
            by: who asks.
            now_us: wall clock.
        """
        mine = (outbox.c.state.in_(states), *((outbox.c.alert_id == alert_id,) if alert_id else ()))
        count = 0
        while True:
            query = sa.select(outbox.c.alert_id).where(*mine).limit(_ROWS_MAX)
            with self._transaction(write=True) as tx:
                ids = tx.execute(query).scalars().all()
                if ids:
                    these = (outbox.c.alert_id.in_(ids), sa.func.coalesce(outbox.c.state, "").in_(states))
                    tx.execute(sa.update(outbox).where(*these).values(state=catalog_alerts.NEW))
                    named = {"alert_ids": list(ids)} if len(ids) <= _NAMED_MAX else {}
                    said = {"alerts": len(ids), "were": list(states), **named}
                    append(tx, Act("delivery.released", by, details=said), now_us)
            count += len(ids)
            if len(ids) < _ROWS_MAX:
                return count


def _sink_row(tx: sa.Connection, name: str) -> Any:
    row = tx.execute(sa.select(delivery_sinks).where(_sinks.sink == name)).mappings().one_or_none()
    if row is None:
        known = ", ".join(tx.execute(sa.select(_sinks.sink).order_by(_sinks.sink)).scalars()) or "none"
        raise ConfigError(f"there is no sink {name[:80]!r} on record; there are: {known}")
    return row


def _held(row: Any, now_us: int) -> ConfigError:
    left_s = (row["until_us"] - now_us) / 1e6
    return ConfigError(
        f"sink {row['sink']}: {row['holder'].rpartition(':')[0]} sends to it at this moment, by settings that have it; "
        f"stop it first. If it has died, its hold ends in {left_s:.0f} s"
    )


def _wake(tx: sa.Connection, sink: str, keys: Sequence[str], by: str, now_us: int) -> None:
    """Let a sink be tried at once, and say in the audit log who asked."""
    tx.execute(sa.update(delivery_sinks).where(_sinks.sink == sink).values(next_try_us=0))
    named = {"keys": list(keys)} if len(keys) <= _NAMED_MAX else {}
    append(tx, Act("delivery.replayed", by, "sink", sink, {"count": len(keys), **named}), now_us)


def _sink_state(tx: sa.Connection, row: Any, wanted: Wanted | None) -> SinkState:
    sink = row["sink"]
    asides = _counts(tx, delivery_asides, sink)
    digests = _counts(tx, delivery_digests, sink)
    ahead = (_asides.sink == sink, _asides.state == SUPPRESSED, _asides.seq >= row["cursor"])
    swept = tx.execute(sa.select(sa.func.count()).where(*ahead)).scalar_one()
    new = delivery_queue.waiting(tx, row["cursor"], wanted or Wanted(), None) - swept
    failing = row["failures"] > 0
    return SinkState(
        sink=sink, configured=wanted is not None, waiting=new + asides.get(REPLAY, 0),
        oldest_waiting_us=_oldest(tx, sink, row["cursor"], wanted or Wanted()), sent=row["sent"],
        digested=row["digested"], digests=digests.get(SENT, 0), dead=asides.get(DEAD, 0),
        dead_digests=digests.get(DEAD, 0), suppressed=asides.get(SUPPRESSED, 0), failures=row["failures"],
        attempts=row["attempts"], next_try_us=row["next_try_us"] if failing else None, error=row["error"],
        error_at_us=row["error_at_us"], sent_at_us=row["sent_at_us"], holder=row["holder"],
        held_until_us=row["until_us"] if row["holder"] else None,
    )  # fmt: skip


def _oldest(tx: sa.Connection, sink: str, cursor: int, wanted: Wanted) -> int | None:
    again = sa.select(sa.func.min(_asides.at_us)).where(_asides.sink == sink, _asides.state == REPLAY)
    found = [tx.execute(again).scalar_one()]
    last = tx.execute(sa.select(sa.func.max(delivery_log.c.seq))).scalar_one() or 0
    found += [item.since_us for item in delivery_queue.from_log(tx, cursor, last, wanted, 1)]
    return min((time_us for time_us in found if time_us is not None), default=None)


def _counts(tx: sa.Connection, table: sa.Table, sink: str) -> dict[str, int]:
    query = sa.select(table.c.state, sa.func.count()).where(table.c.sink == sink).group_by(table.c.state)
    return {row[0]: row[1] for row in tx.execute(query)}


def _dead(tx: sa.Connection, limit: int) -> list[DeadLetter]:
    single = sa.select(delivery_asides).where(_asides.state == DEAD).order_by(_asides.at_us.desc(), _asides.alert_id)
    many = sa.select(delivery_digests).where(_digests.state == DEAD).order_by(_digests.done_at_us.desc())
    found = [
        DeadLetter(row["sink"], row["alert_id"], 1, row["error"], row["attempts"], row["at_us"])
        for row in tx.execute(single.limit(limit)).mappings()
    ] + [
        DeadLetter(row["sink"], row["digest_id"], row["alerts"], row["error"], 0, row["done_at_us"], is_digest=True)
        for row in tx.execute(many.limit(limit)).mappings()
    ]
    return sorted(found, key=lambda one: one.at_us, reverse=True)[:limit]
