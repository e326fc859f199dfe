"""What the audit log says of the content of decisions, and whether they still stand as they were made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa

from pipeline.io.desk.keyed import Key, key_in
from pipeline.io.desk.tables import audit_log, exceptions, verdicts

SHA256: Final = "sha256"
"""Name of a seal among a record's details, as catalogs before version 7 made it: a hash without a key."""

SEAL: Final = "content"
"""Name of what is sealed: `Act.keyed`."""

_KEYED: Final = f"{SEAL}_hmac_sha256"
SEALS: Final = frozenset({SHA256, _KEYED})
"""Details that say nothing to people."""

_LATER: Final = {"seq", "ended_at_us", "ended_by"}
"""Columns that are set after the act: a verdict's place, an exception's end."""


@dataclass(slots=True)
class Compared:
    """What a comparison of decisions with their records found.

    Attributes:
        sealed: how many decisions were compared and are as they were made.
        unsealed: how many are there of whose content their record says nothing: an older version wrote it.
        gone: how many are not there any more, as after an erasure.
        changed: the others, as `verdict ID` or `exception ID`.
    """

    sealed: int = 0
    unsealed: int = 0
    gone: int = 0
    changed: list[str] = field(default_factory=list)


def content_of(row: Mapping[str, Any]) -> str:
    """What is sealed of a decision's row: all that its table has of it when it is made."""
    said = sorted((name, value) for name, value in row.items() if name not in _LATER)
    return json.dumps(said, separators=(",", ":"))


def _is_broken(key: Key, details: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    content = content_of(row)
    if _KEYED in details:
        return bool(details[_KEYED] != key.hash(content))
    return SHA256 in details and details[SHA256] != hashlib.sha256(content.encode()).hexdigest()


def compare(tx: sa.Connection) -> Compared:
    """Compare all verdicts and exceptions that are there with what was recorded when they were made."""
    found = Compared()
    _compare(tx, found, "verdict", "verdict.given", verdicts, {})
    _compare(tx, found, "exception", "exception.added", exceptions, _ends(tx))
    return found


def _compare(
    tx: sa.Connection, found: Compared, kind: str, action: str, table: sa.Table, ends: Mapping[str, tuple[int, str]]
) -> None:
    key = key_in(tx)
    rows = {row[f"{kind}_id"]: dict(row) for row in tx.execute(sa.select(table)).mappings()}
    for record in _records(tx, action):
        details = json.loads(record.details)
        decision_id = details.get(kind)
        row = rows.get(decision_id)
        if row is None:
            found.gone += decision_id is not None
        elif _is_broken(key, details, row) or not _ends_as_said(row, ends.get(decision_id)):
            found.changed.append(f"{kind} {decision_id}")
        elif SEALS & details.keys():
            found.sealed += 1
        else:
            found.unsealed += 1


def _records(tx: sa.Connection, action: str) -> list[Any]:
    query = sa.select(audit_log.c.details, audit_log.c.at_us, audit_log.c.actor).where(audit_log.c.action == action)
    return list(tx.execute(query.order_by(audit_log.c.seq)))


def _ends(tx: sa.Connection) -> dict[str, tuple[int, str]]:
    """When exceptions were ended and by whom, by their ids."""
    return {
        json.loads(record.details).get("exception"): (record.at_us, record.actor)
        for record in _records(tx, "exception.ended")
    }


def _ends_as_said(row: Mapping[str, Any], end: tuple[int, str] | None) -> bool:
    if "ended_at_us" not in row:
        return True
    return (row["ended_at_us"], row["ended_by"]) == (end or (None, ""))
