"""Compaction: the small files of an hour become few, sorted as one.

An hour is compacted once it is over for a while.  What comes late all the same makes new files there, which the next
compaction puts to the others.  A file of at least half the target size is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import pyarrow as pa

from pipeline.commits import FileEntry
from pipeline.errors import FencedError, SchemaError
from pipeline.io.rewriting.held import Place
from pipeline.io.rewriting.rewriter import Rewriter
from pipeline.io.rewriting.settling import discard
from pipeline.io.rewriting.writing import Input, Limits, read_input, write_outputs
from pipeline.lake_tables import NO_TIME_DAY

COMPACT: Final = "compact"
_HOUR_US: Final = 3_600_000_000
_FILES_MIN: Final = 2


@dataclass(slots=True)
class Compacted:
    """What was done, or would be.

    Attributes:
        hours: hours of tables.
        files: that were replaced.
        bytes: of these.
        rows: in these.
        new_files: that stand for them; 0 where nothing was done.
        new_bytes: of those.
        passed_over: hours that another rewrite was faster with.
        damaged: hours that cannot be read, and why.
    """

    hours: int = 0
    files: int = 0
    bytes: int = 0
    rows: int = 0
    new_files: int = 0
    new_bytes: int = 0
    passed_over: int = 0
    damaged: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Group:
    """Files of one hour of a table that become fewer."""

    place: Place
    files: tuple[FileEntry, ...]


def closed_groups(files: Iterable[FileEntry], limits: Limits, now_us: int, closed_s: float) -> list[Group]:
    """What there is to compact; the oldest hours first.

    Rows without a time are let alone: they are as old as their commits, and would go with the last of them only.

    Args:
        files: that readers see.
        limits: files of half their size or more are left alone.
        now_us: wall clock.
        closed_s: how long an hour must be over.
    """
    by_place: dict[Place, list[FileEntry]] = {}
    for file in files:
        small = file.bytes < limits.file_bytes // 2 and file.dt != NO_TIME_DAY
        if small and end_us(file.dt, file.hour) + int(closed_s * 1e6) <= now_us:
            by_place.setdefault(Place(file.table_name, file.dt, file.hour), []).append(file)
    ordered = sorted(by_place.items(), key=lambda item: (item[0].dt, item[0].hour, item[0].table))
    return [Group(place, tuple(found)) for place, found in ordered if len(found) >= _FILES_MIN]


def end_us(dt: str, hour: int) -> int:
    """When an hour ends, microseconds since the epoch."""
    return int(datetime.fromisoformat(dt).replace(tzinfo=UTC).timestamp()) * 1_000_000 + (hour + 1) * _HOUR_US


class Compactor(Rewriter):
    """Compacts a lake, an hour of a table at a time."""

    def groups(self, limits: Limits, closed_s: float, tables: Sequence[str]) -> list[Group]:
        """What there is to do in some tables."""
        files = [file for table in tables for file in self._catalog.live_files(table)]
        return closed_groups(files, limits, self._clock.now_us(), closed_s)

    def compact(self, group: Group, limits: Limits, done: Compacted) -> None:
        """Compact one hour of a table.

        Raises:
            RetryableError: the lake or the catalog fails; nothing was changed.
        """
        try:
            inputs = [read_input(self._lake, file) for file in group.files]
            alike = _alike(inputs)
            for same in alike:
                self._rewrite(same, limits, done)
            done.hours += bool(alike)
        except FencedError:
            done.passed_over += 1
        except SchemaError as error:
            if {file.path for file in group.files} <= {
                file.path for file in self._catalog.live_files(group.place.table)
            }:
                done.damaged.append(str(error))
            else:  # another rewrite has settled meanwhile
                done.passed_over += 1

    def _rewrite(self, inputs: Sequence[Input], limits: Limits, done: Compacted) -> None:
        rewrite_id = self._ledger.begin(COMPACT, self._clock.now_us())
        self._step("begun")
        try:
            outputs = write_outputs(self._lake, rewrite_id, inputs, limits)
            self._step("written")
            self._ledger.swap(rewrite_id, [one.file for one in inputs], outputs, self._clock.now_us())
        except BaseException:
            discard(self._lake, self._ledger, rewrite_id)
            raise
        self._step("swapped")
        add_files(done, [one.file for one in inputs])
        done.new_files += len(outputs)
        done.new_bytes += sum(output.file.bytes for output in outputs)


def add_files(done: Compacted, files: Sequence[FileEntry]) -> None:
    """Count files that are replaced, or would be."""
    done.files += len(files)
    done.bytes += sum(file.bytes for file in files)
    done.rows += sum(file.rows for file in files)


def _alike(inputs: Sequence[Input]) -> list[list[Input]]:
    """Files of the same columns, so that none is lost or made up by merging."""
    groups: dict[pa.Schema, list[Input]] = {}
    for one in inputs:
        groups.setdefault(one.schema, []).append(one)
    return [group for group in groups.values() if len(group) >= _FILES_MIN]
