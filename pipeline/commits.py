"""The words of the commit protocol: a claim on a partition, a commit, the files that it lists, a hole in the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pipeline.batch import Partition


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One Parquet file of the lake.

    Attributes:
        path: relative to the lake.
        table_name: the lake's table.
        dt: day of its rows, `YYYY-MM-DD`.
        hour: hour of its rows, 0 to 23.
        rows: how many.
        bytes: size.
        sha256: of the file's bytes, in hex.
        time_min_us: earliest event time, microseconds since the epoch; null where rows have none.
        time_max_us: latest event time.
    """

    path: str
    table_name: str
    dt: str
    hour: int
    rows: int
    bytes: int
    sha256: str
    time_min_us: int | None
    time_max_us: int | None


SNAPSHOTS: Final = "snapshots"
"""The lake's folder of snapshots; it is no table, and no glob over one sees it."""

SNAPSHOTS_KEPT: Final = 2
"""Snapshots of a partition that are kept: the last, and the one before it in case the last cannot be read."""


@dataclass(frozen=True, slots=True)
class SnapshotEntry:
    """One snapshot file: all that the analysis of a partition remembers at an offset.

    Attributes:
        partition: which.
        next_offset: it remembers all records below.
        commit_id: of the commit that it was taken at, which ends there.
        path: relative to the lake.
        bytes: size.
        sha256: of the file's bytes, in hex.
        format: version of the file's form.
        created_at_us: wall clock of the worker.
    """

    partition: Partition
    next_offset: int
    commit_id: str
    path: str
    bytes: int
    sha256: str
    format: int
    created_at_us: int

    @property
    def table_name(self) -> str:
        """Where it is kept, as a `FileEntry` says it."""
        return SNAPSHOTS


PlacedFile = FileEntry | SnapshotEntry
"""What a commit renames into place."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One step forward of one partition.

    Attributes:
        commit_id: a UUID in hex.
        partition: which partition moves.
        first_offset: where the offset stood.
        next_offset: where it stands afterwards.
        events: event rows between the two.
        rejects: reject rows between the two.
        committed_at_us: wall clock of the worker.
        worker: host and process.
    """

    commit_id: str
    partition: Partition
    first_offset: int
    next_offset: int
    events: int
    rejects: int
    committed_at_us: int
    worker: str


REBUILT: Final = "rebuilt: no file holds these offsets"
"""Stands for the worker of a commit that `maintain rebuild-catalog` filled in between the commits that it found."""


LOST: Final = "lost"
"""Kafka deleted these offsets before they were landed."""

REPLACED: Final = "replaced"
"""These offsets were landed; then the log was cut back (an unclean leader election), or the topic was made anew."""


@dataclass(frozen=True, slots=True)
class Hole:
    """Offsets whose records, as the topic has them, are not in the lake and never will be.

    Attributes:
        partition: where.
        first_offset: the first of them.
        next_offset: the first that is none of them.
        accepted: whether an operator has decided to go on without them.
        kind: `LOST` or `REPLACED`.
    """

    partition: Partition
    first_offset: int
    next_offset: int
    accepted: bool
    kind: str = LOST

    def __str__(self) -> str:
        return f"{self.partition.topic}:{self.partition.number}:{self.first_offset}-{self.next_offset - 1}"


@dataclass(frozen=True, slots=True)
class LogMark:
    """By what a log is known again: whether the records before an offset are still those that were read.

    Attributes:
        topic_id: Kafka's id of the topic, which is another when it was deleted and made anew; empty: not known.
        leader_epoch: Kafka's leader epoch of the last record before the offset; -1: not known.
    """

    topic_id: str = ""
    leader_epoch: int = -1


UNKNOWN_LOG: Final = LogMark()


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker's hold on a partition.

    Attributes:
        partition: which.
        next_offset: where reading goes on.
        epoch: how often the partition has been taken over; the highest is the owner's.
        mark: of the log up to `next_offset`.
    """

    partition: Partition
    next_offset: int
    epoch: int
    mark: LogMark = UNKNOWN_LOG


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that the catalog said at one moment.

    Attributes:
        offsets: where reading goes on.
        commits: by partition and offset.
        live: files that readers see, by commit.
        pending: files of commits whose files are not shown yet, by commit.
        holes: noticed so far.
        snapshots: of all partitions, those not placed yet among them.
        rewritten: files that readers see and that no commit made: `stillwatch maintain` made them of others.
        retired: paths of files that readers see no more and that stand there for a while.
        marks: by table, the hour below which it holds nothing any more, as `YYYY-MM-DDTHH`.
    """

    offsets: Mapping[Partition, int]
    commits: Sequence[Commit]
    live: Mapping[str, Sequence[FileEntry]]
    pending: Mapping[str, Sequence[FileEntry]]
    holes: Sequence[Hole]
    snapshots: Sequence[SnapshotEntry] = ()
    rewritten: Sequence[FileEntry] = ()
    retired: Sequence[str] = ()
    marks: Mapping[str, str] = field(default_factory=dict)

    def files(self) -> list[FileEntry]:
        """All files that readers see, by path."""
        made = [file for files in self.live.values() for file in files]
        return sorted([*made, *self.rewritten], key=lambda file: file.path)
