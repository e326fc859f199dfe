"""What a compared program is to do, and what it measures of itself."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

FETCH_BYTES_MAX = 8 << 20
"""What a consumer may get of a partition in one answer: as `stillwatch run` has it, so that all ask for the same."""

ROWS_PER_WRITE = 100_000
"""Rows that the row-by-row programs turn into one Parquet row group; larger ones cost them memory and gain nothing."""

LINEAGE_FIELDS = [
    pa.field("topic", pa.string()),
    pa.field("partition", pa.int32()),
    pa.field("offset", pa.int64()),
    pa.field("kafka_time", pa.timestamp("ms", "UTC")),
]


@dataclass(frozen=True)
class Task:
    """The task of one run.

    Attributes:
        bootstrap: of the broker.
        topic: to read from its beginning, one partition.
        events: stop after so many.
        ndjson: the same events as a file, one a line, for programs that read files.
        out: folder to write to; empty.
        variant: which way, for programs that have several.
    """

    bootstrap: str
    topic: str
    events: int
    ndjson: str
    out: str
    variant: str = ""

    @classmethod
    def given(cls) -> Task:
        """The task on the command line."""
        return cls(**json.loads(sys.argv[1]))

    @property
    def folder(self) -> Path:
        """The folder to write to."""
        return Path(self.out)


@contextlib.contextmanager
def measured() -> Iterator[dict[str, Any]]:
    """Measure the block, all threads of the process, and print it with what the block adds to the dictionary."""
    facts: dict[str, Any] = {}
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    yield facts
    facts = {"cpu_s": time.process_time() - cpu_s, "wall_s": time.perf_counter() - wall_s, **facts}
    print(json.dumps(facts), flush=True)


EVENT_FIELDS = [
    pa.field(name, {"i": pa.int64(), "f": pa.float64(), "b": pa.bool_(), "s": pa.string()}[kind])
    for name, kind in (
        ("event_time", "s"), ("request_id", "s"), ("account_id", "s"), ("org_id", "s"), ("api_key_id", "s"),
        ("client_ip", "s"), ("asn", "i"), ("country", "s"), ("user_agent", "s"), ("operation", "s"), ("model", "s"),
        ("temperature", "f"), ("max_tokens", "i"), ("status", "i"), ("stream", "b"), ("message_count", "i"),
        ("input_tokens", "i"), ("output_tokens", "i"), ("latency_ms", "i"), ("finish_reason", "s"), ("prompt", "s"),
    )
]  # fmt: skip
"""The fields that the measured events have; their time as the text that JSON has."""

ROW_SCHEMA = pa.schema([*EVENT_FIELDS, *LINEAGE_FIELDS])
FILE_SCHEMA = pa.schema([pa.field("event_time", pa.timestamp("us", "UTC")), *EVENT_FIELDS[1:], *LINEAGE_FIELDS])
