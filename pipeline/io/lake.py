"""The lake's files: staged under names of their own, then renamed into place.

Staging is a folder beside the tables, so that no glob over a table ever sees a file before its commit.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from pipeline.batch import Partition
from pipeline.commits import SNAPSHOTS, Commit, FileEntry, PlacedFile, SnapshotEntry
from pipeline.counted import counted
from pipeline.errors import ConfigError, RetryableError, SchemaError
from pipeline.io.durable import sync_folders, write_for_good
from pipeline.io.footers import FOOTER_KEY, Hour, made_footer
from pipeline.io.landed import read_landed
from pipeline.io.parquet_files import ROW_GROUP_ROWS, parquet_writer
from pipeline.lake_tables import TABLE_SCHEMAS
from pipeline.land import Section
from pipeline.ports import Landed
from pipeline.snapshots import FORMAT as SNAPSHOT_FORMAT
from pipeline.snapshots import Label

_SNAPSHOT: Final = ".snapshot"
STAGING: Final = "_staging"
REWRITES: Final = "_rewrites"
"""Folder of files that were made of others, until no glob over a table would find both."""

_QUARANTINE: Final = "_quarantine"
_NAME: Final = re.compile(r"(?P<partition>.+-\d+)-(?P<first>\d{20})-\d{20}-(?P<commit>[0-9a-f]{32})\.parquet")
_TOPIC_CHARS_MAX: Final = 80
"""File names hold 255 bytes, and topic names alone up to 249."""


class Lake:
    """Parquet files below one folder of a local (or mounted) file system."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def open(cls, root: str, *, create: bool) -> Lake:
        """Open the lake in a folder.

        Raises:
            ConfigError: the folder is not there, or cannot be made.
        """
        if "://" in root:
            raise ConfigError(f"--lake {root}: object storage is not built yet; give a folder")
        path = Path(root).expanduser().absolute()
        try:
            if create:
                (path / STAGING).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--lake {path}: {error.strerror}") from error
        if not path.is_dir():
            raise ConfigError(f"--lake {path}: there is no such folder; `stillwatch run` or `backfill` makes it")
        return cls(path)

    def stage(self, commit: Commit, sections: Sequence[Section]) -> list[FileEntry]:
        """Write the files of a commit under their staging names, on disk for good when this returns.

        Raises:
            RetryableError: the disk is full or fails; whatever was staged is removed.
        """
        try:
            entries = [self._stage_one(commit, sections, index) for index in range(len(sections))]
            sync_folders({self.staged_path(commit, entry.path).parent for entry in entries}, self.root)
        except OSError as error:
            self.discard(commit)
            raise RetryableError(
                f"lake {self.root}: {error.strerror or error}; nothing is lost: these records are read again"
            ) from error
        return entries

    def stage_snapshot(self, commit: Commit, body: bytes) -> SnapshotEntry:
        """Write a commit's snapshot under its staging name, on disk for good when this returns.

        Raises:
            RetryableError: the disk is full or fails; what else is staged for the commit stays.
        """
        path = f"{self._snapshots_of(commit.partition)}/{commit.next_offset:020d}-{commit.commit_id}{_SNAPSHOT}"
        staged = self.staged_path(commit, path)
        with self._worth_another_try():
            staged.parent.mkdir(parents=True, exist_ok=True)
            write_for_good(staged, body, "wb")
            sync_folders([staged.parent], self.root)
        return _snapshot_entry(commit.partition, commit.next_offset, path, body, commit.committed_at_us)

    def place(self, commit: Commit, files: Iterable[PlacedFile]) -> None:
        """Rename a commit's staged files to their final paths; what is in place already is left alone.

        A snapshot that is in neither place is no error: newer ones may have made it needless since.

        Raises:
            SchemaError: a file is in neither place.
            RetryableError: the file system refuses.
        """
        try:
            folders = set()
            for file in files:
                final = self.root / file.path
                final.parent.mkdir(parents=True, exist_ok=True)
                folders.add(final.parent)
                with contextlib.suppress(FileNotFoundError):
                    self.staged_path(commit, file.path).replace(final)
                if not final.exists() and file.table_name != SNAPSHOTS:
                    raise SchemaError(
                        f"{final}: a committed file is gone; `stillwatch maintain verify` says what else is"
                    )
            sync_folders(folders, self.root)
            self.discard(commit)
        except OSError as error:
            raise RetryableError(f"lake {self.root}: {error.strerror or error}") from error

    def discard(self, commit: Commit) -> None:
        """Remove what is staged for a commit."""
        shutil.rmtree(self._staging_of(commit.partition) / commit.commit_id, ignore_errors=True)

    def leftovers(self, partition: Partition) -> list[str]:
        """Ids of a partition's commits that have something staged.

        Raises:
            RetryableError: the file system refuses.
        """
        try:
            return sorted(entry.name for entry in self._staging_of(partition).iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RetryableError(f"lake {self.root}: {error.strerror or error}") from error

    def sweep(self, partition: Partition, commit_ids: Iterable[str]) -> int:
        """Remove what is staged for these commits; says for how many there was something.

        Name only what `leftovers` named *before* the partition was taken over, after all pending commits are placed:
        those commits can never be made any more.  What was staged later may be the next owner's.
        """
        there = [self._staging_of(partition) / commit_id for commit_id in commit_ids]
        there = [folder for folder in there if folder.is_dir()]
        for folder in there:
            shutil.rmtree(folder, ignore_errors=True)
        return len(there)

    def write_snapshot(self, former: SnapshotEntry, body: bytes) -> SnapshotEntry:
        """Write another body of a snapshot beside it, for good when this returns; the former stays.

        Raises:
            RetryableError: the disk is full or fails.
        """
        name = f"{former.next_offset:020d}-{uuid.uuid4().hex[:8]}-{former.commit_id}{_SNAPSHOT}"
        path = f"{self._snapshots_of(former.partition)}/{name}"
        with self._worth_another_try():
            write_for_good(self.root / path, body, "xb")
            sync_folders([(self.root / path).parent], self.root)
        return _snapshot_entry(former.partition, former.next_offset, path, body, former.created_at_us)

    def snapshot_paths(self, partition: Partition) -> list[str]:
        """Snapshots of a partition that stand at their final paths, relative to the lake.

        Raises:
            RetryableError: the file system refuses.
        """
        folder = self._snapshots_of(partition)
        with self._worth_another_try():
            try:
                names = sorted(entry.name for entry in (self.root / folder).iterdir())
            except FileNotFoundError:
                return []
        return [f"{folder}/{name}" for name in names if name.endswith(_SNAPSHOT)]

    def remove_snapshots(self, paths: Iterable[str]) -> None:
        """Remove snapshots; what is gone already is no error.

        Raises:
            RetryableError: the file system refuses.
        """
        with self._worth_another_try():
            for path in paths:
                (self.root / path).unlink(missing_ok=True)

    def read_snapshot(self, snapshot: SnapshotEntry) -> bytes:
        """A snapshot's bytes, as they are on disk.

        Raises:
            SchemaError: there is no such file, or it is not what was written.
            RetryableError: the file system refuses.
        """
        with self._worth_another_try():
            try:
                body = (self.root / snapshot.path).read_bytes()
            except FileNotFoundError:
                raise SchemaError(f"{snapshot.path}: a snapshot that the catalog lists is gone") from None
        if len(body) != snapshot.bytes:
            raise SchemaError(f"{snapshot.path}: {counted(len(body), 'byte')}, expected {snapshot.bytes}")
        return body

    def read_events(self, commits: Sequence[Commit], files: Sequence[FileEntry]) -> Landed:
        """The events that commits landed; what cannot be read of them is named, and left out."""
        return read_landed(self.root, commits, files)

    def quarantine(self, paths: Iterable[str]) -> None:
        """Move files out of the tables, to where no glob over a table and no reader looks.

        Raises:
            RetryableError: the file system refuses.
        """
        try:
            folders = set()
            for path in paths:
                aside = self.root / _QUARANTINE / path
                aside.parent.mkdir(parents=True, exist_ok=True)
                (self.root / path).replace(aside)
                folders |= {aside.parent, (self.root / path).parent}
            sync_folders(folders, self.root)
        except OSError as error:
            raise RetryableError(f"lake {self.root}: {error.strerror or error}") from error

    def staged_files(self) -> Iterator[Path]:
        """Every staged Parquet file, as paths relative to the lake."""
        yield from self._files_below(STAGING)

    def snapshot_files(self) -> Iterator[Path]:
        """Every snapshot at its final path, as paths relative to the lake."""
        yield from self._files_below(SNAPSHOTS, _SNAPSHOT)

    def snapshot_entry(self, path: str, label: Label, body: bytes) -> SnapshotEntry:
        """What the catalog says of a snapshot, made out from the file.

        Args:
            path: relative to the lake.
            label: the snapshot's.
            body: its bytes.
        """
        created_at_us = (self.root / path).stat().st_mtime_ns // 1000
        return _snapshot_entry(label.partition, label.next_offset, path, body, created_at_us)

    def final_files(self) -> Iterator[Path]:
        """Every Parquet file below the tables, as paths relative to the lake."""
        for table in TABLE_SCHEMAS:
            yield from self._files_below(table)

    def _files_below(self, folder: str, suffix: str = ".parquet") -> Iterator[Path]:
        # Folders may go while they are listed, when a worker places what it has staged: os.walk passes over them.
        for parent, folders, names in os.walk(self.root / folder):
            folders.sort()
            for name in sorted(names):
                if name.endswith(suffix):
                    yield (Path(parent) / name).relative_to(self.root)

    def _stage_one(self, commit: Commit, sections: Sequence[Section], index: int) -> FileEntry:
        section = sections[index]
        hours = [Hour(one.table, one.dt, one.hour, len(one.rows)) for one in sections]
        path = f"{section.table}/dt={section.dt}/hour={section.hour:02d}/{_name(commit)}"
        content = _to_parquet(section, made_footer(commit, hours, index))
        staged = self.staged_path(commit, path)
        staged.parent.mkdir(parents=True, exist_ok=True)
        write_for_good(staged, content, "xb")
        return FileEntry(
            path=path,
            table_name=section.table,
            dt=section.dt,
            hour=section.hour,
            rows=len(section.rows),
            bytes=content.size,
            sha256=hashlib.sha256(content).hexdigest(),
            time_min_us=section.time_min_us,
            time_max_us=section.time_max_us,
        )

    def _snapshots_of(self, partition: Partition) -> str:
        return f"{SNAPSHOTS}/{_safe(partition.topic)}-{partition.number}"

    @contextlib.contextmanager
    def _worth_another_try(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RetryableError(f"lake {self.root}: {error.strerror or error}") from error

    def staged_snapshot(self, snapshot: SnapshotEntry) -> Path:
        """Where a snapshot stands until it is placed."""
        return self._staging_of(snapshot.partition) / snapshot.commit_id / snapshot.path

    def staged_path(self, commit: Commit, path: str) -> Path:
        """Where a commit's file stands until it is placed."""
        return self._staging_of(commit.partition) / commit.commit_id / path

    def _staging_of(self, partition: Partition) -> Path:
        return self.root / STAGING / f"{_safe(partition.topic)}-{partition.number}"


def _snapshot_entry(
    partition: Partition, next_offset: int, path: str, body: bytes, created_at_us: int
) -> SnapshotEntry:
    commit_id = Path(path).stem.rpartition("-")[2]
    digest = hashlib.sha256(body).hexdigest()
    return SnapshotEntry(partition, next_offset, commit_id, path, len(body), digest, SNAPSHOT_FORMAT, created_at_us)


def _to_parquet(section: Section, footer: dict[str, Any]) -> pa.Buffer:
    """One Parquet file in memory: sections are bounded, and its hash is of the very bytes that are written."""
    sink = pa.BufferOutputStream()
    with parquet_writer(sink, section.table, section.rows.schema, rows=len(section.rows)) as writer:
        writer.write_table(section.rows, row_group_size=ROW_GROUP_ROWS)
        writer.add_key_value_metadata({FOOTER_KEY: json.dumps(footer)})
    return sink.getvalue()


def _name(commit: Commit) -> str:
    span = f"{commit.first_offset:020d}-{commit.next_offset - 1:020d}"
    return f"{_safe(commit.partition.topic)}-{commit.partition.number}-{span}-{commit.commit_id}.parquet"


def final_path(path: str) -> str:
    """Where a rewritten file will stand: its path without `_rewrites/<rewrite>/`; of any other, its path."""
    parts = Path(path).parts
    return Path(*parts[2:]).as_posix() if parts[0] == REWRITES else path


def offset_in(name: str) -> tuple[str, int] | None:
    """The partition (in a form that only compares) and first offset in the name that `stage` gave a file, if it did."""
    match = _NAME.fullmatch(name)
    return None if match is None else (match["partition"], int(match["first"]))


def _safe(topic: str) -> str:
    """A topic's name as part of a file's, of Kafka's own letters; what had to be changed is told apart by its hash."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", topic)[:_TOPIC_CHARS_MAX].lstrip(".")
    return safe if safe == topic else f"{safe}~{hashlib.sha256(topic.encode()).hexdigest()[:12]}"
