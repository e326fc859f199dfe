"""Replacement: rows of the lake go and others come, at one moment, or nothing happens.

The others were landed in an annex, where nobody sees them.  Each table's hour that loses or gets rows is written anew,
from what stays of its files and what comes; then one transaction hides all of the former files, shows all of the new
ones, and lists the commits that came.  A file that is compacted meanwhile is looked at again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from pipeline.commits import FileEntry
from pipeline.committing import finish_pending
from pipeline.errors import FencedError, RetryableError, SchemaError
from pipeline.io.desk import audit_log
from pipeline.io.rewriting.arrivals import Arrivals
from pipeline.io.rewriting.chosen import REPLACED, Chosen, total
from pipeline.io.rewriting.held import Place
from pipeline.io.rewriting.ledger_rows import Output
from pipeline.io.rewriting.rewriter import Rewriter
from pipeline.io.rewriting.same_records import SameRecords
from pipeline.io.rewriting.settling import discard
from pipeline.io.rewriting.writing import Input, Limits, read_input, write_outputs
from pipeline.sources import is_past

REPLACE: Final = "replace"
_ATTEMPTS: Final = 10
_OUTPACED: Final = (
    "other rewrites replace the same files again and again; nothing was changed, and what was read is kept: run the "
    "same command again later"
)

Found = dict[FileEntry, Counter[str]]
"""Files that hold rows which go, with how many, by topic."""


@dataclass(slots=True)
class Replaced:
    """What was done.

    Attributes:
        gone: rows that went, by table and topic.
        files: that were written anew.
        new_files: that stand for them.
        new_bytes: of those.
        rewrite_id: by which.
    """

    gone: dict[str, Counter[str]] = field(default_factory=dict)
    files: int = 0
    new_files: int = 0
    new_bytes: int = 0
    rewrite_id: str = ""


@dataclass(slots=True)
class _Made:
    """One hour of a table, written anew."""

    inputs: frozenset[str]
    outputs: list[Output]


@dataclass(frozen=True, slots=True)
class _Comes:
    """What goes and what comes; see `Replacer.replace`."""

    chosen: Chosen
    arrivals: Arrivals
    files: Sequence[FileEntry]
    same: SameRecords | None


class Replacer(Rewriter):
    """Replaces rows of one lake."""

    def find(self, chosen: Chosen, tables: Sequence[str] = REPLACED) -> dict[str, Found]:
        """What there is of some rows, by table; changes nothing.

        Raises:
            SchemaError: a file cannot be read.
            RetryableError: the catalog fails.
        """
        return {table: self._found(chosen, table) for table in tables}

    def replace(
        self,
        chosen: Chosen,
        arrivals: Arrivals,
        files: Sequence[FileEntry],
        note: Mapping[str, Any],
        same: SameRecords | None = None,
    ) -> Replaced:
        """Let rows go and others come.

        Args:
            chosen: which go.
            arrivals: commits of those that come.
            files: of those that come, by their paths below this lake.
            note: what the audit record says beside the numbers.
            same: sees that those that go are those that come, where both are records of one log.

        Raises:
            ConfigError: another backfill has landed some of the rows that come, or `same` sees others; nothing was
                changed.
            FencedError: the rows that come are there already; nothing was changed.
            NoRightError: the catalog's role may not do it; nothing was changed.
            RetryableError: the lake or the catalog fails, or others are faster all the time; nothing was changed.
            SchemaError: a file cannot be read; nothing was changed.
        """
        rewrite_id = self._ledger.begin(REPLACE, self._clock.now_us())
        self._step("begun")
        try:
            return self._replace(rewrite_id, _Comes(chosen, arrivals, files, same), note)
        except BaseException:
            discard(self._lake, self._ledger, rewrite_id)
            raise

    def _replace(self, rewrite_id: str, what: _Comes, note: Mapping[str, Any]) -> Replaced:
        made: dict[Place, _Made] = {}
        for _ in range(_ATTEMPTS):
            self._look(what.same)
            found = self.find(what.chosen)
            former = {file: rows for of_table in found.values() for file, rows in of_table.items()}
            try:
                if what.same is not None:
                    what.same.check(self._lake.root, former)
                self._write(rewrite_id, what.chosen, former, what.files, made)
            except SchemaError:
                if self._is_listed(former):
                    raise
                continue  # another rewrite has settled meanwhile
            self._step("written")
            outputs = [output for one in made.values() for output in one.outputs]
            done = Replaced(
                {table: total(of_table) for table, of_table in found.items()}, len(former), len(outputs),
                sum(output.file.bytes for output in outputs), rewrite_id,
            )  # fmt: skip
            now_us = self._clock.now_us()
            act = audit_log.Act(REPLACE, self._ledger.by, details={**note, "gone": done.gone, "rewrite_id": rewrite_id})

            def also(tx: sa.Connection, act: audit_log.Act = act, now_us: int = now_us) -> None:
                what.arrivals.insert(tx, what.chosen.covers)
                if what.same is not None:
                    what.same.hold(tx)
                audit_log.append(tx, act, now_us)

            try:
                self._ledger.swap(rewrite_id, list(former), outputs, now_us, also=also)
            except FencedError:
                if what.arrivals.are_in(self._catalog):
                    raise
                self._ledger.keep_alive(rewrite_id, now_us)
                continue
            self._step("swapped")
            return done
        raise RetryableError(_OUTPACED)

    def _look(self, same: SameRecords | None) -> None:
        """Before it is found out which rows go; what is committed and not shown yet is shown first."""
        if same is None:
            return
        for partition in {commit.partition for commit in self._catalog.pending()}:
            if is_past(partition.topic):
                finish_pending(self._lake, self._catalog, partition)
        with self._catalog.transaction() as tx:
            same.look(tx)

    def _write(
        self,
        rewrite_id: str,
        chosen: Chosen,
        former: Mapping[FileEntry, Counter[str]],
        files: Sequence[FileEntry],
        made: dict[Place, _Made],
    ) -> None:
        """Write each table's hour anew whose files are not those of the last try."""
        groups: dict[Place, list[FileEntry]] = {}
        for file in (*former, *files):
            groups.setdefault(Place(file.table_name, file.dt, file.hour), []).append(file)
        for place in [place for place, one in made.items() if one.inputs != _paths(groups.get(place, ()))]:
            for output in made.pop(place).outputs:
                (self._lake.root / output.file.path).unlink(missing_ok=True)
        for place, group in sorted(groups.items()):
            if place not in made:
                self._ledger.keep_alive(rewrite_id, self._clock.now_us())
                goes = sum(former[file].total() for file in group if file in former)
                made[place] = _Made(_paths(group), self._write_hour(rewrite_id, chosen, group, goes))

    def _write_hour(self, rewrite_id: str, chosen: Chosen, group: Sequence[FileEntry], goes: int) -> list[Output]:
        table = group[0].table_name
        alike: dict[pa.Schema, list[Input]] = {}
        for file in group:
            one = read_input(self._lake, file)
            alike.setdefault(one.schema, []).append(one)

        def stay(rows: pa.Table) -> pa.Array:
            return pa.array(np.logical_not(chosen.mask(table, rows)))

        outputs = [
            output
            for inputs in alike.values()
            for output in write_outputs(self._lake, rewrite_id, inputs, Limits(), stay)
        ]
        left = sum(output.file.rows for output in outputs)
        if left != sum(file.rows for file in group) - goes:
            raise SchemaError(f"{group[0].path}: other rows than were found would go; nothing was changed")
        return outputs

    def _found(self, chosen: Chosen, table: str) -> Found:
        for _ in range(_ATTEMPTS):
            low, high = chosen.asked.ends
            span = (None, None) if table == "rejects" or chosen.asked.is_whole else (low, high - 1)
            files = {file.path: file for file in self._catalog.live_files(table, span)}
            try:
                rows = chosen.rows_in(table, self._lake.root, list(files))
            except SchemaError:
                if self._is_listed(list(files.values())):
                    raise
                continue
            return {files[path]: counts for path, counts in rows.items()}
        raise RetryableError(_OUTPACED)

    def _is_listed(self, files: Sequence[FileEntry] | Mapping[FileEntry, Any]) -> bool:
        """Whether readers still see all of some files, so that one that is not there is missing indeed."""
        listed = {file.path for file in self._catalog.live_files()}
        return all(file.path in listed for file in files)


def below(annex: str, files: Sequence[FileEntry]) -> list[FileEntry]:
    """Files of an annex by their paths below the lake that it is in."""
    return [replace(file, path=f"{annex}/{file.path}") for file in files]


def _paths(files: Sequence[FileEntry]) -> frozenset[str]:
    return frozenset(file.path for file in files)
