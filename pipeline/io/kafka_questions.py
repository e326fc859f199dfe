"""What `KafkaConsumer` knows but does not tell, and asks only by waiting for the answer.

kafka-python does its talking on a thread of its own; what is asked here is asked there, and nobody waits.
"""
# ruff: noqa: SLF001  # the consumer's parts are private, and its public methods wait

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from kafka import TopicPartition
from kafka import errors as kafka_errors
from kafka.protocol.consumer import OffsetSpec

from pipeline.errors import StillwatchError
from pipeline.ports import LogRange

SURVEY_MS: Final = 5_000
"""How long one question may go unanswered before it counts as such and is asked again."""


class KafkaSurvey:
    """What a partition's log holds, asked when this is made; see `pipeline.ports.Survey`."""

    def __init__(self, consumer: Any, where: TopicPartition, in_words: Callable[[Exception], StillwatchError]) -> None:
        """Ask.

        Args:
            consumer: a `KafkaConsumer`.
            where: the partition.
            in_words: what kafka-python raises to what Stillwatch raises.
        """
        self._consumer, self._where, self._in_words = consumer, where, in_words
        self._future: Any = consumer._manager.call_soon(self._ask)

    def result(self) -> LogRange | None:
        """The answer, or None while there is none yet.

        Raises:
            RetryableError: none came in time, or an error: ask again.
            ConfigError: the broker refuses this client.
        """
        if not self._future.is_done:
            return None
        if self._future.exception is None:
            held: LogRange = self._future.value
            return held
        if isinstance(self._future.exception, kafka_errors.KafkaError):
            raise self._in_words(self._future.exception) from self._future.exception
        raise self._future.exception  # a bug, here or there

    async def _ask(self) -> LogRange:
        """Runs on kafka-python's thread."""
        return LogRange(await self._offset(OffsetSpec.EARLIEST), await self._offset(OffsetSpec.LATEST))

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
