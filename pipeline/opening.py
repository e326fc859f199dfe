"""From assigned to read: how a partition is taken over, and where its reading begins.

Kafka is asked what the partition's log holds without waiting for the answer, so that a partition whose broker does not
answer holds up no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from pipeline.batch import Partition
from pipeline.commits import LOST, REPLACED, UNKNOWN_LOG, Claim, Hole, LogMark
from pipeline.committing import finish_pending
from pipeline.errors import FencedError, OffsetGapError, RetryableError
from pipeline.ports import Clock, Ledger, LogState, Source, Storage, Survey
from pipeline.restoring import Restoring
from pipeline.waiting import Wait

ASK_AGAIN_S: Final = (0.5, 1.0, 2.0, 5.0)
"""Waits between questions to a broker that does not answer; the last one repeats.  Each partition has its own."""

log = structlog.get_logger("stream")


@dataclass(slots=True)
class Opening:
    """A partition that is being opened; kept over tries.

    Attributes:
        partition: which.
        claim: this worker's, None where the partition was never read; tells something only once `is_taken`.
        is_taken: whether it was taken over, and all that its former owner left is finished.
        survey: the question to Kafka that is under way.
        asking_since_s: when the first question was asked that got no answer yet, by `Clock.elapsed_s`.
        unanswered: questions that got no answer so far.
        ask_at_s: when to ask again.
        reason: what came instead of an answer.
        opened: the answer's outcome, once there is one.
        restoring: the partition's analysis, while it is brought up to what is landed.
    """

    partition: Partition
    claim: Claim | None = None
    is_taken: bool = False
    survey: Survey | None = None
    asking_since_s: float = 0.0
    unanswered: int = 0
    ask_at_s: float = 0.0
    reason: str = ""
    opened: Opened | None = None
    restoring: Restoring | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """A partition that is ready to be read.

    Attributes:
        claim: this worker's.
        offset: where reading begins.
        mark: of the log up to there.
        end: where the log ended.
    """

    claim: Claim
    offset: int
    mark: LogMark
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

    def advance(self, opening: Opening) -> Opened | None:
        """Do what can be done now.

        Returns:
            What was opened, or None while Kafka has not answered yet.

        Raises:
            OffsetGapError: the log does not hold the catalog's offset, or not the records before it.
            FencedError: another worker opened the partition between our look and our step: begin anew.
            RetryableError: the lake or the catalog fails.
        """
        if not opening.is_taken:
            self._take(opening)
        held = self._answer(opening)
        if held is None:
            return None
        claim = opening.claim or self._begin_at(opening.partition, held)
        return self._place(claim, held)

    def _begin_at(self, partition: Partition, held: LogState) -> Claim:
        """Set the first offset of a partition that was never read."""
        offset = held.end if self._start_latest else held.first
        claim = self._ledger.start_at(partition, offset, LogMark(held.topic_id))
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
        first = min(stuck, key=lambda opening: opening.asking_since_s)
        waiting_s = self._clock.elapsed_s() - first.asking_since_s
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
        opening.claim = take_over(self._storage, self._ledger, opening.partition)
        opening.is_taken = True

    def _answer(self, opening: Opening) -> LogState | None:
        """What Kafka says of the log; asked only after the take-over, for until then the former owner may go on."""
        now_s = self._clock.elapsed_s()
        if opening.survey is None:
            if now_s < opening.ask_at_s:
                return None
            known = opening.claim.mark.leader_epoch if opening.claim else UNKNOWN_LOG.leader_epoch
            opening.survey = self._source.survey(opening.partition, known)
            if not opening.unanswered:
                opening.asking_since_s = now_s
        try:
            held = opening.survey.result()
        except RetryableError as error:
            opening.survey, opening.reason = None, str(error)
            opening.ask_at_s = now_s + ASK_AGAIN_S[min(opening.unanswered, len(ASK_AGAIN_S) - 1)]
            opening.unanswered += 1
            return None
        if held is not None:  # whatever keeps the partition from being opened now, it is not its broker
            opening.unanswered, opening.reason = 0, ""
        return held

    def _place(self, claim: Claim, held: LogState) -> Opened:
        """Find where to read on; stops the job where the log is not the one that was landed, or begins too late."""
        stored, mark = claim.next_offset, LogMark(held.topic_id, claim.mark.leader_epoch)
        for hole in self._replaced(claim, held):
            if held.end < stored:  # there is nothing to read on from, whatever is accepted
                raise OffsetGapError(_replaced_in_words(hole, held.end))
            self._step_over(hole, _replaced_in_words(hole, held.end))
            mark = LogMark(held.topic_id)
        if stored < held.first:
            hole = self._ledger.note_hole(claim.partition, stored, held.first, self._clock.now_us(), LOST)
            self._step_over(hole, _lost_in_words(hole))
            return Opened(claim, held.first, LogMark(held.topic_id), held.end)
        return Opened(claim, stored, mark, held.end)

    def _replaced(self, claim: Claim, held: LogState) -> Sequence[Hole]:
        """Offsets that were landed and that the log does not hold as they were: on record and not accepted, or new."""
        noted = [
            hole
            for hole in self._ledger.holes()
            if hole.partition == claim.partition and hole.kind == REPLACED and not hole.accepted
        ]
        agrees_to = agreement(claim, held)
        if agrees_to < min([claim.next_offset, *(hole.first_offset for hole in noted)]):
            now_us = self._clock.now_us()
            noted.append(self._ledger.note_hole(claim.partition, agrees_to, claim.next_offset, now_us, REPLACED))
        return noted

    def _step_over(self, hole: Hole, otherwise: str) -> None:
        if str(hole) not in self._accepted_holes:
            raise OffsetGapError(otherwise)
        self._ledger.accept_hole(hole, self._clock.now_us())
        log.warning("stepped over a hole", hole=str(hole), offsets=hole.next_offset - hole.first_offset, kind=hole.kind)


def take_over(storage: Storage, ledger: Ledger, partition: Partition) -> Claim | None:
    """Take a partition over, so that no former owner can commit, and finish what that one left.

    Returns:
        The claim; None where the partition was never read.

    Raises:
        RetryableError: the lake or the catalog fails.
    """
    leftovers = storage.leftovers(partition)  # before the take-over: what comes later is not ours to judge
    claim = ledger.take(partition)
    for commit in finish_pending(storage, ledger, partition):
        log.info("finished a commit that was left half done", partition=str(partition), offset=commit.first_offset)
    swept = storage.sweep(partition, leftovers)
    if swept:
        log.info("removed staged files that were never committed", partition=str(partition), commits=swept)
    return claim


def agreement(claim: Claim, held: LogState) -> int:
    """Up to which offset a log is the one that was landed, as far as can be told; at most the claim's offset."""
    if claim.mark.topic_id and held.topic_id and claim.mark.topic_id != held.topic_id:
        return 0
    return min(claim.next_offset, held.end, claim.next_offset if held.agrees_to is None else held.agrees_to)


def _lost_in_words(hole: Hole) -> str:
    return (
        f"{hole.partition}: Kafka no longer holds offsets {hole.first_offset} to {hole.next_offset - 1} "
        f"({hole.next_offset - hole.first_offset} in all), which were never landed. Nothing was skipped. It is on "
        f"record as a hole; to go on without these records run again with --accept-hole {hole}"
    )


def _replaced_in_words(hole: Hole, end: int) -> str:
    count = hole.next_offset - hole.first_offset
    said = (
        f"{hole.partition}: the log is not the one that was landed; it was cut back (an unclean leader election) or "
        f"made anew. The lake is at offset {hole.next_offset}, the topic ends at {end}. Offsets {hole.first_offset} to "
        f"{hole.next_offset - 1} ({count} in all) lie behind it, and are gone from the topic or other records now. "
        "What was landed of them stays in the lake; nothing was read on. It is on record as a hole; "
    )
    if end < hole.next_offset:
        return (
            f"{said}reading can go on only once the topic has passed offset {hole.next_offset}. Until then give the "
            "records another topic, or the topic a new lake"
        )
    return (
        f"{said}to read on from offset {hole.next_offset}, without what the topic holds below, run again with "
        f"--accept-hole {hole}"
    )
