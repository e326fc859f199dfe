"""Which offsets of a past range are to be landed: those that neither the live job nor a backfill has.

Pure: what is wanted and what is known in, a plan out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.batch import Partition
from pipeline.sources import PastRange, Span


@dataclass(slots=True)
class RangePlan:
    """What is to be done with ranges of a topic.

    Attributes:
        wanted: what was asked for, as far as the log holds it.
        fresh: to be landed, and nobody has begun to.
        begun: a backfill began to land them: they are finished, to their own ends.
        there: offsets that are landed already.
        left: offsets that `stillwatch run` is going to read.
    """

    wanted: list[Span] = field(default_factory=list)
    fresh: list[Span] = field(default_factory=list)
    begun: list[PastRange] = field(default_factory=list)
    there: int = 0
    left: int = 0


def plan_ranges(
    wanted: Iterable[Span],
    live: Mapping[int, Span],
    known: Sequence[PastRange],
    offsets: Mapping[Partition, int],
) -> RangePlan:
    """Decide what becomes of each offset.

    Args:
        wanted: at most one span a partition.
        live: of each partition that the live job has ever read: from where on, and where it goes on.
        known: ranges of the same log that backfills have begun to land.
        offsets: how far each partition, those of `known` among them, is landed.
    """
    plan = RangePlan()
    for span in wanted:
        plan.wanted.append(span)
        rest = [span]
        job = live.get(span.partition)
        if job is not None:
            plan.there += _common(span, job.first_offset, job.next_offset)
            plan.left += _common(span, job.next_offset, span.next_offset)
            rest = _without(rest, job.first_offset, span.next_offset)
        for past in known:
            if past.partition != span.partition or not _common(span, past.first_offset, past.next_offset):
                continue
            stands = offsets.get(past.chain, past.first_offset)
            plan.there += _common(span, past.first_offset, stands)
            if stands < past.next_offset:
                plan.begun.append(past)
            rest = _without(rest, past.first_offset, past.next_offset)
        plan.fresh += rest
    return plan


def layers(spans: Sequence[Span]) -> list[list[Span]]:
    """Spans in groups that hold at most one of each partition."""
    groups: list[list[Span]] = []
    for span in spans:
        for group in groups:
            if all(other.partition != span.partition for other in group):
                group.append(span)
                break
        else:
            groups.append([span])
    return groups


def _common(span: Span, first: int, following: int) -> int:
    return max(0, min(span.next_offset, following) - max(span.first_offset, first))


def _without(spans: Iterable[Span], first: int, following: int) -> list[Span]:
    parts = [
        part
        for span in spans
        for part in (
            Span(span.partition, span.first_offset, min(span.next_offset, first)),
            Span(span.partition, max(span.first_offset, following), span.next_offset),
        )
    ]
    return [part for part in parts if part.first_offset < part.next_offset]
