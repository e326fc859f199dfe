"""`stillwatch backfill --replace --from … --to …`: records of a topic's past are read again.

What comes takes the place of what the same records were landed as: by `run`, of a past range, by a replay of rejects.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from jobs import backfill_replace_show as show
from jobs import backfill_show
from jobs.backfill_past import PastLog, hands_of, opened_past
from jobs.backfill_replace import arrived, files_of, goes, in_annex, key_of, stays, swapped
from jobs.backfill_watched import work
from jobs.backfill_wish import Wish
from jobs.maintain_output import Opened, opened
from pipeline.backfilling.counts import Counts
from pipeline.backfilling.runs import Runs
from pipeline.committing import finish_pending
from pipeline.config import Settings
from pipeline.counted import counted
from pipeline.errors import ConfigError, OffsetGapError
from pipeline.io.backfill_trial import try_logs
from pipeline.io.clock import SystemClock
from pipeline.io.past_range import Bound, LogSpan, ask_log, bounds_of
from pipeline.io.replaced_sources import Sources
from pipeline.io.rewriting.annex import Annex, Replacement, topics_of
from pipeline.io.rewriting.arrivals import Arrivals
from pipeline.io.rewriting.replacement import Replacer
from pipeline.io.rewriting.same_records import RECORDS, Bools, Landed, SameRecords, landed_records
from pipeline.moments import micros_of
from pipeline.sources import Span, origin


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the command line comes to.

    Attributes:
        replacement: which records are read again.
        left: offsets of the range that have no row in the lake.
    """

    replacement: Replacement
    left: int


def backfill_replace_past(wish: Wish, settings: Settings) -> None:
    """Read records again in the place of what they were landed as, or say what would go and come."""
    began = time.monotonic()
    settings = settings.model_copy(update={"scoring": "off"})
    with opened(settings, changes=not wish.dry_run) as what:
        replacer = Replacer(what.lake, what.catalog, what.ledger, SystemClock())
        if wish.dry_run:
            _try(settings, what, _asked(wish, settings, what), replacer)
            return
        for partition in {commit.partition for commit in what.catalog.pending()}:
            finish_pending(what.lake, what.catalog, partition)
        key = _key(wish, settings)
        annex, left = Annex.begun(what.lake, key, topics_of(what.catalog)), 0
        if annex is None:
            asked = _asked(wish, settings, what)
            annex, left = Annex.begin(what.lake, key, asked.replacement), asked.left
        arrivals = _landed(wish, settings, annex, began)
        done = swapped(wish, what, annex, arrivals, replacer, _same(what, annex))
        if done is None:
            show.there_already()
            return
        comes = sum(commit.events for commit in arrivals.commits), sum(commit.rejects for commit in arrivals.commits)
        concluded = stays(replacer, annex.replacement.chosen)
        show.summary(done, comes, concluded, _sources(what), time.monotonic() - began)
        show.not_landed(left)


def _asked(wish: Wish, settings: Settings, what: Opened) -> _Asked:
    """Decide which records are read again: those of the range that have a row in the lake.

    What was never landed is left to whom it is left already, and what was erased or has grown too old stays gone.

    Raises:
        ConfigError: there are none, or Kafka no longer holds some of them.
    """
    topic = settings.topic
    if not any(origin(at.topic) == topic for at in what.catalog.offsets()):
        raise ConfigError(
            f"--replace: without files, records of the topic {topic} are read again, and nothing of it is landed "
            "in this lake: name the files whose rows come in the place of those that go, or the topic with --topic"
        )
    low, high = bounds_of(wish.low, wish.high)
    log = ask_log(settings, low, high)
    files = [file for table in RECORDS for file in what.catalog.live_files(table)]
    range_ = _Range(log, low, high)
    landed = landed_records(what.lake.root, files, topic, range_.ends, wanted=range_.holds)
    _check_held(topic, log, landed, high)
    chosen = {span.partition: _within(landed, span) for span in log.chosen}
    records = {number: runs for number, runs in chosen.items() if len(runs)}
    if not records:
        raise ConfigError(
            f"--replace: of the records that Kafka holds of this range of {topic}, none has a row in this lake: "
            "nothing goes, so nothing comes. What was never landed is landed without --replace"
        )
    wanted = sum(span.next_offset - span.first_offset for span in log.chosen)
    left = wanted - sum(len(runs) for runs in records.values())
    return _Asked(Replacement.of_log(topic, log.topic_id, records, SystemClock().now_us()), left)


@dataclass(frozen=True, slots=True)
class _Range:
    """What is asked for of a log: what Kafka holds of it, and what it held once."""

    log: LogSpan
    low: Bound
    high: Bound

    @property
    def ends(self) -> tuple[int, int]:
        """Offsets that may matter; of a range by time, also those that Kafka holds no more."""
        first = min((span.first_offset for span in self.log.chosen), default=0)
        if self.low is not None:
            first = self.low if isinstance(self.low, int) else 0
        return first, max((span.next_offset for span in (*self.log.chosen, *self.log.spans)), default=0)

    def holds(self, number: int, some: Landed) -> Bools:
        """Which records of a partition are in it; without --from it begins where the log does."""
        inside = np.zeros(len(some.offsets), np.bool_)
        for span in self.log.chosen:
            if span.partition == number:
                inside |= (some.offsets >= span.first_offset) & (some.offsets < span.next_offset)
        if self.low is None:
            return inside
        return inside | (self._between(some) & (some.offsets < _begins(self.log).get(number, 0)))

    def _between(self, some: Landed) -> Bools:
        inside = np.ones(len(some.offsets), np.bool_)
        for bound, beyond in ((self.low, np.less), (self.high, np.greater_equal)):
            if isinstance(bound, datetime):
                inside &= ~beyond(some.times, micros_of(bound))
            elif bound is not None:
                inside &= ~beyond(some.offsets, bound)
        return inside


def _begins(log: LogSpan) -> dict[int, int]:
    return {span.partition: span.first_offset for span in log.spans}


def _within(landed: Mapping[int, Landed], span: Span) -> Runs:
    offsets = landed[span.partition].offsets if span.partition in landed else np.array([], np.int64)
    return Runs.of(offsets[(offsets >= span.first_offset) & (offsets < span.next_offset)])


def _check_held(topic: str, log: LogSpan, landed: Mapping[int, Landed], high: Bound) -> None:
    """See that Kafka holds all that is landed of the range."""
    begins, lost = _begins(log), []
    for number, records in landed.items():
        gone = records.offsets[records.offsets < begins.get(number, 0)]
        if len(gone):
            lost.append(f"of {topic}-{number} {counted(len(gone), 'record')}, offsets {gone[0]} to {gone[-1]}")
    if lost:
        raise ConfigError(
            f"--replace: Kafka no longer holds all records that are landed of this range: gone are {'; '.join(lost)}. "
            "Their rows would go and nothing would come: nothing was changed, and they stay as they are. "
            f"Give a range that begins later, such as --from {max(begins.values(), default=0)}"
            + (", or leave --from out: then it begins where each log does" if high is not None else "")
        )


def _try(settings: Settings, what: Opened, asked: _Asked, replacer: Replacer) -> None:
    """Say what would be done; changes nothing."""
    chosen, ranges = asked.replacement.chosen, asked.replacement.ranges
    logs = [log for hand in hands_of(ranges, 1, _only(asked.replacement)) for log in hand]
    with backfill_show.landing(sum(log.rows for log in logs), "reading") as shown:
        trial = try_logs(opened_past(settings, logs), {}, lambda passed: shown(Counts(passed=passed), ""))
    show.trial(goes(replacer, chosen), stays(replacer, chosen), trial, _sources(what))
    show.not_landed(asked.left)
    show.not_held(sum(len(runs) for runs in chosen.spans.values()) - trial.read)


def _only(replacement: Replacement) -> dict[int, Runs]:
    return {partition.number: runs for partition, runs in replacement.chosen.spans.items()}


def _sources(what: Opened) -> Sources:
    return Sources(what.catalog.offsets(), what.catalog.sources.all_files())


def _landed(wish: Wish, settings: Settings, annex: Annex, began: float) -> Arrivals:
    """Land the records in the annex, where nobody sees them; goes on where a killed backfill stopped."""
    with in_annex(settings, annex) as (aside, ledger):
        stands = ledger.offsets()
        left = [past for past in annex.replacement.ranges if stands.get(past.chain, 0) < past.next_offset]
        hands: list[list[PastLog]] = hands_of(left, wish.parallel, _only(annex.replacement))
        try:
            work(hands, aside, sum(log.rows for hand in hands for log in hand), began)
        except OffsetGapError as error:
            annex.remove()
            raise OffsetGapError(
                f"--replace: nothing was changed, and what was read again is dropped. {error}"
            ) from error
        return arrived(
            annex,
            ledger,
            "none of these records is an event today, so none goes: nothing was changed. --dry-run says why "
            "they are rejected",
        )


def _same(what: Opened, annex: Annex) -> SameRecords:
    [topic] = {past.topic for past in annex.replacement.ranges}
    chosen = annex.replacement.chosen
    return SameRecords(topic, chosen, landed_records(what.lake.root, files_of(what, annex), topic, chosen.ends))


def _key(wish: Wish, settings: Settings) -> str:
    """By what the same command finds again what it has begun."""
    return key_of(["log", settings.topic, wish.low, wish.high])
