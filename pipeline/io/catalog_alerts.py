"""What a commit leaves in the catalog beside offsets and files: alerts, their way out, and snapshots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import sqlalchemy as sa

from pipeline.alerts import Alert, alert_of_row, alert_row
from pipeline.batch import Partition
from pipeline.commits import SNAPSHOTS_KEPT, SnapshotEntry
from pipeline.io import catalog_tables as tables
from pipeline.io.desk import exception_book
from pipeline.io.desk.numbers import sha256_of_id
from pipeline.io.desk.tables import suppressions

NEW: Final = "new"
"""State of an alert in the outbox that nobody has sent yet."""

ROUTED: Final = "routed"
"""State of an alert that every sink gets, or has got: `pipeline.io.desk.delivery_book` knows which of them has it."""

UNCLEAR: Final = "unclear"
"""State of an alert whose catalog was made anew: whether it was sent is not known, so nobody sends it unasked."""

PAST: Final = "past"
"""State of an alert that a backfill raised: of long ago, so nobody sends it unasked."""

SUPPRESSED: Final = "suppressed"
"""State of an alert that an exception covers: kept and counted, and sent to nobody."""

_ROWS_MAX: Final = 500
"""Alerts in one statement: SQLite takes 32,766 values at a time, an alert has twenty."""


@dataclass(frozen=True, slots=True)
class AlertFilter:
    """Which alerts are wanted; what is None or empty excludes none.

    Attributes:
        rule: of this rule.
        severity: of this severity.
        state: `live` or `shadow`.
        entity_id: about this account.
        since_us: raised at this event time or later, microseconds since the epoch.
        limit: at most so many, the latest.
        id_prefix: whose id begins so; hex digits.
        suppressed: whether an exception covers it.
    """

    rule: str = ""
    severity: str = ""
    state: str = ""
    entity_id: str = ""
    since_us: int | None = None
    limit: int | None = None
    id_prefix: str = ""
    suppressed: bool | None = None


@dataclass(frozen=True, slots=True)
class Placing:
    """How alerts come into the catalog.

    Attributes:
        commit_id: of the commit.
        now_us: wall clock.
        state: of the outbox's rows.
        orgs: organisation of the accounts that they are about, as far as it is known, by account.
    """

    commit_id: str
    now_us: int
    state: str = NEW
    orgs: Mapping[str, str] = field(default_factory=dict)


def add_alerts(tx: sa.Connection, alerts: Sequence[Alert], placing: Placing) -> None:
    """Add alerts, and the live ones to the outbox; what is there already stays as it is, but is sent if it was not.

    Args:
        tx: that also moves the offset.
        alerts: raised by the records that it passes.
        placing: how.
    """
    for start in range(0, len(alerts), _ROWS_MAX):
        part = {alert.alert_id: alert for alert in alerts[start : start + _ROWS_MAX]}
        known = sa.select(tables.alerts.c.alert_id).where(tables.alerts.c.alert_id.in_(part))
        known_ids = tx.execute(known).scalars().all()
        if placing.state == NEW:  # raised by a backfill before the live job came to it: now somebody is to know
            waits = tables.outbox.c.alert_id.in_(known_ids), tables.outbox.c.state == PAST
            tx.execute(sa.update(tables.outbox).where(*waits).values(state=NEW, created_at_us=placing.now_us))
        for alert_id in known_ids:
            del part[alert_id]
        if part:
            _add_new(tx, list(part.values()), placing)


def _add_new(tx: sa.Connection, alerts: Sequence[Alert], placing: Placing) -> None:
    rows = [_alert_row(alert, placing.commit_id) for alert in alerts]
    tx.execute(tables.insert(tx.engine, tables.alerts).on_conflict_do_nothing(), rows)
    if placing.state == UNCLEAR:  # today's exceptions have no say in what was before
        suppressed = exception_book.covered(tx, [alert.alert_id for alert in alerts])
    else:
        suppressed = exception_book.cover(tx, alerts, placing.orgs, placing.now_us)
    live = [
        {
            "alert_id": alert.alert_id,
            "state": SUPPRESSED if alert.alert_id in suppressed and placing.state != PAST else placing.state,
            "created_at_us": placing.now_us,
        }
        for alert in alerts
        if alert.state == "live"
    ]
    if live:
        tx.execute(tables.insert(tx.engine, tables.outbox).on_conflict_do_nothing(), live)


def find_alerts(tx: sa.Connection, wanted: AlertFilter) -> list[Alert]:
    """Alerts, the latest first."""
    columns = tables.alerts.c
    given = {"rule": wanted.rule, "severity": wanted.severity, "state": wanted.state}
    query = sa.select(tables.alerts).where(*(columns[name] == value for name, value in given.items() if value))
    if wanted.entity_id:
        query = query.where(columns.entity_sha256 == sha256_of_id(wanted.entity_id))
    if wanted.since_us is not None:
        query = query.where(columns.raised_at_us >= wanted.since_us)
    if wanted.id_prefix:  # as a range, which the primary key answers
        query = query.where(columns.alert_id >= wanted.id_prefix, columns.alert_id < f"{wanted.id_prefix}g")
    if wanted.suppressed is not None:
        is_suppressed = columns.alert_id.in_(sa.select(suppressions.c.alert_id))
        query = query.where(is_suppressed if wanted.suppressed else ~is_suppressed)
    query = query.order_by(columns.raised_at_us.desc(), columns.alert_id).limit(wanted.limit)
    return [alert_of_row(row) for row in tx.execute(query).mappings()]


def find_alert(tx: sa.Connection, alert_id: str) -> Alert | None:
    """One alert by its id."""
    row = tx.execute(sa.select(tables.alerts).where(tables.alerts.c.alert_id == alert_id)).mappings().one_or_none()
    return None if row is None else alert_of_row(row)


def outbox_states(tx: sa.Connection) -> dict[str, str]:
    """State of each alert that is to be sent or was, by its id."""
    query = sa.select(tables.outbox.c.alert_id, tables.outbox.c.state).order_by(tables.outbox.c.alert_id)
    return {row.alert_id: row.state for row in tx.execute(query)}


def add_snapshot(tx: sa.Connection, snapshot: SnapshotEntry) -> None:
    """List a snapshot as pending, and forget those of its partition that are no longer kept."""
    tx.execute(sa.insert(tables.snapshots), [_snapshot_row(snapshot, "pending")])
    kept = all_snapshots(tx, snapshot.partition)[:SNAPSHOTS_KEPT]
    tx.execute(
        sa.delete(tables.snapshots).where(
            *tables.of(tables.snapshots, snapshot.partition),
            tables.snapshots.c.next_offset.not_in([entry.next_offset for entry in kept]),
        )
    )


def add_found_snapshots(tx: sa.Connection, snapshots: Iterable[SnapshotEntry]) -> None:
    """List snapshots that stand at their final paths."""
    rows = [_snapshot_row(snapshot, "live") for snapshot in snapshots]
    if rows:
        tx.execute(sa.insert(tables.snapshots), rows)


def publish_snapshot(tx: sa.Connection, commit_id: str) -> None:
    """Note that a commit's snapshot stands at its final path."""
    tx.execute(
        sa.update(tables.snapshots)
        .where(tables.snapshots.c.commit_id == commit_id, tables.snapshots.c.state == "pending")
        .values(state="live")
    )


def all_snapshots(
    tx: sa.Connection, partition: Partition | None = None, state: str | None = None
) -> list[SnapshotEntry]:
    """Snapshots, by partition, the newest first."""
    columns = tables.snapshots.c
    query = sa.select(tables.snapshots).order_by(columns.topic, columns.partition, columns.next_offset.desc())
    if partition is not None:
        query = query.where(*tables.of(tables.snapshots, partition))
    if state is not None:
        query = query.where(columns.state == state)
    return [_snapshot_of(row) for row in tx.execute(query).mappings()]


def _alert_row(alert: Alert, commit_id: str) -> dict[str, Any]:
    row = alert_row(alert)
    return {**row, "commit_id": commit_id, "entity_sha256": sha256_of_id(row["entity_id"])}


def _snapshot_row(snapshot: SnapshotEntry, state: str) -> dict[str, Any]:
    row = {name: value for name, value in asdict(snapshot).items() if name != "partition"}
    return {**row, **tables.key_of(snapshot.partition), "state": state}


def _snapshot_of(row: Any) -> SnapshotEntry:
    names = [name for name in SnapshotEntry.__slots__ if name != "partition"]
    return SnapshotEntry(partition=Partition(row["topic"], row["partition"]), **{name: row[name] for name in names})
