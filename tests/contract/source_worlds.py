"""A topic and the members of a group that read it: a fake one, and one on Apache Kafka."""

from __future__ import annotations

import abc
import contextlib
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psutil
from confluent_kafka import Producer as TransactionalProducer
from kafka import KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient

from pipeline.batch import Partition, Records
from pipeline.config import Settings
from pipeline.io.kafka import KafkaSource
from pipeline.ports import Assigned, Gone, LogState, OutOfRange, Source, Survey
from tests.fakes import FakeClock, FakeKafka
from tests.servers import ApacheKafka

BOUND_S = 60.0
UNKNOWN = -1
"""No leader epoch."""


class Member:
    """A member of the group, and all that its polls brought."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.events: list[Assigned | Gone | OutOfRange] = []
        self.held: set[Partition] = set()
        self.records: list[Records] = []

    def poll(self, timeout_s: float = 0.1) -> None:
        polled = self.source.poll(timeout_s)
        for event in polled.events:
            self.events.append(event)
            if isinstance(event, Assigned):
                self.held |= set(event.partitions)
            elif isinstance(event, Gone):
                self.held -= set(event.partitions)
        self.records += polled.records

    def offsets(self, partition: Partition) -> list[int]:
        return [offset for part in self.records if part.partition == partition for offset in part.offsets.tolist()]

    def values(self, partition: Partition) -> list[bytes | None]:
        return [value for part in self.records if part.partition == partition for value in part.values.to_pylist()]

    def lost(self) -> list[Partition]:
        return [event.partition for event in self.events if isinstance(event, OutOfRange)]


class World(abc.ABC):
    """A topic, and the members of one group that read it."""

    def __init__(self, partitions: Sequence[Partition]) -> None:
        self.partitions = list(partitions)
        self.members: list[Member] = []

    def join(self) -> Member:
        """Add a member; Kafka deals the partitions out anew."""
        self.members.append(Member(self._source()))
        self._rebalance()
        return self.members[-1]

    def joined(self) -> Member:
        """A first member that holds everything."""
        member = self.join()
        self.until(lambda: member.held == set(self.partitions), "all is assigned")
        return member

    def leave(self, member: Member) -> None:
        """Let a member go."""
        self.members.remove(member)
        self._close(member.source)
        self._rebalance()

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Let all members poll until something is so."""
        end_s = time.monotonic() + BOUND_S
        while not condition():
            assert time.monotonic() < end_s, f"waited in vain: {what}"
            self.rounds(1)

    def rounds(self, count: int) -> None:
        """Let all members poll some times: long enough for what was there to come."""
        for _ in range(count):
            for member in self.members:
                member.poll()

    def answer(self, survey: Survey) -> LogState:
        """Wait for the answer to a survey."""
        found: list[LogState] = []

        def answered() -> bool:
            held = survey.result()
            found.extend([] if held is None else [held])
            return bool(found)

        self.until(answered, "the survey is answered")
        return found[0]

    def close(self) -> None:
        for member in self.members:
            self._close(member.source)

    @abc.abstractmethod
    def _source(self) -> Source: ...

    @abc.abstractmethod
    def _close(self, source: Any) -> None: ...

    @abc.abstractmethod
    def _rebalance(self) -> None: ...

    @abc.abstractmethod
    def produce(self, partition: Partition, values: Sequence[bytes | None]) -> None:
        """Write records."""

    @abc.abstractmethod
    def abort(self, partition: Partition, count: int) -> None:
        """Write records that nobody is to see, and the marker that says so."""

    @abc.abstractmethod
    def delete_before(self, partition: Partition, offset: int) -> None:
        """Let the log begin later."""

    @abc.abstractmethod
    def hinted(self, partition: Partition) -> int | None:
        """What lag tools would see."""

    @abc.abstractmethod
    def silence(self) -> contextlib.AbstractContextManager[None]:
        """No broker answers; connections stand."""


class FakeWorld(World):
    def __init__(self, partitions: int) -> None:
        self._clock, self._kafka = FakeClock(), FakeKafka(partitions)
        super().__init__(list(self._kafka.logs))

    def _source(self) -> Source:
        return self._kafka.join(self._clock, random.Random(len(self.members)))

    def _close(self, source: Any) -> None:
        self._kafka.leave(source)

    def _rebalance(self) -> None:
        if self.members:
            owners = {p: self.members[p.number % len(self.members)].source for p in self.partitions}
            self._kafka.assign(owners)  # type: ignore[arg-type]  # they are all of the fake's

    def produce(self, partition: Partition, values: Sequence[bytes | None]) -> None:
        for value in values:
            self._kafka.logs[partition].append(value)

    def abort(self, partition: Partition, count: int) -> None:
        for _ in range(count + 1):
            self._kafka.logs[partition].append_marker()

    def delete_before(self, partition: Partition, offset: int) -> None:
        self._kafka.logs[partition].delete_before(offset)

    def hinted(self, partition: Partition) -> int | None:
        return self._kafka.hinted.get(partition)

    @contextlib.contextmanager
    def silence(self) -> Iterator[None]:
        for member in self._kafka.members:
            member.down = True
        yield
        for member in self._kafka.members:
            member.down = False


class ApacheWorld(World):
    def __init__(self, broker: ApacheKafka, admin: KafkaAdminClient, topic: str, partitions: int, fetch: str) -> None:
        super().__init__([Partition(topic, number) for number in range(partitions)])
        self._broker, self._admin, self._fetch = broker, admin, fetch
        self._group = f"group-{topic}"

    def _source(self) -> Source:
        source = KafkaSource(
            Settings(
                bootstrap=self._broker.bootstrap, topic=self.partitions[0].topic, group=self._group, fetch=self._fetch
            )
        )  # fmt: skip
        source.open()
        return source

    def _close(self, source: Any) -> None:
        source.close()

    def _rebalance(self) -> None:
        """Kafka's own business."""

    def produce(self, partition: Partition, values: Sequence[bytes | None]) -> None:
        with contextlib.closing(KafkaProducer(bootstrap_servers=self._broker.bootstrap, acks="all")) as producer:
            sent = [producer.send(partition.topic, value=v, key=b"k", partition=partition.number) for v in values]
            for future in sent:
                future.get(BOUND_S)

    def abort(self, partition: Partition, count: int) -> None:
        producer = TransactionalProducer(
            {"bootstrap.servers": self._broker.bootstrap, "transactional.id": str(partition)}
        )
        producer.init_transactions(BOUND_S)
        producer.begin_transaction()
        for _ in range(count):
            producer.produce(partition.topic, b"nobody sees this", partition=partition.number)
        producer.flush(BOUND_S)
        producer.abort_transaction(BOUND_S)

    def delete_before(self, partition: Partition, offset: int) -> None:
        self._admin.delete_records({TopicPartition(*partition): offset})

    def hinted(self, partition: Partition) -> int | None:
        found = self._admin.list_group_offsets(self._group)[self._group].get(TopicPartition(*partition))
        return None if found is None or found.offset < 0 else int(found.offset)

    @contextlib.contextmanager
    def silence(self) -> Iterator[None]:
        """The process hangs, and its machine still takes connections."""
        assert self._broker.pid is not None
        process = psutil.Process(self._broker.pid)
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)


MakeWorld = Callable[..., World]
