"""`stillwatch backfill --from … --to …`: past ranges of a topic."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from jobs import backfill_show as show
from jobs.backfill_watched import finish_what_was_left, work
from jobs.backfill_wish import Wish
from pipeline.backfilling.counts import Counts
from pipeline.backfilling.planning import dealt
from pipeline.backfilling.ranges import RangePlan, layers, plan_ranges
from pipeline.backfilling.runs import Runs
from pipeline.batch import Partition
from pipeline.config import Settings
from pipeline.errors import ConfigError
from pipeline.io.backfill_trial import hours_held, try_logs
from pipeline.io.catalog import Catalog
from pipeline.io.lake import Lake
from pipeline.io.past_range import ALL, LogSpan, PastSource, ask_log, bounds_of, open_past
from pipeline.io.source_notes import note_ranges
from pipeline.sources import PAST, PastRange, Span


@dataclass(frozen=True, slots=True)
class PastLog:
    """Ranges of several partitions, as a log to be landed.

    Attributes:
        ranges: of each partition at most one.
        only: the records of them that are wanted, by partition, where that is not all.
    """

    ranges: Sequence[PastRange]
    only: Mapping[int, Runs] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Offsets of all of them."""
        return sum(past.next_offset - past.first_offset for past in self.ranges)

    def open(self, settings: Settings, ledger: Catalog) -> contextlib.AbstractContextManager[PastSource]:
        """Begin to read it."""
        del ledger
        return open_past(settings, self.ranges, self.only)


def backfill_past(wish: Wish, settings: Settings) -> None:
    """Land past ranges of a topic, or say what would be landed of them."""
    began = time.monotonic()
    log = ask_log(settings, *bounds_of(wish.low, wish.high))
    if wish.dry_run:
        _try(settings, log)
        return
    storage = Lake.open(settings.lake, create=True)
    with contextlib.closing(Catalog.open(settings.catalog_url, create=True)) as ledger:
        finish_what_was_left(storage, ledger)
        plan = _plan(settings, log, ledger)
        started = _leave_to_run(settings, plan, ledger)
        ranges = [*plan.begun]
        for spans in layers(plan.fresh):
            ranges += ledger.sources.add_ranges(settings.topic, log.topic_id, spans)
        note_ranges(storage.root, ledger.sources, settings.topic)
    show.ranges(settings.topic, plan, log, started=started)
    hands = hands_of(ranges, wish.parallel)
    counts = work(hands, settings, sum(log.rows for hand in hands for log in hand), began)
    show.summary(counts, skipped=plan.there, seconds=time.monotonic() - began)


def _plan(settings: Settings, log: LogSpan, ledger: Catalog | None) -> RangePlan:
    if ledger is None:
        return plan_ranges(log.chosen, {}, (), {})
    same = [past for past in ledger.sources.ranges_of(settings.topic) if past.topic_id in (log.topic_id, "")]
    return plan_ranges(log.chosen, ledger.sources.live_spans(settings.topic), same, ledger.offsets())


def _leave_to_run(settings: Settings, plan: RangePlan, ledger: Catalog) -> list[Span]:
    """Let `stillwatch run` begin after what is landed here, where it has never read: else it would land it again."""
    fresh = _never_read(settings, plan, ledger)
    for span in fresh:
        claim = ledger.start_at(Partition(settings.topic, span.partition), span.next_offset)
        if claim.next_offset != span.next_offset:
            raise ConfigError(
                f"`stillwatch run` has just begun to read {settings.topic}-{span.partition}: run this command again"
            )
    return fresh


def _never_read(settings: Settings, plan: RangePlan, ledger: Catalog | None) -> list[Span]:
    """What is asked for of partitions that `stillwatch run` has never read."""
    live = ledger.offsets() if ledger else {}
    return [span for span in plan.wanted if Partition(settings.topic, span.partition) not in live]


def hands_of(ranges: Sequence[PastRange], parallel: int, only: Mapping[int, Runs] = ALL) -> list[list[PastLog]]:
    """Divide ranges among processes, by partition."""
    sizes: dict[int, int] = {}
    for past in ranges:
        sizes[past.partition] = sizes.get(past.partition, 0) + past.next_offset - past.first_offset
    return [
        [PastLog(group, only) for group in _layered([past for past in ranges if past.partition in hand])]
        for hand in dealt(list(sizes.items()), parallel)
    ]


def _layered(ranges: Sequence[PastRange]) -> Iterator[list[PastRange]]:
    by_span = {Span(past.partition, past.first_offset, past.next_offset): past for past in ranges}
    for group in layers(list(by_span)):
        yield [by_span[span] for span in group]


def _try(settings: Settings, log: LogSpan) -> None:
    """Say what would be done; changes nothing."""
    with contextlib.ExitStack() as stack:
        ledger = Catalog.open_if_made(settings.catalog_url)
        if ledger is not None:
            stack.enter_context(contextlib.closing(ledger))
        plan = _plan(settings, log, ledger)
        fresh = [
            PastRange(settings.topic, *span, f"{PAST}{number}:{settings.topic}", log.topic_id)
            for number, span in enumerate(plan.fresh)
        ]
        logs = [one for hand in hands_of([*plan.begun, *fresh], 1) for one in hand]
        with show.landing(sum(one.rows for one in logs), "reading") as shown:
            trial = try_logs(
                opened_past(settings, logs), ledger.offsets() if ledger else {},
                lambda passed: shown(Counts(passed=passed), ""),
            )  # fmt: skip
        before = hours_held(ledger.live_files("access") if ledger else ())
        started = _never_read(settings, plan, ledger)
    show.ranges(settings.topic, plan, log, started=started)
    show.trial(trial, skipped=plan.there, held=len(before & trial.hours.keys()))


def opened_past(settings: Settings, logs: Sequence[PastLog]) -> Iterator[PastSource]:
    """One log after the other, each until the next is asked for."""
    for one in logs:
        with open_past(settings, one.ranges, one.only) as source:
            yield source
