"""Past ranges of a topic as logs of their own, read beside the live job and in no consumer group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import kafka.errors as kafka_errors
import numpy as np
import numpy.typing as npt
from kafka import KafkaConsumer, TopicPartition

from pipeline.backfilling.runs import Runs
from pipeline.backfilling.slices import moment_of
from pipeline.batch import Partition, Records
from pipeline.config import Settings
from pipeline.errors import ConfigError, OffsetGapError, RetryableError
from pipeline.io.kafka import KafkaSource
from pipeline.io.still_source import Endless
from pipeline.ports import Assigned, OutOfRange, Polled
from pipeline.sources import PastRange, Span
from pipeline.text_views import taken


@dataclass(frozen=True, slots=True)
class LogSpan:
    """What a topic holds.

    Attributes:
        topic_id: Kafka's id of it; empty: not known.
        spans: of each partition, what its log holds.
        chosen: of each partition, what is asked for of that.
    """

    topic_id: str
    spans: Sequence[Span]
    chosen: Sequence[Span]


ALL: Final[Mapping[int, Runs]] = {}

Bound = int | datetime | None
"""An offset of every partition, a time by Kafka's clock, or none: the log's own end."""


def bound_of(flag: str, text: str | None) -> Bound:
    """Read `--from` or `--to`.

    Raises:
        ConfigError: it is neither an offset nor a time.
    """
    if text is None:
        return None
    if text.isdecimal():
        return int(text)
    try:
        return moment_of(flag, text)
    except ConfigError as error:
        raise ConfigError(f"{error}, or an offset (digits alone)") from None


def bounds_of(low: str | None, high: str | None) -> tuple[Bound, Bound]:
    """Read `--from` and `--to`.

    Raises:
        ConfigError: one is neither an offset nor a time, or nothing can lie between them.
    """
    first, following = bound_of("--from", low), bound_of("--to", high)
    offsets = isinstance(first, int) and isinstance(following, int) and first >= following
    times = isinstance(first, datetime) and isinstance(following, datetime) and first >= following
    if offsets or times:
        raise ConfigError(f"--from {low} --to {high}: nothing lies between; --to is the first that is left out")
    return first, following


def ask_log(settings: Settings, first: Bound, following: Bound) -> LogSpan:
    """Ask Kafka what a topic holds between two bounds, half-open.

    Raises:
        ConfigError: there is no such topic, or a setting is wrong.
        RetryableError: no broker answers.
    """
    source = KafkaSource(settings)
    source.open([])
    try:
        consumer = source.consumer
        numbers = sorted(consumer.partitions_for_topic(settings.topic) or ())
        if not numbers:
            raise ConfigError(f"there is no topic {settings.topic} at {settings.bootstrap}")
        where = [TopicPartition(settings.topic, number) for number in numbers]
        begins, ends = consumer.beginning_offsets(where), consumer.end_offsets(where)
        low = _offsets_at(consumer, where, first, begins, ends)
        high = _offsets_at(consumer, where, following, ends, ends)
        topic_id = consumer._manager.cluster.topic_id(settings.topic)  # noqa: SLF001  # there is no public way
    except kafka_errors.KafkaError as error:
        raise RetryableError(f"Kafka at {settings.bootstrap}: {type(error).__name__}: {error}") from error
    finally:
        source.close()
    spans = [Span(at.partition, begins[at], ends[at]) for at in where]
    chosen = [Span(at.partition, max(low[at], begins[at]), min(high[at], ends[at])) for at in where]
    return LogSpan(
        str(topic_id) if topic_id and topic_id.int else "", spans,
        [span for span in chosen if span.first_offset < span.next_offset],
    )  # fmt: skip


def _offsets_at(
    consumer: KafkaConsumer,
    where: Sequence[TopicPartition],
    bound: Bound,
    otherwise: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
) -> dict[TopicPartition, int]:
    """Where a bound lies in each partition: of a time, the first record of that Kafka time or later."""
    if bound is None:
        return {at: otherwise[at] for at in where}
    if isinstance(bound, int):
        return dict.fromkeys(where, bound)
    found: Mapping[TopicPartition, Any] = consumer.offsets_for_times(
        dict.fromkeys(where, int(bound.timestamp() * 1000))
    )
    return {at: ends[at] if found.get(at) is None else int(found[at].offset) for at in where}


class PastSource:
    """A `pipeline.ports.FiniteSource` over past ranges of one topic, of each partition at most one."""

    def __init__(self, settings: Settings, ranges: Sequence[PastRange], only: Mapping[int, Runs] = ALL) -> None:
        """Begin before the first record.

        Args:
            settings: of Kafka.
            ranges: what to read.
            only: by partition, the records of a range that are wanted; others are passed over as if the log had none.
                Of a partition that is not named, all are.
        """
        self._topic, self._only = settings.topic, only
        self._ranges = {past.chain: past for past in ranges}
        self._by_place = {Partition(past.topic, past.partition): past for past in ranges}
        self._ended: dict[Partition, int] = {}
        self._kafka = KafkaSource(settings)
        self._kafka.open(list(self._by_place))
        self.exhausted = False

    def close(self) -> None:
        """Hang up."""
        self._kafka.close()

    @property
    def address(self) -> str:
        """The brokers that are asked."""
        return f"{self._kafka.address} (past ranges of {self._topic})"

    @property
    def silent_s(self) -> float:
        """How long polls have waited by now without an answer from any broker; 0 once one answers."""
        return self._kafka.silent_s

    @property
    def passed(self) -> int:
        """Offsets that are behind."""
        return sum(max(0, (self.position(chain) or 0) - past.first_offset) for chain, past in self._ranges.items())

    def first_offset(self, partition: Partition) -> int:
        """Where a range begins."""
        return self._ranges[partition].first_offset

    def poll(self, timeout_s: float) -> Polled:
        """The next records, cut off where the ranges end.

        Raises:
            OffsetGapError: Kafka does not hold them any more.
            RetryableError: a broker fails.
        """
        polled = self._kafka.poll(timeout_s)
        events = [self._event(event) for event in polled.events]
        records = [cut for batch in polled.records if (cut := self._cut(batch)) is not None]
        for chain, past in self._ranges.items():
            at = self.position(chain)
            if chain not in self._ended and at is not None and at >= past.next_offset:
                self._end(chain)
        self.exhausted = len(self._ended) == len(self._ranges)
        return Polled(events, records)

    def survey(self, partition: Partition, leader_epoch: int) -> Endless:
        """What the log holds: at least the range, for the broker was asked when it was chosen."""
        del leader_epoch
        return Endless(self._ranges[partition].first_offset)

    def read_from(self, partition: Partition, offset: int, leader_epoch: int) -> bool:
        """Begin to read a range at an offset of it."""
        del leader_epoch
        self._ended.pop(partition, None)
        if offset >= self._ranges[partition].next_offset:
            self._end(partition)
            return True
        return self._kafka.read_from(self._place(partition), offset, -1)

    def position(self, partition: Partition) -> int | None:
        """Offset of the next record, the range's end once that is reached."""
        if partition in self._ended:
            return self._ended[partition]
        at = self._kafka.position(self._place(partition))
        return None if at is None else min(at, self._ranges[partition].next_offset)

    def leader_epoch(self, partition: Partition, offset: int) -> int:
        """Not kept: a range is behind the log's end, and is read once."""
        del partition, offset
        return -1

    def pause(self, partitions: Iterable[Partition]) -> None:
        """Fetch nothing of these partitions."""
        self._kafka.pause([self._place(chain) for chain in partitions])

    def resume(self, partitions: Iterable[Partition]) -> None:
        """Fetch of these partitions again, but not of those that are done."""
        self._kafka.resume([self._place(chain) for chain in partitions if chain not in self._ended])

    def hint(self, offsets: Mapping[Partition, int]) -> None:
        """In no group, nobody is told."""

    def lag(self, partitions: Iterable[Partition]) -> int | None:
        """Records of the ranges that are ahead."""
        ahead = [
            self._ranges[chain].next_offset - (self.position(chain) or self.first_offset(chain)) for chain in partitions
        ]
        return sum(ahead)

    def _end(self, chain: Partition) -> None:
        self._ended[chain] = self._ranges[chain].next_offset
        self._kafka.pause([self._place(chain)])

    def _place(self, chain: Partition) -> Partition:
        past = self._ranges[chain]
        return Partition(past.topic, past.partition)

    def _event(self, event: Any) -> Assigned:
        if isinstance(event, Assigned):
            return Assigned([self._by_place[place].chain for place in event.partitions])
        if isinstance(event, OutOfRange):
            past = self._by_place[event.partition]
            raise OffsetGapError(
                f"{event.partition}: Kafka no longer holds all of offsets {past.first_offset} to "
                f"{past.next_offset - 1}, which were to be landed: its retention went by, or the topic was made anew. "
                "What is landed stays; run again with --dry-run to see what of the range is left"
            )
        raise RetryableError(f"{self.address}: {event}")

    def _cut(self, records: Records) -> Records | None:
        past = self._by_place[records.partition]
        if past.chain in self._ended:
            return None
        rows = int((records.offsets < past.next_offset).sum())
        cut = replace(
            records,
            partition=past.chain,
            values=records.values.slice(0, rows),
            offsets=records.offsets[:rows],
            timestamps=records.timestamps[:rows],
            next_offset=min(records.next_offset, past.next_offset),
        )
        wanted = self._only.get(past.partition)
        return cut if wanted is None else _of(cut, np.flatnonzero(wanted.holds(cut.offsets)))


def _of(records: Records, rows: npt.NDArray[np.int64]) -> Records:
    """Some of the records; those between are passed over."""
    if len(rows) == len(records):
        return records
    return replace(
        records,
        values=taken(records.values, rows),
        offsets=records.offsets[rows],
        timestamps=records.timestamps[rows],
    )


@contextmanager
def open_past(settings: Settings, ranges: Sequence[PastRange], only: Mapping[int, Runs] = ALL) -> Iterator[PastSource]:
    """A `PastSource` that hangs up at its end."""
    source = PastSource(settings, ranges, only)
    try:
        yield source
    finally:
        source.close()
