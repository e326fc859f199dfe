"""Backfills as processes, and what came of them, to be compared with what the live job made of the same events."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.alerts import Alert
from pipeline.commits import FileEntry
from pipeline.config import CATALOG_FILE
from pipeline.io.catalog import Catalog, sqlite_url
from pipeline.io.inspection import inspect
from pipeline.io.lake import Lake
from pipeline.lake_tables import TABLE_SCHEMAS
from tests.integration.workers import ROOT

BOUND_S = 240
LINEAGE = ("topic", "partition", "offset", "kafka_time")
CRASHING = Path(__file__).with_name("crashing_backfill.py")


class PastLake:
    """A lake that backfills fill."""

    def __init__(self, root: Path, *flags: str | Path, catalog: str = "") -> None:
        self.root, self._flags = root, tuple(map(str, flags))
        self.catalog_url = catalog or sqlite_url(root / CATALOG_FILE)

    def backfill(
        self, *arguments: str | Path, crash: tuple[str, int] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end, or until it kills itself."""
        program = ["-m", "jobs.cli", "backfill"] if crash is None else [str(CRASHING), crash[0], str(crash[1])]
        command = [
            sys.executable,
            *program,
            "--lake",
            str(self.root),
            "--catalog",
            self.catalog_url,
            *self._flags,
            *map(str, arguments),
        ]
        return subprocess.run(
            command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
            check=False, timeout=BOUND_S,
        )  # fmt: skip

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Run it in the background."""
        command = [sys.executable, "-m", "jobs.cli", "backfill", *self._where(arguments)]
        return subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def commits(self) -> int:
        """How many there are by now."""
        if not self.root.exists():
            return 0
        with contextlib.closing(Catalog.open(self.catalog_url, create=True)) as catalog:
            return len(catalog.commits())

    def _where(self, arguments: Sequence[str | Path]) -> list[str]:
        return ["--lake", str(self.root), "--catalog", self.catalog_url, *self._flags, *map(str, arguments)]

    def landed(self, *arguments: str | Path) -> str:
        """Run it; it must succeed; what it said."""
        done = self.backfill(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def counted(said: str) -> dict[str, int]:
    """The counts in what a backfill said."""
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.splitlines()]
    pairs = [(cell[0], cell[1].replace(",", "")) for cell in cells if len(cell) == 2]  # name and value
    return {name: int(value) for name, value in pairs if value.isdigit()}


def tables_of(root: Path, catalog_url: str, topics: str = "") -> dict[str, pa.Table]:
    """Rows that readers see, by table, each in an order of its own; of all topics, or of those that begin so."""
    with contextlib.closing(Catalog.open(catalog_url, create=False)) as catalog:
        assert not catalog.pending()
        files = catalog.live_files()
    return {
        table: _rows(root, table, [it for it in files if it.table_name == table], topics) for table in TABLE_SCHEMAS
    }


def alerts_of(catalog_url: str) -> list[Alert]:
    """Alerts of the catalog by id."""
    with contextlib.closing(Catalog.open(catalog_url, create=False)) as catalog:
        return sorted(catalog.alerts(), key=lambda alert: alert.alert_id)


def assert_whole(root: Path, catalog_url: str) -> None:
    """Files and catalog agree, and no record is there twice."""
    with contextlib.closing(Catalog.open(catalog_url, create=False)) as catalog:
        found = inspect(Lake.open(str(root), create=False), catalog)
    assert found.errors == []
    assert found.notes == []


def said(table: pa.Table) -> list[str]:
    """What rows say, wherever they came from, sorted."""
    return sorted(map(repr, table.drop_columns([name for name in LINEAGE if name in table.schema.names]).to_pylist()))


def scores(table: pa.Table) -> pa.Table:
    """Scores in the order of their emission, without the offsets that only count them."""
    place = [("partition", "ascending"), ("offset", "ascending"), ("account_id", "ascending"), ("kind", "ascending")]
    return table.sort_by(place).drop_columns(["topic", "offset"]).combine_chunks()


def same_alerts(one: Sequence[Alert], other: Sequence[Alert]) -> bool:
    """Whether alerts are the same but for where their events are kept."""
    return [_placeless(alert) for alert in one] == [_placeless(alert) for alert in other]


def _placeless(alert: Alert) -> dict[str, object]:
    found = {name: getattr(alert, name) for name in Alert.__slots__ if name not in ("topic", "offset")}
    place = f" in {alert.topic}-{alert.partition} up to offset {alert.offset}, "
    assert sum(place in reason for reason in alert.reasons) == 1
    return found | {"reasons": [reason.replace(place, " here ") for reason in alert.reasons]}


def _rows(root: Path, table: str, files: Sequence[FileEntry], topics: str) -> pa.Table:
    schema = TABLE_SCHEMAS[table]
    parts = [pq.read_table(root / file.path, partitioning=None).select(schema.names).cast(schema) for file in files]
    whole = pa.concat_tables([schema.empty_table(), *parts])
    return whole.filter(pa.array([topic.startswith(topics) for topic in whole["topic"].to_pylist()], pa.bool_()))
