"""What `KafkaConsumer` knows but does not tell, asks only by waiting for the answer, or forgets.

kafka-python does its talking on a thread of its own; what is asked here is asked there, and nobody waits.
"""
# ruff: noqa: SLF001  # the consumer's parts are private, and its public methods wait

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from kafka import TopicPartition
from kafka import errors as kafka_errors
from kafka.protocol.consumer import OffsetForLeaderEpochRequest, OffsetSpec

from pipeline.errors import StillwatchError
from pipeline.ports import LogState

SURVEY_MS: Final = 5_000
"""How long one question may go unanswered before it counts as such and is asked again."""

NO_LEADER: Final = -1
"""Stands for a partition's leader while it has none."""

_Partition: Final = OffsetForLeaderEpochRequest.OffsetForLeaderTopic.OffsetForLeaderPartition


class KafkaSurvey:
    """What a partition's log holds, asked when this is made; see `pipeline.ports.Survey`."""

    def __init__(
        self,
        consumer: Any,
        where: TopicPartition,
        leader_epoch: int,
        in_words: Callable[[Exception], StillwatchError],
    ) -> None:
        """Ask.

        Args:
            consumer: a `KafkaConsumer`.
            where: the partition.
            leader_epoch: of the last record that was read; -1: not known.
            in_words: what kafka-python raises to what Stillwatch raises.
        """
        self._consumer, self._where, self._leader_epoch, self._in_words = consumer, where, leader_epoch, in_words
        self._future: Any = consumer._manager.call_soon(self._ask)

    def result(self) -> LogState | None:
        """The answer, or None while there is none yet.

        Raises:
            RetryableError: none came in time, or an error: ask again.
            ConfigError: the broker refuses this client.
        """
        if not self._future.is_done:
            return None
        if self._future.exception is None:
            held: LogState = self._future.value
            return held
        if isinstance(self._future.exception, kafka_errors.KafkaError):
            raise self._in_words(self._future.exception) from self._future.exception
        raise self._future.exception  # a bug, here or there

    async def _ask(self) -> LogState:
        """Runs on kafka-python's thread."""
        manager = self._consumer._manager
        await manager.wait_for(manager.cluster.request_update(), SURVEY_MS)  # the topic may have been made anew since
        topic_id = manager.cluster.topic_id(self._where.topic)
        agrees_to = None if self._leader_epoch < 0 else await self._end_of_epoch()
        first, end = await self._offset(OffsetSpec.EARLIEST), await self._offset(OffsetSpec.LATEST)
        return LogState(first, end, str(topic_id) if topic_id and topic_id.int else "", agrees_to)

    async def _end_of_epoch(self) -> int | None:
        """Where the log ceases to be that of a reader whose last record was of this leader epoch (KIP-320)."""
        manager, where = self._consumer._manager, self._where
        leader = manager.cluster.leader_for_partition(where)
        if leader is None or leader == NO_LEADER:
            raise kafka_errors.LeaderNotAvailableError
        wanted = _Partition(partition=where.partition, current_leader_epoch=-1, leader_epoch=self._leader_epoch)
        request = OffsetForLeaderEpochRequest(replica_id=-1, topics=[(where.topic, [wanted])])
        try:
            response = await manager.wait_for(manager.send(request, node_id=leader), SURVEY_MS)
        except kafka_errors.IncompatibleBrokerVersion:  # a broker that knows no epochs can tell nothing by them
            return None
        [answer] = response.topics[0].partitions
        error = kafka_errors.for_code(answer.error_code)
        if error is not kafka_errors.NoError:
            raise error
        # The broker knows of no such epoch, nor of one before it: nothing of what was read is known to be there.
        return max(0, int(answer.end_offset))

    async def _offset(self, which: OffsetSpec) -> int:
        found = await self._consumer._fetcher._fetch_offsets_by_times_async({self._where: which}, SURVEY_MS)
        return int(found[self._where].offset)


def answered_at_s(consumer: Any) -> float:
    """When a broker last answered on a connection that is up, by `time.monotonic`; 0 where there is none.

    A connection that is merely accepted does not count: a broker's machine does that for a process that hangs.
    """
    # list() first: kafka-python's thread adds and removes connections meanwhile, and takes their transports away
    connections = [(it.connected, it.transport) for it in list(consumer._manager._conns.values())]
    return max((transport.last_read for connected, transport in connections if connected and transport), default=0.0)


def ask_anything(consumer: Any) -> None:
    """Ask a broker for something small: where there is nothing to fetch, silence would tell nothing."""
    consumer._manager.cluster.request_update()


class _StandingJoin:
    """A join of the group that counts as under way until its outcome was taken."""

    is_done: Final = False

    def __init__(self, task: Any) -> None:
        self._task = task

    @property
    def will_stay(self) -> bool:
        """Whether nobody will ever take its outcome: kafka-python takes one that timed out for one still under way."""
        return bool(self._task.is_done) and isinstance(self._task.exception, kafka_errors.KafkaTimeoutError)

    def add_callback(self, act: Callable[[Any], object]) -> None:
        self._task.add_callback(act)

    def add_errback(self, act: Callable[[Any], object]) -> None:
        self._task.add_errback(act)

    def __await__(self) -> Any:
        return self._task.__await__()


def finish_join(consumer: Any) -> None:
    """Have the next poll finish a join of the group that the last one began and left.

    kafka-python 3.0.12 does so only if the join is still under way by then.  One that ended between two polls it throws
    away and joins anew, which makes all others join anew: a group whose members work between their polls may never come
    to rest.  And it forgets a join altogether where it was the leader that joined because the topic's metadata had
    changed: the change counts as done with before the join is.  It then sends no heartbeat any more, loses its place in
    the group when the session times out, and reads on as if it had not, for ever.
    """
    coordinator = consumer._coordinator
    if coordinator._join_task is not None and not isinstance(coordinator._join_task, _StandingJoin):
        coordinator._join_task = _StandingJoin(coordinator._join_task)
    if coordinator._join_task is not None and coordinator._join_task.will_stay:
        coordinator._join_task = None  # the next poll joins anew
    if coordinator.rejoining and not coordinator.need_rejoin():
        coordinator.request_rejoin()
