"""The straightforward program: kafka-python, `json.loads`, pyarrow."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
from kafka import KafkaConsumer, TopicPartition

from tests.bench.peers.task import FETCH_BYTES_MAX, FILE_SCHEMA, ROW_SCHEMA, ROWS_PER_WRITE, Task, measured


def run(task: Task) -> int:
    """Read the topic, write one Parquet file; returns rows written."""
    consumer = KafkaConsumer(
        bootstrap_servers=task.bootstrap,
        enable_auto_commit=False,
        max_poll_records=20_000,
        max_partition_fetch_bytes=FETCH_BYTES_MAX,
    )
    where = TopicPartition(task.topic, 0)
    consumer.assign([where])
    consumer.seek(where, 0)
    written = 0
    rows = []
    with pq.ParquetWriter(task.folder / "out.parquet", FILE_SCHEMA, compression="zstd") as writer:
        while written + len(rows) < task.events:
            for record in consumer.poll(timeout_ms=1_000).get(where, ()):
                row = json.loads(record.value)
                row["topic"] = record.topic
                row["partition"] = record.partition
                row["offset"] = record.offset
                row["kafka_time"] = record.timestamp
                rows.append(row)
            if len(rows) >= ROWS_PER_WRITE or written + len(rows) >= task.events:
                writer.write_table(pa.Table.from_pylist(rows, schema=ROW_SCHEMA).cast(FILE_SCHEMA))
                written += len(rows)
                rows = []
    consumer.close(autocommit=False)
    return written


if __name__ == "__main__":
    given = Task.given()
    with measured() as facts:
        facts["events"] = run(given)
