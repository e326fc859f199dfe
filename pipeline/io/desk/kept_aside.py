"""Lines that the copy in the lake would lose though no erasure accounts for it: they are kept beside it.

The copy follows the catalog.  Where somebody has removed or changed rows of the catalog behind the program's back, the
copy is the one witness of what was there, until the next act brings it up to the catalog.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
import structlog

from pipeline.alerts import without_nul
from pipeline.errors import SchemaError
from pipeline.io.desk.keyed import Key, key_in
from pipeline.io.desk.numbers import in_portions
from pipeline.io.desk.seals import ERASED, name_of
from pipeline.io.desk.subjects import ERASE
from pipeline.io.desk.tables import audit_log
from pipeline.io.durable import replace_for_good

ASIDE: Final = "aside"
AUDIT: Final = "audit"
SUBJECT: Final = "subject"

_IDS: Final = {"verdicts": "verdict_id", "exceptions": "exception_id", AUDIT: "audit_id", "keys": "name"}
"""What a row is known by, of the tables whose rows never go; others lose some in the course of things."""

_KINDS: Final = {"verdicts": "verdict", "exceptions": "exception"}
_ENDS: Final = ("ended_at_us", "ended_by")

log = structlog.get_logger("desk")


def keep_lost(tx: sa.Connection, path: Path, name: str, content: bytes, root: Path) -> None:
    """Before a file of the copy gets new content: keep lines that it would lose, and say so.

    Args:
        tx: of the catalog, which says what was erased.
        path: of the file.
        name: of its table.
        content: that it will have.
        root: of the lake.

    Raises:
        OSError: they cannot be written, or the file cannot be read.
    """
    if name not in _IDS:
        return
    new = content.splitlines()
    gone = set(path.read_bytes().splitlines()) - set(new)
    if not gone:
        return
    column = _IDS[name]
    by_id = {row[column]: row for row in map(json.loads, new)}
    lost = list(_unaccounted(tx, name, [(line, row, by_id) for line, row in _rows(gone)]))
    if lost:
        kept = b"".join(line + b"\n" for line in sorted(lost))
        aside = path.parent / ASIDE / f"{path.stem}.{hashlib.sha256(kept).hexdigest()[:12]}.ndjson"
        aside.parent.mkdir(parents=True, exist_ok=True)
        replace_for_good(aside, kept, root)
        log.warning(
            "rows that the lake's copy of decisions and records had were removed from the catalog or changed there, "
            "and no erasure accounts for it; they are kept, and `stillwatch audit verify` says what is wrong",
            rows=len(lost), kept_in=str(aside),
        )  # fmt: skip


def _rows(lines: Iterable[bytes]) -> Iterator[tuple[bytes, Mapping[str, Any] | None]]:
    """Lines as rows; None: it is damaged."""
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        yield line, row if isinstance(row, dict) else None


_Line = tuple[bytes, Mapping[str, Any] | None, Mapping[Any, Mapping[str, Any]]]


def _unaccounted(tx: sa.Connection, name: str, lines: Sequence[_Line]) -> Iterator[bytes]:
    """Those of the lines that say something else than the catalog does now, without what was erased."""
    erased = _Erasures(tx, [row for _, row, _ in lines if row is not None])
    for line, row, by_id in lines:
        if row is None:
            yield line
            continue
        known = row.get(_IDS[name])
        now = by_id.get(known)
        if name in _KINDS and name_of(_KINDS[name], str(known)) in erased.decisions:
            continue
        unnamed = erased.without_erased(row) if name == AUDIT else row
        if now is None or any(now[said] != value for said, value in _lasting(unnamed).items() if said in now):
            yield line if unnamed is row else json.dumps(unnamed, sort_keys=True).encode()


def _lasting(row: Mapping[str, Any]) -> dict[str, Any]:
    """What can not become something else: an exception's end can come, and an id where there was none."""
    may_come = {name for name in (*_ENDS, SUBJECT) if not row.get(name)}
    return {name: value for name, value in row.items() if name not in may_come}


class _Erasures:
    """What the record says of erasures of what some rows speak of."""

    def __init__(self, tx: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        self.decisions: set[str] = set()
        columns = audit_log.c
        for details in tx.execute(sa.select(columns.details).where(columns.action == ERASED)).scalars():
            self.decisions.update(json.loads(details).get("decisions", ()))
        try:
            self._key: Key | None = key_in(tx)
        except SchemaError:
            self._key = None  # it was removed, too
        digests = sorted({digest for row in rows if row.get(SUBJECT) for digest in self._digests(row)})
        self._subjects: set[str] = set()
        for some in in_portions(digests):
            query = sa.select(columns.subject_sha256).where(columns.subject_sha256.in_(some))
            self._subjects.update(tx.execute(query.where(columns.action.in_((ERASE, ERASED)))).scalars())

    def _digests(self, row: Mapping[str, Any]) -> set[str]:
        """By what an erasure of a row's subject is known: older rows have another hash than that."""
        mine = {str(row.get("subject_sha256"))}
        return mine if self._key is None else mine | {self._key.hash_of_id(str(row[SUBJECT]))}

    def without_erased(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """A record without the id of an account that was erased."""
        if row.get(SUBJECT) and self._digests(row) & self._subjects:
            return {**row, SUBJECT: None}
        return row


def is_about(row: Mapping[str, Any], account_id: str) -> bool:
    """Whether a row of the copy names an account."""
    others = {"organisation", "rule"}  # what exceptions on these speak of may bear the same name
    name = without_nul(account_id)
    return name in {row.get("account_id"), row.get(SUBJECT)} and row.get("scope") not in others


def lines_about(folder: Path, account_id: str) -> int:
    """How many lines that were kept name an account."""
    return sum(
        _names(line, row, account_id)
        for path in (folder / ASIDE).glob("*.ndjson")
        for line, row in _rows(path.read_bytes().splitlines())
    )


def _names(line: bytes, row: Mapping[str, Any] | None, account_id: str) -> bool:
    if row is not None:
        return is_about(row, account_id)
    return json.dumps(without_nul(account_id))[1:-1].encode() in line


def forget(folder: Path, account_id: str, root: Path) -> None:
    """Remove an account from the lines that were kept.

    Raises:
        OSError: they cannot be written.
    """
    for path in sorted((folder / ASIDE).glob("*.ndjson")):
        left, found = [], False
        for line, row in _rows(path.read_bytes().splitlines()):
            if not _names(line, row, account_id):
                left.append(line)
                continue
            found = True
            if row is not None and path.name.startswith(f"{AUDIT}-"):
                left.append(json.dumps({**row, SUBJECT: None}, sort_keys=True).encode())
        if found and left:
            replace_for_good(path, b"".join(line + b"\n" for line in left), root)
        elif found:
            path.unlink()
