"""`stillwatch demo`: the whole job at work on simulated traffic, in about a minute.

The parts are those that a user would run: a Kafka broker, labelled traffic into a topic, `stillwatch run` as a process
of its own, and queries over the lake while it grows.  At the end everything is counted: what was produced must be
what was landed and rejected.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType, TracebackType
from typing import Annotated, Any, Final, Self

import typer
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError
from rich.console import Console

from jobs import demo_flagged, options
from jobs import demo_view as view
from jobs.demo_flagged import Flagged, in_words
from jobs.demo_reader import Reader
from jobs.demo_traffic import BROKEN_EVERY, Feed
from jobs.demo_view import Answer, Moment, View
from jobs.simulate import write_labels
from pipeline.config import ENV_PREFIX
from pipeline.counted import counted
from pipeline.errors import ConfigError, RetryableError
from pipeline.io.embedded_broker import EmbeddedBroker, ServerProcess
from pipeline.io.replay import TopicWriter, client_settings
from pipeline.simulation import Simulation

SECONDS_DEFAULT: Final = 48
MARKER: Final = ".stillwatch-demo"
"""Stands in a folder that a demo has made, and that the next one may therefore empty."""

_PARTITIONS: Final = 2
_FILE_AGE_S: Final = 2
_SESSION_TIMEOUT_S: Final = 6
"""The embedded broker lets the first member of a group wait for half of this before it gives it the partitions."""

_SHOW_EVERY_S: Final = 0.25
_ASK_EVERY_S: Final = 1.5
_STALLED_S: Final = 30.0
_STOP_S: Final = 15.0

_LATEST_HOURS: Final = """\
SELECT dt, hour, count(*) AS requests, count(DISTINCT account_id) AS accounts,
       sum(output_tokens)::BIGINT AS answer_tokens
FROM access GROUP BY dt, hour ORDER BY dt DESC, hour DESC LIMIT 5"""

_TAKERS: Final = """\
SELECT account_id, count(*) AS requests, sum(output_tokens)::BIGINT AS tokens,
       round(100 * avg((conversation_id IS NULL)::INT), 1) AS one_shot_pct
FROM access GROUP BY account_id ORDER BY tokens DESC, account_id LIMIT 10"""

_REASONS: Final = """\
SELECT error_type, field, count(*) AS records, min(reason) AS for_example
FROM rejects GROUP BY ALL ORDER BY ALL"""

_EXAMPLE: Final = "SELECT model, count(*) FROM access GROUP BY ALL"

_RISKIEST: Final = (
    "SELECT account_id, max(risk) AS highest, max(exchanges) AS exchanges, arg_max(reasons[1].words, risk) AS mostly "
    "FROM account_windows GROUP BY account_id ORDER BY highest DESC NULLS LAST LIMIT 20"
)

_ID_SHOWN: Final = 8

_OFFSETS: Final = """\
SELECT count(*), count(DISTINCT (topic, "partition", "offset"))
FROM (SELECT topic, "partition", "offset" FROM access UNION ALL SELECT topic, "partition", "offset" FROM rejects)"""


def demo(
    seconds: Annotated[
        int, typer.Option(min=2, max=3600, help="Length of the traffic; a second is a simulated hour.")
    ] = SECONDS_DEFAULT,
    bootstrap: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT,…", help="A Kafka broker of yours instead of the embedded one; gets a topic of its own."
        ),
    ] = None,
    kafka: options.KafkaSettings = None,
    folder: Annotated[Path, typer.Option(metavar="DIR", help="Where the lake, the labels and the logs go.")] = Path(
        "demo"
    ),
) -> None:
    """See the whole job at work on simulated traffic: broker, job, lake and queries, in about a minute.

    Ends by itself.  Exit codes: 0 every record is accounted for; 1 one is not; 2 a wrong setting; 4 broker or job
    failed; 130 interrupted.
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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

    def __init__(
        self, console: Console, seconds: int, folder: Path, bootstrap: str | None, kafka: tuple[str, ...]
    ) -> None:
        self._console, self._seconds, self._folder, self._kafka = console, seconds, folder, kafka
        self._own_broker = bootstrap is not None
        self._bootstrap = bootstrap or ""
        self._topic = f"stillwatch-demo-{uuid.uuid4().hex[:8]}" if bootstrap else "llm-access"
        self._lake = folder / "lake"
        self._config = folder / "stillwatch.toml"
        self._run_log = folder / "run.log"
        start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=seconds)
        self._simulation = Simulation(start=start, hours=seconds)

    def play(self) -> list[str]:
        """Run everything, report, and return what does not add up."""
        write_labels(self._simulation, self._folder / "accounts.ndjson", self._folder / "labels.csv", force=False)
        with contextlib.ExitStack() as running:
            self._start_broker(running)
            writer = running.enter_context(self._topic_writer(running))
            self._say_what_runs()
            job = self._start_job()
            running.callback(job.stop, _STOP_S)
            feed = running.enter_context(Feed(self._simulation, writer, self._seconds))
            reader = running.enter_context(contextlib.closing(Reader(self._lake)))
            self._watch(feed, job, reader)
            view.say(self._console, "\nEverything is in: stopping the job with SIGTERM.")
            job.stop(_STOP_S)
            problems = [*_stopped_well(job, self._run_log), *self._count(feed, reader), *self._verify()]
            riskiest = self._report(reader)
        self._say_next(riskiest)
        for problem in problems:
            view.say(self._console, f"stillwatch demo: {problem}")
        return problems

    # ---- what runs

    def _start_broker(self, running: contextlib.ExitStack) -> None:
        if self._own_broker:
            return
        log = self._folder / "broker.log"
        try:
            self._bootstrap = running.enter_context(EmbeddedBroker(log)).bootstrap
        except RetryableError as error:
            why = str(error).splitlines()[0].partition("; the end of its log")[0]
            raise RetryableError(
                f"the embedded broker did not start: {why} (its log: {log}); or name a broker with --bootstrap"
            ) from error

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
        settings = {
            "bootstrap": self._bootstrap,
            "topic": self._topic,
            "group": self._topic,
            "lake": str(self._lake),
            "file_age_s": _FILE_AGE_S,
            "accounts": str(self._folder / "accounts.ndjson"),
        }
        if not self._own_broker:
            settings["session_timeout_s"] = _SESSION_TIMEOUT_S
        lines = ["# stillwatch run --config", *(f"{name} = {json.dumps(value)}" for name, value in settings.items())]
        pairs = [pair.partition("=") for pair in self._kafka if not _is_secret(pair)]
        lines += ["", "[kafka]", *(f"{name} = {json.dumps(value)}" for name, _, value in pairs)] if pairs else []
        self._config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        for name in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
            del os.environ[name]
        os.environ.update(self._secrets())
        return ServerProcess([*_own_command(), *self._job_arguments()], self._run_log)

    def _job_arguments(self) -> list[str]:
        return ["run", "--config", str(self._config)]

    def _secrets(self) -> dict[str, str]:
        """Passwords go by the environment: a command line is for all to see."""
        pairs = [pair.partition("=") for pair in self._kafka if _is_secret(pair)]
        return {f"{ENV_PREFIX}KAFKA__{name.upper()}": value for name, _, value in pairs}

    def _say_what_runs(self) -> None:
        broker = f"yours, at {self._bootstrap}" if self._own_broker else f"embedded and in memory, at {self._bootstrap}"
        accounts = self._simulation.accounts
        attackers = sum(label.label == "attack" for label in self._simulation.labels)
        secrets = "".join(f"{name}=… " for name in self._secrets())
        view.title(
            self._console,
            f"{counted(self._seconds, 'hour')} of traffic to an LLM API, in {counted(self._seconds, 'second')}",
        )
        view.pairs(
            self._console,
            {
                "broker": f"{broker}; topic {self._topic}",
                "traffic": f"simulated: {counted(len(accounts), 'account')}, {attackers:,} of them harvesting",
                "": f"one record in {BROKEN_EVERY:,} is broken on purpose",
                "job": f"{secrets}{_typed(*self._job_arguments())}",
                " ": f"its log: {self._run_log}",
            },
        )

    # ---- while it runs

    def _watch(self, feed: Feed, job: ServerProcess, reader: Reader) -> None:
        """Show how far everything is until all that was produced is in the lake."""
        answer, flagged, asked_s = None, 0, time.monotonic()
        moved, moved_s = -1, time.monotonic()
        with View(self._console) as shown:
            while True:
                if feed.error:
                    raise feed.error
                if not job.is_running:
                    raise RetryableError(f"the job ended: {_last_line(job)}; all that it said: {self._run_log}")
                ended, produced = feed.ended, feed.produced
                landed, rejected, files, size = reader.counts()
                complete = ended and landed + rejected >= produced
                if landed and (complete or time.monotonic() - asked_s >= _ASK_EVERY_S):
                    answer, flagged = reader.ask(_LATEST_HOURS), reader.flagged()
                    asked_s = time.monotonic()
                shown.show(
                    Moment(
                        feed.elapsed_s, self._seconds, feed.clock, produced, landed, rejected, files, size, flagged,
                        answer,
                    )
                )  # fmt: skip
                if complete:
                    return
                if landed + rejected + produced != moved:
                    moved, moved_s = landed + rejected + produced, time.monotonic()
                elif time.monotonic() - moved_s > _STALLED_S:
                    if not ended:
                        raise RetryableError(
                            f"nothing has come through Kafka at {self._bootstrap} for {_STALLED_S:.0f} s"
                        )
                    return  # the count will say what is missing
                time.sleep(_SHOW_EVERY_S)

    # ---- when it has run

    def _count(self, feed: Feed, reader: Reader) -> list[str]:
        """Count the rows in the files, not what anybody says of them."""
        landed = reader.number("SELECT count(*) FROM access")
        rejected = reader.number("SELECT count(*) FROM rejects")
        rows, offsets = reader.ask(_OFFSETS).rows[0]
        problems = []
        if feed.produced != landed + rejected:
            problems.append(f"IT DOES NOT ADD UP: {feed.produced:,} is not {landed:,} + {rejected:,}")
        if feed.broken != rejected:
            problems.append(
                f"{counted(feed.broken, 'broken record was', 'broken records were')} sent and {rejected:,} rejected"
            )
        if rows != offsets:
            problems.append(
                f"{counted(int(str(rows)), 'row comes', 'rows come')} from {counted(int(str(offsets)), 'offset')}"
            )
        if feed.cut_short:
            view.say(self._console, f"This machine is too slow for all of the traffic: it ended at {feed.clock}.")
        view.title(self._console, "Counts")
        view.pairs(
            self._console,
            {
                "produced": f"{feed.produced:>9,}  records that the broker acknowledged",
                "landed": f"{landed:>9,}  rows in the table access",
                "rejected": f"{rejected:>9,}  rows in the table rejects; "
                f"{counted(feed.broken, 'was', 'were')} broken on purpose",
                "check": "; ".join(problems) or "produced = landed + rejected, every offset exactly once",
            },
        )
        return problems

    def _verify(self) -> list[str]:
        """Have the lake checked as an operator would."""
        arguments = ["maintain", "verify", "--lake", str(self._lake)]
        found = subprocess.run([*_own_command(), *arguments], capture_output=True, text=True, check=False)
        verdict = (found.stdout.splitlines() or [""])[-1].strip()
        view.pairs(self._console, {"verify": f"{verdict}, by {_typed(*arguments)}"})
        if not found.returncode:
            return []
        view.say(self._console, found.stdout.rstrip())
        return [found.stderr.strip()]

    def _report(self, reader: Reader) -> Flagged | None:
        view.title(self._console, "Why records were rejected")
        view.query(self._console, reader.ask(_REASONS))
        view.title(self._console, "Who took most answers, and what share of requests stood alone")
        view.query(self._console, self._beside_labels(reader.ask(_TAKERS)))
        view.prose(self._console, "Volume alone does not tell harvesters from customers; the job scores every account.")
        return demo_flagged.report(self._console, reader.ask, self._simulation.labels)

    def _beside_labels(self, answer: Answer) -> Answer:
        """The answer, with what the simulation says of each row's account beside it."""
        label_of = {label.account_id: label for label in self._simulation.labels}
        rows = [(*row, in_words(label_of[str(row[0])])) for row in answer.rows]
        return Answer(answer.sql, [*answer.columns, "(simulated as)"], rows, answer.took_s)

    def _say_next(self, riskiest: Flagged | None) -> None:
        lake = ["--lake", str(self._lake)]
        ask = _typed("sql", *lake)
        labels, accounts = self._folder / "labels.csv", self._folder / "accounts.ndjson"
        said = ["--accounts", str(accounts), "--labels", str(labels), "--out", str(self._folder / "report")]
        about = {}
        if riskiest is not None:
            command = _typed("alerts", "show", *lake, riskiest.alert_id[:_ID_SHOWN])
            about["all that there is to say of the riskiest"] = command
            known = _typed("account", *lake, "--accounts", str(accounts), riskiest.account_id)
            about["all that is known of its account; --html FILE makes a page of it"] = known
        view.title(self._console, "What to try next")
        view.commands(
            self._console,
            {
                "the alerts, the latest first": _typed("alerts", "list", *lake),
                **about,
                "the same in a browser: alerts, accounts, verdicts": _typed(
                    "serve", *lake, "--accounts", str(accounts)
                ),
                "accounts by risk, alerted or not": f'{ask} "{_RISKIEST}"',
                "what rules and models would have made of this traffic, as a page with plots": _typed(
                    "backtest", "--events", str(self._lake), *said
                ),
                "a query of your own": f'{ask} "{_EXAMPLE}"',
                "a prompt for many": ask,
                "the job on a topic of yours": f"{_typed('run')} --bootstrap HOST:PORT --topic TOPIC --lake lake",
                "traffic into a file; with --bootstrap and --topic, into a topic": _typed(
                    "simulate", "--hours", "6", "--out", "traffic.ndjson.zst"
                ),
            },
        )
        view.prose(self._console, f"{labels} says which accounts harvest, {accounts} who they are.")


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
