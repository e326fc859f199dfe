"""Makes small lakes for tests, by the steps of the real commit protocol but without Kafka."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from pipeline.analysis import Analysis, Watch
from pipeline.batch import Partition, Records
from pipeline.commits import Commit, FileEntry
from pipeline.config import CATALOG_FILE
from pipeline.decode import Decoder
from pipeline.io.catalog import Catalog, sqlite_url
from pipeline.io.lake import Lake
from pipeline.land import alert_sections, sections, window_sections

Payload = Mapping[str, Any] | bytes
"""An event as its gateway would log it, or the bytes of a record as they are."""


class LakeMaker:
    """A lake that grows by commits.

    Attributes:
        lake: the files.
        catalog: SQLite in the lake's folder, where `--lake` alone finds it, unless another was given.
    """

    def __init__(self, root: Path, catalog_url: str | None = None, watch: Watch | None = None) -> None:
        self.root = root
        self.catalog_url = catalog_url or sqlite_url(root.absolute() / CATALOG_FILE)
        self.lake = Lake.open(str(root), create=True)
        self.catalog = Catalog.open(self.catalog_url, create=True)
        self._decoder = Decoder()
        self._next = self.catalog.offsets()
        self._watch = watch
        self._analyses: dict[Partition, Analysis] = {}

    def close(self) -> None:
        self.catalog.close()

    def append(
        self,
        payloads: Sequence[Payload],
        *,
        topic: str = "llm-access",
        partition: int = 0,
        kafka_ms: int | None = None,
        publish: bool = True,
        snapshot: bool = False,
    ) -> list[FileEntry]:
        """Land records as one commit.

        Args:
            payloads: in offset order.
            topic: of Kafka.
            partition: of the topic.
            kafka_ms: Kafka time of all records, -1 for none; by default an event's own, else 2026-03-01T12:00Z.
            snapshot: take one of what is known of the accounts; for scored lakes.
            publish: false leaves the files in place but pending, as a worker does that dies in between.

        Returns:
            The files of the commit.
        """
        where = Partition(topic, partition)
        first = self._next.get(where, 0)
        records = records_of(payloads, first, where, kafka_ms)
        decoded = self._decoder.decode(records)
        claim = self.catalog.start_at(where, first)
        commit = Commit(
            commit_id=uuid.uuid4().hex,
            partition=where,
            first_offset=first,
            next_offset=records.next_offset,
            events=len(decoded.events),
            rejects=len(decoded.rejects),
            committed_at_us=1_772_500_000_000_000,
            worker="tests",
        )
        cut, alerts = list(sections([decoded])), ()
        if self._watch is not None:
            analysis = self._analyses.setdefault(where, Analysis(where, self._watch))
            analysed = analysis.step(decoded.events)
            alerts = analysed.alerts
            cut += [*window_sections(analysed.windows), *alert_sections(alerts)]
        files = self.lake.stage(commit, cut)
        base = None
        if snapshot:
            analysis = self._analyses[where]
            analysis.pass_to(commit.next_offset)
            base = self.lake.stage_snapshot(commit, analysis.snapshot())
        self.catalog.commit(commit, claim.epoch, files, alerts=alerts, snapshot=base)
        self.lake.place(commit, [*files, *([base] if base else [])])
        if publish:
            self.catalog.publish(commit.commit_id)
        self._next[where] = records.next_offset
        return files


def records_of(payloads: Sequence[Payload], first: int, where: Partition, kafka_ms: int | None = None) -> Records:
    """Payloads as Kafka has them; see `LakeMaker.append`."""
    values = [payload if isinstance(payload, bytes) else orjson.dumps(payload) for payload in payloads]
    return Records(
        where,
        pa.array(values, pa.binary()).cast(pa.binary_view()),
        np.arange(first, first + len(values), dtype=np.int64),
        np.array([_time_ms(payload) if kafka_ms is None else kafka_ms for payload in payloads], dtype=np.int64),
        first + len(values),
    )


@contextlib.contextmanager
def make_lake(
    root: Path,
    events: Sequence[Payload] = (),
    *,
    rows_per_commit: int | None = None,
    catalog_url: str | None = None,
    watch: Watch | None = None,
) -> Iterator[LakeMaker]:
    """Make a lake of one partition.

    Args:
        root: its folder; made.
        events: in offset order.
        rows_per_commit: cut into commits of so many records; else one.
        catalog_url: of the catalog, if it is not to lie in the lake.
        watch: score the events, too.
    """
    with contextlib.closing(LakeMaker(root, catalog_url, watch)) as maker:
        step = rows_per_commit or max(1, len(events))
        for start in range(0, len(events), step):
            maker.append(events[start : start + step])
        yield maker


def _time_ms(payload: Payload) -> int:
    moment = datetime(2026, 3, 1, 12, tzinfo=UTC)
    if not isinstance(payload, bytes) and isinstance(payload.get("event_time"), str):
        moment = datetime.fromisoformat(payload["event_time"])
    return int(moment.timestamp() * 1000)
