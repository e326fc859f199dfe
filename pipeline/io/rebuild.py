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
* Files that `maintain` made of others stand for these (`rewriting.found` says which count where both are there), and an
  hour below a table's retention mark holds nothing: the mark is in the lake, too.  Of a partition whose files are all
  gone so, a snapshot tells the offset.
* Where some files of a rewrite stand in their tables, it was swapped, and the others get their names there, too.
* Of a rewrite of which none does, `rewriting.unsettled` says whether it counts: then the catalog lists it as swapped.
* What people decided, and who did what, comes back from its copy (`desk/copies.py`).
* Of each partition the newest snapshots that do not go beyond its offset are listed; a commit is made before its
  snapshot is placed, so each of them is of commits that were made.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import json
import os
import socket
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq
import structlog

from pipeline.alerts import ALERT_SCHEMA, Alert, alerts_of
from pipeline.batch import Partition
from pipeline.commits import REBUILT, SNAPSHOTS_KEPT, Commit, FileEntry, SnapshotEntry
from pipeline.counted import counted
from pipeline.errors import LakeDamagedError, SchemaError
from pipeline.io.catalog import Catalog
from pipeline.io.desk import copies, seals
from pipeline.io.desk.audit_log import Act, append
from pipeline.io.entries import entry_of
from pipeline.io.footers import Made, Source, read_footer, said_by
from pipeline.io.lake import STAGING, Lake, final_path, offset_in
from pipeline.io.rewriting.annex import unfinished
from pipeline.io.rewriting.found import FoundRewritten, Sorted, sort_out
from pipeline.io.rewriting.held import Place, is_below
from pipeline.io.rewriting.ledger_rows import InGrace, Output, spans_of
from pipeline.io.rewriting.marks import read_marks
from pipeline.io.rewriting.settling import half_settled, link
from pipeline.io.rewriting.unsettled import Of, Unsettled, take_over, unsettled_paths
from pipeline.io.rewriting.writing import REWRITTEN
from pipeline.io.source_notes import Noted, read_notes
from pipeline.snapshots import label_of

_FILL_NAMESPACE: Final = uuid.UUID("5717a7c0-0000-4000-8000-000000000000")
"""Makes ids of filled-in commits from their ranges, so that a second rebuild makes the same."""

log = structlog.get_logger("rebuild")


@dataclass(frozen=True, slots=True)
class _Found:
    """One file that a commit made, as its footer tells.

    Attributes:
        path: where it is, placed or staged; empty if its rows are in a rewritten file, or gone with their hour.
        made: its footer.
        place: its table and hour.
        held: what a rewritten file holds of it.
    """

    path: str
    made: Made
    place: Place
    held: Source | None = None

    @property
    def commit(self) -> Commit:
        """Whose it is."""
        return self.made.commit

    @property
    def index(self) -> int:
        """Which of the commit's files it is."""
        return self.made.index

    @property
    def files(self) -> int:
        """How many files the commit made."""
        return self.made.files


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
        rewritten: files that were made of others.
        marks: hours below which tables hold nothing.
        below_marks: files of such hours that are there, in their grace period or late: seen until retention runs.
        to_link: rewritten files that had not got their names in their tables yet, by these names.
        in_grace: rewrites whose files count and do not stand in their tables yet; nothing of them is moved.
        taken_over: these in words.
        unfinished: rewrites that do not count, in words: what they were made of does.
        replacements: that were begun, and of which the catalog will hold nothing: the same command goes on.
        desk: what people decided, and who did what.
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
    rewritten: list[Output] = field(default_factory=list)
    marks: dict[str, str] = field(default_factory=dict)
    below_marks: list[str] = field(default_factory=list)
    to_link: dict[str, str] = field(default_factory=dict)
    in_grace: InGrace = field(default_factory=InGrace)
    taken_over: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    replacements: list[str] = field(default_factory=list)
    desk: copies.Copied = field(default_factory=copies.Copied)

    @property
    def files(self) -> int:
        """How many files the catalog will list."""
        return sum(len(files) for _, files in self.commits) + len(self.rewritten)


def plan_of(lake: Lake) -> Plan:
    """Read every footer and decide what becomes of each file; changes nothing.

    Raises:
        LakeDamagedError: files contradict each other, or one is missing that reading again cannot replace.
    """
    placed, others, unreadable = _read_all(lake, lake.final_files())
    in_tables = {Path(file.path).name for file in others}
    to_link = half_settled(lake, in_tables)
    others += [replace(file, path=final_path(file.path)) for file in _read_all(lake, map(Path, to_link.values()))[1]]
    staged, _, _ = _read_all(lake, lake.staged_files())  # a staged file that cannot be read was being written
    _check_unreadable(unreadable, placed)
    settled = sort_out(others)
    placed, needless = _without_held(placed, settled)
    plan = Plan(marks=read_marks(lake.root), to_quarantine=[*unreadable, *needless, *settled.needless])
    plan.to_quarantine = [path for path in plan.to_quarantine if path not in to_link]
    merged = _take_over(lake, plan, placed, settled, in_tables, to_link)
    placed, _ = _without_held(placed, merged)
    there = [(file.path, file.place) for file in placed] + [(file.path, file.place) for file in merged.kept]
    plan.below_marks = [path for path, place in there if is_below(place, plan.marks)]
    placed = [*placed, *_held(merged)]
    placed += _too_old(placed, plan.marks)
    placed_by_commit, staged_by_commit = _by_commit(placed), _by_commit(staged)
    plan.left_out = sorted(staged_by_commit.keys() - placed_by_commit.keys())
    plan.rewritten = [_output(lake, file, to_link.get(file.path, file.path)) for file in merged.kept]
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
    _add_merged_alerts(lake, plan)
    if plan.marks:
        _add_silent(lake, plan)
    plan.snapshots = _snapshots(lake, plan.offsets)
    plan.noted = read_notes(lake.root)
    plan.desk = copies.read(lake.root)
    for past in plan.noted.ranges:  # a partition that the live job has not landed anything of begins behind them
        log_of = Partition(past.topic, past.partition)
        if log_of not in partitions:
            plan.offsets[log_of] = max(past.next_offset, plan.offsets.get(log_of, 0))
    plan.replacements = sorted(unfinished(lake, {partition.topic for partition in plan.offsets}))
    return plan


def rebuild(lake: Lake, url: str, plan: Plan, now_us: int, by: str = "") -> None:
    """Carry a plan out.  Doing it again after a crash in its middle does what is left.

    Args:
        lake: whose files tell.
        url: of the catalog, which is empty.
        plan: that `plan_of` made.
        now_us: wall clock.
        by: who does it, for the record; empty: this process.

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
        link(lake, [(path, final) for final, path in plan.to_link.items()])
        lake.quarantine(plan.to_quarantine)
        copies.restore(catalog, plan.desk, plan.offsets)
        catalog.sources.fill(plan.noted.feeds, plan.noted.files, plan.noted.ranges)
        catalog.replace_all(
            plan.offsets, plan.commits, now_us, alerts=plan.alerts, snapshots=plan.snapshots,
            rewritten=plan.rewritten, marks=plan.marks, in_grace=plan.in_grace,
        )  # fmt: skip
        with catalog.transaction(write=True) as tx:
            details = {**_restored(plan), seals.WITHOUT_RECORD: seals.without_record(tx)}
            append(tx, Act(seals.REBUILT, by or f"{socket.gethostname()}:{os.getpid()}", details=details), now_us)
        copies.keep(lake.root, catalog, every_table=True)
    finally:
        catalog.close()
    log.info("catalog rebuilt", commits=len(plan.commits), files=plan.files)


def _take_over(  # what is there
    lake: Lake, plan: Plan, placed: Sequence[_Found], settled: Sorted, in_tables: set[str], to_link: Mapping[str, str]
) -> Sorted:
    """Plan for rewrites that are not settled; returns the rewritten files that count, with those of them."""
    read = {name: _read_all(lake, paths) for name, paths in unsettled_paths(lake, in_tables).items()}
    rewrites = [Unsettled(name, tuple(files), tuple(broken)) for name, (_, files, broken) in read.items()]
    made = {Of(file.commit.commit_id, file.place): file.path for file in placed}
    taken = take_over(settled, rewrites, made)
    for rewrite in taken.rewrites:
        plan.in_grace.inputs[rewrite.rewrite_id] = taken.made_of(rewrite, made, settled)
        plan.in_grace.made_by |= {file.said.file_id: rewrite.rewrite_id for file in rewrite.files}
    replaced = {path for paths in plan.in_grace.inputs.values() for path in paths}
    plan.in_grace.former = [
        (file.commit.commit_id, entry_of(lake.root / file.path, file.path)) for file in placed if file.path in replaced
    ]
    plan.in_grace.former_outputs = [_output(lake, file, to_link.get(file.path, file.path)) for file in taken.replaced]
    counting = [*taken.files.kept, *taken.replaced]
    plan.to_link = {file.path: to_link[file.path] for file in counting if file.path in to_link}
    plan.taken_over = sorted(rewrite.in_words() for rewrite in taken.rewrites)
    plan.unfinished = sorted(rewrite.in_words() for rewrite in taken.left)
    return taken.files


def _restored(plan: Plan) -> dict[str, int]:
    """What of the desk came back, for the record: a later act may be missing."""
    return {name: plan.desk.count(name) for name in (*copies.NUMBERED, "exceptions")}


def _read_all(lake: Lake, paths: Iterable[Path]) -> tuple[list[_Found], list[FoundRewritten], list[str]]:
    """Every readable file, those made of others apart, and the names of the unreadable ones."""
    found: list[_Found] = []
    rewritten: list[FoundRewritten] = []
    unreadable: list[str] = []
    for path in paths:
        try:
            said = said_by(read_footer(lake.root / path)[0])
            place = _place(path.as_posix())
        except (SchemaError, ValueError):
            unreadable.append(path.as_posix())
            continue
        if isinstance(said, Made):
            found.append(_Found(path.as_posix(), said, place))
        else:
            rewritten.append(FoundRewritten(path.as_posix(), place, said))
    return found, rewritten, unreadable


def _place(path: str) -> Place:
    """Table and hour of a file, placed or staged."""
    table, dt, hour = Path(_final(path) if path.startswith(f"{STAGING}/") else final_path(path)).parts[:3]
    return Place(table, dt.removeprefix("dt="), int(hour.removeprefix("hour=")))


def _without_held(placed: Sequence[_Found], merged: Sorted) -> tuple[list[_Found], list[str]]:
    """Files without those that rewritten ones stand for, and the paths of these."""
    held = {(commit_id, place) for commit_id, fate in merged.fates.of.items() for place in fate.held}
    kept = [file for file in placed if (file.commit.commit_id, file.place) not in held]
    return kept, [file.path for file in placed if (file.commit.commit_id, file.place) in held]


def _held(merged: Sorted) -> Iterator[_Found]:
    """What rewritten files stand for."""
    for fate in merged.fates.of.values():
        for place, source in fate.held.items():
            yield _Found("", source.made, place, source)


def _too_old(placed: Sequence[_Found], marks: Mapping[str, str]) -> Iterator[_Found]:
    """Files of the commits that are gone because their hours are."""
    there = {(file.commit.commit_id, file.place) for file in placed}
    for file in {file.commit.commit_id: file for file in placed}.values():
        for index, hour in enumerate(file.made.hours):
            place = Place(hour.table, hour.dt, hour.hour)
            if (file.commit.commit_id, place) not in there and is_below(place, marks):
                made = Made(file.commit, hour.table, index, file.files, file.made.hours)
                yield _Found("", made, place, Source(made, hour.rows, 0, hour.rows))


def _output(lake: Lake, file: FoundRewritten, path: str) -> Output:
    entry = entry_of(lake.root / path, final_path(file.path))
    return Output(file.said.file_id, replace(entry, path=file.path), spans_of(file.said))


def _check_unreadable(unreadable: Sequence[str], placed: Sequence[_Found]) -> None:
    """An unreadable file may only be of its partition's last commit, as its name tells; else its rows would be lost."""
    last: dict[str, int] = {}
    for file in placed:
        named = offset_in(Path(file.path).name)
        if named is not None:
            last[named[0]] = max(named[1], last.get(named[0], 0))
    for path in unreadable:
        if Path(path).name.startswith(REWRITTEN):
            raise LakeDamagedError(
                f"{path} cannot be read, and holds rows of many commits: bring it back from a copy, or move it out of "
                "the lake if the files that it was made of are still there"
            )
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
            if number < len(commits) - 1 or any(file.held for file in placed):  # read again, its merged rows were twice
                raise LakeDamagedError(_lost_in_words(commit, placed))
            plan.to_quarantine += [file.path for file in placed if file.path]
            break
        if commit.first_offset > at:
            plan.filled.append(_filling(partition, at, commit.first_offset))
            plan.commits.append((plan.filled[-1], []))
        entries = [entry_of(lake.root / file.path, file.path) for file in placed if file.path]
        entries += [entry_of(lake.root / file.path, _final(file.path)) for file in rest]
        _check_rows(commit, entries, [file for file in placed if file.held])
        plan.to_place += [_final(file.path) for file in rest]
        plan.commits.append((commit, entries))
        plan.alerts[commit.commit_id] = [
            alert
            for file in (*placed, *rest)
            if file.place.table == "alerts" and file.path
            for alert in _alerts(lake.root / file.path)
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
    return ", ".join(file.path or f"(in a rewritten file of {file.place.table})" for file in files)


def _filling(partition: Partition, first_offset: int, next_offset: int) -> Commit:
    name = json.dumps([*partition, first_offset, next_offset])
    commit_id = uuid.uuid5(_FILL_NAMESPACE, name).hex
    return Commit(
        commit_id, partition, first_offset, next_offset, events=0, rejects=0, committed_at_us=0, worker=REBUILT
    )


def _final(staged: str) -> str:
    """A staged file's final path: `_staging/<partition>/<commit>/<path>`."""
    return Path(*Path(staged).parts[3:]).as_posix()


def _add_merged_alerts(lake: Lake, plan: Plan) -> None:
    """Alerts of rewritten files, by the commits of their offsets."""
    spans: dict[Partition, list[Commit]] = defaultdict(list)
    for commit, _ in plan.commits:
        spans[commit.partition].append(commit)
    for output in plan.rewritten:
        if output.file.table_name == "alerts":
            for alert in _alerts(lake.root / plan.to_link.get(output.file.path, output.file.path)):
                commits = spans[alert.where]
                at = bisect.bisect_right([commit.first_offset for commit in commits], alert.offset) - 1
                plan.alerts.setdefault(commits[at].commit_id, []).append(alert)


def _alerts(path: Path) -> list[Alert]:
    return alerts_of(pq.read_table(path, partitioning=None).cast(ALERT_SCHEMA))


def _add_silent(lake: Lake, plan: Plan) -> None:
    """Of a partition all of whose files were too old, a snapshot still tells how far it was landed."""
    found: dict[Partition, int] = {}
    for path in lake.snapshot_files():
        with contextlib.suppress(SchemaError):
            label = label_of((lake.root / path).read_bytes())
            found[label.partition] = max(label.next_offset, found.get(label.partition, 0))
    for partition, offset in found.items():
        plan.offsets.setdefault(partition, offset)


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
    return [entry for entries in found.values() for entry in _newest(entries)]


def _newest(entries: Iterable[SnapshotEntry]) -> list[SnapshotEntry]:
    """The newest snapshots of a partition; of two at one offset the later: it lacks an account that was erased."""
    by_offset: dict[int, SnapshotEntry] = {}
    for entry in sorted(entries, key=lambda entry: (entry.created_at_us, len(entry.path))):
        by_offset[entry.next_offset] = entry
    return [by_offset[offset] for offset in sorted(by_offset)[-SNAPSHOTS_KEPT:]]


def _check_rows(commit: Commit, files: Sequence[FileEntry], elsewhere: Sequence[_Found]) -> None:
    for table, expected in (("access", commit.events), ("rejects", commit.rejects)):
        rows = sum(file.rows for file in files if file.table_name == table)
        rows += sum(file.held.rows + file.held.erased for file in elsewhere if file.held and file.place.table == table)
        if rows != expected:
            names = ", ".join(file.path for file in files)
            raise LakeDamagedError(
                f"{commit.partition}: {names} hold {counted(rows, 'row')} of table {table}, their footers "
                f"say {expected}"
            )
