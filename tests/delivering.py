"""A catalog with alerts to deliver, and settings that say where to, as files that processes share."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.alerts import Alert
from pipeline.batch import Partition
from pipeline.commits import Commit
from pipeline.delivery.ports import Wanted
from pipeline.delivery.records import SinkState
from pipeline.io.catalog import Catalog, sqlite_url
from pipeline.io.clock import SystemClock
from tests.integration.workers import ROOT, Worker
from tests.parcels import alert

WHERE = Partition("llm-access", 0)


class Outgoing:
    """A lake's catalog in a folder, and `stillwatch deliver` on it."""

    def __init__(
        self, root: Path, sinks: dict[str, dict[str, Any]], url: str = "", *, lease_s: float = 60.0, **settings: Any
    ) -> None:
        self.root, self.url = root, url or sqlite_url(root / "catalog.db")
        self.sinks = sinks
        self.config = root / "stillwatch.toml"
        tables = [f"[sinks.{name}]\n{_toml({'timeout_s': lease_s / 4, **table})}" for name, table in sinks.items()]
        head = _toml({"catalog": self.url, "delivery_lease_s": lease_s, **settings})
        self.config.write_text("\n".join([head, *tables]))
        Catalog.open(self.url, create=True).close()
        self._workers: list[Worker] = []

    @contextlib.contextmanager
    def catalog(self) -> Iterator[Catalog]:
        with contextlib.closing(Catalog.open(self.url, create=False)) as catalog:
            yield catalog

    def raise_alerts(self, numbers: range, **changed: Any) -> list[str]:
        """Put alerts into the outbox by a commit, as the job does; their ids."""
        made = [alert(number, **changed) for number in numbers]
        with self.catalog() as catalog:
            commit_alerts(catalog, made)
        return [one.alert_id for one in made]

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `stillwatch deliver …` to its end."""
        command = [sys.executable, "-m", "jobs.cli", "deliver", *words, "--config", str(self.config)]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, cwd=ROOT)

    def start(self, crash_at: str = "never", count: int = 1) -> Worker:
        """Start a deliverer that may kill itself after a step."""
        script = str(ROOT / "tests" / "integration" / "crashing_deliver.py")
        log_file = self.root / f"deliver-{len(self._workers)}.log"
        worker = Worker(log_file, [script, crash_at, str(count), str(self.config)])
        self._workers.append(worker)
        return worker

    def close(self) -> None:
        """Leave no process behind."""
        for worker in self._workers:
            if worker.process.poll() is None:
                worker.kill()

    def states(self) -> dict[str, SinkState]:
        with self.catalog() as catalog:
            found = catalog.desk.delivery_records.state(dict.fromkeys(self.sinks, Wanted()), 0)
        return {one.sink: one for one in found.sinks}

    def is_done(self) -> bool:
        """Whether every sink has had everything."""
        with self.catalog() as catalog:
            unrouted = "new" in catalog.outbox().values()
        states = self.states()
        return not unrouted and len(states) == len(self.sinks) and not any(one.waiting for one in states.values())


def commit_alerts(catalog: Catalog, alerts: Sequence[Alert]) -> None:
    """Commit alerts."""
    claim = catalog.take(WHERE) or catalog.start_at(WHERE, 0)
    first = claim.next_offset
    now_us = SystemClock().now_us()
    commit = Commit(uuid.uuid4().hex, WHERE, first, first + 1, 1, 0, now_us, "tests")
    catalog.commit(commit, claim.epoch, [], alerts=[replace(one, offset=first) for one in alerts])


def _toml(table: dict[str, Any]) -> str:
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in table.items())
