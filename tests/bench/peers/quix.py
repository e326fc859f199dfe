"""Quix Streams with a batching sink that writes Parquet with pyarrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from quixstreams import Application
from quixstreams.sinks import BatchingSink, SinkBatch

from tests.bench.peers.task import FETCH_BYTES_MAX, FILE_SCHEMA, ROW_SCHEMA, ROWS_PER_WRITE, Task, measured


class ParquetSink(BatchingSink):
    """One file a checkpoint."""

    def __init__(self, folder: Path) -> None:
        super().__init__(on_client_connect_success=lambda: None)
        self._folder = folder
        self.written = 0

    def write(self, batch: SinkBatch) -> None:
        """Write what came since the last checkpoint."""
        rows: list[dict[str, Any]] = []
        for item in batch:
            row = item.value
            row["topic"] = batch.topic
            row["partition"] = batch.partition
            row["offset"] = item.offset
            row["kafka_time"] = item.timestamp
            rows.append(row)
        table = pa.Table.from_pylist(rows, schema=ROW_SCHEMA).cast(FILE_SCHEMA)
        pq.write_table(table, self._folder / f"{batch.start_offset}.parquet", compression="zstd")
        self.written += len(rows)


def run(task: Task) -> int:
    """Read the topic into Parquet files; returns rows written."""
    application = Application(
        broker_address=task.bootstrap,
        consumer_group=Path(task.out).name,
        auto_offset_reset="earliest",
        commit_interval=3_600.0,
        commit_every=ROWS_PER_WRITE,
        consumer_extra_config={"max.partition.fetch.bytes": FETCH_BYTES_MAX},
        auto_create_topics=False,
        use_changelog_topics=False,
        loglevel="WARNING",
    )
    sink = ParquetSink(task.folder)
    application.dataframe(application.topic(task.topic, value_deserializer="json")).sink(sink)
    if task.events:
        application.run(count=task.events, collect=False)
    else:
        application.run(timeout=0.5, collect=False)
    return sink.written


if __name__ == "__main__":
    given = Task.given()
    with measured() as facts:
        facts["events"] = run(given)
