"""Which files there are, by the catalog: those that commits made, and those that were made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from pipeline.commits import Commit, FileEntry, Manifest
from pipeline.io import catalog_alerts as stored
from pipeline.io import catalog_tables as tables
from pipeline.io.rewriting import ledger_rows
from pipeline.io.rewriting import tables as rewriting

_KINDS = (tables.files, rewriting.rewritten_files)


def live_files(tx: sa.Connection, table: str | None, time_us: tuple[int | None, int | None]) -> list[FileEntry]:
    """Files that readers see, in one SELECT; see `Catalog.live_files`."""
    low, high = time_us
    parts = []
    for kind in _KINDS:
        query = tables.live_of(kind)
        if table is not None:
            query = query.where(kind.c.table_name == table)
        if low is not None:
            query = query.where(sa.or_(kind.c.time_max_us.is_(None), kind.c.time_max_us >= low))
        if high is not None:
            query = query.where(sa.or_(kind.c.time_min_us.is_(None), kind.c.time_min_us <= high))
        parts.append(query)
    every = sa.union_all(*parts).order_by("dt", "hour", "path")
    return [tables.file_of(row) for row in tx.execute(every).mappings()]


def files_of(tx: sa.Connection, commits: Sequence[Commit]) -> list[FileEntry]:
    """Files that hold rows of commits of one partition; see `Catalog.files_of`."""
    ids = [commit.commit_id for commit in commits]
    made = sa.select(*(tables.files.c[name] for name in FileEntry.__slots__)).where(
        tables.files.c.commit_id.in_(ids), tables.files.c.state != "retired"
    )
    files, spans = rewriting.rewritten_files, rewriting.rewritten_spans
    merged = (
        tables.live_of(files)
        .join(spans, spans.c.file_id == files.c.file_id)
        .where(*tables.of(spans, commits[0].partition))
        .where(spans.c.first_offset < commits[-1].next_offset, spans.c.next_offset > commits[0].first_offset)
    )
    return [tables.file_of(row) for row in tx.execute(sa.union_all(made, merged).order_by("path")).mappings()]


def manifest(tx: sa.Connection) -> Manifest:
    """Everything; all queries must see one moment."""
    files: dict[str, dict[str, list[FileEntry]]] = {"live": {}, "pending": {}}
    retired = []
    for row in tx.execute(sa.select(tables.files).order_by(tables.files.c.path)).mappings():
        if row["state"] == "retired":
            retired.append(row["path"])
        else:
            files[row["state"]].setdefault(row["commit_id"], []).append(tables.file_of(row))
    rewritten: list[Any] = list(tx.execute(sa.select(rewriting.rewritten_files)).mappings())
    return Manifest(
        offsets=tables.all_offsets(tx),
        commits=tables.all_commits(tx),
        live=files["live"],
        pending=files["pending"],
        holes=tables.all_holes(tx),
        snapshots=stored.all_snapshots(tx),
        rewritten=[tables.file_of(row) for row in rewritten if row["state"] == "live"],
        retired=[*retired, *(row["path"] for row in rewritten if row["state"] == "retired")],
        marks=ledger_rows.marks_in(tx),
    )
