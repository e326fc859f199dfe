"""`stillwatch demo`: the whole job at work on simulated traffic, in about a minute.

The parts are those that a user would run: a Kafka broker, labelled traffic into a topic, `stillwatch run` as a process
of its own, and queries over the lake while it grows.  At the end everything is counted: what was produced must be
what was landed and rejected.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import json
import logging
import os
import shlex
import shutil
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType, TracebackType
from typing import Annotated, Any, Final, Self

import duckdb
import orjson
import typer
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError
from rich.console import Console

from jobs import demo_view as view
from jobs import options
from jobs.demo_view import Answer, Moment, View
from pipeline.config import CATALOG_FILE, ENV_PREFIX
from pipeline.errors import ConfigError, RetryableError, StillwatchError
from pipeline.events import TABLE_SCHEMAS
from pipeline.io.catalog import Catalog, sqlite_url
from pipeline.io.embedded_broker import EmbeddedBroker, ServerProcess
from pipeline.io.replay import KeyedLine, TopicWriter, client_settings
from pipeline.simulation import Event, Label, Simulation

SECONDS_DEFAULT: Final = 48
MARKER: Final = ".stillwatch-demo"
"""Stands in a folder that a demo has made, and that the next one may therefore empty."""

BROKEN_EVERY: Final = 1000
"""After so many good records comes a broken one."""

_HOUR_S: Final = 1.0
"""Real seconds that a simulated hour takes."""

_PARTITIONS: Final = 2
_FILE_AGE_S: Final = 2
_SHOW_EVERY_S: Final = 0.25
_ASK_EVERY_S: Final = 1.5
_STALLED_S: Final = 30.0
_STOP_S: Final = 15.0
_LATE: Final = 1.5
"""A machine that is too slow for the traffic gets no more of it after so many times its length."""

_LATEST_HOURS: Final = """\
SELECT dt, hour, count(*) AS requests, count(DISTINCT account_id) AS accounts,
       sum(output_tokens)::BIGINT AS answer_tokens
FROM access GROUP BY dt, hour ORDER BY dt DESC, hour DESC LIMIT 5"""

_TAKERS: Final = """\
SELECT account_id, count(*) AS requests, sum(output_tokens)::BIGINT AS answer_tokens,
       round(100 * avg((conversation_id IS NULL)::INT), 1) AS one_shot_percent
FROM access GROUP BY account_id ORDER BY answer_tokens DESC, account_id LIMIT 10"""

_REASONS: Final = """\
SELECT error_type, coalesce(field, '') AS field, count(*) AS records, any_value(reason) AS for_example
FROM rejects GROUP BY ALL ORDER BY ALL"""

_OFFSETS: Final = """\
SELECT count(*), count(DISTINCT (topic, "partition", "offset"))
FROM (SELECT topic, "partition", "offset" FROM access UNION ALL SELECT topic, "partition", "offset" FROM rejects)"""


def demo(
    seconds: Annotated[
        int, typer.Option(min=2, max=3600, help="Length of the traffic; a second is a simulated hour.")
    ] = SECONDS_DEFAULT,
    bootstrap: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT,…", help="A Kafka broker of yours instead of the embedded one; gets a topic of its own."),
    ] = None,
    kafka: options.KafkaSettings = None,
    folder: Annotated[Path, typer.Option(metavar="DIR", help="Where the lake, the labels and the logs go.")] = Path("demo"),
) -> None:
    """See the whole job at work on simulated traffic: broker, `stillwatch run`, lake and queries, in about a minute.

    Ends by itself.  Exit codes: 0 every record is accounted for; 1 one is not; 2 a wrong setting; 4 broker or job failed;
    130 interrupted.
    """
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # it logs every lost connection as an error
    if kafka and bootstrap is None:
        raise ConfigError("--kafka is for --bootstrap: the embedded broker needs no settings")
    console = Console(highlight=False)
    interrupt = _Interrupt()
    try:
        with interrupt, _folder_of_its_own(folder):
            problems = _Demo(console, seconds, folder, bootstrap, tuple(kafka or ())).play()
    except BaseException as error:
        if not interrupt.number:  # DuckDB, for one, turns an interrupt into an error of its own
            raise
        view.say(console, f"\ninterrupted: the job and the broker are stopped; what is landed stays in {folder}/")
        raise typer.Exit(128 + interrupt.number) from error
    if problems:
        raise typer.Exit(1)


class _Interrupt:
    """Turns the first SIGINT or SIGTERM into KeyboardInterrupt, and keeps later ones from disturbing the tidying up."""

    def __init__(self) -> None:
        self.number = 0
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._former[number] = signal.signal(number, self._caught)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)

    def _caught(self, number: int, _frame: FrameType | None) -> None:
        self.number = number
        for each in self._former:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt


@contextlib.contextmanager
def _folder_of_its_own(folder: Path) -> Iterator[None]:
    """Make the folder, or empty it of what the last demo left; nobody else's files are ever touched.

    Raises:
        ConfigError: it holds something else, another demo runs in it, or it cannot be made.
    """
    marker = folder / MARKER
    try:
        if folder.is_dir() and not marker.exists() and any(folder.iterdir()):
            raise ConfigError(f"{folder}/ is no demo's (it has no {MARKER}): name another folder with --folder")
        folder.mkdir(parents=True, exist_ok=True)
        with marker.open("a", encoding="utf-8") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(f"another demo runs in {folder}/: name another folder with --folder") from None
            for left in folder.iterdir():
                if left.is_dir() and not left.is_symlink():
                    shutil.rmtree(left)
                elif left.name != MARKER:
                    left.unlink()
            yield
    except OSError as error:
        raise ConfigError(f"{folder}/: {error.strerror or error}") from error


class _Demo:
    """One demo from start to end."""

    def __init__(self, console: Console, seconds: int, folder: Path, bootstrap: str | None, kafka: tuple[str, ...]) -> None:
        self._console, self._seconds, self._folder, self._kafka = console, seconds, folder, kafka
        self._own_broker = bootstrap is not None
        self._bootstrap = bootstrap or ""
        self._topic = f"stillwatch-demo-{uuid.uuid4().hex[:8]}" if bootstrap else "llm-access"
        self._lake = folder / "lake"
        self._run_log = folder / "run.log"
        start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=seconds)
        self._simulation = Simulation(start=start, hours=seconds)

    def play(self) -> list[str]:
        """Run everything, report, and return what does not add up."""
        _write_labels(self._simulation, self._folder)
        with contextlib.ExitStack() as running:
            self._start_broker(running)
            writer = running.enter_context(self._topic_writer(running))
            self._say_what_runs()
            job = self._start_job()
            running.callback(job.stop, _STOP_S)
            feed = running.enter_context(_Feed(self._simulation, writer, self._seconds))
            reader = running.enter_context(contextlib.closing(_Reader(self._lake)))
            self._watch(feed, job, reader)
            view.say(self._console, "\nEverything is in: stopping the job with SIGTERM.")
            job.stop(_STOP_S)
            problems = [*_stopped_well(job, self._run_log), *self._count(feed, reader)]
            self._report(reader)
        self._say_next(problems)
        return problems

    # ---- what runs

    def _start_broker(self, running: contextlib.ExitStack) -> None:
        if not self._own_broker:
            self._bootstrap = running.enter_context(EmbeddedBroker(self._folder / "broker.log")).bootstrap

    def _topic_writer(self, running: contextlib.ExitStack) -> TopicWriter:
        settings = client_settings(self._kafka)
        writer = TopicWriter(self._bootstrap, self._topic, _PARTITIONS, settings)
        if self._own_broker:
            running.callback(self._delete_topic, settings)
        return writer

    def _delete_topic(self, settings: dict[str, Any]) -> None:
        """Leave nothing on somebody's broker; where that is not allowed, say what stays."""
        known = {name: value for name, value in settings.items() if name in KafkaAdminClient.DEFAULT_CONFIG}
        try:
            with contextlib.closing(KafkaAdminClient(bootstrap_servers=self._bootstrap.split(","), **known)) as admin:
                admin.delete_topics([self._topic])
        except KafkaError as error:
            view.say(self._console, f"topic {self._topic} stays on the broker: {error}")

    def _start_job(self) -> ServerProcess:
        """`stillwatch run`, by this demo's settings alone; it ends when this process ends, however it ends."""
        for name in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
            del os.environ[name]
        os.environ.update(self._secrets())
        return ServerProcess([*_own_command(), *self._job_arguments()], self._run_log)

    def _job_arguments(self) -> list[str]:
        arguments = ["run", "--bootstrap", self._bootstrap, "--topic", self._topic, "--lake", str(self._lake)]
        arguments += ["--file-age", str(_FILE_AGE_S)]
        if self._own_broker:
            arguments += ["--group", self._topic]
        return arguments + [part for pair in self._kafka if not _is_secret(pair) for part in ("--kafka", pair)]

    def _secrets(self) -> dict[str, str]:
        """Passwords go by the environment: a command line is for all to see."""
        pairs = [pair.partition("=") for pair in self._kafka if _is_secret(pair)]
        return {f"{ENV_PREFIX}KAFKA__{name.upper()}": value for name, _, value in pairs}

    def _say_what_runs(self) -> None:
        broker = f"yours, at {self._bootstrap}" if self._own_broker else f"embedded and in memory, at {self._bootstrap}"
        accounts = self._simulation.accounts
        attackers = sum(label.label == "attack" for label in self._simulation.labels)
        secrets = "".join(f"{name}=… " for name in self._secrets())
        view.title(self._console, f"{self._seconds} hours of traffic to an LLM API, in {self._seconds} seconds")
        view.pairs(
            self._console,
            {
                "broker": f"{broker}; topic {self._topic}",
                "traffic": f"simulated: {len(accounts):,} accounts, {attackers:,} of them harvesting",
                "": f"one record in {BROKEN_EVERY:,} is broken on purpose",
                "job": f"{secrets}{_typed(*self._job_arguments())}",
                "its log": str(self._run_log),
            },
        )

    # ---- while it runs

    def _watch(self, feed: _Feed, job: ServerProcess, reader: _Reader) -> None:
        """Show how far everything is until all that was produced is in the lake."""
        answer, asked_s = None, time.monotonic()
        moved, moved_s = -1, time.monotonic()
        with View(self._console) as shown:
            while True:
                if feed.error:
                    raise feed.error
                if not job.is_running:
                    raise RetryableError(f"the job ended: {_last_line(job)}; all that it said: {self._run_log}")
                ended, produced = feed.ended, feed.produced
                landed, rejected, files, size = reader.counts()
                if landed and time.monotonic() - asked_s >= _ASK_EVERY_S:
                    answer, asked_s = reader.ask(_LATEST_HOURS), time.monotonic()
                shown.show(
                    Moment(feed.elapsed_s, self._seconds, feed.clock, produced, landed, rejected, files, size, answer)
                )
                if ended and landed + rejected >= produced:
                    return
                if landed + rejected + produced != moved:
                    moved, moved_s = landed + rejected + produced, time.monotonic()
                elif time.monotonic() - moved_s > _STALLED_S:
                    return  # the count will say what is missing
                time.sleep(_SHOW_EVERY_S)

    # ---- when it has run

    def _count(self, feed: _Feed, reader: _Reader) -> list[str]:
        """Count the rows in the files, not what anybody says of them."""
        landed = reader.number("SELECT count(*) FROM access")
        rejected = reader.number("SELECT count(*) FROM rejects")
        rows, offsets = reader.ask(_OFFSETS).rows[0]
        problems = []
        if feed.produced != landed + rejected:
            problems.append(f"produced {feed.produced:,} is not landed {landed:,} + rejected {rejected:,}")
        if feed.broken != rejected:
            problems.append(f"{feed.broken:,} broken records were sent and {rejected:,} rejected")
        if rows != offsets:
            problems.append(f"{rows:,} rows come from {offsets:,} offsets")
        view.title(self._console, "Counts")
        view.pairs(
            self._console,
            {
                "produced": f"{feed.produced:>9,}  records that the broker acknowledged",
                "landed": f"{landed:>9,}  rows in the table access",
                "rejected": f"{rejected:>9,}  rows in the table rejects; {feed.broken:,} were broken on purpose",
                "sum": " " * 11 + (
                    "DOES NOT ADD UP: " + "; ".join(problems) if problems
                    else "produced = landed + rejected, and every offset is there exactly once"
                ),
            },
        )  # fmt: skip
        return problems

    def _report(self, reader: _Reader) -> None:
        view.title(self._console, "Why records were rejected")
        view.query(self._console, reader.ask(_REASONS))
        view.title(self._console, "Who took the most, and how much of it in requests outside any conversation")
        answer = reader.ask(_TAKERS)
        label_of = {label.account_id: label for label in self._simulation.labels}
        rows = [(*row, _in_words(label_of[str(row[0])])) for row in answer.rows]
        view.query(self._console, Answer(answer.sql, [*answer.columns, "(simulated as)"], rows, answer.took_s))
        view.say(
            self._console,
            "\n  Volume alone does not tell harvesters from customers.  Scoring accounts is the next part of Stillwatch\n"
            "  and not built yet: the last column comes from the simulation and not from any detection.",
        )

    def _say_next(self, problems: list[str]) -> None:
        for problem in problems:
            view.say(self._console, f"stillwatch demo: {problem}")
        lake = shlex.quote(str(self._lake))
        view.title(self._console, "What to try next")
        for what, command in {
            "a query of your own": f'{_typed("sql", "--lake")} {lake} "SELECT model, count(*) FROM access GROUP BY ALL"',
            "a prompt for many": f'{_typed("sql", "--lake")} {lake}',
            "the job on your own topic, into a lake of its own": _typed("run", "--bootstrap")
            + " HOST:PORT --topic TOPIC --lake lake",
            "traffic into a file, or with --bootstrap and --topic into a topic": _typed(
                "simulate", "--hours", "6", "--out", "traffic.ndjson.zst"
            ),
        }.items():
            view.say(self._console, f"  {what}:")
            view.say(self._console, f"    {command}")
        view.say(self._console, f"  which accounts harvest: {self._folder / 'labels.csv'}; who they are: {self._folder / 'accounts.ndjson'}")


class _Feed(threading.Thread):
    """Sends the simulated traffic, an hour of it a second, from a thread of its own."""

    def __init__(self, simulation: Simulation, writer: TopicWriter, seconds: int) -> None:
        super().__init__(name="feed", daemon=True)
        self._simulation, self._writer, self._seconds = simulation, writer, seconds
        self._stopping = threading.Event()
        self._began_s = time.monotonic()
        self.broken = 0
        self.clock = ""
        self.ended = False
        self.error: BaseException | None = None

    @property
    def produced(self) -> int:
        """Records that the broker has acknowledged."""
        return self._writer.sent

    @property
    def elapsed_s(self) -> float:
        """Since the traffic began."""
        return time.monotonic() - self._began_s

    def __enter__(self) -> Self:
        self._began_s = time.monotonic()
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stopping.set()
        self.join(timeout=_STOP_S)

    def run(self) -> None:
        """Send, in the thread."""
        try:
            self._send_all()
            self._writer.flush()
        except BaseException as error:  # noqa: BLE001  # raised again by whoever watches
            self.error = error
        self.ended = True

    def _send_all(self) -> None:
        for number, event in enumerate(self._simulation.events(), start=1):
            at = datetime.fromisoformat(event["event_time"])
            ahead_s = (at - self._simulation.start).total_seconds() / 3600 * _HOUR_S - self.elapsed_s
            if ahead_s > 0.002:  # noqa: PLR2004  # below this, a sleep costs more than it corrects
                self._stopping.wait(ahead_s)
            if self._stopping.is_set() or self.elapsed_s > self._seconds * _LATE:
                return
            key = event["account_id"].encode()
            self._writer.send(KeyedLine(key, orjson.dumps(event)))
            if number % BROKEN_EVERY == 0:
                damage = _DAMAGES[self.broken % len(_DAMAGES)]
                self.broken += 1
                self._writer.send(KeyedLine(key, damage(event)))
            self.clock = f"{at:%a %H:%M}"


_DAMAGES: Final[tuple[Callable[[Event], bytes], ...]] = (
    lambda event: orjson.dumps(event)[:200],
    lambda event: orjson.dumps({**event, "account_id": None}),
    lambda event: orjson.dumps({**event, "output_tokens": -7}),
    lambda event: orjson.dumps({**event, "event_time": "2999-01-01T00:00:00Z"}),
    lambda event: orjson.dumps({**event, "status": "teapot"}),
    lambda event: orjson.dumps(event).replace(b'"prompt":"', b'"prompt":"\xff\xfe'),
)
"""What goes wrong with records on their way: cut short, incomplete, impossible, of the wrong type, not UTF-8."""


class _Reader:
    """Reads the lake as `stillwatch sql` does: the files that the catalog shows."""

    def __init__(self, lake: Path) -> None:
        self._lake = lake
        self._catalog: Catalog | None = None
        self._duckdb = duckdb.connect(config={"threads": 1})

    def close(self) -> None:
        """Close everything."""
        self._duckdb.close()
        if self._catalog:
            self._catalog.close()

    def counts(self) -> tuple[int, int, int, int]:
        """Events, rejects, files and bytes so far."""
        if self._catalog is None:
            with contextlib.suppress(ConfigError):  # the job has not made its tables yet
                path = self._lake / CATALOG_FILE
                self._catalog = Catalog.open(sqlite_url(path.absolute()), create=False) if path.exists() else None
        if self._catalog is None:
            return 0, 0, 0, 0
        files = self._catalog.live_files()
        rows = {table: sum(file.rows for file in files if file.table_name == table) for table in ("access", "rejects")}
        return rows["access"], rows["rejects"], len(files), sum(file.bytes for file in files)

    def ask(self, sql: str) -> Answer:
        """Run a query over the lake as it is at this moment."""
        if self._catalog is None:
            raise ConfigError("no lake")
        began_s = time.monotonic()
        files = self._catalog.live_files()
        for table, schema in TABLE_SCHEMAS.items():
            paths = [str(self._lake / file.path) for file in files if file.table_name == table]
            if paths:
                rel = self._duckdb.read_parquet(paths, hive_partitioning=True)
            else:
                rel = self._duckdb.from_arrow(schema.empty_table())
            rel.create_view(table, replace=True)
        found = self._duckdb.sql(sql)
        rows = found.fetchall()
        return Answer(sql, found.columns, rows, time.monotonic() - began_s)

    def number(self, sql: str) -> int:
        """The one number that a query gives."""
        return int(str(self.ask(sql).rows[0][0]))


def _write_labels(simulation: Simulation, folder: Path) -> None:
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.DictWriter(file, [field.name for field in fields(Label)], lineterminator="\n")
        rows.writeheader()
        rows.writerows(asdict(label) for label in simulation.labels)
    lines = [orjson.dumps(asdict(account)) + b"\n" for account in simulation.accounts]
    (folder / "accounts.ndjson").write_bytes(b"".join(lines))


def _in_words(label: Label) -> str:
    return f"harvester, {label.variant}" if label.label == "attack" else f"customer, {label.population}"


def _stopped_well(job: ServerProcess, log: Path) -> list[str]:
    """The job's own last word is `stopped`, at level info, unless something was left unwritten."""
    try:
        last = json.loads(_last_line(job))
        if last["event"] == "stopped":
            return []
    except (ValueError, KeyError, TypeError):
        pass
    return [f"the job did not stop cleanly; see {log}"]


def _last_line(job: ServerProcess) -> str:
    lines = job.log_tail().splitlines()
    return lines[-1] if lines else "it said nothing"


def _is_secret(pair: str) -> bool:
    return "password" in pair.partition("=")[0].lower()


def _own_command() -> list[str]:
    """This very program, as another process can start it."""
    script = Path(sys.executable).with_name("stillwatch")
    return [str(script)] if script.exists() else [sys.executable, "-m", "jobs.cli"]


def _typed(*arguments: str) -> str:
    """A command as the user would type it in this folder."""
    program, *rest = _own_command()
    found = shutil.which(Path(program).name)
    if found is not None and Path(found) == Path(program):
        program = Path(program).name
    elif Path(program).is_relative_to(Path.cwd()):
        program = str(Path(program).relative_to(Path.cwd()))
    return shlex.join([program, *rest, *arguments])
