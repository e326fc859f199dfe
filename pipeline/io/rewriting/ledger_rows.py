"""Rows of the tables of rewrites: how they are written, hidden and forgotten, inside somebody's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import sqlalchemy as sa

from pipeline.batch import Partition
from pipeline.commits import REBUILT, FileEntry
from pipeline.io import catalog_tables
from pipeline.io.footers import Rewritten
from pipeline.io.rewriting import tables

_AT_ONCE: Final = 500
"""Paths in one statement: SQLite takes 32,766 values at a time."""


@dataclass(frozen=True, slots=True)
class Span:
    """Offsets of a partition that a file may hold rows of."""

    partition: Partition
    first_offset: int
    next_offset: int


@dataclass(frozen=True, slots=True)
class Output:
    """A new file.

    Attributes:
        file_id: a UUID in hex.
        file: what the catalog says of it.
        spans: one a partition.
    """

    file_id: str
    file: FileEntry
    spans: tuple[Span, ...]


@dataclass(slots=True)
class InGrace:
    """Rewrites that a catalog made anew lists as swapped.

    Attributes:
        inputs: paths of the files that each replaced, by its id.
        made_by: ids of the rewrites that made files, by the files' ids.
        former: files that commits made and that were replaced, each with its commit's id.
        former_outputs: rewritten files that were replaced.
    """

    inputs: dict[str, list[str]] = field(default_factory=dict)
    made_by: dict[str, str] = field(default_factory=dict)
    former: list[tuple[str, FileEntry]] = field(default_factory=list)
    former_outputs: list[Output] = field(default_factory=list)


def spans_of(file: Rewritten) -> tuple[Span, ...]:
    """The offsets that a rewritten file may hold rows of."""
    ends: dict[Partition, tuple[int, int]] = {}
    for source in file.sources:
        commit = source.made.commit
        first, following = ends.get(commit.partition, (commit.first_offset, commit.next_offset))
        ends[commit.partition] = min(first, commit.first_offset), max(following, commit.next_offset)
    return tuple(Span(partition, *ends[partition]) for partition in sorted(ends))


def marks_in(tx: sa.Connection) -> dict[str, str]:
    """Retention marks by table."""
    return {row.table_name: row.before for row in tx.execute(sa.select(tables.retention))}


def add_found(
    tx: sa.Connection, outputs: Iterable[Output], marks: Mapping[str, str], in_grace: InGrace, now_us: int
) -> None:
    """List rewritten files, rewrites that are to be settled, and the marks of a lake, in an empty catalog.

    Args:
        tx: in which transaction.
        outputs: at their final paths, but for those of rewrites that are to be settled.
        marks: retention marks by table.
        in_grace: rewrites that are to be settled; their grace period begins anew.
        now_us: wall clock.
    """
    found = [*outputs, *in_grace.former_outputs]
    insert(tx, tables.rewritten_files, [output_row(one, in_grace.made_by.get(one.file_id, REBUILT)) for one in found])
    insert(tx, tables.rewritten_spans, [row for output in found for row in span_rows(output)])
    former = [{**asdict(file), "commit_id": commit_id, "state": "live"} for commit_id, file in in_grace.former]
    insert(tx, catalog_tables.files, former)
    retire(tx, [*(file.path for _, file in in_grace.former), *(one.file.path for one in in_grace.former_outputs)])
    for rewrite_id, paths in in_grace.inputs.items():
        row = {"rewrite_id": rewrite_id, "kind": REBUILT, "state": tables.SWAPPED, "changed_at_us": now_us}
        insert(tx, tables.rewrites, [{**row, "worker": REBUILT}])
        insert(tx, tables.rewrite_inputs, [{"rewrite_id": rewrite_id, "path": path} for path in paths])
    for table, before in marks.items():
        mark(tx, table, before)


def mark(tx: sa.Connection, table: str, before: str) -> None:
    """Set a retention mark; one that is higher stays."""
    new = catalog_tables.insert(tx.engine, tables.retention).values(table_name=table, before=before)
    higher = tables.retention.c.before < new.excluded.before
    tx.execute(
        new.on_conflict_do_update(index_elements=["table_name"], set_={"before": new.excluded.before}, where=higher)
    )


def retire(tx: sa.Connection, paths: Sequence[str]) -> int:
    """Hide live files from readers; says how many were live."""
    count = 0
    for start in range(0, len(paths), _AT_ONCE):
        some = paths[start : start + _AT_ONCE]
        for table in (catalog_tables.files, tables.rewritten_files):
            these = (table.c.path.in_(some), table.c.state == "live")
            count += tx.execute(sa.update(table).where(*these).values(state="retired")).rowcount
    return count


def forget_files(tx: sa.Connection, paths: Sequence[str]) -> None:
    """Strike out retired files; they are gone from the disk."""
    for start in range(0, len(paths), _AT_ONCE):
        some = paths[start : start + _AT_ONCE]
        ids = sa.select(tables.rewritten_files.c.file_id).where(tables.rewritten_files.c.path.in_(some))
        tx.execute(sa.delete(tables.rewritten_spans).where(tables.rewritten_spans.c.file_id.in_(ids)))
        for table in (catalog_tables.files, tables.rewritten_files):
            tx.execute(sa.delete(table).where(table.c.path.in_(some), table.c.state == "retired"))


def output_row(output: Output, rewrite_id: str) -> dict[str, Any]:
    """A new file as a row of `rewritten_files`."""
    return {**asdict(output.file), "file_id": output.file_id, "rewrite_id": rewrite_id, "state": "live"}


def span_rows(output: Output) -> list[dict[str, Any]]:
    """Its offsets as rows of `rewritten_spans`."""
    return [
        {
            "file_id": output.file_id, **catalog_tables.key_of(span.partition),
            "first_offset": span.first_offset, "next_offset": span.next_offset,
        }
        for span in output.spans
    ]  # fmt: skip


def insert(tx: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, if there are any."""
    if rows:
        tx.execute(sa.insert(table), list(rows))
