"""The world around a stream, in memory: a broker with its consumer group, a lake, and a clock."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.batch import Partition, Records
from pipeline.commits import SNAPSHOTS, Commit, FileEntry, PlacedFile, SnapshotEntry
from pipeline.errors import RetryableError, SchemaError
from pipeline.events import CONTENT_COLUMNS, DECODED_SCHEMA, EVENT_SCHEMA
from pipeline.land import Section
from pipeline.ports import Assigned, Gone, Landed, LogState, OutOfRange, Polled

NEVER_READ = 0
"""Where an assigned partition stands until `read_from`; it is paused, as `KafkaSource` has it."""


@dataclass
class FakeClock:
    """A clock that moves when it is told to."""

    seconds: float = 0.0

    def now_us(self) -> int:
        return 1_780_000_000_000_000 + int(self.seconds * 1e6)

    def elapsed_s(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@dataclass
class FakeLog:
    """One partition's records, by offset; offsets without record are markers, or were compacted away."""

    records: dict[int, tuple[bytes | None, int]] = field(default_factory=dict)
    start: int = 0
    end: int = 0
    epochs: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])
    """Each leader epoch, and the offset at which it began."""

    topic_id: str = "first"
    _last_epoch: int = 0

    def append(self, value: bytes | None, timestamp_ms: int = -1) -> int:
        """Add a record, and return its offset."""
        self.records[self.end] = (value, timestamp_ms)
        self.end += 1
        return self.end - 1

    def append_marker(self) -> None:
        """Take up an offset without a record."""
        self.end += 1

    def delete_before(self, offset: int) -> None:
        """Let the log begin later, as retention does."""
        self.start = max(self.start, offset)
        self.records = {at: record for at, record in self.records.items() if at >= self.start}

    def elect(self, cut_back_to: int | None = None) -> None:
        """Elect another leader; one that was behind (an unclean election) cuts the log back."""
        if cut_back_to is not None:
            self.end = min(self.end, cut_back_to)
            self.records = {at: record for at, record in self.records.items() if at < self.end}
            self.epochs = [(epoch, began) for epoch, began in self.epochs if began < self.end] or self.epochs[:1]
        self.epochs.append((self._last_epoch + 1, self.end))
        self._last_epoch += 1

    def make_anew(self) -> None:
        """Delete the topic and make one of the same name."""
        self.__init__(topic_id=f"after {self.topic_id}")  # type: ignore[misc]

    def epoch_before(self, offset: int) -> int:
        """Leader epoch of the record before an offset; -1 where there is none."""
        return max((epoch for epoch, began in self.epochs if began < offset), default=-1)

    def end_of_epoch(self, asked: int) -> int:
        """Where the records of a leader epoch, or of the last one before it, end: as OffsetForLeaderEpoch answers."""
        if asked > self.epochs[-1][0]:
            return 0
        return min((began for epoch, began in self.epochs if epoch > asked), default=self.end)


class FakeKafka:
    """A broker with one topic, and the coordinator of one consumer group."""

    def __init__(self, partitions: int = 1, topic: str = "access", first_offset: int = 0) -> None:
        self.logs = {
            Partition(topic, number): FakeLog(start=first_offset, end=first_offset) for number in range(partitions)
        }
        self.members: list[FakeMember] = []
        self.hinted: dict[Partition, int] = {}

    def join(self, clock: FakeClock, rng: random.Random | None = None) -> FakeMember:
        """Add a member; it gets partitions with the next `assign`."""
        member = FakeMember(self, clock, rng or random.Random(0))
        self.members.append(member)
        return member

    def leave(self, member: FakeMember) -> None:
        """Forget a member; what it held is nobody's until the next `assign`."""
        self.members.remove(member)

    def assign(self, owners: Mapping[Partition, FakeMember | None]) -> None:
        """Rebalance.  Members learn of it at their next poll, in any order, as it is when one of them is a zombie."""
        for member in self.members:
            gets = {partition for partition, owner in owners.items() if owner is member}
            member.learn(gone=sorted(member.told - gets), assigned=sorted(gets - member.told))


@dataclass
class _Place:
    position: int = NEVER_READ
    paused: bool = True
    leader_epoch: int = -1


class FakeMember:
    """A member of the group, as `pipeline.ports.Source` describes one."""

    def __init__(self, kafka: FakeKafka, clock: FakeClock, rng: random.Random) -> None:
        self._kafka, self._clock, self._rng = kafka, clock, rng
        self._places: dict[Partition, _Place] = {}
        self._events: deque[Assigned | Gone] = deque()
        self.told: set[Partition] = set()
        self.records_max = 12
        self.down = False
        """No broker answers: to a poll that is silence, and no error."""
        self.failing = False
        """Polls raise."""
        self.silent_s = 0.0
        self.address = "fake:9092"
        self.mute: set[Partition] = set()
        self.survey_waits: Sequence[int] = (0, 0, 1, 3)

    def learn(self, *, gone: Iterable[Partition], assigned: Iterable[Partition]) -> None:
        """What the coordinator has decided; noticed at the next poll."""
        gone, assigned = list(gone), list(assigned)
        if gone:
            self._events.append(Gone(gone))
        if assigned:
            self._events.append(Assigned(assigned))
        self.told = (self.told - set(gone)) | set(assigned)

    def poll(self, timeout_s: float) -> Polled:
        if self.failing:
            raise RetryableError("the broker fails")
        if self.down:
            self._clock.sleep(timeout_s)
            self.silent_s += timeout_s
            return Polled([], [])
        self.silent_s = 0.0
        early = self._rng.random() < 0.3  # what was fetched before a rebalance may come with it
        out_of_range, records = self._fetched() if early else ([], [])
        events: list[Assigned | Gone | OutOfRange] = list(self._rebalanced())
        if not early:
            out_of_range, records = self._fetched()
        if not records and not events:
            self._clock.sleep(timeout_s)
        return Polled([*events, *out_of_range], records)

    def _rebalanced(self) -> Iterable[Assigned | Gone]:
        while self._events:
            event = self._events.popleft()
            for partition in event.partitions:
                if isinstance(event, Gone):
                    self._places.pop(partition, None)
                else:
                    self._places[partition] = _Place()
            yield event

    def _fetched(self) -> tuple[list[OutOfRange], list[Records]]:
        reading = {partition: place for partition, place in self._places.items() if not place.paused}
        lost = [OutOfRange(partition) for partition, place in reading.items() if not self._holds(partition, place)]
        if lost:  # kafka-python raises, and returns no records of others
            self.pause(event.partition for event in lost)
            return lost, []
        return [], list(
            itertools.chain.from_iterable(self._fetch(partition, place) for partition, place in reading.items())
        )

    def _holds(self, partition: Partition, place: _Place) -> bool:
        """Whether the log goes on from what was read, as far as the broker can tell."""
        log = self._kafka.logs[partition]
        agrees = place.leader_epoch < 0 or log.end_of_epoch(place.leader_epoch) >= place.position
        return agrees and log.start <= place.position <= log.end

    def _fetch(self, partition: Partition, place: _Place) -> Iterable[Records]:
        """Up to three batches, of up to `records_max` offsets each."""
        log = self._kafka.logs[partition]
        for _ in range(self._rng.randint(0, 3)):
            stop = min(log.end, place.position + self._rng.randint(1, self.records_max))
            if stop <= place.position:
                return
            offsets = [offset for offset in range(place.position, stop) if offset in log.records]
            place.position, place.leader_epoch = stop, log.epoch_before(stop)
            if offsets or self._rng.random() < 0.5:  # a fetch of nothing but markers may show, or may not
                yield records_of(partition, {offset: log.records[offset] for offset in offsets}, stop)

    def survey(self, partition: Partition, leader_epoch: int) -> FakeSurvey:
        waits = self._rng.choice(self.survey_waits)
        return FakeSurvey(self, partition, self._kafka.logs[partition], leader_epoch, waits)

    def read_from(self, partition: Partition, offset: int, leader_epoch: int) -> bool:
        if partition not in self._places:
            return False
        self._places[partition] = _Place(offset, paused=False, leader_epoch=leader_epoch)
        return True

    def leader_epoch(self, partition: Partition, offset: int) -> int:
        place = self._places.get(partition)
        return place.leader_epoch if place is not None and place.position == offset else -1

    def position(self, partition: Partition) -> int | None:
        place = self._places.get(partition)
        return None if place is None else place.position

    def pause(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            if partition in self._places:
                self._places[partition].paused = True

    def resume(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            if partition in self._places:
                self._places[partition].paused = False

    def hint(self, offsets: Mapping[Partition, int]) -> None:
        self._kafka.hinted.update(
            {partition: offset for partition, offset in offsets.items() if partition in self._places}
        )

    def lag(self, partitions: Iterable[Partition]) -> int | None:
        places = {partition: self._places.get(partition) for partition in partitions}
        if self.silent_s or any(place is None or place.paused for place in places.values()):
            return None
        return sum(self._kafka.logs[partition].end - place.position for partition, place in places.items() if place)


@dataclass
class FakeSurvey:
    """An answer that may take some looks; what it says was true when the question reached the broker."""

    member: FakeMember
    partition: Partition
    log: FakeLog
    leader_epoch: int
    waits: int

    def __post_init__(self) -> None:
        agrees_to = None if self.leader_epoch < 0 else self.log.end_of_epoch(self.leader_epoch)
        self._held = LogState(self.log.start, self.log.end, self.log.topic_id, agrees_to)

    def result(self) -> LogState | None:
        if self.member.down or self.partition in self.member.mute:
            raise RetryableError("the broker does not answer")
        self.waits -= 1
        return self._held if self.waits < 0 else None


def records_of(partition: Partition, records: Mapping[int, tuple[bytes | None, int]], next_offset: int) -> Records:
    """Records as a source gives them, from value and timestamp by offset."""
    return Records(
        partition=partition,
        values=pa.array([value for value, _ in records.values()], pa.binary_view()),
        offsets=np.array(list(records), dtype=np.int64),
        timestamps=np.array([timestamp for _, timestamp in records.values()], dtype=np.int64),
        next_offset=next_offset,
    )


@dataclass
class FakeLake:
    """A lake's files, as `pipeline.ports.Storage` describes them; tests/contract/ holds it to what the real one does.

    Attributes:
        staged: content by partition, commit and path.
        placed: content by path: what readers can see.
        closed: names that cannot be written below: of tables, or `_staging`.
    """

    staged: dict[Partition, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    placed: dict[str, bytes] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)

    def stage(self, commit: Commit, sections: Sequence[Section]) -> list[FileEntry]:
        self._check("_staging")
        files = {_fake_entry(commit, section): _content(section) for section in sections}
        if files:
            commits = self.staged.setdefault(commit.partition, {})
            commits[commit.commit_id] = {file.path: content for file, content in files.items()}
        return list(files)

    def place(self, commit: Commit, files: Iterable[PlacedFile]) -> None:
        staged = self.staged.get(commit.partition, {}).get(commit.commit_id, {})
        for file in files:
            self._check(file.table_name)
            if file.path in staged:
                self.placed[file.path] = staged.pop(file.path)
            if file.path not in self.placed and file.table_name != SNAPSHOTS:
                raise SchemaError(f"{file.path}: a committed file is gone")
        self.discard(commit)

    def discard(self, commit: Commit) -> None:
        self.staged.get(commit.partition, {}).pop(commit.commit_id, None)

    def leftovers(self, partition: Partition) -> list[str]:
        self._check("_staging")
        return sorted(self.staged.get(partition, {}))

    def sweep(self, partition: Partition, commit_ids: Iterable[str]) -> int:
        there = self.staged.get(partition, {})
        return sum(there.pop(commit_id, None) is not None for commit_id in commit_ids)

    def stage_snapshot(self, commit: Commit, body: bytes) -> SnapshotEntry:
        self._check("_staging")
        path = f"{SNAPSHOTS}/{commit.partition}/{commit.next_offset:020d}-{commit.commit_id}.snapshot"
        self.staged.setdefault(commit.partition, {}).setdefault(commit.commit_id, {})[path] = body
        return SnapshotEntry(
            commit.partition, commit.next_offset, commit.commit_id, path, len(body), hashlib.sha256(body).hexdigest(), 1,
            commit.committed_at_us,
        )  # fmt: skip

    def snapshot_paths(self, partition: Partition) -> list[str]:
        return sorted(path for path in self.placed if path.startswith(f"{SNAPSHOTS}/{partition}/"))

    def remove_snapshots(self, paths: Iterable[str]) -> None:
        for path in paths:
            self.placed.pop(path, None)

    def read_snapshot(self, snapshot: SnapshotEntry) -> bytes:
        body = self.placed.get(snapshot.path)
        if body is None:
            raise SchemaError(f"{snapshot.path}: a snapshot that the catalog lists is gone")
        if len(body) != snapshot.bytes:
            raise SchemaError(f"{snapshot.path}: {len(body)} bytes, expected {snapshot.bytes}")
        return body

    def read_events(self, commits: Sequence[Commit], files: Sequence[FileEntry]) -> Landed:
        del commits
        missing = [file.path for file in files if file.path not in self.placed]
        texts: dict[int, dict[str, object]] = {}
        for row in self._rows(files, "content"):
            texts[row["offset"]] = {name: row[name] for name in CONTENT_COLUMNS}
        none = dict.fromkeys(CONTENT_COLUMNS)
        rows = [{**row, **texts.get(row["offset"], none)} for row in self._rows(files, "access")]
        rows.sort(key=lambda row: row["offset"])
        plain = pa.Table.from_pylist(rows, EVENT_SCHEMA)
        return Landed(
            pa.table(
                [
                    column.cast(field.type).combine_chunks()
                    for column, field in zip(plain.columns, DECODED_SCHEMA, strict=True)
                ],
                schema=DECODED_SCHEMA,
            ),
            tuple(missing),
        )

    def _rows(self, files: Sequence[FileEntry], table: str) -> list[dict[str, Any]]:
        tables = [
            pa.ipc.open_stream(self.placed[file.path]).read_all()
            for file in files
            if file.table_name == table and file.path in self.placed
        ]
        return [row for found in tables for row in found.to_pylist()]

    def _check(self, name: str) -> None:
        if name in self.closed:
            raise RetryableError(f"{name}: nothing can be written there")


def _fake_entry(commit: Commit, section: Section) -> FileEntry:
    content = _content(section)
    return FileEntry(
        path=f"{section.table}/dt={section.dt}/hour={section.hour:02d}/{commit.commit_id}.parquet",
        table_name=section.table,
        dt=section.dt,
        hour=section.hour,
        rows=len(section.rows),
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        time_min_us=section.time_min_us,
        time_max_us=section.time_max_us,
    )


def _content(section: Section) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, section.rows.schema) as writer:
        writer.write_table(section.rows)
    return bytes(sink.getvalue())
