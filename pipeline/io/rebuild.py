"""Make a lost catalog anew from the footers of the lake's files.

Footers say which commit a file belongs to, how many files that commit has, and from which offset to which it goes.
What they cannot say is decided here:

* A commit whose files are not all placed was under way when the catalog went.  Are the others staged, they are placed;
  else what is placed of it is moved aside, and the offset stays before it, so that Kafka is read again from there.
* Only the last commit of a partition can be under way.  Is an earlier one incomplete, then files were lost; reading
  again from there would double what came after, so nothing is changed and an error says which files they are.
* A commit whose files are all staged and none placed is left out: its records are read again, and its staged files go
  when the partition gets its next owner.
* A commit without rows (transaction markers, aborted records, records that compaction removed) has no file.  A range
  between two commits that no file holds may be one, or a hole that was accepted, or lost files; it gets an empty commit
  whose worker is `REBUILT`, and `verify` notes each of them for a person to judge.
* Alerts come back from the table `alerts`.  Whether they were sent is not known, so the outbox has them as `unclear`,
  and nobody sends them unasked.
* What backfills have read comes back from their notes (`source_notes.py`), so that no file is landed again.
* Of each partition the newest snapshots that do not go beyond its offset are listed; a commit is made before its
  snapshot is placed, so each of them is of commits that were made.
"""

from __future__ import annotations

import itertools
import json
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import structlog

from pipeline.alerts import ALERT_SCHEMA, Alert, alerts_of
from pipeline.batch import Partition
from pipeline.commits import REBUILT, SNAPSHOTS_KEPT, Commit, FileEntry, SnapshotEntry
from pipeline.errors import LakeDamagedError, SchemaError
from pipeline.io.catalog import Catalog
from pipeline.io.inspection import sha256_of
from pipeline.io.lake import STAGING, Lake, commit_of, offset_in, read_footer
from pipeline.io.source_notes import Noted, read_notes
from pipeline.lake_tables import TABLES
from pipeline.snapshots import label_of

_FILL_NAMESPACE: Final = uuid.UUID("5717a7c0-0000-4000-8000-000000000000")
"""Makes ids of filled-in commits from their ranges, so that a second rebuild makes the same."""

log = structlog.get_logger("rebuild")


@dataclass(frozen=True, slots=True)
class _Found:
    """One file as its footer tells, placed or staged."""

    path: str
    commit: Commit
    index: int
    files: int


@dataclass(slots=True)
class Plan:
    """What a rebuild does.

    Attributes:
        commits: each with its files, by partition and offset, the filled ones among them.
        offsets: where reading goes on.
        to_place: staged files that complete a commit, by the path that they get.
        to_quarantine: placed files of commits that stay incomplete.
        left_out: commits of which only staged files are there.
        filled: empty commits for ranges that no file holds.
        alerts: by commit, as the files of the table `alerts` have them.
        snapshots: that the catalog will list.
        noted: what backfills have read.
    """

    commits: list[tuple[Commit, list[FileEntry]]] = field(default_factory=list)
    offsets: dict[Partition, int] = field(default_factory=dict)
    to_place: list[str] = field(default_factory=list)
    to_quarantine: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    filled: list[Commit] = field(default_factory=list)
    alerts: dict[str, list[Alert]] = field(default_factory=dict)
    snapshots: list[SnapshotEntry] = field(default_factory=list)
    noted: Noted = field(default_factory=Noted)

    @property
    def files(self) -> int:
        """How many files the commits list."""
        return sum(len(files) for _, files in self.commits)


def plan_of(lake: Lake) -> Plan:
    """Read every footer and decide what becomes of each file; changes nothing.

    Raises:
        LakeDamagedError: files contradict each other, or one is missing that reading again cannot replace.
    """
    placed, unreadable = _read_all(lake, lake.final_files())
    staged, _ = _read_all(lake, lake.staged_files())  # a staged file that cannot be read was being written
    _check_unreadable(unreadable, placed)
    placed_by_commit, staged_by_commit = _by_commit(placed), _by_commit(staged)
    plan = Plan(left_out=sorted(staged_by_commit.keys() - placed_by_commit.keys()), to_quarantine=unreadable)
    partitions: dict[Partition, list[list[_Found]]] = defaultdict(list)
    for files in placed_by_commit.values():
        partitions[files[0].commit.partition].append(files)
    for partition in sorted(partitions):
        _plan_partition(lake, plan, partitions[partition], staged_by_commit)
    for file in staged:  # of a partition of which nothing is placed, reading begins where its first commit would have
        commit = file.commit
        if commit.partition not in partitions:
            plan.offsets[commit.partition] = min(
                commit.first_offset, plan.offsets.get(commit.partition, commit.first_offset)
            )
    plan.snapshots = _snapshots(lake, plan.offsets)
    plan.noted = read_notes(lake.root)
    for past in plan.noted.ranges:  # a partition that the live job has not landed anything of begins behind them
        log_of = Partition(past.topic, past.partition)
        if log_of not in partitions:
            plan.offsets[log_of] = max(past.next_offset, plan.offsets.get(log_of, 0))
    return plan


def rebuild(lake: Lake, url: str, plan: Plan, now_us: int) -> None:
    """Carry a plan out.  Doing it again after a crash in its middle does what is left.

    Raises:
        ConfigError: the catalog is not empty.
        RetryableError: the catalog or the file system fails.
    """
    Catalog.check_empty(url)
    catalog = Catalog.open(url, create=True)
    try:
        waiting = set(plan.to_place)
        for commit, files in plan.commits:
            if any(file.path in waiting for file in files):
                lake.place(commit, files)
        lake.quarantine(plan.to_quarantine)
        catalog.sources.fill(plan.noted.feeds, plan.noted.files, plan.noted.ranges)
        catalog.replace_all(plan.offsets, plan.commits, now_us, alerts=plan.alerts, snapshots=plan.snapshots)
    finally:
        catalog.close()
    log.info("catalog rebuilt", commits=len(plan.commits), files=plan.files)


def _read_all(lake: Lake, paths: Iterable[Path]) -> tuple[list[_Found], list[str]]:
    """Every readable file, and the names of the others."""
    found: list[_Found] = []
    unreadable: list[str] = []
    for path in paths:
        try:
            footer, _ = read_footer(lake.root / path)
            found.append(_Found(path.as_posix(), commit_of(footer), int(footer["file"]), int(footer["files"])))
        except (SchemaError, KeyError, TypeError, ValueError):
            unreadable.append(path.as_posix())
    return found, unreadable


def _check_unreadable(unreadable: Sequence[str], placed: Sequence[_Found]) -> None:
    """An unreadable file may only be of its partition's last commit, as its name tells; else its rows would be lost."""
    last: dict[str, int] = {}
    for file in placed:
        named = offset_in(Path(file.path).name)
        if named is not None:
            last[named[0]] = max(named[1], last.get(named[0], 0))
    for path in unreadable:
        named = offset_in(Path(path).name)
        if named is not None and named[1] < last.get(named[0], 0):
            raise LakeDamagedError(f"{path} cannot be read, and later commits follow: bring it back from a copy")


def _by_commit(files: Sequence[_Found]) -> dict[str, list[_Found]]:
    grouped: dict[str, list[_Found]] = {}
    for file in files:
        grouped.setdefault(file.commit.commit_id, []).append(file)
    return grouped


def _plan_partition(lake: Lake, plan: Plan, commits: list[list[_Found]], staged: dict[str, list[_Found]]) -> None:
    commits.sort(key=lambda files: (files[0].commit.first_offset, files[0].commit.next_offset))
    _check_order(commits)
    partition = commits[0][0].commit.partition
    at = commits[0][0].commit.first_offset
    for number, placed in enumerate(commits):
        commit = placed[0].commit
        rest = _rest(placed, staged.get(commit.commit_id, []))
        if len(placed) + len(rest) < placed[0].files:
            if number < len(commits) - 1:
                raise LakeDamagedError(_lost_in_words(commit, placed))
            plan.to_quarantine += [file.path for file in placed]
            break
        if commit.first_offset > at:
            plan.filled.append(_filling(partition, at, commit.first_offset))
            plan.commits.append((plan.filled[-1], []))
        entries = [_entry(lake.root / file.path, file.path) for file in placed]
        entries += [_entry(lake.root / file.path, _final(file.path)) for file in rest]
        _check_rows(commit, entries)
        plan.to_place += [_final(file.path) for file in rest]
        plan.commits.append((commit, entries))
        plan.alerts[commit.commit_id] = [
            alert for file in (*placed, *rest) if _table(file) == "alerts" for alert in _alerts(lake.root / file.path)
        ]
        at = commit.next_offset
    plan.offsets[partition] = at


def _check_order(commits: list[list[_Found]]) -> None:
    """Files of a commit agree on it, and commits do not overlap."""
    for files in commits:
        indexes = {file.index for file in files}
        if len({(file.commit, file.files) for file in files}) > 1 or len(indexes) < len(files):
            raise LakeDamagedError("these files claim to be of one commit but contradict each other: " + _paths(files))
    for before, after in itertools.pairwise(commits):
        if after[0].commit.first_offset < before[0].commit.next_offset:
            raise LakeDamagedError(
                f"{before[0].commit.partition}: two commits overlap, so records are there twice: "
                f"{_paths(before)} and {_paths(after)}"
            )


def _rest(placed: list[_Found], staged: list[_Found]) -> list[_Found]:
    """The staged files of a commit that are not placed yet."""
    there = {file.index for file in placed}
    return [file for file in staged if file.index not in there and file.commit == placed[0].commit]


def _lost_in_words(commit: Commit, placed: list[_Found]) -> str:
    missing = sorted({*range(placed[0].files)} - {file.index for file in placed})
    return (
        f"{commit.partition}: of the commit of offsets {commit.first_offset} to {commit.next_offset - 1}, files number "
        f"{missing} of {placed[0].files} are lost or unreadable, and later commits follow: bring them back, "
        "or move this commit's files and all later ones of the partition out of the lake, to have them read from Kafka "
        f"again. There are: {_paths(placed)}"
    )


def _paths(files: Iterable[_Found]) -> str:
    return ", ".join(file.path for file in files)


def _filling(partition: Partition, first_offset: int, next_offset: int) -> Commit:
    name = json.dumps([*partition, first_offset, next_offset])
    commit_id = uuid.uuid5(_FILL_NAMESPACE, name).hex
    return Commit(
        commit_id, partition, first_offset, next_offset, events=0, rejects=0, committed_at_us=0, worker=REBUILT
    )


def _final(staged: str) -> str:
    """A staged file's final path: `_staging/<partition>/<commit>/<path>`."""
    return Path(*Path(staged).parts[3:]).as_posix()


def _table(file: _Found) -> str:
    parts = Path(file.path).parts
    return parts[3] if parts[0] == STAGING else parts[0]


def _alerts(path: Path) -> list[Alert]:
    return alerts_of(pq.read_table(path, partitioning=None).cast(ALERT_SCHEMA))


def _snapshots(lake: Lake, offsets: Mapping[Partition, int]) -> list[SnapshotEntry]:
    """The newest snapshots of each partition that can be read and do not go beyond its offset.

    The others are left where they are: the partition's next owner removes what the catalog does not list.
    """
    found: dict[Partition, list[SnapshotEntry]] = defaultdict(list)
    for path in lake.snapshot_files():
        body = (lake.root / path).read_bytes()
        try:
            label = label_of(body)
        except SchemaError as error:
            log.warning("a snapshot cannot be read and is left out", path=path.as_posix(), reason=str(error))
            continue
        if label.next_offset <= offsets.get(label.partition, -1):
            entry = lake.snapshot_entry(path.as_posix(), label, body)
            found[label.partition].append(entry)
    return [
        entry
        for entries in found.values()
        for entry in sorted(entries, key=lambda entry: entry.next_offset)[-SNAPSHOTS_KEPT:]
    ]


def _entry(path: Path, final: str) -> FileEntry:
    table, dt, hour = Path(final).parts[:3]
    column = TABLES[table].time
    with path.open("rb") as content:
        digest = sha256_of(content)
    times = pq.read_table(path, columns=[column], partitioning=None)[column]
    low, high = _span(times) if times.null_count == 0 else (None, None)
    return FileEntry(
        path=final,
        table_name=table,
        dt=dt.removeprefix("dt="),
        hour=int(hour.removeprefix("hour=")),
        rows=len(times),
        bytes=path.stat().st_size,
        sha256=digest,
        time_min_us=low,
        time_max_us=high,
    )


def _span(times: pa.ChunkedArray) -> tuple[int, int]:
    ends: dict[str, Any] = pc.min_max(times.cast(pa.int64())).as_py()
    return int(ends["min"]), int(ends["max"])


def _check_rows(commit: Commit, files: Sequence[FileEntry]) -> None:
    for table, expected in (("access", commit.events), ("rejects", commit.rejects)):
        rows = sum(file.rows for file in files if file.table_name == table)
        if rows != expected:
            names = ", ".join(file.path for file in files)
            raise LakeDamagedError(
                f"{commit.partition}: {names} hold {rows} rows of table {table}, their footers say {expected}"
            )
