"""The straightforward program: kafka-python, `json.loads`, pyarrow; by `variant` with a River model called per event."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from kafka import KafkaConsumer, TopicPartition

from tests.bench.peers.task import FETCH_BYTES_MAX, FILE_SCHEMA, ROW_SCHEMA, ROWS_PER_WRITE, Task, measured

FIELDS = ("input_tokens", "output_tokens", "latency_ms", "message_count", "max_tokens")
"""What the River models look at."""


def _model(variant: str) -> Callable[[dict[str, Any]], float]:
    """Score an event, then learn from it."""
    from river import anomaly, linear_model, preprocessing  # noqa: PLC0415  # a program imports what it uses

    if variant == "half_space_trees":
        trees = preprocessing.MinMaxScaler() | anomaly.HalfSpaceTrees(seed=1)

        def score_by_trees(row: dict[str, Any]) -> float:
            seen = {name: row[name] for name in FIELDS}
            score = trees.score_one(seen)
            trees.learn_one(seen)
            return score

        return score_by_trees
    linear = preprocessing.StandardScaler() | linear_model.LogisticRegression()

    def score_by_line(row: dict[str, Any]) -> float:
        seen = {name: row[name] for name in FIELDS}
        score = linear.predict_proba_one(seen).get(True, 0.5)
        linear.learn_one(seen, row["status"] >= 400)  # any label will do
        return score

    return score_by_line


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
    score = _model(task.variant) if task.variant else None
    risk = [pa.field("risk", pa.float64())] if score else []
    row_schema, file_schema = (pa.schema([*schema, *risk]) for schema in (ROW_SCHEMA, FILE_SCHEMA))
    with pq.ParquetWriter(task.folder / "out.parquet", file_schema, compression="zstd") as writer:
        while written + len(rows) < task.events:
            for record in consumer.poll(timeout_ms=1_000).get(where, ()):
                row = json.loads(record.value)
                row["topic"] = record.topic
                row["partition"] = record.partition
                row["offset"] = record.offset
                row["kafka_time"] = record.timestamp
                if score:
                    row["risk"] = score(row)
                rows.append(row)
            if len(rows) >= ROWS_PER_WRITE or written + len(rows) >= task.events:
                writer.write_table(pa.Table.from_pylist(rows, schema=row_schema).cast(file_schema))
                written += len(rows)
                rows = []
    consumer.close(autocommit=False)
    return written


if __name__ == "__main__":
    given = Task.given()
    with measured() as facts:
        facts["events"] = run(given)
