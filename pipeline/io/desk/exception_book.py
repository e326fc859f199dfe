"""Exceptions as the catalog keeps them, and what they suppress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from pipeline.alerts import Alert, without_nul
from pipeline.decisions import AllowEntry
from pipeline.io import catalog_tables
from pipeline.io.desk.audit_log import Act, append
from pipeline.io.desk.numbers import in_portions, sha256_of_id
from pipeline.io.desk.seals import SEAL, content_of
from pipeline.io.desk.tables import alert_orgs, exceptions, suppressions
from pipeline.io.desk.transactions import Transaction


class ExceptionBook:
    """All exceptions.  `Catalog.desk.exceptions` gives it."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def add(self, entry: AllowEntry) -> AllowEntry:
        """Put an exception on record, and say so in the audit log; one of its id that is there already stays as it is.

        Returns:
            The exception as it is on record.
        """
        row = {**asdict(entry), "subject": without_nul(entry.subject), "subject_sha256": sha256_of_id(entry.subject)}
        details = {
            "exception": entry.exception_id, "rule": entry.rule, "owner": entry.owner, "until_us": entry.expires_at_us,
        }  # fmt: skip
        with self._transaction(write=True) as tx:
            new = catalog_tables.insert(tx.engine, exceptions).values(**row).on_conflict_do_nothing()
            if tx.execute(new.returning(exceptions.c.exception_id)).first() is not None:
                sealed = {SEAL: content_of(row)}
                act = Act("exception.added", entry.created_by, entry.scope, entry.subject, details, sealed)
                append(tx, act, entry.created_at_us)
            mine = sa.select(exceptions).where(exceptions.c.exception_id == entry.exception_id)
            return _entry_of(tx.execute(mine).mappings().one())

    def end(self, exception_id: str, by: str, now_us: int) -> bool:
        """End an exception before its time; false where there is none of this id that is active."""
        columns = exceptions.c
        active = (columns.exception_id == exception_id, columns.ended_at_us.is_(None), columns.expires_at_us > now_us)
        with self._transaction(write=True) as tx:
            ended = tx.execute(sa.update(exceptions).where(*active).values(ended_at_us=now_us, ended_by=by))
            if ended.rowcount != 1:
                return False
            row = tx.execute(
                sa.select(columns.scope, columns.subject).where(columns.exception_id == exception_id)
            ).one()
            append(tx, Act("exception.ended", by, row.scope, row.subject, {"exception": exception_id}), now_us)
        return True

    def find(self, *, subject: str = "") -> list[AllowEntry]:
        """Exceptions, expired and ended ones, too; the latest first."""
        query = sa.select(exceptions).order_by(exceptions.c.created_at_us.desc(), exceptions.c.exception_id)
        if subject:
            query = query.where(exceptions.c.subject_sha256 == sha256_of_id(subject))
        with self._transaction() as tx:
            return [_entry_of(row) for row in tx.execute(query).mappings()]

    def beginning(self, prefix: str, limit: int) -> list[AllowEntry]:
        """Exceptions whose ids begin so; hex digits."""
        columns = exceptions.c
        query = sa.select(exceptions).where(columns.exception_id >= prefix, columns.exception_id < f"{prefix}g")
        with self._transaction() as tx:
            rows = tx.execute(query.order_by(columns.exception_id).limit(limit)).mappings()
            return [_entry_of(row) for row in rows]

    def suppressed(self) -> dict[str, int]:
        """How many alerts each exception has suppressed, by its id."""
        columns = suppressions.c
        query = sa.select(columns.exception_id, sa.func.count()).group_by(columns.exception_id)
        with self._transaction() as tx:
            return {exception_id: count for exception_id, count in tx.execute(query)}  # noqa: C416  # rows are no pairs

    def suppressed_by(self, alert_ids: Sequence[str]) -> dict[str, str]:
        """Which of these alerts were suppressed, and by which exception."""
        columns = suppressions.c
        query = sa.select(columns.alert_id, columns.exception_id)
        with self._transaction() as tx:
            return {
                row.alert_id: row.exception_id
                for some in in_portions(alert_ids)
                for row in tx.execute(query.where(columns.alert_id.in_(some)))
            }


def cover(tx: sa.Connection, alerts: Sequence[Alert], orgs: Mapping[str, str], now_us: int) -> set[str]:
    """Record which new alerts an active exception covers, in the transaction that adds them.

    Args:
        tx: of the commit.
        alerts: that are new.
        orgs: organisation of accounts, as far as it is known, by account.
        now_us: wall clock.

    Returns:
        Ids of the alerts that are suppressed.
    """
    known = [
        {"alert_id": alert.alert_id, "org_id": orgs[alert.entity_id]} for alert in alerts if alert.entity_id in orgs
    ]
    if known:
        tx.execute(catalog_tables.insert(tx.engine, alert_orgs).on_conflict_do_nothing(), known)
    found = _covered(tx, alerts, orgs, now_us)
    note(tx, found, now_us)
    return set(found)


def covered_since(tx: sa.Connection, alerts: Sequence[Alert], now_us: int) -> dict[str, str]:
    """Which alerts of earlier commits an active exception covers by now: the exception's id, by the alert's."""
    query = sa.select(alert_orgs).where(alert_orgs.c.alert_id.in_([alert.alert_id for alert in alerts]))
    known = {row.alert_id: row.org_id for row in tx.execute(query)}
    orgs = {alert.entity_id: known[alert.alert_id] for alert in alerts if alert.alert_id in known}
    return _covered(tx, alerts, orgs, now_us)


def note(tx: sa.Connection, covered: Mapping[str, str], now_us: int) -> None:
    """Record which alerts were suppressed, and by which exception."""
    rows = [
        {"alert_id": alert_id, "exception_id": exception_id, "at_us": now_us}
        for alert_id, exception_id in covered.items()
    ]
    if rows:
        tx.execute(catalog_tables.insert(tx.engine, suppressions).on_conflict_do_nothing(), rows)


def any_active(tx: sa.Connection, now_us: int) -> bool:
    """Whether any exception covers anything."""
    columns = exceptions.c
    active = sa.select(columns.exception_id).where(columns.ended_at_us.is_(None), columns.expires_at_us > now_us)
    return tx.execute(active.limit(1)).first() is not None


def _covered(tx: sa.Connection, alerts: Sequence[Alert], orgs: Mapping[str, str], now_us: int) -> dict[str, str]:
    columns = exceptions.c
    active = sa.select(exceptions).where(columns.ended_at_us.is_(None), columns.expires_at_us > now_us)
    subjects = {subject for alert in alerts for _, subject in _subjects(alert, orgs.get(alert.entity_id))}
    by_subject: dict[tuple[str, str], list[AllowEntry]] = {}
    for some in in_portions(sorted(map(sha256_of_id, subjects))):
        mine = active.where(columns.subject_sha256.in_(some))
        for row in tx.execute(mine.order_by(columns.created_at_us)).mappings():
            entry = _entry_of(row)
            by_subject.setdefault((entry.scope, entry.subject), []).append(entry)
    found = {alert.alert_id: _covering(alert, orgs.get(alert.entity_id), by_subject) for alert in alerts if by_subject}
    return {alert_id: entry.exception_id for alert_id, entry in found.items() if entry is not None}


def covered(tx: sa.Connection, alert_ids: Sequence[str]) -> set[str]:
    """Which of these alerts were suppressed."""
    query = sa.select(suppressions.c.alert_id)
    return {
        row.alert_id
        for some in in_portions(alert_ids)
        for row in tx.execute(query.where(suppressions.c.alert_id.in_(some)))
    }


def _covering(
    alert: Alert, org_id: str | None, by_subject: Mapping[tuple[str, str], Sequence[AllowEntry]]
) -> AllowEntry | None:
    """The oldest exception that covers an alert: of its account, else of its organisation, else of its rule."""
    for subject in _subjects(alert, org_id):
        for entry in by_subject.get(subject, ()):
            if entry.rule in {"", alert.rule}:
                return entry
    return None


def _subjects(alert: Alert, org_id: str | None) -> list[tuple[str, str]]:
    """What an exception that covers an alert may speak of."""
    subjects = [("account", without_nul(alert.entity_id)), ("organisation", without_nul(org_id or ""))]
    return [*subjects, ("rule", alert.rule)]


def may_cover(entry: AllowEntry, alert: Alert, org_id: str) -> bool:
    """Whether an exception speaks of an alert, be it active or not."""
    return (entry.scope, entry.subject) in _subjects(alert, org_id) and entry.rule in {"", alert.rule}


def forget(tx: sa.Connection, account_id: str) -> Sequence[str]:
    """Remove the exceptions on an account; says which there were."""
    mine = (exceptions.c.scope == "account", exceptions.c.subject_sha256 == sha256_of_id(account_id))
    return sorted(tx.execute(sa.delete(exceptions).where(*mine).returning(exceptions.c.exception_id)).scalars())


def _entry_of(row: Any) -> AllowEntry:
    return AllowEntry(**{name: row[name] for name in AllowEntry.__slots__})
