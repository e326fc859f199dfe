"""From what is on disk to an analysis that knows all that is landed: a snapshot, and the events since, from the lake.

A snapshot is taken now and then and not at each commit.  What came after it is replayed from the lake's own files, the
results thrown away, for they are landed already; by the law that nothing depends on how events are cut, the analysis
then is what it would have been without the interruption.  Kafka is not asked for anything.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
import structlog

from pipeline.analysis import Analysis, Watch
from pipeline.batch import Partition
from pipeline.commits import Commit
from pipeline.errors import SchemaError
from pipeline.ports import Clock, Landed, Ledger, Storage
from pipeline.watching import Watched, WatchLimits

PIECE_EVENTS: Final = 50_000
"""Events at most that are replayed before polling goes on; a commit's are always replayed together."""

PIECE_COMMITS: Final = 1_000
"""Commits at most that are replayed together: a database takes only so many values in one question."""

READ_AGAIN_MAX: Final = 5
"""Files are replaced by merged ones now and then, not all the time."""

log = structlog.get_logger("stream")


@dataclass(slots=True)
class Restoring:
    """An analysis on its way; kept over tries.

    Attributes:
        analysis: as far as it is.
        left: commits to replay.
        marks: offsets where verdicts were taken in, and up to which, that are yet to come.
        since_s: when it began, by `Clock.elapsed_s`.
        base: offset of the snapshot that it began with; None without one.
        found: whether there was anything to begin with or to replay.
        replayed: events so far.
    """

    analysis: Analysis
    left: deque[Commit]
    marks: deque[tuple[int, int]]
    since_s: float
    base: int | None
    found: bool
    replayed: int = 0


class Restorer:
    """Restores analyses, a piece at a time."""

    def __init__(self, storage: Storage, ledger: Ledger, clock: Clock, watch: Watch, limits: WatchLimits) -> None:
        self._storage, self._ledger, self._clock = storage, ledger, clock
        self._watch, self._limits = watch, limits

    def begin(self, partition: Partition, offset: int) -> Restoring:
        """Take the newest snapshot that can be read, and find out what to replay on top of it.

        The partition must be this worker's, and all that its former owner left be finished.

        Args:
            partition: which.
            offset: where reading goes on.  What lies beyond is another worker's, who has taken the partition over
                since; this one learns of that at its next commit.

        Raises:
            RetryableError: the lake or the catalog fails.
        """
        sweep_snapshots(self._storage, self._ledger, partition)
        analysis = self._newest(partition, offset)
        base = None if analysis is None else analysis.next_offset
        since = self._ledger.commits_since(partition, base or 0)
        commits = [commit for commit in since if commit.next_offset <= offset]
        left = self._bounded(partition, commits)
        analysis = analysis or Analysis(partition, self._watch)
        marks = deque(mark for mark in self._ledger.verdict_marks(partition) if mark[0] <= offset)
        return Restoring(analysis, left, marks, self._clock.elapsed_s(), base, found=base is not None or bool(commits))

    def advance(self, partition: Partition, restoring: Restoring) -> Watched | None:
        """Replay a piece.

        Returns:
            The analysis, ready for the next event; None while there is more to replay.

        Raises:
            RetryableError: the lake or the catalog fails.
        """
        self._judge(restoring)
        self._replay(partition, restoring, _piece(restoring.left, restoring.marks))
        if restoring.left:
            return None
        self._judge(restoring)
        now_s = self._clock.elapsed_s()
        if restoring.found:
            log.info(
                "analysis restored", partition=str(partition), snapshot=restoring.base, replayed=restoring.replayed,
                accounts=restoring.analysis.accounts, seconds=round(now_s - restoring.since_s, 1),
            )  # fmt: skip
        based = restoring.base is not None or not restoring.found
        return Watched(restoring.analysis, self._limits, now_s, ahead=restoring.replayed, based=based)

    def _newest(self, partition: Partition, offset: int) -> Analysis | None:
        for entry in self._ledger.snapshots(partition):
            if entry.next_offset > offset:
                continue
            try:
                blob = self._storage.read_snapshot(entry)
                return Analysis.restore(partition, self._watch, blob, entry.next_offset)
            except SchemaError as error:
                log.warning(
                    "a snapshot cannot be used: an older one, or none, and more events from the lake make up for it",
                    partition=str(partition),
                    path=entry.path,
                    reason=str(error),
                )
        return None

    def _bounded(self, partition: Partition, commits: list[Commit]) -> deque[Commit]:
        """The last commits, of no more events together than may be replayed."""
        kept: deque[Commit] = deque()
        events = 0
        for commit in reversed(commits):
            events += commit.events
            if events > self._limits.replay_events_max:
                log.warning(
                    "not all events are replayed: what accounts did before is not known to the analysis",
                    partition=str(partition),
                    from_offset=commit.next_offset,
                    replay_events_max=self._limits.replay_events_max,
                    left_out=sum(other.events for other in commits) - events + commit.events,
                )
                break
            kept.appendleft(commit)
        return kept

    def _replay(self, partition: Partition, restoring: Restoring, commits: list[Commit]) -> None:
        """Replay commits together: merged files hold many, and are read once for all of them."""
        of_events = [commit for commit in commits if commit.events]
        if of_events:
            landed = self._read(of_events)
            if landed.missing:
                log.warning(
                    "events that are replayed are not all there; going on with those that are",
                    partition=str(partition),
                    first_offset=of_events[0].first_offset,
                    next_offset=of_events[-1].next_offset,
                    missing=", ".join(landed.missing),
                )
            known = np.searchsorted(landed.events["offset"].to_numpy(), restoring.analysis.next_offset)
            restoring.analysis.step(landed.events.slice(int(known)))
        for commit in commits:
            restoring.analysis.pass_to(commit.next_offset)
            restoring.replayed += commit.events
            restoring.left.popleft()

    def _judge(self, restoring: Restoring) -> None:
        """Take verdicts in where they were taken in before; of commits that are not replayed, before the first one."""
        analysis = restoring.analysis
        reached = restoring.left[0].first_offset if restoring.left else None
        while restoring.marks and (reached is None or restoring.marks[0][0] <= reached):
            _, up_to = restoring.marks.popleft()
            if up_to <= analysis.verdict_seq:  # the snapshot knows them
                continue
            while verdicts := [v for v in self._ledger.verdicts_after(analysis.verdict_seq) if v.seq <= up_to]:
                analysis.judge(verdicts)

    def _read(self, commits: list[Commit]) -> Landed:
        """Read events; again where files have been replaced by others while they were read."""
        files = self._ledger.files_of(commits)
        landed = self._storage.read_events(commits, files)
        for _ in range(READ_AGAIN_MAX):
            if not landed.missing or (listed := self._ledger.files_of(commits)) == files:
                break
            files, landed = listed, self._storage.read_events(commits, listed)
        return landed


def _piece(left: deque[Commit], marks: deque[tuple[int, int]]) -> list[Commit]:
    """The next commits that are replayed together: as many as come to a piece's events, and one at least.

    No further than where verdicts were taken in.
    """
    piece: list[Commit] = []
    events = 0
    for commit in left:
        if len(piece) == PIECE_COMMITS or (piece and events + commit.events > PIECE_EVENTS):
            break
        if piece and marks and marks[0][0] <= commit.first_offset:
            break
        piece.append(commit)
        events += commit.events
    return piece


def sweep_snapshots(storage: Storage, ledger: Ledger, partition: Partition) -> None:
    """Remove snapshots that the catalog has forgotten.

    The files are listed before the catalog is asked: one that is placed meanwhile, by whomever, is on no list, and one
    that is forgotten is never remembered again.
    """
    there = storage.snapshot_paths(partition)
    known = {entry.path for entry in ledger.snapshots(partition)} if there else set()
    storage.remove_snapshots([path for path in there if path not in known])
