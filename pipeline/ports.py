"""What the stream needs of the world around it; `pipeline.io` provides it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from pipeline.alerts import Alert
from pipeline.batch import Partition, Records
from pipeline.commits import Claim, Commit, FileEntry, Hole, LogMark, PlacedFile, SnapshotEntry
from pipeline.decisions import Verdict
from pipeline.land import Section


@dataclass(frozen=True, slots=True)
class Assigned:
    """These partitions are this member's from now on; they wait for `Source.read_from`."""

    partitions: Sequence[Partition]


@dataclass(frozen=True, slots=True)
class Gone:
    """These partitions are this member's no more."""

    partitions: Sequence[Partition]


@dataclass(frozen=True, slots=True)
class OutOfRange:
    """The log does not hold the offset that was to be read next, or no longer the records that were read before it.

    The partition stands paused until `Source.read_from`.
    """

    partition: Partition


@dataclass(frozen=True, slots=True)
class Polled:
    """What one poll brought: first what happened to the partitions, in order, then records."""

    events: Sequence[Assigned | Gone | OutOfRange]
    records: Sequence[Records]


@dataclass(frozen=True, slots=True)
class LogState:
    """What a partition's log held at one moment.

    Attributes:
        first: offset of the first record that it still holds.
        end: the offset after its last readable record.
        topic_id: Kafka's id of the topic; empty: the broker tells none.
        agrees_to: where it ends to be the log whose last record was of the leader epoch asked for; None: not known.
    """

    first: int
    end: int
    topic_id: str = ""
    agrees_to: int | None = None


class Survey(Protocol):
    """A question to Kafka about a partition's log, asked and not waited for."""

    def result(self) -> LogState | None:
        """The answer, or None while there is none yet.

        Raises:
            RetryableError: none came in time, or an error: ask again.
        """


class Source(Protocol):
    """A member of a consumer group; `pipeline.io.kafka.KafkaSource`."""

    @property
    def address(self) -> str:
        """Where its brokers are asked for, in words for people."""

    @property
    def silent_s(self) -> float:
        """How long polls have waited by now without an answer from any broker; 0 once one answers."""

    def poll(self, timeout_s: float) -> Polled:
        """Wait for records; while no broker answers there are none, which is no error."""

    def survey(self, partition: Partition, leader_epoch: int) -> Survey:
        """Ask what the log holds; does not wait.

        Args:
            partition: which.
            leader_epoch: of the last record that was read; -1: not known.
        """

    def read_from(self, partition: Partition, offset: int, leader_epoch: int) -> bool:
        """Begin, or begin again, to read a partition at an offset; false if it is no longer this member's.

        Args:
            partition: which.
            offset: where.
            leader_epoch: of the record before it, so that a log with another one there is noticed; -1: not known.
        """

    def position(self, partition: Partition) -> int | None:
        """Offset of the next record that `poll` would return; None if the partition is no longer this member's."""

    def leader_epoch(self, partition: Partition, offset: int) -> int:
        """Leader epoch of the last record before an offset, if `position` stands there; else -1: not known."""

    def pause(self, partitions: Iterable[Partition]) -> None:
        """Fetch nothing of these partitions, but keep them."""

    def resume(self, partitions: Iterable[Partition]) -> None:
        """Fetch of these partitions again."""

    def hint(self, offsets: Mapping[Partition, int]) -> None:
        """Tell Kafka's lag tools how far the lake is."""

    def lag(self, partitions: Iterable[Partition]) -> int | None:
        """Records that the brokers hold beyond the positions; None where that is not known now."""


class FiniteSource(Source, Protocol):
    """A source that ends, such as files or a past range of a log.

    Attributes:
        exhausted: whether all of it was polled.
        passed: records that are behind, those among them that were landed before.
    """

    exhausted: bool

    @property
    def passed(self) -> int:
        """See above."""

    def first_offset(self, partition: Partition) -> int:
        """Where a partition begins."""


@dataclass(frozen=True, slots=True)
class Landed:
    """Events of commits, read back from the lake.

    Attributes:
        events: `pipeline.events.DECODED_SCHEMA`, in offset order, as they were when they were landed.
        missing: files of theirs that are gone or cannot be read, and what else is known not to be there, in words.
    """

    events: pa.Table
    missing: Sequence[str] = ()


class Storage(Protocol):
    """The lake's files; `pipeline.io.lake.Lake`."""

    def stage(self, commit: Commit, sections: Sequence[Section]) -> list[FileEntry]:
        """Write files under staging names, for good."""

    def stage_snapshot(self, commit: Commit, body: bytes) -> SnapshotEntry:
        """Write a snapshot under its staging name, for good."""

    def place(self, commit: Commit, files: Iterable[PlacedFile]) -> None:
        """Rename staged files to their final paths."""

    def discard(self, commit: Commit) -> None:
        """Remove what is staged for a commit."""

    def leftovers(self, partition: Partition) -> Sequence[str]:
        """Commits of a partition that have something staged."""

    def sweep(self, partition: Partition, commit_ids: Iterable[str]) -> int:
        """Remove what is staged for these commits; says for how many there was something."""

    def snapshot_paths(self, partition: Partition) -> Sequence[str]:
        """Snapshots of a partition that stand at their final paths."""

    def remove_snapshots(self, paths: Iterable[str]) -> None:
        """Remove snapshots; what is gone already is no error."""

    def read_snapshot(self, snapshot: SnapshotEntry) -> bytes:
        """A snapshot's bytes, as they are on disk."""

    def read_events(self, commits: Sequence[Commit], files: Sequence[FileEntry]) -> Landed:
        """The events that commits of one partition landed, one after the other; at least one."""


class Ledger(Protocol):
    """Offsets and the files behind them; `pipeline.io.catalog.Catalog`."""

    def take(self, partition: Partition) -> Claim | None:
        """Take a partition over."""

    def start_at(self, partition: Partition, offset: int, mark: LogMark) -> Claim:
        """Take over a partition that was never read."""

    def offsets(self) -> Mapping[Partition, int]:
        """Where reading goes on, for every partition ever read."""

    def commit(  # noqa: PLR0913  # all that happens at once, or not at all
        self,
        commit: Commit,
        epoch: int,
        files: Sequence[FileEntry],
        mark: LogMark,
        *,
        alerts: Sequence[Alert],
        orgs: Mapping[str, str],
        snapshot: SnapshotEntry | None,
        verdict_seq: int | None,
    ) -> None:
        """Move the offset, with the log's mark there, and keep files, alerts, snapshot and verdict mark, or nothing.

        `orgs`: the alerts' accounts' organisations, as far as they are known.
        """

    def verdicts_after(self, seq: int) -> Sequence[Verdict]:
        """The verdicts after a place, in their order: the next ones, if there are very many."""

    def verdict_marks(self, partition: Partition) -> Sequence[tuple[int, int]]:
        """At which offsets a partition's models took verdicts in, and up to which one, in offset order."""

    def publish(self, commit_id: str) -> None:
        """Show a commit's files to readers."""

    def pending(self, partition: Partition | None = None) -> dict[Commit, list[PlacedFile]]:
        """Commits whose files are not shown yet."""

    def commits_since(self, partition: Partition, offset: int) -> list[Commit]:
        """A partition's commits that pass an offset or later ones, in offset order."""

    def files_of(self, commits: Sequence[Commit]) -> list[FileEntry]:
        """The files that hold rows of commits of one partition, and maybe rows of others; at least one commit."""

    def snapshots(self, partition: Partition) -> list[SnapshotEntry]:
        """A partition's snapshots, the newest first."""

    def note_hole(self, partition: Partition, first_offset: int, next_offset: int, now_us: int, kind: str) -> Hole:
        """Record that the lake does not hold what the topic holds, or held, at these offsets."""

    def accept_hole(self, hole: Hole, now_us: int) -> None:
        """Move the offset past a hole, and forget the log's mark."""

    def holes(self) -> list[Hole]:
        """Every hole that was ever noticed."""


class Clock(Protocol):
    """Time; `pipeline.io.clock.SystemClock`."""

    def now_us(self) -> int:
        """Wall clock, microseconds since the epoch: for records of what was done when, never for decisions."""

    def elapsed_s(self) -> float:
        """A clock that never jumps."""

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
