"""What the audit log says of the content of decisions, and whether they still stand as they were made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa

from pipeline.io.desk.keyed import Key, key_in
from pipeline.io.desk.numbers import in_portions
from pipeline.io.desk.tables import audit_log, exceptions, verdicts

SHA256: Final = "sha256"
"""Name of a seal among a record's details, as catalogs before version 7 made it: a hash without a key."""

SEAL: Final = "content"
"""Name of what is sealed: `Act.keyed`."""

KEYED_SEAL: Final = f"{SEAL}_hmac_sha256"
SEALS: Final = frozenset({SHA256, KEYED_SEAL})
PLACE: Final = "place"
"""Name of a verdict's place among a record's details: the last of an account stands, so the order is part of it."""

UNSAID: Final = SEALS | {PLACE, "without_record"}
"""Details that say nothing to people."""

ERASED: Final = "decisions.erased"
"""The record that says which decisions went with an erased account."""

REBUILT: Final = "catalog.rebuilt"
"""The record of a rebuild from the lake."""

WITHOUT_RECORD: Final = "without_record"
"""Name, among the details of that, of decisions that came from a copy without a record: their hashes by their names."""

_MADE: Final = {"verdict.given": "verdict", "exception.added": "exception"}
_TABLES: Final = {"verdict": verdicts, "exception": exceptions}
OLDER_ERASURE: Final = "account_sha256"
"""A detail of erasures' records before catalog version 7."""

_PORTION: Final = 1_000

_LATER: Final = {"seq", "ended_at_us", "ended_by"}
"""Columns that are set after the act: a verdict's place, an exception's end."""


@dataclass(slots=True)
class Compared:
    """What a comparison of decisions with their records found.

    Attributes:
        sealed: how many decisions were compared and are as they were made.
        unsealed: how many are there of whose content their record says nothing: an older version wrote it.
        erased: how many are not there any more, as the record of an erasure says.
        unclear: how many are not there any more, and may have gone with an erasure of before catalog version 7: its
            record does not say which decisions went, and is itself lost where the catalog was lost right after it.
        changed: those that are not as they were made, as `verdict ID` or `exception ID`.
        removed: those that are not there any more, and that no erasure accounts for.
        unrecorded: those that are there, and were never put on record.
        adopted: how many came with a rebuild from a copy that had no record of them, and are as they came.
    """

    sealed: int = 0
    unsealed: int = 0
    erased: int = 0
    unclear: int = 0
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    unrecorded: list[str] = field(default_factory=list)
    adopted: int = 0

    @property
    def is_sound(self) -> bool:
        """Whether nobody has done anything behind the record's back, as far as can be told."""
        return not (self.changed or self.removed or self.unrecorded)


def content_of(row: Mapping[str, Any]) -> str:
    """What is sealed of a decision's row: all that its table has of it when it is made."""
    said = sorted((name, value) for name, value in row.items() if name not in _LATER)
    return json.dumps(said, separators=(",", ":"))


def whole_of(row: Mapping[str, Any]) -> str:
    """All that a decision's row says, by which it is known when it came without a record."""
    return json.dumps(sorted(row.items()), separators=(",", ":"))


def without_record(tx: sa.Connection) -> dict[str, str]:
    """The decisions that nobody has put on record, each with a hash of all that it says."""
    key, found = key_in(tx), compare(tx).unrecorded
    return {name: key.hash(whole_of(row)) for name, row in _rows_named(tx, found).items()}


def _is_broken(key: Key, details: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    content = content_of(row)
    if KEYED_SEAL in details:
        return bool(details[KEYED_SEAL] != key.hash(content))
    return SHA256 in details and details[SHA256] != hashlib.sha256(content.encode()).hexdigest()


def compare(tx: sa.Connection) -> Compared:
    """Compare all verdicts and exceptions that are there with what was recorded when they were made."""
    comparison = _Comparison(key_in(tx))
    last: int | None = None
    while some := _records(tx, last):
        comparison.take(some, _rows_of(tx, some))
        last = some[-1].seq
    found = comparison.found
    found.changed.reverse()
    found.removed.reverse()
    for kind, table in _TABLES.items():
        found.unrecorded += [name for name in _names(tx, kind, table) if name not in comparison.known]
    return found


@dataclass(slots=True)
class _Comparison:
    """Goes over the records, the latest first, so that what came after an act is known before it.

    Attributes:
        key: of the catalog.
        found: so far.
        known: decisions whose records were seen.
        erased: decisions that records of erasures name, until the record of the act itself is seen.
        ends: when exceptions were ended and by whom, by their ids.
        older_erasure: an erasure that does not say which decisions went was seen.
        rebuilt: a rebuild of the catalog was seen.
        earliest: place of the earliest verdict of each account that was seen, by the hash of its id.
    """

    key: Key
    found: Compared = field(default_factory=Compared)
    known: set[str] = field(default_factory=set)
    erased: set[str] = field(default_factory=set)
    ends: dict[str, tuple[int, str]] = field(default_factory=dict)
    older_erasure: bool = False
    rebuilt: bool = False
    earliest: dict[str, int] = field(default_factory=dict)

    def take(self, records: Sequence[Any], rows: Mapping[str, Mapping[str, Any]]) -> None:
        """Compare the decisions of some records with their rows, by name."""
        for record in records:
            details = json.loads(record.details)
            if record.action == ERASED:
                self.erased.update(details["decisions"])
            elif record.action == "erase":
                self.older_erasure |= OLDER_ERASURE in details
            elif record.action == REBUILT:
                self.rebuilt = True
                for name, seal in details.get(WITHOUT_RECORD, {}).items():
                    self._compare_adopted(name, seal, None if name in self.known else rows.get(name))
            elif record.action == "exception.ended":
                self.ends.setdefault(str(details.get("exception")), (record.at_us, record.actor))
            elif name := _name_in(record.action, details):
                self._compare(name, details, None if name in self.known else rows.get(name))

    def _compare(self, name: str, details: Mapping[str, Any], row: Mapping[str, Any] | None) -> None:
        """An act whose decision was made again later is none of what is there: it went before."""
        self.known.add(name)
        found = self.found
        if row is None:
            self._count_gone(name, is_keyed=KEYED_SEAL in details)
        elif _is_broken(self.key, details, row) or not self._ends_as_said(row) or not self._is_in_order(details, row):
            found.changed.append(name)
        elif SEALS & details.keys():
            found.sealed += 1
        else:
            found.unsealed += 1

    def _compare_adopted(self, name: str, seal: str, row: Mapping[str, Any] | None) -> None:
        """A decision that came without a record stands as it came, but for an end that was recorded since."""
        self.known.add(name)
        if row is None:
            self._count_gone(name, is_keyed=True)
            return
        end = self.ends.get(str(row.get("exception_id")))
        if end is not None and end == (row["ended_at_us"], row["ended_by"]):
            row = {**row, "ended_at_us": None, "ended_by": ""}
        if self.key.hash(whole_of(row)) == seal:
            self.found.adopted += 1
        else:
            self.found.changed.append(name)

    def _count_gone(self, name: str, *, is_keyed: bool) -> None:
        if name in self.erased:
            self.erased.discard(name)
            self.found.erased += 1
        elif self.older_erasure or (self.rebuilt and not is_keyed):
            self.found.unclear += 1
        else:
            self.found.removed.append(name)

    def _is_in_order(self, details: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
        """Older records say no place; but an account's verdicts were recorded in the order of their places."""
        if "seq" not in row:
            return True
        seq, later = row["seq"], self.earliest.get(row["account_sha256"])
        self.earliest[row["account_sha256"]] = seq if later is None else min(seq, later)
        return (later is None or seq < later) if PLACE not in details else bool(seq == details[PLACE])

    def _ends_as_said(self, row: Mapping[str, Any]) -> bool:
        if "ended_at_us" not in row:
            return True
        return (row["ended_at_us"], row["ended_by"]) == self.ends.get(row["exception_id"], (None, ""))


def _records(tx: sa.Connection, before_seq: int | None) -> Sequence[Any]:
    columns = audit_log.c
    query = sa.select(columns.seq, columns.action, columns.details, columns.at_us, columns.actor)
    query = query.where(columns.action.in_((*_MADE, "exception.ended", ERASED, "erase", REBUILT)))
    if before_seq is not None:
        query = query.where(columns.seq < before_seq)
    return tx.execute(query.order_by(columns.seq.desc()).limit(_PORTION)).all()


def _name_in(action: str, details: Mapping[str, Any]) -> str:
    """The decision that a record is about; empty: it does not say."""
    decision_id = details.get(_MADE[action])
    return name_of(_MADE[action], decision_id) if decision_id else ""


def name_of(kind: str, decision_id: str) -> str:
    """What a decision is called: `verdict ID`, `exception ID`."""
    return f"{kind} {decision_id}"


def _rows_of(tx: sa.Connection, records: Sequence[Any]) -> dict[str, Mapping[str, Any]]:
    """Rows of the decisions that these records are about, by name."""
    names: list[str] = []
    for record in records:
        if record.action in _MADE:
            names.append(_name_in(record.action, json.loads(record.details)))
        elif record.action == REBUILT:
            names += json.loads(record.details).get(WITHOUT_RECORD, {})
    return _rows_named(tx, names)


def _rows_named(tx: sa.Connection, names: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    rows: dict[str, Mapping[str, Any]] = {}
    for kind, table in _TABLES.items():
        start, column = f"{kind} ", table.c[f"{kind}_id"]
        for some in in_portions([name.removeprefix(start) for name in names if name.startswith(start)]):
            for row in tx.execute(sa.select(table).where(column.in_(some))).mappings():
                rows[name_of(kind, row[column.name])] = dict(row)
    return rows


def _names(tx: sa.Connection, kind: str, table: sa.Table) -> Iterator[str]:
    """Names of all decisions of a kind."""
    column = table.c[f"{kind}_id"]
    last = ""
    while some := tx.execute(sa.select(column).where(column > last).order_by(column).limit(_PORTION)).scalars().all():
        yield from (name_of(kind, one) for one in some)
        last = some[-1]
