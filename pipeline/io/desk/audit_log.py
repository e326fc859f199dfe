"""Who did what and when: records that are added to and never changed, each chained to the one before it."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa

from pipeline.alerts import without_nul
from pipeline.decisions import AuditRecord
from pipeline.io import catalog_tables
from pipeline.io.desk.numbers import next_number, sha256_of_id
from pipeline.io.desk.seals import Compared, compare
from pipeline.io.desk.tables import APPEND_ONLY_POSTGRESQL, APPEND_ONLY_SQLITE, audit_log, audit_subjects
from pipeline.io.desk.transactions import Transaction

_COUNTER: Final = "audit_log"
_FORMER: Final = "audit"
"""The table of catalogs before version 6."""


@dataclass(frozen=True, slots=True)
class Act:
    """What is to be recorded; see `AuditRecord`.

    Attributes:
        action: what was done.
        actor: who did it.
        subject_type: of what; empty: of nothing.
        subject: its id.
        details: holds no account's id.
    """

    action: str
    actor: str
    subject_type: str = ""
    subject: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which records are wanted; what is empty or None excludes none.

    Attributes:
        action: this one, or all that begin with it and a dot.
        actor: by whom.
        subject: id of what they are about.
        since_us: at this wall-clock time or later.
        limit: at most so many, the latest.
        before_seq: with a smaller place than this.
    """

    action: str = ""
    actor: str = ""
    subject: str = ""
    since_us: int | None = None
    limit: int | None = None
    before_seq: int | None = None


ALL_RECORDS: Final = AuditFilter()


def append(tx: sa.Connection, act: Act, at_us: int) -> str:
    """Record an act in the transaction that does it; returns the record's id."""
    seq = next_number(tx, _COUNTER)
    before = tx.execute(sa.select(audit_log.c.chain).where(audit_log.c.seq == seq - 1)).scalar_one_or_none()
    digest = sha256_of_id(act.subject) if act.subject else ""
    row = {
        "seq": seq, "audit_id": uuid.uuid4().hex, "at_us": at_us, "action": act.action, "actor": act.actor,
        "worker": f"{socket.gethostname()}:{os.getpid()}", "subject_type": act.subject_type, "subject_sha256": digest,
        "details": json.dumps(dict(act.details), sort_keys=True),
    }  # fmt: skip
    tx.execute(sa.insert(audit_log).values(**row, chain=_chain(before or "", row)))
    if act.subject:
        new = catalog_tables.insert(tx.engine, audit_subjects)
        named = new.values(subject_sha256=digest, subject=without_nul(act.subject))
        tx.execute(named.on_conflict_do_nothing())
    return str(row["audit_id"])


def _chain(before: str, row: Mapping[str, Any]) -> str:
    said = json.dumps([before, *(row[name] for name in sorted(row) if name != "chain")], separators=(",", ":"))
    return hashlib.sha256(said.encode()).hexdigest()


class AuditLog:
    """The record.  `Catalog.desk.audit` gives it."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def record(self, act: Act, at_us: int) -> str:
        """Record an act that has no transaction of its own; returns the record's id."""
        with self._transaction(write=True) as tx:
            return append(tx, act, at_us)

    def records(self, wanted: AuditFilter = ALL_RECORDS) -> list[AuditRecord]:
        """Records, the latest first."""
        columns = audit_log.c
        query = sa.select(audit_log, audit_subjects.c.subject)
        query = query.join_from(
            audit_log, audit_subjects, columns.subject_sha256 == audit_subjects.c.subject_sha256, isouter=True
        )
        if wanted.action:
            within = columns.action.startswith(f"{wanted.action}.", autoescape=True)
            query = query.where((columns.action == wanted.action) | within)
        if wanted.actor:
            query = query.where(columns.actor == wanted.actor)
        if wanted.subject:
            query = query.where(columns.subject_sha256 == sha256_of_id(wanted.subject))
        if wanted.since_us is not None:
            query = query.where(columns.at_us >= wanted.since_us)
        if wanted.before_seq is not None:
            query = query.where(columns.seq < wanted.before_seq)
        query = query.order_by(columns.seq.desc()).limit(wanted.limit)
        with self._transaction() as tx:
            return [_record_of(row) for row in tx.execute(query).mappings()]

    def broken_at(self) -> int | None:
        """Place of the first record that is missing or is not what was written; None: the chain is whole."""
        with self._transaction() as tx:
            rows: Sequence[Any] = tx.execute(sa.select(audit_log).order_by(audit_log.c.seq)).mappings().all()
        before = ""
        for place, row in enumerate(rows, 1):
            if row["seq"] != place or row["chain"] != _chain(before, row):
                return place
            before = row["chain"]
        return None

    def compared(self) -> Compared:
        """Whether verdicts and exceptions still stand as the records say that they were made."""
        with self._transaction(snapshot=True) as tx:
            return compare(tx)


def guard(tx: sa.Connection) -> None:
    """Let the database refuse to change what is recorded."""
    is_sqlite = tx.dialect.name == "sqlite"
    for statement in APPEND_ONLY_SQLITE if is_sqlite else APPEND_ONLY_POSTGRESQL:
        tx.exec_driver_sql(statement)


def adopt(tx: sa.Connection) -> None:
    """Take over what catalogs before version 6 recorded."""
    if not sa.inspect(tx).has_table(_FORMER):
        return
    former = sa.table(_FORMER, *map(sa.column, ("audit_id", "at_us", "kind", "worker", "details")))
    for row in tx.execute(sa.select(former).order_by(former.c.at_us, former.c.audit_id)).mappings().all():
        details = {**json.loads(row["details"]), "audit_id_before": row["audit_id"]}
        append(tx, Act(row["kind"], row["worker"], details=details), row["at_us"])
    tx.exec_driver_sql(f"DROP TABLE {_FORMER}")


def forget(tx: sa.Connection, account_id: str) -> int:
    """Strike an account's id out of what can be read in clear; the records stay."""
    mine = audit_subjects.c.subject_sha256 == sha256_of_id(account_id)
    return tx.execute(sa.delete(audit_subjects).where(mine)).rowcount


def _record_of(row: Any) -> AuditRecord:
    names = ("seq", "audit_id", "at_us", "action", "actor", "worker", "subject_type", "subject_sha256", "chain")
    values = {name: row[name] for name in names}
    return AuditRecord(**values, subject=row["subject"] or "", details=json.loads(row["details"]))
