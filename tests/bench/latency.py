"""From an event to the alert that it raises: `stillwatch run` as a process, simulated traffic at a steady rate."""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import duckdb
import numpy as np
import orjson
from kafka.admin import KafkaAdminClient

from pipeline.simulation import Simulation
from tests.bench.measure import say, scratch_folder
from tests.bench.report import table, write_section
from tests.servers import create_topic

RATE: Final = 20_000
ACCOUNTS: Final = 4_000
PARTITIONS: Final = 2
_POLL_S: Final = 0.02
_START_S: Final = 60.0
_REST_S: Final = 10.0


def measure(bootstrap: str, folder: Path, seconds: int) -> None:
    """Measure and write the table `latency`."""
    events = folder / "simulated.tsv"
    count = simulate(events, seconds * RATE, ACCOUNTS, keyed=True)
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=bootstrap)) as admin:
        create_topic(admin, "bench-latency", PARTITIONS)
    with scratch_folder() as out:
        seen, rate = _run(bootstrap, out, events, count)
        waits = _waits(out, seen)
    header = ("events a second", "seconds", "alerts", "p50 s", "p95 s", "most s", "target")
    p50, p95 = np.percentile(waits, [50, 95])
    row = (f"{rate:,.0f}", seconds, len(waits), f"{p50:.2f}", f"{p95:.2f}", f"{max(waits):.2f}", "p95 < 3 s")
    write_section("latency", table(header, [row], left=0))


def simulate(path: Path, count: int, accounts: int, *, keyed: bool) -> int:
    """Write simulated events to a file, one a line, each behind its key and a tab or alone; says how many."""
    say(f"simulating {count:,} events")
    simulation = Simulation(accounts=accounts, start=datetime.now(UTC) - timedelta(hours=96), hours=None)
    written = 0
    with path.open("wb", buffering=1 << 20) as file:
        for event in itertools.islice(simulation.events(), count):
            line = orjson.dumps(event)
            file.write(b"%s\t%s\n" % (event["account_id"].encode(), line) if keyed else line + b"\n")
            written += 1
    return written


def _run(bootstrap: str, lake: str, events: Path, count: int) -> tuple[dict[str, float], float]:
    """Run the job beside the traffic; when each alert was first in the catalog, and events sent a second."""
    job = [sys.executable, "-m", "jobs.cli", "run", "--bootstrap", bootstrap, "--topic", "bench-latency"]
    seen: dict[str, float] = {}
    with subprocess.Popen([*job, "--lake", lake, "--log-level", "warning"]) as process:
        try:
            catalog = _wait_for_catalog(Path(lake) / "catalog.db")
            time.sleep(_REST_S / 2)
            sender = [sys.executable, "-m", "tests.bench.live_traffic", bootstrap, "bench-latency", str(RATE)]
            command = [*sender, str(count), str(events)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as traffic:
                while traffic.poll() is None:
                    _look(catalog, seen)
                rate = float(traffic.stdout.read() if traffic.stdout else 0)
            until_s = time.monotonic() + _REST_S
            while time.monotonic() < until_s:
                _look(catalog, seen)
        finally:
            process.terminate()
    return seen, rate


def _wait_for_catalog(path: Path) -> sqlite3.Connection:
    until_s = time.monotonic() + _START_S
    while time.monotonic() < until_s:
        if path.exists():
            connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
            with contextlib.suppress(sqlite3.OperationalError):
                connection.execute("SELECT count(*) FROM alerts")
                return connection
        time.sleep(0.1)
    raise RuntimeError("the job made no catalog")


def _look(catalog: sqlite3.Connection, seen: dict[str, float]) -> None:
    rows = catalog.execute("SELECT alert_id FROM alerts WHERE rowid > ?", (len(seen),)).fetchall()
    now_s = time.time()
    for (alert_id,) in rows:
        seen.setdefault(alert_id, now_s)
    time.sleep(_POLL_S)


def _waits(lake: str, seen: dict[str, float]) -> list[float]:
    """Seconds from the producer's time of each alert's record to the alert in the catalog."""
    with contextlib.closing(sqlite3.connect(Path(lake) / "catalog.db")) as catalog:
        places = catalog.execute('SELECT alert_id, partition, "offset" FROM alerts').fetchall()
    with duckdb.connect() as connection:
        found = connection.execute(
            f"SELECT partition, \"offset\", epoch(kafka_time) FROM read_parquet('{lake}/access/**/*.parquet')"
        ).fetchall()
    produced = {(partition, offset): time_s for partition, offset, time_s in found}
    return [seen[alert] - produced[partition, offset] for alert, partition, offset in places if alert in seen]
