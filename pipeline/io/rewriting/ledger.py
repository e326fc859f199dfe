"""What the catalog says of rewrites: begun, swapped, settled, finished; each step one transaction.

The law of a swap: all inputs are live and the rewrite is still listed, or nothing happens.  So two rewrites of one file
cannot both win, and one that was forgotten cannot win at all.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from pipeline.commits import FileEntry, SnapshotEntry
from pipeline.errors import FencedError
from pipeline.io import catalog_tables
from pipeline.io.catalog import Catalog
from pipeline.io.desk import audit_log
from pipeline.io.desk import erasure as desk_erasure
from pipeline.io.desk.audit_log import Act
from pipeline.io.desk.numbers import sha256_of_id
from pipeline.io.rewriting import ledger_rows as rows
from pipeline.io.rewriting import tables
from pipeline.io.rewriting.ledger_rows import Output

WRITING: Final = tables.WRITING
SWAPPED: Final = tables.SWAPPED
SETTLED: Final = tables.SETTLED

_IDS_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class ErasedRows:
    """What the catalog held of an account.

    Attributes:
        alerts: about it.
        decisions: verdicts and exceptions.
        unkeyed: records of the audit log that stay, with a hash of the id that anybody can guess by trying.
    """

    alerts: int
    decisions: int
    unkeyed: int


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A rewrite that was swapped.

    Attributes:
        rewrite_id: a UUID in hex.
        kind: compact, retain, erase or replace.
        state: writing, swapped or settled.
        changed_at_us: since when.
        inputs: paths of files that are read no more.
        outputs: path of each new file that is still there, by its id; a later rewrite may have replaced it.
    """

    rewrite_id: str
    kind: str
    state: str
    changed_at_us: int
    inputs: tuple[str, ...]
    outputs: Mapping[str, str]


class RewriteLedger:
    """Rewrites in a catalog."""

    def __init__(self, catalog: Catalog, worker: str, by: str = "") -> None:
        """Say who works.

        Args:
            catalog: stays open as long as this is used.
            worker: host and process.
            by: who has them do it, for the record; empty: the worker.
        """
        self.catalog, self.worker, self.by = catalog, worker, by or worker

    def begin(self, kind: str, now_us: int) -> str:
        """List a rewrite, before anything is written for it; returns its id."""
        rewrite_id = uuid.uuid4().hex
        row = {"rewrite_id": rewrite_id, "kind": kind, "state": WRITING, "changed_at_us": now_us}
        with self.catalog.transaction(write=True) as tx:
            tx.execute(sa.insert(tables.rewrites).values(**row, worker=self.worker))
        return rewrite_id

    def swap(
        self,
        rewrite_id: str,
        inputs: Sequence[FileEntry],
        outputs: Sequence[Output],
        now_us: int,
        marks: Mapping[str, str] | None = None,
        also: Callable[[sa.Connection], None] | None = None,
    ) -> None:
        """Let readers see the outputs instead of the inputs, from this moment on; or change nothing.

        Doing it again after an unclear failure is safe.

        Args:
            rewrite_id: that `begin` gave.
            inputs: live files.
            outputs: written, on disk for good.
            now_us: wall clock.
            marks: new retention marks by table.
            also: what else is done in the same transaction; may raise FencedError, and then nothing is.

        Raises:
            FencedError: an input is live no more, or the rewrite was forgotten: another one was faster.
        """
        with self.catalog.transaction(write=True) as tx:
            moved = tx.execute(
                sa.update(tables.rewrites)
                .where(tables.rewrites.c.rewrite_id == rewrite_id, tables.rewrites.c.state == WRITING)
                .values(state=SWAPPED, changed_at_us=now_us)
            )
            if moved.rowcount != 1:
                if self._is_swapped(tx, rewrite_id):
                    return
                raise FencedError(f"rewrite {rewrite_id} took so long that it was given up; nothing was changed")
            paths = [file.path for file in inputs]
            if rows.retire(tx, paths) != len(paths):
                raise FencedError("another rewrite has replaced some of these files meanwhile; nothing was changed")
            rows.insert(tx, tables.rewrite_inputs, [{"rewrite_id": rewrite_id, "path": path} for path in paths])
            rows.insert(tx, tables.rewritten_files, [rows.output_row(output, rewrite_id) for output in outputs])
            rows.insert(tx, tables.rewritten_spans, [row for output in outputs for row in rows.span_rows(output)])
            for table, before in (marks or {}).items():
                rows.mark(tx, table, before)
            if also is not None:
                also(tx)

    def keep_alive(self, rewrite_id: str, now_us: int) -> None:
        """Say that a rewrite is still being written, so that nobody takes it for dead.

        Raises:
            FencedError: somebody has.
        """
        columns = tables.rewrites.c
        with self.catalog.transaction(write=True) as tx:
            same = (columns.rewrite_id == rewrite_id, columns.state == WRITING)
            if tx.execute(sa.update(tables.rewrites).where(*same).values(changed_at_us=now_us)).rowcount != 1:
                raise FencedError(f"rewrite {rewrite_id} took so long that it was given up; nothing was changed")

    def due(self, states: Iterable[str], changed_before_us: int) -> list[Rewrite]:
        """Rewrites in one of some states, in which they have been since a moment or longer; the oldest first."""
        columns = tables.rewrites.c
        query = (
            sa.select(tables.rewrites)
            .where(columns.state.in_(list(states)), columns.changed_at_us <= changed_before_us)
            .order_by(columns.changed_at_us, columns.rewrite_id)
        )
        with self.catalog.transaction(snapshot=True) as tx:
            return [_rewrite_of(tx, row) for row in tx.execute(query).mappings().all()]

    def find(self, rewrite_id: str) -> Rewrite | None:
        """One rewrite; None if it is not listed, or no more."""
        query = sa.select(tables.rewrites).where(tables.rewrites.c.rewrite_id == rewrite_id)
        with self.catalog.transaction(snapshot=True) as tx:
            row = tx.execute(query).mappings().one_or_none()
            return None if row is None else _rewrite_of(tx, row)

    def makers_of(self, rewrite_id: str) -> list[str]:
        """Rewrites that made inputs of a rewrite and are not settled themselves."""
        files, inputs, made = tables.rewritten_files.c, tables.rewrite_inputs.c, tables.rewrites.c
        query = (
            sa.select(made.rewrite_id)
            .distinct()
            .join(tables.rewritten_files, files.rewrite_id == made.rewrite_id)
            .join(tables.rewrite_inputs, inputs.path == files.path)
            .where(inputs.rewrite_id == rewrite_id, made.state == SWAPPED)
        )
        with self.catalog.transaction() as tx:
            return list(tx.execute(query).scalars())

    def settle(self, rewrite: Rewrite, final: Mapping[str, str], now_us: int) -> None:
        """Note that a swapped rewrite's inputs are gone and that its outputs have their final paths, by their ids."""
        with self.catalog.transaction(write=True) as tx:
            moved = tx.execute(
                sa.update(tables.rewrites)
                .where(tables.rewrites.c.rewrite_id == rewrite.rewrite_id, tables.rewrites.c.state == SWAPPED)
                .values(state=SETTLED, changed_at_us=now_us)
            )
            if moved.rowcount != 1:
                return
            for file_id, path in final.items():
                same = tables.rewritten_files.c.file_id == file_id
                tx.execute(sa.update(tables.rewritten_files).where(same).values(path=path))
                columns = tables.rewrite_inputs.c
                tx.execute(
                    sa.update(tables.rewrite_inputs).where(columns.path == rewrite.outputs[file_id]).values(path=path)
                )
            rows.forget_files(tx, rewrite.inputs)

    def forget(self, rewrite: Rewrite) -> bool:
        """Strike a rewrite out, if it is still in its state; what it was for is done, or never will be."""
        columns = tables.rewrites.c
        with self.catalog.transaction(write=True) as tx:
            same = (columns.rewrite_id == rewrite.rewrite_id, columns.state == rewrite.state)
            gone = tx.execute(sa.delete(tables.rewrites).where(*same)).rowcount == 1
            if gone:
                mine = tables.rewrite_inputs.c.rewrite_id == rewrite.rewrite_id
                tx.execute(sa.delete(tables.rewrite_inputs).where(mine))
        return gone

    def known(self) -> set[str]:
        """Ids of all rewrites that are listed."""
        with self.catalog.transaction() as tx:
            return set(tx.execute(sa.select(tables.rewrites.c.rewrite_id)).scalars())

    def marks(self) -> dict[str, str]:
        """The hour below which a table holds nothing any more, by table."""
        with self.catalog.transaction() as tx:
            return rows.marks_in(tx)

    def replace_snapshot(self, former: SnapshotEntry, new: SnapshotEntry) -> bool:
        """List a snapshot's new file instead of its former one; false if that one is not listed any more."""
        columns = catalog_tables.snapshots.c
        with self.catalog.transaction(write=True) as tx:
            moved = tx.execute(
                sa.update(catalog_tables.snapshots)
                .where(columns.path == former.path)
                .values(path=new.path, bytes=new.bytes, sha256=new.sha256)
            )
        return moved.rowcount == 1

    def erase_account(self, account_id: str, now_us: int) -> ErasedRows:
        """Remove all alerts about an account, what was to be sent of them, and what people decided about it.

        Args:
            account_id: whose.
            now_us: wall clock, for the record of which decisions went.
        """
        columns = catalog_tables.alerts.c
        mine = columns.entity_sha256 == sha256_of_id(account_id)
        with self.catalog.transaction(write=True) as tx:
            if tx.dialect.name == "sqlite":  # else the bytes stay in the file until something else needs the room
                tx.exec_driver_sql("PRAGMA secure_delete = ON")
            ids = tx.execute(sa.select(columns.alert_id).where(mine)).scalars().all()
            decided = desk_erasure.erase(tx, account_id, ids, self.by, now_us)
            for start in range(0, len(ids), _IDS_MAX):
                some = ids[start : start + _IDS_MAX]
                tx.execute(sa.delete(catalog_tables.outbox).where(catalog_tables.outbox.c.alert_id.in_(some)))
                tx.execute(sa.delete(catalog_tables.alerts).where(columns.alert_id.in_(some)))
            unkeyed = audit_log.unkeyed(tx, account_id)
        return ErasedRows(len(ids), decided, unkeyed)

    def note(self, kind: str, details: Mapping[str, Any], now_us: int, *, account_id: str = "") -> str:
        """Write an audit record; returns its id.

        Args:
            kind: of rewrite.
            details: that are worth knowing.
            now_us: wall clock.
            account_id: whom it is about, which whoever knows the id can find, and nobody reads; empty: nobody.
        """
        subject_type = "account" if account_id else ""
        act = Act(kind, self.by, subject_type, account_id, details, is_named=False)
        return self.catalog.desk.audit.record(act, now_us)

    def _is_swapped(self, tx: sa.Connection, rewrite_id: str) -> bool:
        same = (tables.rewrites.c.rewrite_id == rewrite_id, tables.rewrites.c.state != WRITING)
        return tx.execute(sa.select(tables.rewrites.c.rewrite_id).where(*same)).first() is not None


def _rewrite_of(tx: sa.Connection, row: Any) -> Rewrite:
    inputs = tables.rewrite_inputs.c
    paths = sa.select(inputs.path).where(inputs.rewrite_id == row["rewrite_id"]).order_by(inputs.path)
    outputs = sa.select(tables.rewritten_files).where(tables.rewritten_files.c.rewrite_id == row["rewrite_id"])
    found = tx.execute(outputs).mappings().all()
    return Rewrite(
        row["rewrite_id"], row["kind"], row["state"], row["changed_at_us"], tuple(tx.execute(paths).scalars()),
        {file["file_id"]: file["path"] for file in found},
    )  # fmt: skip
