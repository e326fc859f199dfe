"""The topics that are measured, produced with librdkafka before anything is measured."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from confluent_kafka import Producer
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient

from tests.bench.events import account_of
from tests.servers import create_topic

BATCHES: Final[dict[str, dict[str, int]]] = {
    "1 MB": {"batch.size": 1_000_000, "batch.num.messages": 100_000, "linger.ms": 100},
    "16 KiB": {"batch.size": 16_384, "linger.ms": 100},
}
"""Settings of the producer, by the size of its batches: 16 KiB is the default of Kafka's own producer."""


class Topic(NamedTuple):
    """A topic with events: its name, how many records it holds, and the size of the producer's batches."""

    name: str
    events: int
    batches: str


def make_topic(
    bootstrap: str, name: str, events: Path | None, count: int, *, partitions: int = 1, batches: str = "1 MB"
) -> Topic:
    """Create a topic and produce events to it, lz4, keyed by account.

    Args:
        bootstrap: of the broker.
        name: of the topic.
        events: a file with one event a line; none leaves the topic empty.
        count: how many events; the file's are produced over and over until there are so many.
        partitions: of the topic.
        batches: a key of `BATCHES`.

    Raises:
        RuntimeError: the broker did not take every event.
    """
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=bootstrap)) as admin:
        create_topic(admin, name, partitions)
    if events is None:
        return Topic(name, 0, batches)
    common = {"bootstrap.servers": bootstrap, "compression.type": "lz4", "acks": "all"}
    producer = Producer({**common, "queue.buffering.max.kbytes": 1 << 18, **BATCHES[batches]})
    for event in itertools.islice(_cycle(events), count):
        while True:
            try:
                producer.produce(name, event, account_of(event))
                break
            except BufferError:
                producer.poll(0.05)
    producer.flush(60)
    if (there := _records_in(bootstrap, name)) != count:
        raise RuntimeError(f"{name} holds {there} records, not {count}")
    return Topic(name, count, batches)


def _cycle(path: Path) -> Iterator[bytes]:
    while True:
        with path.open("rb", buffering=1 << 20) as lines:
            for line in lines:
                yield line[:-1]


def _records_in(bootstrap: str, topic: str) -> int:
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    try:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
        return sum(consumer.end_offsets(partitions).values())
    finally:
        consumer.close()
