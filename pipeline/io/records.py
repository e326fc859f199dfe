"""kafka-python's records to `pipeline.batch.Records`: the stock path, one Python object per record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
import pyarrow as pa

from pipeline.batch import Partition, Records

NO_TIMESTAMP: Final = -1
"""Kafka's own mark for a record without a timestamp."""


class Record(Protocol):
    """What is used of a record; `kafka.consumer.fetcher.ConsumerRecord` has it."""

    @property
    def offset(self) -> int:
        """Its place in the partition."""
        ...

    @property
    def timestamp(self) -> int | None:
        """Milliseconds since the epoch; None in message format v0."""
        ...

    @property
    def value(self) -> bytes | None:
        """None for a tombstone."""
        ...


def to_records(partition: Partition, records: Sequence[Record], next_offset: int) -> Records:
    """Turn what `KafkaConsumer.poll()` returned for one partition into columns.

    Args:
        partition: where the records come from.
        records: in offset order, values not deserialised.
        next_offset: the consumer's position after this poll: it is past control records that `records` does not show.

    Returns:
        The same records; a timestamp that the message format does not have is -1.
    """
    return Records(
        partition=partition,
        values=pa.array([record.value for record in records], pa.binary_view()),
        offsets=np.array([record.offset for record in records], dtype=np.int64),
        timestamps=np.array([_timestamp_ms(record.timestamp) for record in records], dtype=np.int64),
        next_offset=next_offset,
    )


def _timestamp_ms(timestamp: int | None) -> int:
    """A timestamp in int64: kafka-python adds deltas without a limit, Kafka's own client wraps at 64 bits."""
    if timestamp is None:
        return NO_TIMESTAMP
    return (timestamp + 2**63) % 2**64 - 2**63
