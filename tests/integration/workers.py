"""Real workers, producers and readers around one lake, for tests that kill and watch them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import duckdb
import orjson
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from pipeline.commits import FileEntry
from pipeline.errors import RetryableError
from pipeline.io.catalog import Catalog, sqlite_url
from tests.waiting import BOUND_S, wait_until

ROOT = Path(__file__).parents[2]
SESSION_S = 6.0
"""The shortest session time-out that Apache Kafka allows by default."""

Offsets = dict[int, int]


class Worker:
    """One `stillwatch run` process and what it logged."""

    def __init__(self, log_file: Path, arguments: list[str], *, held: bool = False) -> None:
        self._log_file = log_file
        with log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=subprocess.PIPE if held else subprocess.DEVNULL,
                stderr=log,
                stdout=log,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )

    def begin(self) -> None:
        """Let a worker that was held go."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Log lines of one kind so far."""
        return [line for line in self.log() if line.get("event") == event]

    def log(self) -> list[dict[str, Any]]:
        """Every log line so far; a line of plain text (an error's last word) as `{"event": text}`."""
        lines = self._log_file.read_bytes().split(b"\n")
        return [
            orjson.loads(line) if line.startswith(b"{") else {"event": line.decode()} for line in lines if line.strip()
        ]

    def wait_for(self, event: str, count: int = 1) -> None:
        """Wait until it has logged something."""
        wait_until(
            lambda: len(self.logged(event)) >= count or self.process.poll() is not None,
            f"{event!r} in {self._log_file}",
        )
        assert len(self.logged(event)) >= count, f"ended with {self.process.returncode}: {self.log()[-3:]}"

    def kill(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal and wait for the end; returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(BOUND_S)

    def stop(self) -> int:
        """End it as its operator would."""
        return self.kill(signal.SIGTERM)


class Site:
    """A lake, its catalog and a topic; starts workers and judges the result."""

    def __init__(self, root: Path, bootstrap: str, topic: str, **settings: Any) -> None:
        self.root, self.bootstrap, self.topic = root, bootstrap, topic
        self.lake = Path(settings.pop("lake", root / "lake"))
        self.catalog_url = settings.pop("catalog", sqlite_url(root / "catalog.db"))
        self.settings = {
            "bootstrap": bootstrap, "topic": topic, "group": f"group-{topic}",
            "lake": str(self.lake), "catalog": self.catalog_url,
            "file_age_s": 0.3, "session_timeout_s": SESSION_S, **settings,
        }  # fmt: skip
        self._workers: list[Worker] = []

    def worker(
        self, name: str = "worker", crash_at: str = "never", count: int = 1, *, held: bool = False, **settings: Any
    ) -> Worker:
        """Start a worker; a name is its static membership, so that one that was killed need not be waited for.

        One that is held loads its program and does nothing until `begin`.
        """
        merged = {**self.settings, "group_instance_id": name, **settings}
        script = str(Path(__file__).with_name("crashing_worker.py"))
        log_file = self.root / f"{name}-{len(self._workers)}.log"
        worker = Worker(log_file, [script, crash_at, str(count), json.dumps(merged)], held=held)
        self._workers.append(worker)
        return worker

    def command(self, *flags: str, program: str = "") -> Worker:
        """Start `stillwatch run` by its command line; before it, a program may change what a command line cannot."""
        log_file = self.root / f"command-{len(self._workers)}.log"
        where = [
            "--bootstrap",
            self.bootstrap,
            "--topic",
            self.topic,
            "--lake",
            str(self.lake),
            "--catalog",
            self.catalog_url,
        ]
        how = ["-c", f"{program}\nfrom jobs.cli import main\nmain()"] if program else ["-m", "jobs.cli"]
        worker = Worker(log_file, [*how, "run", *where, "--group", self.settings["group"], *flags])
        self._workers.append(worker)
        return worker

    def close(self) -> None:
        """Leave no process behind."""
        for worker in self._workers:
            if worker.process.poll() is None:
                worker.process.send_signal(signal.SIGCONT)
                worker.kill()
            if worker.process.stdin is not None:
                worker.process.stdin.close()

    def landed(self) -> int:
        """Records in the lake by the catalog."""
        with contextlib.closing(Catalog.open(self.catalog_url, create=True)) as catalog:
            return sum(commit.events + commit.rejects for commit in catalog.commits())

    def assert_exactly_once(self, ends: Offsets) -> int:
        """Every produced offset stands in the lake exactly once, by the catalog's files and by a plain glob."""
        with contextlib.closing(Catalog.open(self.catalog_url, create=False)) as catalog:
            assert not catalog.pending()
            live = [
                str(self.lake / file.path) for file in catalog.live_files() if file.table_name in ("access", "rejects")
            ]
            offsets = {partition.number: offset for partition, offset in catalog.offsets().items()}
        total = sum(ends.values())
        glob = [
            str(self.lake / table / "**/*.parquet") for table in ("access", "rejects") if (self.lake / table).exists()
        ]
        for files in (live, glob):
            rows = duckdb.sql(
                f'SELECT "partition", count(*), count(DISTINCT "offset"), min("offset"), max("offset") '
                f"FROM read_parquet({files}, union_by_name = true) GROUP BY ALL"
            ).fetchall()
            found = {number: (count, distinct, low, high) for number, count, distinct, low, high in rows}
            assert found == {number: (end, end, 0, end - 1) for number, end in ends.items() if end}
        assert offsets == ends
        return total


class Producer(contextlib.AbstractContextManager["Producer"]):
    """Produces numbered events without pause, one in a hundred broken, until it is left."""

    def __init__(self, bootstrap: str, topic: str, rate: float) -> None:
        self._bootstrap, self._topic, self._rate = bootstrap, topic, rate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._produce)
        self._error: BaseException | None = None
        self.sent = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.finish()

    def finish(self) -> None:
        """Send no more; everything that was sent is delivered when this returns."""
        self._stop.set()
        self._thread.join()
        if self._error:
            raise self._error

    def _produce(self) -> None:
        producer = KafkaProducer(
            bootstrap_servers=self._bootstrap, acks="all", enable_idempotence=True, linger_ms=10,
            compression_type="lz4",
            delivery_timeout_ms=120_000,
        )  # fmt: skip
        try:
            futures = []
            while not self._stop.is_set():
                for _ in range(max(1, int(self._rate / 50))):
                    value = event(self.sent) if self.sent % 100 else b'{"broken": '
                    futures.append(producer.send(self._topic, value=value, key=b"account-%d" % (self.sent % 500)))
                    self.sent += 1
                self._stop.wait(0.02)
            for future in futures:
                future.get(BOUND_S)
        except BaseException as error:  # noqa: BLE001  # handed to the test's own thread
            self._error = error
        finally:
            producer.close()


class Reader(contextlib.AbstractContextManager["Reader"]):
    """Queries the lake in a loop, by the catalog's files; each answer must be of whole commits."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._error: BaseException | None = None
        self.queries = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._error:
            raise self._error

    def _read(self) -> None:
        try:
            wait_until(lambda: self._site.lake.exists() or self._stop.is_set(), "the lake")
            with (
                contextlib.closing(Catalog.open(self._site.catalog_url, create=True)) as catalog,
                duckdb.connect() as connection,
            ):
                while not self._stop.is_set():
                    self._check(catalog, connection)
                    self._stop.wait(0.05)
        except BaseException as error:  # noqa: BLE001  # handed to the test's own thread
            self._error = error

    def _check(self, catalog: Catalog, connection: duckdb.DuckDBPyConnection) -> None:
        files = _live_files(catalog)
        counts = {}
        for tables in (("access", "rejects"), ("access",), ("content",)):
            paths = [str(self._site.lake / file.path) for file in files if file.table_name in tables]
            query = (
                'SELECT "partition", count(*), max("offset") + 1 '
                f"FROM read_parquet({paths}, union_by_name = true) GROUP BY ALL"
            )
            counts[tables] = {row[0]: row[1:] for row in connection.sql(query).fetchall()} if paths else {}
        for number, (rows, end) in counts["access", "rejects"].items():
            assert rows == end, (
                f"partition {number}: {rows} rows up to offset {end}: part of a commit is missing or doubled"
            )
        access, content = (
            {number: row[0] for number, row in counts[key].items()} for key in (("access",), ("content",))
        )
        assert access == content, "a commit shows in one table and not in the other"
        self.queries += 1


def event(number: int) -> bytes:
    """A small valid event."""
    return orjson.dumps(
        {
            "event_time": f"2026-11-20T{number // 3600 % 24:02d}:{number // 60 % 60:02d}:{number % 60:02d}.000Z",
            "account_id": f"account-{number % 500}",
            "request_id": f"r{number}",
            "model": "large",
            "input_tokens": number,
            "prompt": f"question {number}",
        }
    )


def ends_of(bootstrap: str, topic: str) -> Offsets:
    """The end of every partition's log."""
    with contextlib.closing(KafkaConsumer(bootstrap_servers=bootstrap)) as consumer:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
        return {partition.partition: end for partition, end in consumer.end_offsets(partitions).items()}


@contextlib.contextmanager
def site_of(*arguments: Any, **settings: Any) -> Iterator[Site]:
    """A Site whose workers end with the block."""
    site = Site(*arguments, **settings)
    try:
        yield site
    finally:
        site.close()


def _live_files(catalog: Catalog) -> Sequence[FileEntry]:
    """What a reader is shown.  A worker that is frozen while it holds a lock of SQLite keeps readers out until it wakes."""
    found: list[Sequence[FileEntry]] = []

    def looked() -> bool:
        with contextlib.suppress(RetryableError):
            found.append(catalog.live_files())
        return bool(found)

    wait_until(looked, "a catalog that answers its reader")
    return found[0]
