"""What waits for a sink, and what a digest of it says.  All of it reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from pipeline.alerts import alert_of_row
from pipeline.delivery.parcels import DigestParcel
from pipeline.delivery.ports import AlertItem, DigestItem, Queue, Wanted
from pipeline.io.catalog_tables import alerts
from pipeline.io.desk.delivery_tables import delivery_asides, delivery_digests, delivery_log
from pipeline.rules import SEVERITIES

_NAMED_MAX: Final = 10
_WORST_MAX: Final = 5

_log, _asides, _digests = delivery_log.c, delivery_asides.c, delivery_digests.c


def queue(tx: sa.Connection, sink: str, cursor: int, wanted: Wanted, limit: int) -> Queue:
    """See `DeliveryBook.queue`; of one moment."""
    log_end = (tx.execute(sa.select(sa.func.max(_log.seq))).scalar_one() or 0) + 1
    again = _replays(tx, sink, limit)
    if again:
        return Queue(again, cursor, log_end, from_log=False)
    begun = sa.select(delivery_digests).where(_digests.sink == sink, _digests.state == "open")
    row = tx.execute(begun.order_by(_digests.first_seq).limit(1)).mappings().first()
    if row is not None:
        item = DigestItem(row["digest_id"], row["first_seq"], row["last_seq"], row["created_at_us"])
        return Queue([item], max(cursor, item.last_seq + 1), log_end, from_log=False)
    items = from_log(tx, cursor, log_end - 1, wanted, limit)
    end = items[-1].seq + 1 if len(items) == limit else max(cursor, log_end)
    return Queue(items, end, log_end, from_log=True)


def _replays(tx: sa.Connection, sink: str, limit: int) -> list[AlertItem]:
    query = sa.select(_asides.seq, _asides.at_us, alerts).join_from(
        delivery_asides, alerts, alerts.c.alert_id == _asides.alert_id
    )
    query = query.where(_asides.sink == sink, _asides.state == "replay").order_by(_asides.seq).limit(limit)
    return [
        AlertItem(row["seq"], row["at_us"], alert_of_row(row), replayed=True) for row in tx.execute(query).mappings()
    ]


def from_log(tx: sa.Connection, first: int, last: int, wanted: Wanted, limit: int) -> list[AlertItem]:
    """Alerts from one place in the log to another, both included."""
    query = sa.select(_log.seq, _log.routed_at_us, alerts).join_from(
        delivery_log, alerts, alerts.c.alert_id == _log.alert_id
    )
    query = query.where(_log.seq >= first, _log.seq <= last, *_filter(wanted)).order_by(_log.seq).limit(limit)
    return [AlertItem(row["seq"], row["routed_at_us"], alert_of_row(row)) for row in tx.execute(query).mappings()]


def waiting(tx: sa.Connection, cursor: int, wanted: Wanted, at_most: int | None) -> int:
    """See `DeliveryBook.waiting`."""
    query = sa.select(_log.seq).where(_log.seq >= cursor)
    if wanted.severities or wanted.rules:
        query = query.join_from(delivery_log, alerts, alerts.c.alert_id == _log.alert_id).where(*_filter(wanted))
    some = query.limit(at_most).subquery()
    return int(tx.execute(sa.select(sa.func.count()).select_from(some)).scalar_one())


def _filter(wanted: Wanted) -> list[sa.ColumnElement[bool]]:
    given = ((alerts.c.severity, wanted.severities), (alerts.c.rule, wanted.rules))
    return [column.in_(list(values)) for column, values in given if values]


def digest(tx: sa.Connection, sink: str, item: DigestItem, wanted: Wanted) -> DigestParcel | None:
    """See `DeliveryBook.digest`."""
    mine = (_asides.sink == sink, _asides.alert_id == _log.alert_id)
    members = (
        sa.select(alerts)
        .join_from(delivery_log, alerts, alerts.c.alert_id == _log.alert_id)
        .where(_log.seq >= item.first_seq, _log.seq <= item.last_seq, *_filter(wanted))
        .where(~sa.exists().where(*mine))
    )
    some: Any = members.subquery().c
    count, first_us, last_us, accounts_count = tx.execute(
        sa.select(
            sa.func.count(), sa.func.min(some.raised_at_us), sa.func.max(some.raised_at_us),
            sa.func.count(some.entity_sha256.distinct()),
        )
    ).one()  # fmt: skip
    if not count:
        return None
    rules = _counts(tx, some.rule)
    severities = dict(_counts(tx, some.severity))
    worst = members.order_by(_rank(), alerts.c.risk.desc(), _log.seq).limit(_WORST_MAX)
    return DigestParcel(
        item.digest_id, count, first_us, last_us,
        {one: severities[one] for one in reversed(SEVERITIES) if one in severities},
        rules[:_NAMED_MAX], len(rules), _counts(tx, some.entity_id, _NAMED_MAX), accounts_count,
        tuple(alert_of_row(row) for row in tx.execute(worst).mappings()),
    )  # fmt: skip


def _counts(tx: sa.Connection, column: Any, limit: int | None = None) -> Sequence[tuple[str, int]]:
    count = sa.func.count()
    query = sa.select(column, count).group_by(column).order_by(count.desc(), column).limit(limit)
    return [(row[0], row[1]) for row in tx.execute(query)]


def _rank() -> sa.ColumnElement[int]:
    ranks = {severity: -place for place, severity in enumerate(SEVERITIES)}
    return sa.case(ranks, value=alerts.c.severity, else_=1)
