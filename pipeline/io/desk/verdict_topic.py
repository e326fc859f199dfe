"""Verdicts from a Kafka topic, each on record once: their offsets move in the transaction that puts them there.

The listener is in no consumer group: it reads all partitions of the topic, from where the catalog says.  Two of them do
no harm, for only one moves an offset; the other drops what it has read and looks again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from pipeline.batch import Partition, Records
from pipeline.config import Settings
from pipeline.decisions import Verdict
from pipeline.errors import ConfigError, FencedError, OffsetGapError, RetryableError
from pipeline.io.catalog import Catalog
from pipeline.io.desk import copies
from pipeline.io.desk.audit_log import Act
from pipeline.io.desk.judging import prepare
from pipeline.io.desk.topic_book import Read
from pipeline.io.kafka import KafkaSource
from pipeline.io.lake import Lake
from pipeline.io.past_range import LogSpan, ask_log
from pipeline.judging import Judgement
from pipeline.ports import Assigned, Clock, OutOfRange
from pipeline.verdict_lines import account_in, read_record

POLL_S: Final = 0.5
LOOK_AGAIN_S: Final = 30.0
"""How often it is asked whether the topic has got more partitions."""

SILENT_S_MIN: Final = 10.0
RECORDS_MAX: Final = 1_000
"""In one transaction."""

log = structlog.get_logger("verdicts")


@dataclass(slots=True)
class Heard:
    """What came so far.

    Attributes:
        given: verdicts that were put on record.
        refused: records that could not be verdicts; each is in the audit log.
        without_row: of those given, those that nothing was stored for: they teach the models nothing.
    """

    given: int = 0
    refused: int = 0
    without_row: int = 0


@dataclass(frozen=True, slots=True)
class Wish:
    """How a topic is listened to.

    Attributes:
        anyway: also put verdicts on record that are on accounts that were never seen.
        skip_lost: go on where Kafka has lost records, or where the topic was made anew.
        by: who has started it, for the record.
    """

    anyway: bool = False
    skip_lost: bool = False
    by: str = "listen"


@dataclass(slots=True)
class Listener:
    """Reads one topic; for one thread.  `listening` makes it."""

    source: KafkaSource
    lake: Lake
    catalog: Catalog
    clock: Clock
    settings: Settings
    wish: Wish
    span: LogSpan
    heard: Heard
    _read: dict[int, Read] = field(default_factory=dict)
    _looked_s: float = 0.0

    def begin(self) -> None:
        """Look where reading goes on.

        Raises:
            OffsetGapError: Kafka has lost records that were not read yet.
        """
        topic, now_us = self.settings.topic, self.clock.now_us()
        self._read = self.catalog.desk.topics.read(topic)
        for span in self.span.spans:
            before = self._read.get(span.partition)
            lost = _lost(before, self.span.topic_id, span.first_offset, span.next_offset)
            if before is None or not lost:
                continue
            where = Partition(topic, span.partition)
            if not self.wish.skip_lost:
                raise OffsetGapError(
                    f"{where}: {lost}. No verdict is skipped in silence: start once with --skip-lost to go on at "
                    f"offset {span.first_offset}, which the audit log will tell"
                )
            after = Read(span.first_offset, self.span.topic_id)
            act = Act("verdicts.skipped", self.wish.by, details={"partition": str(where), "why": lost})
            self.catalog.desk.topics.give(where, before, after, [], [(act, now_us)])
            self._read[span.partition] = after
            log.warning("records of verdicts are lost, and skipped", partition=str(where), why=lost)
        self._looked_s = self.clock.elapsed_s()

    def round(self) -> None:
        """Poll once, and put on record what came.

        Raises:
            NoRightError: the catalog's role may not read or record it; the offset stays.
            OffsetGapError: Kafka has lost records that were not read yet.
            RetryableError: broker, catalog or lake fails: begin again.
        """
        polled = self.source.poll(POLL_S)
        self._check_heard()
        for event in polled.events:
            if isinstance(event, OutOfRange):
                raise RetryableError(f"{event.partition}: the topic no longer holds what was to be read next")
            if isinstance(event, Assigned):
                for partition in event.partitions:
                    self._seek(partition)
        for records in polled.records:
            for start in range(0, len(records), RECORDS_MAX):
                if not self._take(_part(records, start)):
                    break

    def has_caught_up(self) -> bool:
        """Whether all is read that the topic held at the start."""
        topic = self.settings.topic
        return all(
            (self.source.position(Partition(topic, span.partition)) or 0) >= span.next_offset
            for span in self.span.spans
        )

    def has_grown(self) -> bool:
        """Whether the topic has partitions that are not read, asked now and then."""
        now_s = self.clock.elapsed_s()
        if now_s - self._looked_s < LOOK_AGAIN_S:
            return False
        self._looked_s = now_s
        known = self.source.consumer.partitions_for_topic(self.settings.topic) or ()
        return len(known) > len(self.span.spans)

    def _check_heard(self) -> None:
        bound_s = max(self.settings.retry_s, SILENT_S_MIN)
        if self.source.silent_s > bound_s:
            raise RetryableError(f"{self.source.address}: no broker has answered for {self.source.silent_s:.0f} s")

    def _seek(self, partition: Partition) -> None:
        before = self._read.get(partition.number)
        first = {span.partition: span.first_offset for span in self.span.spans}
        offset = first[partition.number] if before is None else before.next_offset
        self.source.read_from(partition, offset, -1)

    def _take(self, records: Records) -> bool:
        """Put records on record; false where another listener has been faster."""
        where, now_us = records.partition, self.clock.now_us()
        sound, acts = self._judgements(records, now_us)
        verdicts: list[Verdict] = []
        judgements = [judgement for _, judgement in sound]
        prepared = prepare(
            self.lake, self.catalog, judgements, now_us, anyway=self.wish.anyway, unread_too=self.wish.anyway
        )
        for (offset, _), one in zip(sound, prepared, strict=True):
            if isinstance(one, Verdict):
                verdicts.append(one)
            else:
                acts.append((_refused(where, offset, one.judgement.account_id, (one.kind, one.why)), now_us))
        unread = sorted({verdict.unread for verdict in verdicts if verdict.unread})
        if unread:
            log.warning("verdicts without what was stored of their accounts: files cannot be read", files=unread)
        before, after = self._read.get(where.number), Read(records.next_offset, self.span.topic_id)
        try:
            given = self.catalog.desk.topics.give(where, before, after, verdicts, acts)
        except FencedError as error:
            log.info("another listener has been faster: reading on from where it is", reason=str(error))
            self._read = self.catalog.desk.topics.read(where.topic)
            self._seek(where)
            return False
        self._read[where.number] = after
        copies.keep(self.lake.root, self.catalog)
        new = [one for one in given if one.given_at_us == now_us]
        self.heard.given += len(new)
        self.heard.without_row += sum(one.row is None and one.decision != "withdrawn" for one in new)
        self.heard.refused += len(acts)
        if new or acts:
            log.info("verdicts", partition=str(where), given=len(new), refused=len(acts), next_offset=after.next_offset)
        return True

    def _judgements(self, records: Records, now_us: int) -> tuple[list[tuple[int, Judgement]], list[tuple[Act, int]]]:
        """What can be read, with offsets, and the record of what cannot."""
        where = records.partition
        sound: list[tuple[int, Judgement]] = []
        acts: list[tuple[Act, int]] = []
        for value, offset in zip(records.values.to_pylist(), records.offsets.tolist(), strict=True):
            try:
                sound.append((offset, read_record(value, where, offset, self.span.topic_id)))
            except ConfigError as error:
                acts.append((_refused(where, offset, account_in(value), ("unreadable", str(error))), now_us))
        return sound, acts


def _refused(where: Partition, offset: int, account: str, said: tuple[str, str]) -> Act:
    """The record of a refusal, which says where to look for what was refused, and holds none of it."""
    kind, _ = said
    log.warning("a record is no verdict", partition=str(where), offset=offset, kind=kind)
    details = {"partition": str(where), "offset": offset, "kind": kind}
    return Act("verdict.refused", f"kafka:{where.topic}", "account" if account else "", account, details)


def _lost(before: Read | None, topic_id: str, first_offset: int, next_offset: int) -> str:
    """What was to be read and is not there, in words; empty: nothing."""
    if before is None:
        return ""
    if before.topic_id and topic_id and before.topic_id != topic_id:
        return "the topic was made anew since it was read last"
    if before.next_offset < first_offset:
        return f"Kafka no longer holds offsets {before.next_offset} to {first_offset - 1}, which were not read yet"
    if before.next_offset > next_offset:
        return f"the topic ends at offset {next_offset}, and was read up to {before.next_offset}: it was made anew"
    return ""


def _part(records: Records, start: int) -> Records:
    """Some of the records; the last part goes as far as all of them."""
    stop = min(len(records), start + RECORDS_MAX)
    next_offset = records.next_offset if stop == len(records) else int(records.offsets[stop])
    return Records(
        records.partition, records.values.slice(start, stop - start), records.offsets[start:stop],
        records.timestamps[start:stop], next_offset,
    )  # fmt: skip


@contextlib.contextmanager
def listening(  # what it reads, where to, and how
    settings: Settings, lake: Lake, catalog: Catalog, clock: Clock, wish: Wish, heard: Heard
) -> Iterator[Listener]:
    """A listener that hangs up at its end.

    Args:
        settings: `topic` is the topic of verdicts.
        lake: where stored features are.
        catalog: where the record is.
        clock: time.
        wish: how to listen.
        heard: is added to.

    Raises:
        ConfigError: there is no such topic, or a setting is wrong.
        NoRightError: the catalog's role may not read where it goes on.
        OffsetGapError: Kafka has lost records that were not read yet.
        RetryableError: no broker answers, or the catalog does not.
    """
    span = ask_log(settings, None, None)
    source = KafkaSource(settings)
    listener = Listener(source, lake, catalog, clock, settings, wish, span, heard)
    listener.begin()
    source.open([Partition(settings.topic, one.partition) for one in span.spans])
    try:
        yield listener
    finally:
        source.close()


def listen(
    begin: Callable[[], contextlib.AbstractContextManager[Listener]], stop: Callable[[], bool], clock: Clock,
    *, once: bool, retry_s: float,
) -> None:  # fmt: skip
    """Listen until told to stop, beginning again after failures that may pass.

    Args:
        begin: see `listening`.
        stop: whether to end.
        clock: time.
        once: end when all is read that the topic held at the start.
        retry_s: how long it may fail before the job gives up.
    """
    failing_since_s: float | None = None
    waits: Sequence[float] = ()
    while not stop():
        try:
            with begin() as listener:
                while not stop() and not listener.has_grown():
                    listener.round()
                    failing_since_s, waits = None, _WAITS_S
                    if once and listener.has_caught_up():
                        return
        except RetryableError as error:
            now_s = clock.elapsed_s()
            failing_since_s = now_s if failing_since_s is None else failing_since_s
            if now_s - failing_since_s >= retry_s:
                raise
            wait_s, waits = (waits or _WAITS_S)[0], (waits or _WAITS_S)[1:] or _WAITS_S[-1:]
            log.warning("waiting to try again", reason=str(error), next_try_s=wait_s)
            clock.sleep(wait_s)


_WAITS_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
