"""Read a topic and hold the values of its records, nothing more: by one of three ways."""

from __future__ import annotations

from kafka import KafkaConsumer, TopicPartition

from tests.bench.peers.task import FETCH_BYTES_MAX, Task, measured


def columnar(task: Task) -> int:
    """Stillwatch's columnar path: kafka-python fetches, values arrive as an Arrow array."""
    from pipeline.io import columnar as path  # noqa: PLC0415  # a program imports what it uses

    consumer = _kafka_python(task)
    path.install(consumer)
    count = 0
    while count < task.events:
        for slabs in consumer.poll(timeout_ms=1_000).values():
            count += sum(len(slab) for slab in slabs)
    consumer.close(autocommit=False)
    return count


def stock(task: Task) -> int:
    """kafka-python as it is; it unpacks as many records as one fetch holds before it asks for more."""
    consumer = _kafka_python(task, max_poll_records=20_000)
    count = 0
    while count < task.events:
        for records in consumer.poll(timeout_ms=1_000).values():
            count += len(records)
    consumer.close(autocommit=False)
    return count


def confluent(task: Task) -> int:
    """confluent-kafka's batch call, the fastest way it has; librdkafka checks no checksums unless it is told to."""
    from confluent_kafka import Consumer  # noqa: PLC0415
    from confluent_kafka import TopicPartition as Where  # noqa: PLC0415

    consumer = Consumer(
        {
            "bootstrap.servers": task.bootstrap,
            "group.id": "unused",
            "enable.auto.commit": False,
            "max.partition.fetch.bytes": FETCH_BYTES_MAX,
            "fetch.queue.backoff.ms": 5,  # its default waits a second whenever the local queue is full
        }
    )
    consumer.assign([Where(task.topic, 0, 0)])
    count = 0
    while count < task.events:
        count += len(consumer.consume(10_000, timeout=1.0))
    consumer.close()
    return count


def _kafka_python(task: Task, **settings: int) -> KafkaConsumer:
    consumer = KafkaConsumer(
        bootstrap_servers=task.bootstrap,
        enable_auto_commit=False,
        max_partition_fetch_bytes=FETCH_BYTES_MAX,
        **settings,
    )
    where = TopicPartition(task.topic, 0)
    consumer.assign([where])
    consumer.seek(where, 0)
    return consumer


if __name__ == "__main__":
    given = Task.given()
    way = {"columnar": columnar, "stock": stock, "confluent": confluent}[given.variant]
    if given.variant == "columnar":
        import pipeline.io.partition_records  # noqa: F401  # start-up, as the import of the other clients
    elif given.variant == "confluent":
        import confluent_kafka  # noqa: F401
    with measured() as facts:
        facts["events"] = way(given)
