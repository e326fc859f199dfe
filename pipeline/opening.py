"""From assigned to read: how a partition is taken over, and where its reading begins.

Kafka is asked what the partition's log holds without waiting for the answer, so that a partition whose broker does not
answer holds up no other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import structlog

from pipeline.batch import Partition
from pipeline.commits import Claim, Hole
from pipeline.errors import FencedError, OffsetGapError, RetryableError
from pipeline.ports import Clock, Ledger, LogRange, Source, Storage, Survey
from pipeline.waiting import Wait

ASK_AGAIN_S: Final = (0.5, 1.0, 2.0, 5.0)
"""Waits between questions to a broker that does not answer; the last one repeats.  Each partition has its own."""

log = structlog.get_logger("stream")


@dataclass(slots=True)
class Opening:
    """A partition that is being opened; kept over tries.

    Attributes:
        partition: which.
        since_s: since when, by `Clock.elapsed_s`.
        claim: this worker's, None where the partition was never read; tells something only once `is_taken`.
        is_taken: whether it was taken over, and all that its former owner left is finished.
        survey: the question to Kafka that is under way.
        unanswered: questions that got no answer so far.
        ask_at_s: when to ask again.
        reason: what came instead of an answer.
    """

    partition: Partition
    since_s: float
    claim: Claim | None = None
    is_taken: bool = False
    survey: Survey | None = None
    unanswered: int = 0
    ask_at_s: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Opened:
    """A partition that is ready to be read.

    Attributes:
        claim: this worker's.
        offset: where reading begins.
        end: where the log ended.
    """

    claim: Claim
    offset: int
    end: int


class Opener:
    """Opens partitions, a step at a time."""

    def __init__(  # noqa: PLR0913  # four ports, and what to do with them
        self,
        source: Source,
        storage: Storage,
        ledger: Ledger,
        clock: Clock,
        *,
        accepted_holes: frozenset[str],
        start_latest: bool,
        retry_s: float,
    ) -> None:
        self._source, self._storage, self._ledger, self._clock = source, storage, ledger, clock
        self._accepted_holes, self._start_latest, self._retry_s = accepted_holes, start_latest, retry_s
        self._wait = Wait()

    def begin(self, partition: Partition) -> Opening:
        """Note that a partition is to be opened."""
        return Opening(partition, self._clock.elapsed_s())

    def advance(self, opening: Opening) -> Opened | None:
        """Do what can be done now.

        Returns:
            What was opened, or None while Kafka has not answered yet.

        Raises:
            OffsetGapError: the log does not hold the catalog's offset.
            FencedError: another worker opened the partition between our look and our step: begin anew.
            RetryableError: the lake or the catalog fails.
        """
        if not opening.is_taken:
            self._take(opening)
        held = self._answer(opening)
        if held is None:
            return None
        claim = opening.claim or self._begin_at(opening.partition, held.end if self._start_latest else held.first)
        return Opened(claim, self._check_range(claim, held), held.end)

    def _begin_at(self, partition: Partition, offset: int) -> Claim:
        """Set the first offset of a partition that was never read."""
        claim = self._ledger.start_at(partition, offset)
        if claim.next_offset != offset:  # what Kafka said is older than what that worker did since
            raise FencedError(f"{partition}: another worker has begun it, and is at offset {claim.next_offset}")
        return claim

    def mind(self, openings: Iterable[Opening]) -> None:
        """Say which partitions wait for their broker while the others are read.

        Raises:
            RetryableError: one has waited for longer than `retry_s`.
        """
        stuck = [opening for opening in openings if opening.unanswered]
        if not stuck:
            if self._wait.is_over():
                log.info("all partitions are opened")
            return
        first = min(stuck, key=lambda opening: opening.since_s)
        waiting_s = self._clock.elapsed_s() - first.since_s
        if waiting_s >= self._retry_s:
            raise RetryableError(f"gave up after {waiting_s:.0f} s: {first.partition} cannot be opened: {first.reason}")
        if self._wait.is_due(waiting_s):
            log.warning(
                "partitions wait for their broker to answer; the others are read",
                partitions=", ".join(str(opening.partition) for opening in stuck),
                waiting_s=round(waiting_s, 1),
                reason=first.reason,
            )

    def _take(self, opening: Opening) -> None:
        """Take the partition over in the catalog, and finish what its former owner left."""
        partition = opening.partition
        leftovers = self._storage.leftovers(partition)  # before the take-over: what comes later is not ours to judge
        opening.claim = self._ledger.take(partition)
        for commit, files in self._ledger.pending(partition).items():
            self._storage.place(commit, files)
            self._ledger.publish(commit.commit_id)
            log.info("finished a commit that was left half done", partition=str(partition), offset=commit.first_offset)
        swept = self._storage.sweep(partition, leftovers)
        if swept:
            log.info("removed staged files that were never committed", partition=str(partition), commits=swept)
        opening.is_taken = True

    def _answer(self, opening: Opening) -> LogRange | None:
        """What Kafka says of the log; asked only after the take-over, for until then the former owner may go on."""
        now_s = self._clock.elapsed_s()
        if opening.survey is None:
            if now_s < opening.ask_at_s:
                return None
            opening.survey = self._source.survey(opening.partition)
        try:
            return opening.survey.result()
        except RetryableError as error:
            opening.survey, opening.reason = None, str(error)
            opening.ask_at_s = now_s + ASK_AGAIN_S[min(opening.unanswered, len(ASK_AGAIN_S) - 1)]
            opening.unanswered += 1
            return None

    def _check_range(self, claim: Claim, held: LogRange) -> int:
        """The offset to read from; stops the job where the log does not hold it."""
        stored = claim.next_offset
        if stored > held.end:
            raise OffsetGapError(
                f"{claim.partition}: the lake is at offset {stored}, but the topic ends at {held.end}: it was "
                "truncated or made anew. Name the new topic differently, or give it a new lake"
            )
        if stored >= held.first:
            return stored
        hole = self._ledger.note_hole(claim.partition, stored, held.first, self._clock.now_us())
        if str(hole) in self._accepted_holes:
            self._ledger.accept_hole(hole, self._clock.now_us())
            log.warning("stepped over a hole", hole=str(hole), offsets=held.first - stored)
            return held.first
        raise OffsetGapError(_hole_in_words(hole))


def _hole_in_words(hole: Hole) -> str:
    return (
        f"{hole.partition}: Kafka no longer holds offsets {hole.first_offset} to {hole.next_offset - 1} "
        f"({hole.next_offset - hole.first_offset} in all), which were never landed. Nothing was skipped. It is on "
        f"record as a hole; to go on without these records run again with --accept-hole {hole}"
    )
