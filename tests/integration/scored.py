"""Whether what the live job said of accounts is what a backtest says of the same records, to the last bit."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from kafka import KafkaProducer

from pipeline.alerts import ALERT_SCHEMA, Alert, alerts_of
from pipeline.io.catalog import Catalog
from pipeline.windows import WINDOWS_SCHEMA
from tests.integration.workers import ROOT, Site

PLACE = [("partition", "ascending"), ("offset", "ascending"), ("account_id", "ascending"), ("kind", "ascending")]
BOUND_S = 240


def backtest(out: Path, *flags: str, bound_s: float = BOUND_S) -> tuple[pa.Table, list[Alert]]:
    """Scores by place, and alerts by id, of `stillwatch backtest` with some flags."""
    command = [sys.executable, "-m", "jobs.cli", "backtest", "--out", str(out), *flags]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
        timeout=bound_s,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    scores = _by_place([pq.read_table(out / "scores.parquet")])
    alerts = pq.read_table(out / "alerts.parquet").rename_columns(ALERT_SCHEMA.names)
    return scores, _by_id(alerts_of(alerts))


def landed(site: Site) -> tuple[pa.Table, list[Alert]]:
    """The same of the lake's files and of the catalog; no alert may be in either twice."""
    with contextlib.closing(Catalog.open(site.catalog_url, create=False)) as catalog:
        files = {table: [] for table in ("account_windows", "alerts")}
        for file in catalog.live_files():
            files.get(file.table_name, []).append(pq.read_table(site.lake / file.path, partitioning=None))
        alerts, outbox = _by_id(catalog.alerts()), catalog.outbox()
    assert len({alert.alert_id for alert in alerts}) == len(alerts)
    assert outbox.keys() == {alert.alert_id for alert in alerts if alert.state == "live"}
    in_files = [alert.alert_id for table in files["alerts"] for alert in alerts_of(table)]
    assert sorted(in_files) == [alert.alert_id for alert in alerts]
    return _by_place(files["account_windows"]), alerts


def send(site: Site, traffic: Path) -> int:
    """Key every event of a file by its account, as producers do; returns how many there are."""
    lines = traffic.read_bytes().splitlines()
    with contextlib.closing(
        KafkaProducer(bootstrap_servers=site.bootstrap, acks="all", enable_idempotence=True, linger_ms=20)
    ) as producer:
        for line in lines:
            producer.send(site.topic, value=line, key=orjson.loads(line)["account_id"].encode())
        producer.flush(60)
    return len(lines)


def assert_as_by_backtest(site: Site, out: Path, *flags: str, bound_s: float = BOUND_S) -> tuple[int, int]:
    """A backtest over the lake says what the live job said; returns how many scores and alerts that is."""
    windows, alerts = landed(site)
    again, alerts_again = backtest(
        out, "--events", str(site.lake), "--catalog", site.catalog_url, *flags, bound_s=bound_s
    )
    assert_same(windows, again)
    assert alerts == alerts_again
    return len(windows), len(alerts)


def assert_same(one: pa.Table, other: pa.Table) -> None:
    """Every row and every number, null for null; names the columns that differ."""
    assert len(one) == len(other)
    assert [name for name in one.schema.names if not one[name].equals(other[name])] == []


def _by_place(tables: list[pa.Table]) -> pa.Table:
    columns = WINDOWS_SCHEMA.names
    whole = pa.concat_tables(
        [WINDOWS_SCHEMA.empty_table(), *(table.select(columns).cast(WINDOWS_SCHEMA) for table in tables)]
    )
    return whole.sort_by(PLACE).combine_chunks()


def _by_id(alerts: list[Alert]) -> list[Alert]:
    return sorted(alerts, key=lambda alert: alert.alert_id)
