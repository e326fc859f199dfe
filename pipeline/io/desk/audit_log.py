"""Who did what and when: records that are added to and never changed, each chained to the one before it."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import sqlalchemy as sa

from pipeline.alerts import without_nul
from pipeline.decisions import AuditRecord
from pipeline.io import catalog_tables
from pipeline.io.desk.keyed import key_in
from pipeline.io.desk.numbers import next_number, sha256_of_id
from pipeline.io.desk.seals import Compared, compare
from pipeline.io.desk.subjects import Subjects, compare_subjects
from pipeline.io.desk.tables import APPEND_ONLY_POSTGRESQL, APPEND_ONLY_SQLITE, audit_log, audit_subjects
from pipeline.io.desk.transactions import Transaction

KEYED: Final = "hmac_sha256"
"""End of the names of details that are hashes under the catalog's key."""

PORTION: Final = 1_000
"""Records that are read at a time."""

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
        keyed: more details, of which only the hash under the catalog's key is kept: texts that may name accounts.
        is_named: keep the id in clear, too, until it is erased.
    """

    action: str
    actor: str
    subject_type: str = ""
    subject: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    keyed: Mapping[str, str] = field(default_factory=dict)
    is_named: bool = True


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
    key = key_in(tx)
    digest = key.hash_of_id(act.subject) if act.subject else ""
    details = {**act.details, **{f"{name}_{KEYED}": key.hash(text) for name, text in act.keyed.items()}}
    row = {
        "seq": seq, "audit_id": uuid.uuid4().hex, "at_us": at_us, "action": act.action, "actor": act.actor,
        "worker": f"{socket.gethostname()}:{os.getpid()}", "subject_type": act.subject_type, "subject_sha256": digest,
        "details": json.dumps(details, sort_keys=True),
    }  # fmt: skip
    tx.execute(sa.insert(audit_log).values(**row, chain=_chain(before or "", row)))
    if act.subject and act.is_named:
        named = catalog_tables.insert(tx.engine, audit_subjects).values(subject_row(digest, act.subject))
        tx.execute(named.on_conflict_do_nothing())
    return str(row["audit_id"])


def subject_row(digest: str, subject: str) -> dict[str, str]:
    """What tells the id of records that have a digest of it."""
    return {"subject_sha256": digest, "subject": without_nul(subject), "id_sha256": sha256_of_id(subject)}


def _about(tx: sa.Connection, subject: str) -> sa.ColumnElement[bool]:
    """The records about an id: those before version 7 have a hash of it without a key."""
    return audit_log.c.subject_sha256.in_((key_in(tx).hash_of_id(subject), sha256_of_id(subject)))


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
        return list(self.walk(wanted))

    def walk(self, wanted: AuditFilter = ALL_RECORDS) -> Iterator[AuditRecord]:
        """Records, the latest first, a portion at a time: there may be more than memory holds."""
        left = wanted.limit
        while left is None or left > 0:
            size = PORTION if left is None else min(PORTION, left)
            with self._transaction() as tx:
                rows = tx.execute(_query(tx, wanted).limit(size)).mappings().all()
            yield from map(_record_of, rows)
            if len(rows) < size:
                return
            left = None if left is None else left - size
            wanted = replace(wanted, before_seq=rows[-1]["seq"])

    def broken_at(self) -> int | None:
        """Place of the first record that is missing or is not what was written; None: the chain is whole."""
        before, place = "", 0
        while True:
            query = sa.select(audit_log).where(audit_log.c.seq > place).order_by(audit_log.c.seq).limit(PORTION)
            with self._transaction() as tx:
                rows: Sequence[Any] = tx.execute(query).mappings().all()
            for row in rows:
                place += 1
                if row["seq"] != place or row["chain"] != _chain(before, row):
                    return place
                before = row["chain"]
            if len(rows) < PORTION:
                return None

    def compared(self) -> Compared:
        """Whether verdicts and exceptions still stand as the records say that they were made."""
        with self._transaction(snapshot=True) as tx:
            return compare(tx)

    def subjects(self) -> Subjects:
        """Whether the records are still about those that they were about when they were written."""
        with self._transaction(snapshot=True) as tx:
            return compare_subjects(tx)


def _query(tx: sa.Connection, wanted: AuditFilter) -> sa.Select[Any]:
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
        query = query.where(_about(tx, wanted.subject))
    if wanted.since_us is not None:
        query = query.where(columns.at_us >= wanted.since_us)
    if wanted.before_seq is not None:
        query = query.where(columns.seq < wanted.before_seq)
    return query.order_by(columns.seq.desc())


def guard(tx: sa.Connection) -> None:
    """Let the database refuse to change what is recorded."""
    is_sqlite = tx.dialect.name == "sqlite"
    for statement in APPEND_ONLY_SQLITE if is_sqlite else APPEND_ONLY_POSTGRESQL:
        tx.exec_driver_sql(statement)


def adopt(tx: sa.Connection) -> None:
    """Take over what catalogs before version 6 recorded, and names of records that were hashed without a key."""
    unkeyed_yet = audit_subjects.c.id_sha256 == ""
    tx.execute(sa.update(audit_subjects).where(unkeyed_yet).values(id_sha256=audit_subjects.c.subject_sha256))
    if not sa.inspect(tx).has_table(_FORMER):
        return
    former = sa.table(_FORMER, *map(sa.column, ("audit_id", "at_us", "kind", "worker", "details")))
    for row in tx.execute(sa.select(former).order_by(former.c.at_us, former.c.audit_id)).mappings().all():
        details = {**json.loads(row["details"]), "audit_id_before": row["audit_id"]}
        append(tx, Act(row["kind"], row["worker"], details=details), row["at_us"])
    tx.exec_driver_sql(f"DROP TABLE {_FORMER}")


def forget(tx: sa.Connection, account_id: str) -> int:
    """Strike an account's id out of what can be read in clear; the records stay."""
    mine = audit_subjects.c.id_sha256 == sha256_of_id(account_id)
    return tx.execute(sa.delete(audit_subjects).where(mine)).rowcount


def unkeyed(tx: sa.Connection, account_id: str) -> int:
    """How many records have a hash of an id that anybody can guess by trying: those from before version 7."""
    mine = audit_log.c.subject_sha256 == sha256_of_id(account_id)
    return int(tx.execute(sa.select(sa.func.count()).select_from(audit_log).where(mine)).scalar_one())


def _record_of(row: Any) -> AuditRecord:
    names = ("seq", "audit_id", "at_us", "action", "actor", "worker", "subject_type", "subject_sha256", "chain")
    values = {name: row[name] for name in names}
    return AuditRecord(**values, subject=row["subject"] or "", details=json.loads(row["details"]))
