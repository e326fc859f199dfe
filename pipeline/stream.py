"""The main job: read this file from top to bottom and you know the program.

Each round polls the source, lets it tell which partitions came and went, turns records into rows, and writes the rows
of every partition that has enough of them::

    poll → decode → (features → score → alert) → land → commit

Features, scores and alerts are one stage here, an `Analysis` for each partition (`analysis.py`): rows in, rows out, and
all that is remembered in between.  A partition with an alert is written at once; an alert never waits for a full file.

A commit takes the steps below, and a crash between any two of them loses nothing and doubles nothing:

1. stage: the partition's files, and now and then a snapshot of its analysis, are written under staging names, fsynced;
2. commit: one transaction moves the partition's offset, if this worker still owns it, lists the files as pending, and
   keeps the alerts that the records raised, with those to be sent in the outbox, and up to which verdict the models
   have learned;
3. place: the files are renamed to their final paths;
4. publish: the files become live, all at once, for readers that go by the catalog;
5. sweep: snapshots that a new one makes needless are removed;
6. hint: Kafka is told the offset, for its lag tools.

Whoever is assigned the partition next takes it over in the catalog, which shuts the former owner out, finishes steps 3
and 4 of what it left, removes what it staged and never committed, brings the analysis up to what is landed, from the
last snapshot and the lake's own files (`restoring.py`), and reads on from the catalog's offset.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from pipeline.analysis import Watch
from pipeline.batch import Decoded, Partition, Records
from pipeline.commits import Claim, Commit, LogMark
from pipeline.committing import Committer, Writing
from pipeline.decode import Decoder
from pipeline.errors import FencedError, RetryableError
from pipeline.opening import Opened, Opener, Opening
from pipeline.orgs import no_org
from pipeline.ports import Assigned, Clock, Gone, Ledger, OutOfRange, Source, Storage
from pipeline.restoring import Restorer
from pipeline.waiting import SilenceWatch
from pipeline.watching import Findings, Watched, WatchLimits

POLL_S: Final = 0.2
"""How long a poll waits at most: bounds how late a stop or a file's age is noticed."""

BACKOFF_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Waits between tries while the lake or the catalog fails; the last one repeats."""

_ID_LOGGED: Final = 8
"""Characters of an alert's id in a log line; enough for `stillwatch alerts show`."""

WATCH_LIMITS: Final = WatchLimits()
NO_FINDINGS: Final = Findings()

log = structlog.get_logger("stream")


@dataclass(frozen=True, slots=True)
class Limits:
    """When rows are written and when trying is given up; see `pipeline.config.Settings` for each."""

    file_rows_max: int
    file_bytes_max: int
    file_age_s: float
    buffer_bytes_max: int
    retry_s: float
    start_latest: bool = False
    records_max: int | None = None
    watch: WatchLimits = WATCH_LIMITS


@dataclass(slots=True)
class Progress:
    """What this worker has done so far; for people to watch."""

    records: int = 0
    events: int = 0
    rejects: int = 0
    windows: int = 0
    alerts: int = 0
    """By live rules."""

    shadow_alerts: int = 0
    replayed: int = 0
    """Events from the lake, to know accounts again."""

    snapshots: int = 0
    commits: int = 0
    files: int = 0
    bytes: int = 0
    fenced: int = 0
    failing: str = ""
    unheard: str = ""

    @property
    def waits_for(self) -> str:
        """What outside is away, in words; empty while all is well."""
        return "; ".join(filter(None, (self.unheard, self.failing)))


@dataclass(slots=True)
class _Owned:
    """A partition that this worker holds, and its rows that are not written yet."""

    claim: Claim
    first_offset: int
    next_offset: int
    end: int
    """Where the log ended when the partition was opened."""

    topic_id: str
    """Kafka's id of the topic then; empty: not known."""

    watched: Watched | None
    """Its analysis; None where nothing is scored."""

    parts: list[Decoded] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0
    since_s: float = 0.0
    writing: Writing | None = None

    @property
    def moved(self) -> bool:
        return self.next_offset > self.first_offset


class Stream:
    """Moves records of the partitions that this worker is given into the lake, each exactly once."""

    def __init__(  # noqa: PLR0913  # four ports, and what to do with them
        self,
        source: Source,
        storage: Storage,
        ledger: Ledger,
        clock: Clock,
        limits: Limits,
        *,
        worker: str,
        watch: Watch | None = None,
        accepted_holes: frozenset[str] = frozenset(),
        step: Callable[[str], None] = lambda _name: None,
    ) -> None:
        """Wire a stream.

        Args:
            source: joined to its group.
            storage: the lake.
            ledger: the catalog.
            clock: time.
            limits: when to write.
            worker: host and process, for the record.
            watch: what accounts are scored with; None: records are landed only.
            accepted_holes: holes that the operator has decided to step over, as `str(Hole)` writes them.
            step: called after each step of a commit with its name; for tests that crash there.
        """
        self._source, self._storage, self._ledger, self._clock = source, storage, ledger, clock
        self._limits, self._worker, self._step = limits, worker, step
        self._committer = Committer(storage, ledger, step, watch.org_of if watch else no_org)
        self._opener = Opener(
            source, storage, ledger, clock, accepted_holes=accepted_holes,
            start_latest=limits.start_latest, retry_s=limits.retry_s,
        )  # fmt: skip
        self._restorer = Restorer(storage, ledger, clock, watch, limits.watch) if watch else None
        self._decoder = Decoder()
        self._owned: dict[Partition, _Owned] = {}
        self._unopened: dict[Partition, Opening] = {}
        self._silence = SilenceWatch(source, clock, limits.retry_s)
        self._ends: dict[Partition, int] = {}
        self._failing_since_s: float | None = None
        self._retry_at_s = 0.0
        self._tries = 0
        self.progress = Progress()
        self.assigned_once = False

    @property
    def owned(self) -> dict[Partition, int]:
        """The partitions held, and the offset up to which each is read."""
        return {partition: own.next_offset for partition, own in self._owned.items()}

    @property
    def scores_accounts(self) -> bool:
        """Whether accounts are scored and alerts raised."""
        return self._restorer is not None

    @property
    def accounts(self) -> int:
        """Accounts that are known, over all partitions held."""
        return sum(own.watched.accounts for own in self._owned.values() if own.watched is not None)

    def run(self, stop: Callable[[], bool]) -> None:
        """Work until `stop` says so; rows that are not written then are left to `flush`.

        Raises:
            OffsetGapError: Kafka deleted records before they were read.
            RetryableError: the lake, the catalog or the broker failed for longer than `retry_s`.
        """
        while not stop():
            self.round()

    def round(self) -> None:
        """Poll once, and write what is due."""
        try:
            polled = self._source.poll(0.0 if self._is_restoring else POLL_S)
        except RetryableError as error:
            self._failed(error)
            self._clock.sleep(POLL_S)
            return
        self.progress.unheard = self._silence.look()
        touched: set[Partition] = set()
        for event in polled.events:
            touched.update(self._rebalanced(event))
        for partition, own in list(self._owned.items()):
            if self.exhausted:  # what is not read now must not count as passed over
                break
            parts = [records for records in polled.records if records.partition == partition]
            if parts and partition not in touched:
                self._add(own, self._cut(Records.joined(parts)))
        if not self.exhausted:
            self._note_positions()
        self._try(self._open_and_write)
        self._opener.mind(self._unopened.values())

    @property
    def exhausted(self) -> bool:
        """Whether `records_max` records were read."""
        return self._limits.records_max is not None and self.progress.records >= self._limits.records_max

    def caught_up(self) -> bool:
        """Whether all is read that the owned partitions held when they were opened; it may not be written yet."""
        if not self.assigned_once or self._unopened:
            return False
        if any(own.next_offset < own.end for own in self._owned.values()):
            return False
        elsewhere = {partition: end for partition, end in self._ends.items() if partition not in self._owned}
        landed = self._ledger.offsets() if elsewhere else {}  # by whoever has them now
        return all(landed[partition] >= end for partition, end in elsewhere.items())

    def flush(self, until_s: float) -> bool:
        """Write everything that is read, trying until a moment of `clock.elapsed_s`; says whether all was written."""
        while any(own.moved or own.writing for own in self._owned.values()):
            self._try(lambda: self._write_due(all_of_it=True))
            if self._failing_since_s is not None:
                if self._clock.elapsed_s() >= until_s:
                    return False
                self._keep_membership()
        return True

    def _keep_membership(self) -> None:
        """Pass some time while everything is paused and nothing is to be read."""
        try:
            self._source.poll(POLL_S)
        except RetryableError:
            self._clock.sleep(POLL_S)

    # ---- partitions come and go

    def _rebalanced(self, event: Assigned | Gone | OutOfRange) -> Sequence[Partition]:
        if isinstance(event, OutOfRange):
            self._reopen(event.partition)
            return [event.partition]
        for partition in event.partitions:
            self._drop(partition)
            self._unopened.pop(partition, None)
            if isinstance(event, Assigned):
                self._unopened[partition] = Opening(partition)
        self.assigned_once |= isinstance(event, Assigned)
        if event.partitions:
            what = "partitions assigned" if isinstance(event, Assigned) else "partitions gone"
            log.info(what, partitions=", ".join(map(str, event.partitions)))
        return event.partitions

    def _drop(self, partition: Partition) -> None:
        """Forget a partition's rows: they stay in Kafka, and its next owner reads them from the catalog's offset."""
        own = self._owned.pop(partition, None)
        if own is not None and own.rows:
            log.info("rows dropped, to be read again", partition=str(partition), rows=own.rows, offset=own.first_offset)

    def _reopen(self, partition: Partition) -> None:
        """Drop a partition's rows, and look in the catalog where to read on."""
        self._drop(partition)
        self._source.pause([partition])  # nothing of it is of use until it is opened
        self._unopened[partition] = Opening(partition)

    def _open_what_is_assigned(self) -> None:
        """Take over what was assigned, and read on from the catalog's offset; a partition without an answer waits."""
        for partition, opening in list(self._unopened.items()):
            if self._source.position(partition) is None:  # gone again: taking it over would only shut its owner out
                del self._unopened[partition]
                continue
            try:
                opening.opened = opening.opened or self._opener.advance(opening)
            except FencedError as error:  # another worker opened it between our look and our step: look again
                log.info("fenced while opening", partition=str(partition), reason=str(error))
                self._unopened[partition] = Opening(partition)
                continue
            if opening.opened is None:
                continue
            watched = self._restored(opening, opening.opened)
            if watched is not None or self._restorer is None:
                del self._unopened[partition]
                self._begin_to_read(partition, opening.opened, watched)

    @property
    def _is_restoring(self) -> bool:
        return self._failing_since_s is None and any(opening.restoring for opening in self._unopened.values())

    def _restored(self, opening: Opening, opened: Opened) -> Watched | None:
        """The partition's analysis, brought up to what is landed; None while it is not, and where nothing is scored."""
        if self._restorer is None:
            return None
        if opening.restoring is None:
            opening.restoring = self._restorer.begin(opening.partition, opened.offset)
        watched = self._restorer.advance(opening.partition, opening.restoring)
        if watched is not None:
            self.progress.replayed += opening.restoring.replayed
        return watched

    def _begin_to_read(self, partition: Partition, opened: Opened, watched: Watched | None) -> None:
        if self._source.read_from(partition, opened.offset, opened.mark.leader_epoch):
            self._owned[partition] = _Owned(
                opened.claim, opened.offset, opened.offset, opened.end, opened.mark.topic_id, watched
            )
            self._ends.setdefault(partition, opened.end)
            behind = opened.end - opened.offset
            log.info("reading", partition=str(partition), offset=opened.offset, behind=behind)

    # ---- rows

    def _add(self, own: _Owned, records: Records) -> None:
        if len(records) and records.offsets[0] < own.next_offset:
            log.warning(
                "records came again: reading anew", partition=str(records.partition), offset=int(records.offsets[0])
            )
            self._reopen(records.partition)
            return
        if len(records):
            decoded = self._decoder.decode(records)
            if not own.parts:
                own.since_s = self._clock.elapsed_s()
            own.parts.append(decoded)
            own.rows += len(decoded.events) + len(decoded.rejects)
            size = decoded.nbytes
            own.bytes += size
            if own.watched is not None:
                own.watched.add(decoded.events, size, self._clock.elapsed_s())
            self.progress.records += len(records)
            log.debug("read", partition=str(records.partition), records=len(records), rejects=len(decoded.rejects))
        own.next_offset = max(own.next_offset, records.next_offset)

    def _cut(self, records: Records) -> Records:
        """No more records than may be read in all."""
        if self._limits.records_max is None or self.progress.records + len(records) <= self._limits.records_max:
            return records
        left = self._limits.records_max - self.progress.records
        next_offset = int(records.offsets[left - 1]) + 1
        return Records(
            records.partition,
            records.values.slice(0, left),
            records.offsets[:left],
            records.timestamps[:left],
            next_offset,
        )

    def _note_positions(self) -> None:
        """Move past what shows no records: transaction markers, aborted and compacted records."""
        for partition, own in self._owned.items():
            position = self._source.position(partition)
            if position is not None and position > own.next_offset:
                if not own.moved:
                    own.since_s = self._clock.elapsed_s()
                own.next_offset = position

    # ---- writing

    def _open_and_write(self) -> None:
        self._open_what_is_assigned()
        self._write_due(all_of_it=False)

    def _write_due(self, *, all_of_it: bool) -> None:
        for partition, own in list(self._owned.items()):
            if own.watched is not None:
                own.bytes += own.watched.step_if_due(self._clock.elapsed_s())
            if own.writing or (own.moved and (all_of_it or self._is_due(own))):
                self._write(partition, own, last=all_of_it)
        while sum(own.bytes for own in self._owned.values()) > self._limits.buffer_bytes_max:
            largest = max(self._owned, key=lambda partition: self._owned[partition].bytes)
            self._write(largest, self._owned[largest])

    def _is_due(self, own: _Owned) -> bool:
        limits, now_s = self._limits, self._clock.elapsed_s()
        if own.watched is not None and own.watched.has_old_alerts(now_s):
            return True
        old = now_s - own.since_s >= limits.file_age_s
        return own.rows >= limits.file_rows_max or own.bytes >= limits.file_bytes_max or old

    def _write(self, partition: Partition, own: _Owned, *, last: bool = False) -> None:
        """Take a partition's rows through the steps of a commit."""
        if own.writing is None:
            commit = Commit(
                commit_id=uuid.uuid4().hex,
                partition=partition,
                first_offset=own.first_offset,
                next_offset=own.next_offset,
                events=sum(len(part.events) for part in own.parts),
                rejects=sum(len(part.rejects) for part in own.parts),
                committed_at_us=self._clock.now_us(),
                worker=self._worker,
            )
            mark = LogMark(own.topic_id, self._source.leader_epoch(partition, own.next_offset))
            findings = NO_FINDINGS
            if own.watched is not None:
                verdicts = self._ledger.verdicts_after(own.watched.verdict_seq)
                findings = own.watched.cut(own.next_offset, self._clock.elapsed_s(), verdicts, last=last)
            own.writing = Writing(commit, mark, own.parts, findings)
            own.parts, own.rows, own.bytes = [], 0, 0
        try:
            self._committer.advance(own.writing, own.claim.epoch)
        except FencedError as error:
            log.warning("fenced: rows dropped", partition=str(partition), reason=str(error))
            self.progress.fenced += 1
            self._storage.discard(own.writing.commit)
            self._reopen(partition)
            return
        self._count(own.writing)
        own.first_offset, own.writing = own.writing.commit.next_offset, None
        self._source.hint({partition: own.first_offset})
        self._step("hinted")

    def _count(self, writing: Writing) -> None:
        files = writing.files or []
        self.progress.windows += len(writing.findings.windows)
        self._count_findings(writing)
        self.progress.commits += 1
        self.progress.events += writing.commit.events
        self.progress.rejects += writing.commit.rejects
        self.progress.files += len(files)
        self.progress.bytes += sum(file.bytes for file in files)
        log.debug(
            "committed",
            partition=str(writing.commit.partition),
            next_offset=writing.commit.next_offset,
            files=len(files),
        )

    def _count_findings(self, writing: Writing) -> None:
        partition, alerts = str(writing.commit.partition), writing.findings.alerts
        live = [alert for alert in alerts if alert.state == "live"]
        self.progress.alerts += len(live)
        self.progress.shadow_alerts += len(alerts) - len(live)
        if live:  # ids alone: accounts' names are written by strangers
            log.info(
                "alerts raised", partition=partition, live=len(live), shadow=len(alerts) - len(live),
                see=f"stillwatch alerts show {live[0].alert_id[:_ID_LOGGED]}",
            )  # fmt: skip
        if writing.snapshot is not None:
            self.progress.snapshots += 1
            megabytes = round(writing.snapshot.bytes / 1e6, 1)
            log.info("snapshot taken", partition=partition, offset=writing.snapshot.next_offset, megabytes=megabytes)

    # ---- when Kafka, the lake or the catalog fails

    def _try(self, act: Callable[[], None]) -> None:
        """Do something that may fail for a while; while it fails everything is paused, and polling goes on."""
        now_s = self._clock.elapsed_s()
        if self._failing_since_s is not None and now_s < self._retry_at_s:
            self._source.pause(self._owned)  # a rebalance may have brought partitions that run
            return
        try:
            act()
        except RetryableError as error:
            self._failed(error)
        else:
            if self._failing_since_s is not None:
                log.info("works again", after_s=round(now_s - self._failing_since_s, 1))
                self._source.resume(self._owned)
            self._failing_since_s, self._tries, self.progress.failing = None, 0, ""

    def _failed(self, error: RetryableError) -> None:
        now_s = self._clock.elapsed_s()
        if self._failing_since_s is None:
            self._failing_since_s = now_s
        failing_s = now_s - self._failing_since_s
        if failing_s >= self._limits.retry_s:
            raise RetryableError(f"gave up after {failing_s:.0f} s: {error}") from error
        self._source.pause(self._owned)
        wait_s = BACKOFF_S[min(self._tries, len(BACKOFF_S) - 1)]
        self._retry_at_s = now_s + wait_s
        self._tries += 1
        self.progress.failing = str(error)
        log.warning("waiting to try again", reason=str(error), failing_s=round(failing_s, 1), next_try_s=wait_s)
