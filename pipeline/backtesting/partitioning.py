"""Which partition of a topic each event of a file would have gone to, and at which offset.

Producers key by `account_id`, and Kafka's default partitioner takes murmur2 of the key.  A file replayed over as many
partitions as the topic has gives the live job's rows: every partition is a stream of its own, with its own models.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from kafka.partitioner import murmur2

from pipeline.batch import Partition
from pipeline.events import DECODED_SCHEMA
from pipeline.text_views import reordered

_KNOWN_MAX = 1 << 20
"""Accounts whose partition is remembered; beyond it they are looked up anew."""


class Partitioner:
    """Divides events among the partitions of a topic, and numbers them there."""

    def __init__(self, topic: str, partitions: int) -> None:
        """Start at offset 0 everywhere.

        Args:
            topic: its name.
            partitions: how many it has, at least 1.
        """
        self._partitions = [Partition(topic, number) for number in range(partitions)]
        self._next = np.zeros(partitions, dtype=np.int64)
        self._known: dict[str, int] = {}

    def number_of(self, key: str) -> int:
        """The partition of a key, as the Java client's default partitioner and kafka-python's have it."""
        number = self._known.get(key)
        if number is None:
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            number = self._known[key] = (murmur2(key.encode()) & 0x7FFFFFFF) % len(self._partitions)
        return number

    def divide(self, events: pa.Table, at: npt.NDArray[np.int64], keys: list[str | None]) -> Iterator[pa.Table]:
        """Divide consecutive events.

        Args:
            events: `pipeline.events.DECODED_SCHEMA`, in the file's order.
            at: int64[len(events)], which of the records each one is, rising.
            keys: of all consecutive records, those included that became no event: they take an offset, too.  A record
                without a key goes to partition 0, where Kafka would choose at random.

        Yields:
            The events of each partition that has any, with its topic, number and offsets.
        """
        numbers = np.array([0 if key is None else self.number_of(key) for key in keys], dtype=np.int64)
        offsets = np.empty(len(keys), dtype=np.int64)
        for partition in self._partitions:
            here = np.flatnonzero(numbers == partition.number)
            offsets[here] = self._next[partition.number] + np.arange(len(here))
            self._next[partition.number] += len(here)
        for partition in self._partitions:
            rows = np.flatnonzero(numbers[at] == partition.number)
            if len(rows):
                own = events if len(rows) == len(events) else reordered(events, rows)
                yield placed(own, partition, offsets[at[rows]])


def placed(events: pa.Table, partition: Partition, offsets: npt.NDArray[np.int64]) -> pa.Table:
    """Events at their place in a log: `pipeline.events.DECODED_SCHEMA`."""
    place = {
        "topic": pa.repeat(pa.scalar(partition.topic, pa.string_view()), len(events)),
        "partition": pa.repeat(pa.scalar(partition.number, pa.int32()), len(events)),
        "offset": pa.array(offsets),
    }
    columns = [place[name] if name in place else events[name] for name in DECODED_SCHEMA.names]
    return pa.table(columns, schema=DECODED_SCHEMA)
