"""`stillwatch simulate`: labelled traffic of its own making, or a recorded file, to a topic or a file."""

from __future__ import annotations

import csv
import io
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Protocol

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from pipeline.counted import counted
from pipeline.errors import ConfigError
from pipeline.io.replay import (
    FileWriter,
    KeyedLine,
    TopicWriter,
    at_rate,
    client_settings,
    open_lines,
    refuse_existing,
    replayed,
)
from pipeline.moments import parsed
from pipeline.simulation import VARIANTS, Label, Simulation

ACCOUNTS_DEFAULT = 1400
HOURS_DEFAULT = 48.0
ATTACK_SHARE_DEFAULT = 0.15
EXIT_INTERRUPTED = 130

# Where only the number of events is known, the traffic begins early enough to end before now even if it is slow.
_MARGIN, _MARGIN_H = 1.25, 1.0
_PROGRESS_EVERY = 500


class _Writer(Protocol):
    sent: int
    sent_bytes: int

    def send(self, line: KeyedLine) -> None: ...


@dataclass(frozen=True, slots=True)
class Options:
    """The command's flags; None where one was not given."""

    out: Path | None
    bootstrap: str | None
    topic: str | None
    partitions: int | None
    replay: Path | None
    events: int | None
    hours: float | None
    accounts: int | None
    seed: int | None
    start: str | None
    attack_share: float | None
    variants: str | None
    labels: Path | None
    rate: float | None
    kafka: tuple[str, ...]
    force: bool


@dataclass(slots=True)
class Sent:
    """What came of it."""

    lines: int = 0
    unkeyed: int = 0
    interrupted: bool = False


def simulate(  # noqa: PLR0913, PLR0917 - one argument per flag is how Typer reads a command
    out: Annotated[Path | None, typer.Option(help="File to write: .ndjson, .ndjson.gz or .ndjson.zst.")] = None,
    bootstrap: Annotated[str | None, typer.Option(help="Kafka to send to: HOST:PORT[,HOST:PORT…].")] = None,
    topic: Annotated[str | None, typer.Option(help="Topic to send to; made if it does not exist.")] = None,
    partitions: Annotated[
        int | None,
        typer.Option(min=1, help="Partitions of a new topic.", show_default=str(TopicWriter.PARTITIONS_DEFAULT)),
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(help="Send the lines of this NDJSON file (.gz, .zst) as they are, instead.")
    ] = None,
    events: Annotated[int | None, typer.Option(min=1, help="Stop after this many events.")] = None,
    hours: Annotated[
        float | None,
        typer.Option(help="Length of the simulated time.", show_default=f"{HOURS_DEFAULT:g}, or what --events takes"),
    ] = None,
    accounts: Annotated[
        int | None, typer.Option(help="Number of accounts.", show_default=str(ACCOUNTS_DEFAULT))
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same seed and --start give the same traffic.", show_default="0")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="ISO", help="Simulated start, such as 2026-03-02T00:00Z.", show_default="so that it ends about now"
        ),
    ] = None,
    attack_share: Annotated[
        float | None, typer.Option(help="Share of the accounts that harvest.", show_default=str(ATTACK_SHARE_DEFAULT))
    ] = None,
    variants: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[,NAME…]", help="How harvesters hide: " + ", ".join(VARIANTS) + ".", show_default="all ways"
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder for accounts.ndjson and labels.csv.", show_default="beside --out, or here"
        ),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Events per second of real time.", show_default="as fast as possible")
    ] = None,
    kafka: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="Further Kafka client setting, such as security_protocol=SASL_SSL; repeatable."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> None:
    """Make labelled traffic of customers and harvesters, and send it to a topic or write it to a file.

    The accounts (accounts.ndjson) and who harvests (labels.csv) are written beside it.
    """
    options = Options(
        out, bootstrap, topic, partitions, replay, events, hours, accounts, seed, start, attack_share, variants, labels,
        rate, tuple(kafka or ()), force,
    )  # fmt: skip
    check_options(options)
    began_s = time.monotonic()
    with ExitStack() as stack:
        lines, simulation, expected = _source(options, stack)
        if simulation is not None:
            refuse_existing(_label_files(options), force=options.force)
        writer = _open_writer(options)
        if simulation is not None:
            write_labels(simulation, *_label_files(options), force=options.force)
        with writer:
            sent = _send_all(lines, writer, expected, options.rate)
    _say_what_was_sent(options, writer, sent, simulation, time.monotonic() - began_s)
    if sent.interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)


def check_options(options: Options) -> None:
    """Raise ConfigError for flags that do not go together, before anything is written."""
    to_topic = options.bootstrap is not None or options.topic is not None
    if (options.out is None) is not to_topic:
        raise ConfigError("say where the traffic goes: either --out FILE, or --bootstrap HOST:PORT and --topic NAME")
    if to_topic and (not options.bootstrap or not options.topic):
        raise ConfigError("--bootstrap and --topic go together")
    if not to_topic and (options.kafka or options.partitions is not None):
        raise ConfigError("--kafka and --partitions are for --topic")
    if options.rate is not None and not (options.rate > 0 and math.isfinite(options.rate)):
        raise ConfigError("--rate must be more than 0 events per second")
    if options.replay is not None:
        for name in ("hours", "accounts", "seed", "start", "attack_share", "variants", "labels"):
            if getattr(options, name) is not None:
                raise ConfigError(f"--{name.replace('_', '-')} shapes new traffic and has no meaning with --replay")
        if options.out is not None and options.out.exists() and options.out.samefile(options.replay):
            raise ConfigError("--out and --replay name the same file")
    if options.hours is not None and not math.isfinite(options.hours):
        raise ConfigError("--hours must be a finite number")


def plan_simulation(options: Options, now: datetime) -> Simulation:
    """The simulation that the flags ask for; where they leave the start open, it ends about `now`.

    Raises:
        ConfigError: a flag is out of range.
    """
    given: dict[str, Any] = {
        "seed": options.seed or 0,
        "accounts": ACCOUNTS_DEFAULT if options.accounts is None else options.accounts,
        "attack_share": ATTACK_SHARE_DEFAULT if options.attack_share is None else options.attack_share,
        "variants": [] if options.variants is None else [name.strip() for name in options.variants.split(",")],
    }
    start = None if options.start is None else parse_start(options.start)
    if options.hours is None and options.events is not None:
        per_day = Simulation(start=now, hours=None, **given).events_per_day
        span_h = max(1.0, options.events / per_day * 24)
        start = start or _whole_second(now, span_h * _MARGIN + _MARGIN_H)
        return Simulation(start=start, hours=None, span_hours=span_h, **given)
    hours = HOURS_DEFAULT if options.hours is None else options.hours
    # Checked by the simulation; until then it must only be good enough to reckon with.
    start = start or _whole_second(now, min(max(hours, 0.0), 87_600.0))
    return Simulation(start=start, hours=hours, **given)


def parse_start(text: str) -> datetime:
    """A time from ISO 8601 text; without an offset it is UTC.  Raises ConfigError for anything else."""
    try:
        start = parsed(text)
    except ValueError:
        raise ConfigError(f"--start takes a time such as 2026-03-02T00:00Z, not {text!r}") from None
    if not datetime(1990, 1, 1, tzinfo=UTC) <= start <= datetime(2200, 1, 1, tzinfo=UTC):
        raise ConfigError(f"--start must lie between 1990 and 2200, not {text!r}")
    return start


def _whole_second(now: datetime, hours_before: float) -> datetime:
    return (now - timedelta(hours=hours_before)).replace(microsecond=0)


def _source(options: Options, stack: ExitStack) -> tuple[Iterator[KeyedLine], Simulation | None, int | None]:
    """Lines to send, the simulation that they come from, and how many to expect."""
    if options.replay is not None:
        return _limited(replayed(stack.enter_context(open_lines(options.replay))), options.events), None, options.events
    simulation = plan_simulation(options, datetime.now(UTC))
    length_h = simulation.hours or math.inf
    expected = min(options.events or math.inf, simulation.events_per_day / 24 * length_h)
    return _limited(_simulated(simulation), options.events), simulation, int(expected)


def _simulated(simulation: Simulation) -> Iterator[KeyedLine]:
    for event in simulation.events():
        yield KeyedLine(event["account_id"].encode(), orjson.dumps(event))


def _limited(lines: Iterator[KeyedLine], limit: int | None) -> Iterator[KeyedLine]:
    for number, line in enumerate(lines, start=1):
        yield line
        if number == limit:
            return


def _open_writer(options: Options) -> FileWriter | TopicWriter:
    if options.out is not None:
        return FileWriter(options.out, force=options.force)
    settings = client_settings(options.kafka)
    return TopicWriter(options.bootstrap or "", options.topic or "", options.partitions, settings)


def _label_files(options: Options) -> tuple[Path, Path]:
    folder = options.labels or (options.out.parent if options.out else Path())
    return folder / "accounts.ndjson", folder / "labels.csv"


def write_labels(simulation: Simulation, accounts_path: Path, labels_path: Path, *, force: bool) -> None:
    """Write who takes part (one JSON object a line) and who harvests (CSV)."""
    with FileWriter(accounts_path, force=force) as accounts:
        for account in simulation.accounts:
            accounts.send(KeyedLine(None, orjson.dumps(asdict(account))))
    text = io.StringIO()
    table = csv.DictWriter(text, [field.name for field in fields(Label)], lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(label) for label in simulation.labels)
    with FileWriter(labels_path, force=force) as labels:
        for row in text.getvalue().splitlines():
            labels.send(KeyedLine(None, row.encode()))


def _send_all(lines: Iterator[KeyedLine], writer: _Writer, expected: int | None, rate: float | None) -> Sent:
    """Send until the lines end or somebody interrupts; what was handed over by then is delivered."""
    sent = Sent()
    with _interruptible() as stop, _progress(expected) as advance:
        for line in at_rate(lines, rate, stop.wait) if rate else lines:
            if stop.is_set():
                sent.interrupted = True
                break
            writer.send(line)
            sent.lines += 1
            sent.unkeyed += line.key is None
            if sent.lines % _PROGRESS_EVERY == 0:
                advance(sent.lines)
        advance(sent.lines)
    return sent


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; a second SIGINT interrupts as usual."""
    stop = threading.Event()
    before: dict[int, Any] = {}

    def handle(number: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[number])

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, handle)
    try:
        yield stop
    finally:
        for handled, handler in before.items():
            signal.signal(handled, handler)


@contextmanager
def _progress(expected: int | None) -> Iterator[Any]:
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    columns = (TextColumn("simulate"), BarColumn(), MofNCompleteColumn(), TextColumn("events"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task: TaskID = progress.add_task("simulate", total=expected)

        def advance(done: int) -> None:
            # What was expected is an estimate: the bar grows with what comes.
            total = expected if expected is None else max(expected, done)
            progress.update(task, completed=done, total=total)

        yield advance


def _say_what_was_sent(
    options: Options, writer: FileWriter | TopicWriter, sent: Sent, simulation: Simulation | None, seconds: float
) -> None:
    where = (
        str(writer.path)
        if isinstance(writer, FileWriter)
        else f"topic {writer.topic} ({counted(writer.partitions, 'partition')})"
    )
    verb = "interrupted: " if sent.interrupted else ""
    rate = writer.sent / seconds if seconds else 0.0
    typer.echo(
        f"{verb}{counted(writer.sent, 'event')}, {counted(writer.sent_bytes, 'byte')} in {seconds:.1f} s "
        f"({rate:,.0f}/s) to {where}"
    )
    if sent.unkeyed:
        typer.echo(f"{counted(sent.unkeyed, 'line')} without a JSON account_id sent unchanged, without a key")
    if simulation is not None:
        attackers = sum(label.label == "attack" for label in simulation.labels)
        accounts_path, labels_path = _label_files(options)
        typer.echo(
            f"{counted(len(simulation.accounts), 'account')}, {attackers:,} of them harvesting: "
            f"{accounts_path}, {labels_path}"
        )
