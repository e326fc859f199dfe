"""A copy of the desk in the lake, from which a lost catalog gets back what people decided and who did what.

Verdicts and the audit log are in files of 500 numbers each, which are made of the catalog's rows as they are, so that
whoever makes one makes the same; marks, of which every partition adds one for each verdict or few, are in files of 50
verdicts each; the other tables are a file each.  An act is in the catalog first, and is copied right
after it by the command that did it; what one command leaves behind, because it was killed in between or could not write
here, the next one copies, as every run of `maintain` does.  Files are replaced whole, under a lock of the catalog;
what one would lose though nobody erased it is kept aside (`kept_aside`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
import structlog

from pipeline.batch import Partition
from pipeline.errors import LakeDamagedError, NoRightError, RetryableError
from pipeline.io import catalog_tables
from pipeline.io.catalog import Catalog
from pipeline.io.desk import audit_log, kept_aside, tables
from pipeline.io.desk.kept_aside import SUBJECT, is_about
from pipeline.io.desk.numbers import next_number
from pipeline.io.durable import replace_for_good

DESK: Final = "_desk"
NUMBERS: Final = 500
"""Numbers of one file."""

MARK_NUMBERS: Final = 50
"""Verdicts whose marks, of all partitions, are in one file."""

KEYS: Final = "keys"
NUMBERED: Final = {"verdicts": tables.verdicts, "audit": tables.audit_log}
WHOLE: Final = {
    "exceptions": tables.exceptions,
    "claims": tables.claims,
    "topics": tables.verdict_offsets,
    KEYS: tables.audit_keys,
    "suppressions": tables.suppressions,
    "organisations": tables.alert_orgs,
}
MARKS: Final = "marks"
TABLES: Final = {**NUMBERED, **WHOLE, MARKS: tables.verdict_marks}
_OFTEN: Final = ("exceptions", "claims", "topics", KEYS)
"""Those that are small; the others grow with alerts, and `maintain` copies them."""

_NOT_COPIED: Final = {"copied"}
"""A column that says of a row whether it was."""

LEFT_OUT: Final = 1_000
"""Numbers that no verdict gets after a rebuild: the copy may lack some that were given, and models may have learned up
to them."""

_LOCK: Final = "desk_copy"

log = structlog.get_logger("desk")


def keep(root: Path, catalog: Catalog, *, every_table: bool = False) -> None:
    """Bring the copy up to the catalog; one that cannot be written is logged, and left to whoever comes next.

    Args:
        root: of the lake.
        catalog: what is copied.
        every_table: the large ones, too.
    """
    try:
        copy(root, catalog, every_table=every_table)
    except (OSError, RetryableError, NoRightError) as error:
        log.warning(
            "what was decided is on record, but not copied into the lake; the next `stillwatch maintain` does it",
            reason=str(error),
        )


def copy(root: Path, catalog: Catalog, *, every_table: bool = True, anew: bool = False) -> None:
    """Bring the copy up to the catalog.

    Args:
        root: of the lake.
        catalog: what is copied.
        every_table: the large tables, too.
        anew: also what was copied already, for rows were removed.

    Raises:
        NoRightError: the catalog's role may not do it.
        OSError: the lake cannot be written.
        RetryableError: the catalog does not answer.
    """
    folder = root / DESK
    with catalog.transaction(write=True) as tx:
        next_number(tx, _LOCK)  # one at a time
        for name, table in WHOLE.items():  # the keys before what was hashed with them
            if every_table or anew or name in _OFTEN:
                rows = [dict(row) for row in tx.execute(sa.select(table).order_by(*table.primary_key)).mappings()]
                _write(tx, folder / f"{name}.ndjson", name, rows, root)
        for name, table in NUMBERED.items():
            _copy_numbered(tx, folder, name, table, anew=anew)
        _copy_marks(tx, folder, also_missing=every_table)


def _copy_numbered(tx: sa.Connection, folder: Path, name: str, table: sa.Table, *, anew: bool) -> None:
    counter = f"{_LOCK}:{name}"
    found = tx.execute(sa.select(tables.counters.c.value).where(tables.counters.c.name == counter))
    copied = found.scalar_one_or_none() or 0
    last = tx.execute(sa.select(sa.func.max(table.c.seq))).scalar_one() or 0
    is_there = _path(folder, name, copied).exists()
    start = copied + 1 if is_there and not anew else 0
    for first in range(_first(start), max(last, copied) + 1, NUMBERS) if start <= last or anew else ():
        rows, path = _numbered(tx, table, first), _path(folder, name, first)
        if rows or path.exists():
            _write(tx, path, name, rows, folder.parent)
    new = catalog_tables.insert(tx.engine, tables.counters).values(name=counter, value=last)
    tx.execute(new.on_conflict_do_update(index_elements=["name"], set_={"value": new.excluded.value}))


def _copy_marks(tx: sa.Connection, folder: Path, *, also_missing: bool) -> None:
    """Write the files of marks that have got new ones; a partition that lags behind adds to an old one.

    Args:
        tx: which also notes what was written.
        folder: of the copy.
        also_missing: those, too, that are not there any more, which costs a look at all marks.
    """
    columns = tables.verdict_marks.c
    new = sa.update(tables.verdict_marks).where(columns.copied == sa.false()).values(copied=True)
    numbers = {seq // MARK_NUMBERS for seq in tx.execute(new.returning(columns.verdict_seq)).scalars()}
    if also_missing:
        every = tx.execute(sa.select(columns.verdict_seq // MARK_NUMBERS).distinct()).scalars()
        numbers.update(one for one in every if not _marks_path(folder, one).exists())
    for one in sorted(numbers):
        within = columns.verdict_seq.between(one * MARK_NUMBERS, (one + 1) * MARK_NUMBERS - 1)
        query = sa.select(*_copied(tables.verdict_marks)).where(within).order_by(*tables.verdict_marks.primary_key)
        rows = [dict(row) for row in tx.execute(query).mappings()]
        _write(tx, _marks_path(folder, one), MARKS, rows, folder.parent)
    (folder / f"{MARKS}.ndjson").unlink(missing_ok=True)  # all of them, as catalogs before version 7 had it


def _marks_path(folder: Path, number: int) -> Path:
    return folder / f"{MARKS}-{number * MARK_NUMBERS:012d}.ndjson"


def _copied(table: sa.Table) -> list[sa.Column[Any]]:
    return [column for column in table.columns if column.name not in _NOT_COPIED]


def _path(folder: Path, name: str, number: int) -> Path:
    return folder / f"{name}-{_first(number):012d}.ndjson"


def _first(number: int) -> int:
    return number // NUMBERS * NUMBERS


def _numbered(tx: sa.Connection, table: sa.Table, first: int) -> list[Mapping[str, Any]]:
    query = sa.select(table)
    if table is tables.audit_log:
        named = tables.audit_subjects
        query = sa.select(table, named.c.subject).join_from(
            table, named, table.c.subject_sha256 == named.c.subject_sha256, isouter=True
        )
    query = query.where(table.c.seq >= first, table.c.seq < first + NUMBERS).order_by(table.c.seq)
    return [dict(row) for row in tx.execute(query).mappings()]


def _write(tx: sa.Connection, path: Path, name: str, rows: Iterable[Mapping[str, Any]], root: Path) -> None:
    """Put rows of a table in a file, unless they are in it."""
    content = "".join(f"{json.dumps(dict(row), sort_keys=True)}\n" for row in rows).encode()
    if path.exists():
        if path.read_bytes() == content:
            return
        kept_aside.keep_lost(tx, path, name, content, root)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_for_good(path, content, root)


@dataclass(slots=True)
class Copied:
    """What the copy holds.

    Attributes:
        rows: by table, as `TABLES` names them.
    """

    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def count(self, name: str) -> int:
        """How many rows of a table there are."""
        return len(self.rows.get(name, ()))


def read(root: Path) -> Copied:
    """Read the copy; a lake without one has an empty one.

    Raises:
        LakeDamagedError: a file of it cannot be read.
    """
    copied = Copied()
    for name in TABLES:
        for path in _paths(root / DESK, name):
            try:
                lines = path.read_text(encoding="utf-8").splitlines()
                copied.rows.setdefault(name, []).extend(_row(name, line) for line in lines)
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise LakeDamagedError(
                    f"{path} cannot be read ({error}): it says what people decided, or who did what. Bring it back "
                    "from a backup, or move it away and do without"
                ) from error
    if not copied.count(KEYS) and any(audit_log.KEYED in row["details"] for row in copied.rows.get("audit", ())):
        raise LakeDamagedError(
            f"{root / DESK / KEYS}.ndjson is not there: the audit log's hashes were made with it, and without it "
            "nobody can be found by an id, and every decision looks changed. Bring it back from a backup, or move "
            "audit-*.ndjson away, too, and do without the record"
        )
    return copied


def _paths(folder: Path, name: str) -> list[Path]:
    """The files of a table; of marks also the one that held all of them once."""
    patterns = {MARKS: (f"{MARKS}.ndjson", f"{MARKS}-*.ndjson")} | dict.fromkeys(NUMBERED, (f"{name}-*.ndjson",))
    return [path for pattern in patterns.get(name, (f"{name}.ndjson",)) for path in sorted(folder.glob(pattern))]


def _row(name: str, line: str) -> dict[str, Any]:
    """A line as a row: of no other columns than the table's."""
    said = json.loads(line)
    names = [column.name for column in _copied(TABLES[name])]
    return {name: said[name] for name in names} | ({SUBJECT: said[SUBJECT]} if name == "audit" else {})


def restore(catalog: Catalog, copied: Copied, offsets: Mapping[Partition, int]) -> None:
    """Put what the copy holds into an empty catalog; doing it again changes nothing.

    Args:
        catalog: made anew.
        copied: what `read` found.
        offsets: how far each partition is landed: models have learned nothing beyond.
    """
    with catalog.transaction(write=True) as tx:
        if copied.count(KEYS):
            tx.execute(sa.delete(tables.audit_keys))  # the new catalog's own: nothing was hashed with it yet
        for name, table in TABLES.items():
            rows = copied.rows.get(name, [])
            if name == MARKS:
                rows = [
                    row for row in rows if row["offset"] <= offsets.get(Partition(row["topic"], row["partition"]), -1)
                ]
            _insert(tx, table, [{column.name: row[column.name] for column in _copied(table)} for row in rows])
        subjects = {row["subject_sha256"]: row[SUBJECT] for row in copied.rows.get("audit", []) if row[SUBJECT]}
        named = [audit_log.subject_row(digest, subject) for digest, subject in subjects.items()]
        _insert(tx, tables.audit_subjects, named)
        learned = max((row["verdict_seq"] for row in copied.rows.get(MARKS, [])), default=0)
        given = max((row["seq"] for row in copied.rows.get("verdicts", [])), default=0)
        recorded = max((row["seq"] for row in copied.rows.get("audit", [])), default=0)
        counts = {"verdicts": max(learned, given) + LEFT_OUT, "audit_log": recorded}
        _insert(tx, tables.counters, [{"name": name, "value": value} for name, value in counts.items()])


def _insert(tx: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        tx.execute(catalog_tables.insert(tx.engine, table).on_conflict_do_nothing(), list(rows))


def lines_about(root: Path, account_id: str) -> int:
    """How many lines of the copy name an account."""
    rows = (row for of_table in read(root).rows.values() for row in of_table)
    return sum(is_about(row, account_id) for row in rows) + kept_aside.lines_about(root / DESK, account_id)


def forget(root: Path, catalog: Catalog, account_id: str) -> None:
    """Bring the copy up to a catalog from which an account was erased, and remove it from lines that are kept aside.

    Raises:
        As `copy`.
    """
    copy(root, catalog, anew=True)
    kept_aside.forget(root / DESK, account_id, root)
