"""An alert storm: 100,000 alerts in the outbox, a slow sink, a dead one and healthy ones, beside `stillwatch run`.

The catalog is SQLite, which lets one write at a time: the deliverer must not keep the main job waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient

from pipeline.delivery.ports import Wanted
from pipeline.io.catalog import Catalog, sqlite_url
from tests.bench.latency import simulate
from tests.bench.measure import say, scratch_folder
from tests.bench.report import table, write_section
from tests.delivering import commit_alerts
from tests.parcels import alert
from tests.servers import create_topic

RATE: Final = 5_000
ACCOUNTS: Final = 2_000
PARTITIONS: Final = 2
_SAMPLE_S: Final = 0.1
_LOOK_S: Final = 2.0
_WARM_S: Final = 10.0
_SECRET: Final = "a-secret-of-more-than-24-bytes"
_COMMIT: Final = 10_000
_SLOW_S: Final = 1.0


@dataclass
class Seen:
    """What was seen of one run."""

    lag: list[int] = field(default_factory=list)
    lock_s: list[float] = field(default_factory=list)
    mib: list[float] = field(default_factory=list)
    done_s: dict[str, float] = field(default_factory=dict)
    cpu_s: float = 0.0
    states: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Log:
    """Where the traffic is, and where it goes."""

    bootstrap: str
    topic: str
    url: str


def measure(bootstrap: str, folder: Path, seconds: int, alerts: int) -> None:
    """Measure and write the tables `storm_lag` and `storm`."""
    events = folder / "storm.tsv"
    count = simulate(events, seconds * RATE, ACCOUNTS, keyed=True)
    rows, storm = [], Seen()
    for name in ("without", "with", "without, again"):
        say(f"  {name} the deliverer")
        seen = _run(bootstrap, events, count, alerts, deliver=name == "with")
        lag_s, lock_ms = np.array(seen.lag) / RATE, np.array(seen.lock_s) * 1_000
        rows.append((name, *_spread(lag_s, 2), *_spread(lock_ms, 1)))
        storm = seen if seen.states else storm
    write_section("storm_lag", table(("deliverer", "lag p50 s", "p95", "most", "lock p50 ms", "p95", "most"), rows))
    said = [
        (name, f"{state.sent:,}", f"{state.digested:,}", f"{state.waiting:,}", _done(storm, name))
        for name, state in sorted(storm.states.items())
    ]
    sinks = table(("sink", "sent one by one", "in digests", "still waiting", "done after s"), said)
    memory = f"Deliverer: at most {max(storm.mib):,.0f} MiB resident, {storm.cpu_s:.0f} CPU s."
    write_section("storm", f"{sinks}\n\n{memory}")


def _spread(values: np.ndarray, digits: int) -> tuple[str, str, str]:
    p50, p95 = np.percentile(values, [50, 95])
    return f"{p50:.{digits}f}", f"{p95:.{digits}f}", f"{max(values):.{digits}f}"


def _done(seen: Seen, sink: str) -> str:
    return f"{seen.done_s[sink]:.0f}" if sink in seen.done_s else "–"


def _run(bootstrap: str, events: Path, count: int, alerts: int, *, deliver: bool) -> Seen:
    topic, seen = f"bench-storm-{time.time_ns()}", Seen()
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=bootstrap)) as admin:
        create_topic(admin, topic, PARTITIONS)
    with scratch_folder() as lake, _receiver() as ports:
        url = sqlite_url(Path(lake) / "catalog.db")
        config = _prepare(Path(lake), url, ports, alerts)
        command = [sys.executable, "-m", "jobs.cli"]
        job = [*command, "run", "--bootstrap", bootstrap, "--topic", topic, "--lake", lake, "--log-level", "warning"]
        sender = [
            sys.executable,
            "-m",
            "tests.bench.live_traffic",
            bootstrap,
            topic,
            str(RATE),
            str(count),
            str(events),
        ]
        sending = [*command, "deliver", "--config", str(config), "--log-level", "error"]
        with subprocess.Popen(job) as main:
            try:
                time.sleep(_WARM_S)
                with subprocess.Popen(sender, stdout=subprocess.DEVNULL) as traffic:
                    time.sleep(_WARM_S)
                    other = subprocess.Popen(sending, env={**os.environ, "STORM_SECRET": _SECRET}) if deliver else None
                    try:
                        _watch(_Log(bootstrap, topic, url), traffic, other, seen)
                    finally:
                        if other is not None:
                            other.terminate()
                            other.wait(60)
            finally:
                main.terminate()
    return seen


def _prepare(lake: Path, url: str, ports: tuple[int, int, int], alerts: int) -> Path:
    """A catalog whose outbox holds the alerts, and the settings."""
    with contextlib.closing(Catalog.open(url, create=True)) as catalog:
        for start in range(0, alerts, _COMMIT):
            numbers = range(start, min(start + _COMMIT, alerts))
            commit_alerts(catalog, [alert(number, features=_FEATURES) for number in numbers])
    fast, slow, dead = ports
    hook = 'type = "webhook"\nsecret_env = "STORM_SECRET"\nurl = "http://127.0.0.1:'
    config = lake / "storm.toml"
    config.write_text(
        f'catalog = "{url}"\n'
        f'[sinks.file]\ntype = "file"\npath = "{lake}/alerts.ndjson"\n'
        f'[sinks.webhook]\n{hook}{fast}/"\n'
        f'[sinks.limited]\n{hook}{fast}/"\nrate_per_minute = 60\n'
        f'[sinks.slow]\n{hook}{slow}/"\n'
        f'[sinks.dead]\n{hook}{dead}/"\n'
    )
    return config


_FEATURES: Final = {f"feature_{number}": number / 7 for number in range(40)}
"""About as many numbers as an alert of the risk brings."""


def _watch(log: _Log, traffic: subprocess.Popen[bytes], other: subprocess.Popen[bytes] | None, seen: Seen) -> None:
    """Follow the lag while traffic flows, and the deliverer until its healthy sinks are done."""
    path, began_s = log.url.removeprefix("sqlite:///"), time.monotonic()
    followed = psutil.Process(other.pid) if other else None
    looked_s = 0.0
    with (
        contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as ledger,
        contextlib.closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as probe,
        contextlib.closing(KafkaConsumer(bootstrap_servers=log.bootstrap)) as consumer,
        contextlib.closing(Catalog.open(log.url, create=False)) as catalog,
    ):
        where = [TopicPartition(log.topic, number) for number in range(PARTITIONS)]
        while traffic.poll() is None or (other and not {"file", "webhook", "limited"} <= seen.done_s.keys()):
            if traffic.poll() is None:
                end = sum(consumer.end_offsets(where).values())
                query = "SELECT coalesce(sum(next_offset), 0) FROM offsets WHERE topic = ?"
                (done,) = ledger.execute(query, (log.topic,)).fetchone()
                seen.lag.append(end - done)
                seen.lock_s.append(_lock_wait_s(probe))
            if followed and other and other.poll() is None:
                seen.mib.append(followed.memory_info().rss / 2**20)
                times = followed.cpu_times()
                seen.cpu_s = times.user + times.system
            if other and time.monotonic() - looked_s > _LOOK_S:
                looked_s = time.monotonic()
                _look(catalog, looked_s - began_s, seen)
            time.sleep(_SAMPLE_S)


def _lock_wait_s(probe: sqlite3.Connection) -> float:
    """How long a writer, such as the main job, waits for its turn."""
    began_s = time.monotonic()
    probe.execute("BEGIN IMMEDIATE")
    waited_s = time.monotonic() - began_s
    probe.execute("ROLLBACK")
    return waited_s


def _look(catalog: Catalog, at_s: float, seen: Seen) -> None:
    wanted = dict.fromkeys(("file", "webhook", "limited", "slow", "dead"), Wanted())
    state = catalog.desk.delivery_records.state(wanted, 0)
    for one in state.sinks:
        seen.states[one.sink] = one
        if not state.outbox.get("new") and not one.waiting and one.sent + one.digested:
            seen.done_s.setdefault(one.sink, at_s)


@contextlib.contextmanager
def _receiver() -> Iterator[tuple[int, int, int]]:
    """Ports of a server that answers at once, one that takes its time, and nobody."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def serve(wait_s: float) -> int:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                    json.loads(await reader.readexactly(int(length.split(b":")[1])))
                    await asyncio.sleep(wait_s)
                    writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
                    await writer.drain()

        started = asyncio.run_coroutine_threadsafe(asyncio.start_server(answer, "127.0.0.1", 0), loop)
        return int(started.result().sockets[0].getsockname()[1])

    try:
        yield serve(0), serve(_SLOW_S), 1
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
