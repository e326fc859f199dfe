"""Does the lake hold what the catalog says, all of it, and nothing else?  What `stillwatch maintain verify` asks.

It changes nothing, and it may run while workers write.  What stands on disk is listed first and the catalog is read
second, at one moment: a file is committed before it is placed, so each file of the list that is not of the catalog's is
no worker's.  Files that appear later are left to the next inspection.
"""

from __future__ import annotations

import glob
import hashlib
import os
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

import duckdb
import pyarrow.parquet as pq

from pipeline.batch import Partition
from pipeline.commits import LOST, REBUILT, REPLACED, Commit, FileEntry, Hole, Manifest, SnapshotEntry
from pipeline.counted import counted
from pipeline.errors import SchemaError
from pipeline.io.catalog import Catalog
from pipeline.io.digests import sha256_of
from pipeline.io.footers import Made, Rewritten, read_footer, said_by
from pipeline.io.lake import REWRITES, Lake, final_path
from pipeline.io.rewriting.annex import unfinished
from pipeline.io.rewriting.held import Fate, Fates, Place
from pipeline.io.rewriting.ledger import RewriteLedger
from pipeline.io.rewriting.unsettled import unsettled_paths
from pipeline.lake_tables import TABLE_SCHEMAS, is_of
from pipeline.sources import FEED, PAST

_SHOWN_MAX: Final = 20
"""Of findings that may be millions, such as doubled offsets, this many are named."""

_OF_A_LOG: Final = f"^(?:{PAST}[0-9]+:(.*)|({FEED}[0-9a-f]{{32}})\\.[0-9a-f]{{8}})$"
"""Topics that stand for part of another: `past:1:access`, and slices of one file."""

_HOLE_IN_WORDS: Final = {
    LOST: "Kafka lost these offsets",
    REPLACED: "what was landed of these offsets is gone from the topic, or other records are there now",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    Attributes:
        kind: which check it comes from, in one word or two.
        subject: the file, commit or partition.
        detail: what is the matter, in words.
    """

    kind: str
    subject: str
    detail: str


@dataclass(slots=True)
class Inspection:
    """What an inspection saw.

    Attributes:
        files: live files in the catalog.
        bytes: their size.
        commits: in the catalog.
        partitions: in the catalog.
        events: event rows that commits speak of.
        rejects: reject rows that commits speak of.
        errors: what is wrong.
        notes: what is as it may be: commits under way, traces of workers that crashed.
    """

    files: int = 0
    bytes: int = 0
    commits: int = 0
    partitions: int = 0
    events: int = 0
    rejects: int = 0
    errors: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)


def inspect(lake: Lake, catalog: Catalog, *, quick: bool = False) -> Inspection:
    """Compare a lake with its catalog.

    Args:
        lake: the files.
        catalog: the catalog.
        quick: believe each file's bytes by their number and do not hash them.
    """
    placed = {path.as_posix() for path in lake.final_files()}
    staged = {path.as_posix() for path in lake.staged_files()}
    snapshots = {path.as_posix() for path in lake.snapshot_files()}
    rewrites = unsettled_paths(lake, {Path(path).name for path in placed})
    manifest = catalog.manifest()
    found = Inspection(
        files=len(manifest.files()),
        bytes=sum(file.bytes for file in manifest.files()),
        commits=len(manifest.commits),
        partitions=len(manifest.offsets),
        events=sum(commit.events for commit in manifest.commits),
        rejects=sum(commit.rejects for commit in manifest.commits),
    )
    chains: dict[Partition, list[Commit]] = {partition: [] for partition in manifest.offsets}
    for commit in manifest.commits:
        chains.setdefault(commit.partition, []).append(commit)
    for partition, commits in chains.items():
        found.errors += _check_chain(partition, commits, manifest)
    fates = _check_rewritten(lake, manifest, found, quick=quick)
    for commit in manifest.commits:
        _check_commit(lake, commit, manifest, fates, found, quick=quick)
    found.notes += _forgotten(manifest, fates)
    found.errors += _orphans(placed, manifest)
    found.notes += _leftovers(staged, manifest)
    found.notes += _unfinished_rewrites(lake, rewrites, RewriteLedger(catalog, "").known())
    found.notes += [
        Finding("replacement", name, "begun by `backfill --replace`: the same command goes on, `sweep` gives it up")
        for name in unfinished(lake, {partition.topic for partition in manifest.offsets})
    ]
    found.notes += [
        Finding("hole", str(hole), f"{_HOLE_IN_WORDS[hole.kind]}; nobody has accepted it yet")
        for hole in manifest.holes
        if not hole.accepted
    ]
    found.errors += _check_rows(lake, manifest)
    _check_snapshots(lake, catalog, snapshots, found)
    return found


# ---- commits


def _check_chain(partition: Partition, commits: Sequence[Commit], manifest: Manifest) -> Iterator[Finding]:
    """A partition's commits follow one another without overlap or gap, up to the catalog's offset."""
    holes = [hole for hole in manifest.holes if hole.partition == partition and hole.accepted and hole.kind == LOST]
    at: int | None = None
    for commit in commits:
        if at is not None and commit.first_offset < at:
            yield Finding(
                "overlap", str(partition), f"commit {_named(commit)} begins before the one before it ends, at {at}"
            )
        elif at is not None:
            yield from _check_gap(partition, at, commit.first_offset, holes)
        at = max(at or 0, commit.next_offset)
    stands = manifest.offsets.get(partition)
    if stands is None:
        yield Finding("offset", str(partition), "it has commits, but the catalog has no offset for it")
    elif at is not None and at > stands:
        yield Finding("offset", str(partition), f"its commits reach {at}, but the catalog's offset is {stands}")
    elif at is not None:
        yield from _check_gap(partition, at, stands, holes)


def _check_gap(partition: Partition, at: int, to: int, holes: Sequence[Hole]) -> Iterator[Finding]:
    for hole in sorted(holes, key=lambda hole: hole.first_offset):
        if hole.first_offset == at and hole.next_offset <= to:
            at = hole.next_offset
    if at < to:
        yield Finding("gap", str(partition), f"offsets {at} to {to - 1} are in no commit and no accepted hole")


def _check_commit(  # all that an inspection knows
    lake: Lake, commit: Commit, manifest: Manifest, fates: Fates, found: Inspection, *, quick: bool
) -> None:
    """A commit's files are there and hold its rows."""
    live, pending = manifest.live.get(commit.commit_id, []), manifest.pending.get(commit.commit_id, [])
    if live and pending:
        found.errors.append(
            Finding(
                "half live",
                _named(commit),
                f"{counted(len(live), 'file is', 'files are')} shown, {counted(len(pending), 'is', 'are')} not",
            )
        )
    if pending:
        found.notes.append(
            Finding(
                "pending",
                _named(commit),
                f"{counted(len(pending), 'file')}, not shown yet; whoever reads on finishes it",
            )
        )
    if commit.worker == REBUILT:
        found.notes.append(
            Finding("rebuilt", _named(commit), "no file holds these offsets: markers, a hole, or lost files")
        )
    for file in [*live, *pending]:
        # A worker may be moving a pending file, and only ever moves it this way.
        paths = (
            [lake.root / file.path] if file in live else [lake.staged_path(commit, file.path), lake.root / file.path]
        )
        found.errors += _check_file(paths, file, commit, fates, quick=quick)
    fate = fates.of.get(commit.commit_id, Fate())
    found.errors += _check_fate(commit, [*live, *pending], fate, manifest)


def _check_fate(commit: Commit, files: Sequence[FileEntry], fate: Fate, manifest: Manifest) -> Iterator[Finding]:
    """All rows that a commit landed are there, but for those that were erased or are too old."""
    forgotten = _forgotten_tables(commit, files, fate, manifest)
    gone = fate.retained(manifest.marks)
    for table, expected in (("access", commit.events), ("rejects", commit.rejects)):
        rows = sum(file.rows for file in files if file.table_name == table)
        rows += sum(held.rows + held.erased for place, held in fate.held.items() if place.table == table)
        rows += sum(count for place, count in gone.items() if place.table == table)
        if rows != expected and table not in forgotten:
            yield Finding("rows", _named(commit), f"table {table} has {rows} of its rows, expected {expected}")
    listed = len(files) + len(fate.held) + len(gone)
    if fate.made is not None and fate.made.files != listed:
        yield Finding(
            "files",
            _named(commit),
            f"its footers speak of {counted(fate.made.files, 'file')}, the catalog accounts for {listed}",
        )
    for words in fate.lost(manifest.marks) if len(fate.in_place) == len(files) else ():
        yield Finding("rows", _named(commit), words)


def _forgotten_tables(commit: Commit, files: Sequence[FileEntry], fate: Fate, manifest: Manifest) -> set[str]:
    """Tables of which a commit had rows that may all have been too old: nothing is left that says of which hours.

    As long as any file of a commit is there, its footer tells the hours of all others, and each must be below its
    table's mark.  Where none is, a table without a mark excuses nothing.
    """
    if files or fate.held or commit.worker == REBUILT:
        return set()
    had = {"access": commit.events, "rejects": commit.rejects}
    return {table for table, rows in had.items() if rows and table in manifest.marks}


def _forgotten(manifest: Manifest, fates: Fates) -> Iterator[Finding]:
    """Commits of which nothing is left to tell what they had."""
    counts: dict[Partition, int] = {}
    for commit in manifest.commits:
        files = [*manifest.live.get(commit.commit_id, []), *manifest.pending.get(commit.commit_id, [])]
        fate = fates.of.get(commit.commit_id, Fate())
        if _forgotten_tables(commit, files, fate, manifest):
            counts[commit.partition] = counts.get(commit.partition, 0) + 1
    for partition, count in counts.items():
        yield Finding("retained", str(partition), f"{counted(count, 'commit')} of which retention has left no file")


# ---- rewritten files


def _check_rewritten(lake: Lake, manifest: Manifest, found: Inspection, *, quick: bool) -> Fates:
    """Files that were made of others are what the catalog says; returns what they hold of each commit."""
    fates, read = Fates(), []
    for file in manifest.rewritten:
        try:
            with _open_moved(lake, file.path) as content:
                found.errors += _check_bytes(content, file, quick=quick)
                footer, metadata = read_footer(content)
                said = said_by(footer)
        except FileNotFoundError:
            found.errors.append(Finding("missing", file.path, "the catalog lists it, but there is no such file"))
            continue
        except (SchemaError, OSError) as error:
            found.errors.append(Finding("unreadable", file.path, str(error)))
            continue
        if not isinstance(said, Rewritten):
            found.errors.append(Finding("footer", file.path, "it was made by a commit, the catalog says of others"))
            continue
        found.errors += _check_shape(file, said.table, metadata)
        if sum(source.rows for source in said.sources) != file.rows:
            found.errors.append(Finding("rows", file.path, "its footer speaks of more or fewer rows than it has"))
        read.append((Place(file.table_name, file.dt, file.hour), said))
    fates.add_rewritten(read)
    return fates


def _open_moved(lake: Lake, path: str) -> BinaryIO:
    """Open a rewritten file, which may be getting its final path meanwhile."""
    try:
        return (lake.root / path).open("rb")
    except FileNotFoundError:
        return (lake.root / final_path(path)).open("rb")


# ---- files


def _check_file(paths: Sequence[Path], file: FileEntry, commit: Commit, fates: Fates, *, quick: bool) -> list[Finding]:
    """A file is at one of its places, and what the catalog says it is."""
    for path in paths:
        try:
            with path.open("rb") as content:
                return list(_check_content(content, file, commit, fates, quick=quick))
        except FileNotFoundError:
            continue
        except OSError as error:
            return [Finding("unreadable", file.path, str(error))]
    return [Finding("missing", file.path, f"commit {_named(commit)} lists it, but there is no such file")]


def _check_content(
    content: BinaryIO, file: FileEntry, commit: Commit, fates: Fates, *, quick: bool
) -> Iterator[Finding]:
    wrong = _check_bytes(content, file, quick=quick)
    yield from wrong
    if not wrong:
        try:
            yield from _check_footer(file, commit, fates, *read_footer(content))
        except SchemaError as error:
            yield Finding("unreadable", file.path, str(error))


def _check_bytes(content: BinaryIO, file: FileEntry, *, quick: bool) -> list[Finding]:
    size = os.fstat(content.fileno()).st_size
    if size != file.bytes:
        return [Finding("size", file.path, f"{counted(size, 'byte')}, expected {file.bytes:,}")]
    if not quick and sha256_of(content) != file.sha256:
        return [Finding("checksum", file.path, "its bytes are not those that were written")]
    return []


def _check_footer(
    file: FileEntry, commit: Commit, fates: Fates, footer: dict[str, Any], metadata: pq.FileMetaData
) -> Iterator[Finding]:
    told = said_by(footer)
    if not isinstance(told, Made):
        yield Finding("footer", file.path, f"it was made of others, the catalog says by commit {_named(commit)}")
        return
    if told.commit != commit:
        yield Finding(
            "footer", file.path, f"its footer speaks of commit {_named(told.commit)}, the catalog of {_named(commit)}"
        )
    else:
        fates.add_made(told, Place(file.table_name, file.dt, file.hour), metadata.num_rows)
    yield from _check_shape(file, told.table, metadata)


def _check_shape(file: FileEntry, table: str, metadata: pq.FileMetaData) -> Iterator[Finding]:
    """A file has the rows and the columns that it should have."""
    if table != file.table_name:
        yield Finding("footer", file.path, f"its footer says table {table}, the catalog says table {file.table_name}")
    if metadata.num_rows != file.rows:
        yield Finding("rows", file.path, f"{counted(metadata.num_rows, 'row')}, expected {file.rows}")
    expected = TABLE_SCHEMAS.get(file.table_name)
    if expected is None:
        yield Finding("schema", file.path, f"there is no table {file.table_name}")
        return
    schema = metadata.schema.to_arrow_schema()
    bent = [
        name
        for name in schema.names
        if name not in expected.names or not is_of(schema.field(name).type, expected.field(name).type)
    ]
    if bent:
        yield Finding("schema", file.path, f"columns that its table does not have so: {', '.join(bent)}")


def _check_snapshots(lake: Lake, catalog: Catalog, placed: Iterable[str], found: Inspection) -> None:
    """Snapshots are what was written; the catalog is asked anew, for workers forget and remove them all the time."""
    known = catalog.manifest().snapshots
    bad = [error for snapshot in known for error in _check_snapshot(lake, snapshot)]
    still_known = {snapshot.path for snapshot in catalog.manifest().snapshots} if bad else set()
    found.errors += [error for error in bad if error.subject in still_known]
    for path in sorted(set(placed) - {snapshot.path for snapshot in known}):
        found.notes.append(
            Finding("snapshot", path, "the catalog does not list it; the partition's next owner removes it")
        )


def _check_snapshot(lake: Lake, snapshot: SnapshotEntry) -> Iterator[Finding]:
    harmless = "; the partition's next owner replays more of the lake instead"
    if lake.staged_snapshot(snapshot).exists():  # of a commit under way, or left half done
        return
    try:
        body = lake.read_snapshot(snapshot)
    except SchemaError as error:
        yield Finding("snapshot", snapshot.path, f"{error}{harmless}")
        return
    if hashlib.sha256(body).hexdigest() != snapshot.sha256:
        yield Finding("snapshot", snapshot.path, f"its bytes are not those that were written{harmless}")


def _orphans(placed: Iterable[str], manifest: Manifest) -> Iterator[Finding]:
    """Files below the tables that no commit lists."""
    listed = {file.path for files in (*manifest.live.values(), *manifest.pending.values()) for file in files}
    listed |= {*manifest.retired, *(final_path(file.path) for file in manifest.rewritten)}
    listed |= {final_path(path) for path in manifest.retired}
    for path in sorted(set(placed) - listed):
        yield Finding("orphan", path, "no commit lists this file, but a glob over the table reads it")


def _leftovers(staged: Iterable[str], manifest: Manifest) -> Iterator[Finding]:
    """Staged files of no pending commit: a worker is writing them, or was when it crashed."""
    by_commit: dict[str, int] = {}
    for path in staged:
        commit_id = Path(path).parts[2]
        by_commit[commit_id] = by_commit.get(commit_id, 0) + 1
    for commit_id, count in sorted(by_commit.items()):
        if commit_id not in manifest.pending:
            yield Finding(
                "staged",
                commit_id,
                f"{counted(count, 'file')}, committed by nobody; the partition's next owner removes them",
            )


def _unfinished_rewrites(lake: Lake, rewrites: Iterable[str], known: Collection[str]) -> Iterator[Finding]:
    """Folders of rewrites that the catalog does not list; one that has ended since is gone."""
    for name in rewrites:
        if name not in known and (lake.root / REWRITES / name).exists():
            yield Finding(
                "unfinished",
                f"{REWRITES}/{name}",
                "the catalog does not list this rewrite, so what it was made of counts: was it an erasure, run "
                "`maintain erase` again; `maintain sweep` removes it",
            )


# ---- rows


def _check_rows(lake: Lake, manifest: Manifest) -> Iterator[Finding]:
    """What a plain glob reads: each record once, and in a file whose commit spans its offset."""
    spans = {commit.commit_id: commit for commit in manifest.commits}
    owner = {
        file.path: spans[commit_id]
        for commit_id, files in manifest.live.items()
        if commit_id in spans
        for file in files
    }
    settling = [str(lake.root / final_path(path)) for path in _unsettled(manifest)]
    globs = {table: _glob(lake, table) for table in TABLE_SCHEMAS if any((lake.root / table).rglob("*.parquet"))}
    with tempfile.TemporaryDirectory(prefix="stillwatch-") as spill:
        connection = duckdb.connect(config={"temp_directory": spill})
        try:
            # A record is an event or a reject, and has at most one row of text.
            for tables in (("access", "rejects"), ("content",)):
                yield from _doubled(connection, [globs[table] for table in tables if table in globs], settling)
            for files in globs.values():
                yield from _strayed(connection, lake, files, owner)
        except duckdb.Error as error:
            yield Finding("unreadable", str(lake.root), f"a glob over the tables fails: {str(error).splitlines()[0]}")
        finally:
            connection.close()


def _glob(lake: Lake, table: str) -> str:
    return f"{glob.escape(str(lake.root / table))}/**/*.parquet"


def _unsettled(manifest: Manifest) -> list[str]:
    """Rewritten files that are not in their tables yet; while they get there, a glob may see them and their inputs."""
    every = [*(file.path for file in manifest.rewritten), *manifest.retired]
    return [path for path in every if path.startswith(f"{REWRITES}/")]


def _doubled(connection: duckdb.DuckDBPyConnection, globs: Sequence[str], settling: Sequence[str]) -> Iterator[Finding]:
    if not globs:
        return
    # a past range is landed under a topic of its own, but is of the same log, and so is a slice of a file
    rows = " UNION ALL ".join(
        f"SELECT regexp_replace(topic, '{_OF_A_LOG}', '\\1\\2') AS topic, partition, \"offset\" "  # noqa: S608
        "FROM read_parquet(?, filename = true, hive_partitioning = false, union_by_name = true) "
        "WHERE filename NOT IN (SELECT unnest(?::VARCHAR[]))"
        for _ in globs
    )
    query = f"SELECT *, count(*) AS times FROM ({rows}) GROUP BY ALL HAVING times > 1 ORDER BY ALL LIMIT {_SHOWN_MAX}"  # noqa: S608
    given = [argument for files in globs for argument in (files, list(settling))]
    for topic, number, offset, times in connection.execute(query, given).fetchall():
        yield Finding("doubled", str(Partition(topic, number)), f"offset {offset} is there {counted(times, 'time')}")


def _strayed(
    connection: duckdb.DuckDBPyConnection, lake: Lake, files: str, owner: dict[str, Commit]
) -> Iterator[Finding]:
    """Rows of another partition or of offsets beyond their file's commit."""
    query = (
        'SELECT filename, topic, partition, min("offset"), max("offset") '
        "FROM read_parquet(?, filename = true, hive_partitioning = false, union_by_name = true) GROUP BY ALL"
    )
    for name, topic, number, low, high in connection.execute(query, [files]).fetchall():
        path = Path(name).relative_to(lake.root).as_posix()
        commit = owner.get(path)
        if commit is None:
            continue
        inside = commit.first_offset <= low and high < commit.next_offset
        if commit.partition != (topic, number) or not inside:
            yield Finding(
                "stray rows", path, f"rows of {Partition(topic, number)}, offsets {low} to {high}, in {_named(commit)}"
            )


def _named(commit: Commit) -> str:
    return f"{commit.partition} {commit.first_offset}-{commit.next_offset - 1} ({commit.commit_id})"
