"""One worker on a fake source, a real lake and a real catalog."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.batch import Partition
from pipeline.io.catalog import Catalog, sqlite_url
from pipeline.io.lake import Lake
from pipeline.stream import Limits, Stream
from tests.fakes import FakeClock, FakeKafka, FakeMember
from tests.simulation.worlds import event

P0 = Partition("access", 0)
LIMITS = Limits(file_rows_max=1000, file_bytes_max=1 << 30, file_age_s=5.0, buffer_bytes_max=1 << 30, retry_s=60.0)


class Site:
    """A broker, a lake and a catalog."""

    def __init__(self, folder: Path) -> None:
        self.clock, self.kafka = FakeClock(), FakeKafka()
        self.lake = Lake.open(str(folder / "lake"), create=True)
        self.catalog = Catalog.open(sqlite_url(folder / "catalog.db"), create=True)
        self.log = self.kafka.logs[P0]

    def produce(self, count: int) -> None:
        for _ in range(count):
            self.log.append(event(P0, self.log.end, random.Random(self.log.end)))

    def worker(self, **options: Any) -> tuple[Stream, FakeMember]:
        """A worker that is assigned everything; options of `Stream`, and of its limits."""
        limits = {
            field.name: options.pop(field.name)
            for field in dataclasses.fields(Limits)
            if field.name in options and field.name != "watch"
        }
        limits["watch"] = options.pop("watch_limits", LIMITS.watch)
        member = self.kafka.join(self.clock, random.Random(0))
        self.kafka.assign(dict.fromkeys(self.kafka.logs, member))
        parts = {"source": member, "storage": self.lake, "ledger": self.catalog, "clock": self.clock, **options}
        return Stream(**parts, limits=dataclasses.replace(LIMITS, **limits), worker="test"), member

    def land(self, **options: Any) -> Stream:
        """Let a worker land all that is there."""
        stream, _ = self.worker(**options)
        rounds(stream, stream.caught_up)
        assert stream.flush(self.clock.elapsed_s() + 10)
        return stream

    def offsets(self) -> list[int]:
        """Offsets that landed, as the catalog's files have them."""
        files = [file for file in self.catalog.live_files() if file.table_name in ("access", "rejects")]
        tables = [pq.read_table(self.lake.root / file.path, columns=["offset"], partitioning=None) for file in files]
        return sorted(offset for table in tables for offset in table["offset"].to_pylist())


def rounds(stream: Stream, until: Callable[[], bool], most: int = 200) -> None:
    for _ in range(most):
        stream.round()
        if until():
            return
    raise AssertionError(f"not so after {most} rounds")
