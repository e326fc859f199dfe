"""`stillwatch run`: the main job, for as long as it is let."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Annotated, Any, Literal, Self

import pyarrow as pa
import structlog
import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from jobs import logs, options
from jobs.actors import actor_here
from pipeline.analysis import Watch
from pipeline.compiled import LOOPS
from pipeline.config import Settings, read_settings
from pipeline.counted import counted
from pipeline.errors import ConfigError, RetryableError
from pipeline.io.catalog import Catalog, url_without_password
from pipeline.io.clock import SystemClock
from pipeline.io.desk.rule_record import record_rules
from pipeline.io.kafka import KafkaSource
from pipeline.io.lake import Lake
from pipeline.ports import Source
from pipeline.rules import Rule
from pipeline.stream import Limits, Stream
from pipeline.watching import WatchLimits

_SHOWN_EVERY_S = 0.5
_LOGGED_EVERY_S = 30.0
_START_S = 30.0
_NOTICED_S = 0.1
"""How soon a signal is noticed during the start."""

log = structlog.get_logger("run")


@dataclass(slots=True)
class Stop:
    """Why the job is to end: a signal, or nothing yet.  The second signal ends the process at once."""

    reason: str = ""
    _former: dict[int, Any] = field(default_factory=dict)

    def listen(self) -> None:
        """Catch SIGTERM and SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._former[number] = signal.signal(number, self._caught)

    def unlisten(self) -> None:
        """Give the signals back."""
        for number, former in self._former.items():
            signal.signal(number, former)

    def _caught(self, number: int, _frame: FrameType | None) -> None:
        self.reason = signal.Signals(number).name
        signal.signal(number, signal.SIG_DFL)


def run(  # noqa: PLR0913, PLR0917  # Typer: a parameter is a flag
    config: options.ConfigFile = None,
    bootstrap: options.Bootstrap = None,
    topic: Annotated[str | None, typer.Option(help="Topic of the access log.")] = None,
    group: Annotated[str | None, typer.Option(help="Consumer group; all workers of one lake share it.")] = None,
    lake: options.LakeFolder = None,
    catalog: options.CatalogUrl = None,
    kafka: options.KafkaSettings = None,
    start: Annotated[
        str | None, typer.Option(metavar="earliest|latest", help="Where a partition that was never read begins.")
    ] = None,
    fetch: Annotated[str | None, typer.Option(metavar="auto|columnar|stock", help="How records are unpacked.")] = None,
    file_age: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Write a partition's rows once the first has waited this long."),
    ] = None,
    scoring: Annotated[
        str | None, typer.Option(metavar="on|off", help="Whether accounts are scored and alerts raised.")
    ] = None,
    rules: options.Rules = None,
    models: options.ModelsFolder = None,
    accounts: options.AccountsFeed = None,
    once: Annotated[
        bool, typer.Option("--once", help="Stop when everything is landed that the topic held at the start.")
    ] = False,
    max_events: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after N records.")] = None,
    accept_hole: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TOPIC:PARTITION:FIRST-LAST",
            help="Go on without these offsets, which Kafka has lost or replaced; repeatable.",
        ),
    ] = None,
    change_group: Annotated[
        bool,
        typer.Option(
            "--change-group", help="Let --group have the topic from now on; stop the workers of its former group first."
        ),
    ] = False,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        typer.Option(metavar="debug|info|warning|error", help="How much to log."),
    ] = "info",
) -> None:
    """Read the access log from Kafka, land it as Parquet exactly once, score every account, and raise alerts.

    Stops on SIGTERM or Ctrl-C with everything that it read written.  Start as many as the topic has partitions. Each
    flag wins over the setting of its name; docs/configuration.md lists all settings, those without a flag too.

    Exit codes: 0 done; 1 a bug, with its traceback; 2 a wrong setting; 3 Kafka lost records before they were landed, or
    its log is not the one that was landed; 4 broker, catalog or disk failed for too long; 5 files or catalog are not
    what Stillwatch wrote.
    """
    settings = read_settings(
        config, bootstrap=bootstrap, topic=topic, group=group, lake=lake, catalog=catalog, start=start, fetch=fetch,
        file_age_s=file_age, kafka=options.key_values(kafka), scoring=scoring, rules=rules, models=models,
        accounts=None if accounts is None else str(accounts),
    )  # fmt: skip
    logs.configure(log_level)
    for hole in accept_hole or ():
        _check_hole(hole, settings.topic)
    job(
        settings, once=once, records_max=max_events, accepted_holes=frozenset(accept_hole or ()),
        change_group=change_group,
    )  # fmt: skip


def _check_hole(said: str, topic: str) -> None:
    """See that offsets to be given up are written as holes are.

    Raises:
        ConfigError: they are not, or are another topic's.
    """
    found = re.fullmatch(r"(.+):(\d+):(\d+)-(\d+)", said)
    if found is None or int(found[3]) > int(found[4]):
        raise ConfigError(
            f"--accept-hole {said}: expected TOPIC:PARTITION:FIRST-LAST, exactly as the message spells it"
        )
    if found[1] != topic:
        raise ConfigError(f"--accept-hole {said}: this job reads topic {topic}")


def job(
    settings: Settings,
    *,
    once: bool = False,
    records_max: int | None = None,
    accepted_holes: frozenset[str] = frozenset(),
    change_group: bool = False,
    step: Callable[[str], None] = lambda _name: None,
) -> Stream:
    """Wire the stream and run it to its end.

    Args:
        settings: all settled.
        once: stop when caught up.
        records_max: stop after this many records.
        accepted_holes: offsets that the operator gives up, as `TOPIC:PARTITION:FIRST-LAST`.
        change_group: take the topic over from another consumer group.
        step: see `Stream`.

    Returns:
        The stream, for its counts.

    Raises:
        typer.Exit: a signal came before the job had started (0), or not everything could be written at its end (4).
    """
    # Arrow's own pools give memory back between files and fault it in again: a fifth of the CPU time in the kernel.
    pa.set_memory_pool(pa.system_memory_pool())
    clock, stop = SystemClock(), Stop()
    stop.listen()
    try:
        begun = _unless_stopped(stop, lambda: _begin(settings, clock, change_group=change_group))
        if begun is None:
            log.info("stopped before it had started; nothing was read", why=stop.reason)
            raise typer.Exit(0)
        stream = Stream(
            begun.source, begun.storage, begun.ledger, clock, _limits(settings, records_max),
            worker=f"{socket.gethostname()}:{os.getpid()}", watch=begun.watch, accepted_holes=accepted_holes, step=step,
        )  # fmt: skip
        try:
            with _Display(stream, begun.source) as display:
                _work(stream, stop, display, once=once)
                written = stream.flush(clock.elapsed_s() + settings.stop_s)
        finally:
            begun.close()
    finally:
        stop.unlisten()
    _say_goodbye(stream, stop, written=written)
    return stream


@dataclass(frozen=True, slots=True)
class _Begun:
    """What the job reads from and writes to, all of it reached, and what it watches with."""

    storage: Lake
    ledger: Catalog
    source: KafkaSource
    watch: Watch | None

    def close(self) -> None:
        self.source.close()
        self.ledger.close()


def _begin(settings: Settings, clock: SystemClock, *, change_group: bool) -> _Begun:
    """Reach the lake, the catalog and Kafka; each may take its time."""
    watch = _load_watch(settings) if settings.scoring == "on" else None
    storage = Lake.open(settings.lake, create=True)
    begun = _Begun(storage, _open_catalog(settings, clock), KafkaSource(settings), watch)
    try:
        begun.source.open()  # joins Kafka's group only with the first poll
        begun.ledger.join(settings.topic, settings.group, clock.now_us(), change=change_group)
        if watch is not None:
            _record_rules(begun.ledger, watch.rules, clock)
    except BaseException:
        begun.close()
        raise
    log.info(
        "started", topic=settings.topic, group=settings.group, lake=str(storage.root),
        catalog=url_without_password(settings.catalog_url), fetch="columnar" if begun.source.columnar else "stock",
        loops="NumPy, slower: there is no compiled library, or not of this version" if LOOPS is None else "compiled",
        **_scored_with(settings, watch),
    )  # fmt: skip
    return begun


def _scored_with(settings: Settings, watch: Watch | None) -> dict[str, str]:
    """What the log says at the start of scoring, and of what it goes by."""
    if watch is None:
        return {"scoring": "off: records are landed only"}
    return {
        "scoring": "on", "models": f"{settings.models or 'shipped'} ({watch.models})",
        "rules": settings.rules or "shipped", "accounts_feed": settings.accounts or "none",
    }  # fmt: skip


def _load_watch(settings: Settings) -> Watch:
    from pipeline.watch import load_watch  # noqa: PLC0415  # what scores takes most of a second to import

    return load_watch(settings)


def _record_rules(ledger: Catalog, rules: Sequence[Rule], clock: SystemClock) -> None:
    """Put on record which rules run from now on."""
    record_rules(ledger, rules, actor_here(), clock.now_us())


def _unless_stopped(stop: Stop, begin: Callable[[], _Begun]) -> _Begun | None:
    """Begin on a thread of its own, so that a signal need not wait for a name server, a database or a broker.

    Returns:
        What was begun; None if a signal came first.  The thread is then left where it hangs, and ends with the process.
    """
    done: list[_Begun] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            done.append(begin())
        except BaseException as error:  # noqa: BLE001  # raised again below
            failed.append(error)

    thread = threading.Thread(target=work, name="start", daemon=True)
    thread.start()
    while thread.is_alive() and not stop.reason:
        thread.join(_NOTICED_S)
    if failed:
        raise failed[0]
    return done[0] if done else None


def _open_catalog(settings: Settings, clock: SystemClock) -> Catalog:
    """Open the catalog; one that is locked or starting up is given half a minute."""
    until_s = clock.elapsed_s() + min(settings.retry_s, _START_S)
    while True:
        try:
            return Catalog.open(settings.catalog_url, create=True)
        except RetryableError as error:
            if clock.elapsed_s() >= until_s:
                raise
            log.warning("waiting for the catalog", reason=str(error))
            clock.sleep(1.0)


def _limits(settings: Settings, records_max: int | None) -> Limits:
    return Limits(
        file_rows_max=settings.file_rows_max,
        file_bytes_max=settings.file_bytes_max,
        file_age_s=settings.file_age_s,
        buffer_bytes_max=settings.buffer_bytes_max,
        retry_s=settings.retry_s,
        start_latest=settings.start == "latest",
        records_max=records_max,
        watch=WatchLimits(
            alert_age_s=settings.alert_age_s,
            snapshot_events=settings.snapshot_events,
            snapshot_age_s=settings.snapshot_age_s,
            replay_events_max=settings.replay_events_max,
        ),
    )


def _work(stream: Stream, stop: Stop, display: _Display, *, once: bool) -> None:
    while not (stop.reason or stream.exhausted or (once and stream.caught_up())):
        stream.round()
        display.show()


def _say_goodbye(stream: Stream, stop: Stop, *, written: bool) -> None:
    if not written:
        log.error("stopped before all was written; what is missing stays in Kafka and is read again", **_counts(stream))
        raise typer.Exit(4)
    log.info("stopped", why=stop.reason or "done", **_counts(stream))


def _counts(stream: Stream) -> dict[str, int]:
    progress = stream.progress
    return {
        "read": progress.records, "events": progress.events, "rejects": progress.rejects, "scores": progress.windows,
        "alerts": progress.alerts, "shadow_alerts": progress.shadow_alerts, "accounts_known": stream.accounts,
        "replayed": progress.replayed, "snapshots": progress.snapshots, "files": progress.files,
    }  # fmt: skip


def _watched_in_words(stream: Stream) -> list[str]:
    """Scoring as the progress line has it."""
    if not stream.scores_accounts:
        return ["scoring off"]
    return [counted(stream.accounts, "account") + " known", counted(stream.progress.alerts, "alert")]


class _Display:
    """One line on a terminal that says how far the job is; elsewhere a log line now and then."""

    def __init__(self, stream: Stream, source: Source) -> None:
        self._stream, self._source = stream, source
        console = Console(stderr=True)
        self._live = Live(console=console, auto_refresh=False, transient=True) if sys.stderr.isatty() else None
        self._shown_s, self._shown_records = time.monotonic(), 0

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._live:
            self._live.stop()

    def show(self) -> None:
        """Refresh the line a few times a second; where there is no terminal, log now and then."""
        now_s = time.monotonic()
        if now_s - self._shown_s < (_SHOWN_EVERY_S if self._live else _LOGGED_EVERY_S):
            return
        progress = self._stream.progress
        rate = (progress.records - self._shown_records) / (now_s - self._shown_s)
        self._shown_s, self._shown_records = now_s, progress.records
        lag = self._source.lag(self._stream.owned)
        if self._live is None:
            log.info(
                "progress", records_per_s=round(rate), **_counts(self._stream), lag=lag, failing=progress.waits_for
            )
            return
        parts = [
            f"{rate:,.0f} records/s",
            f"landed {progress.events:,}",
            f"rejected {progress.rejects:,}",
            f"lag {'?' if lag is None else f'{lag:,}'}",
            f"{counted(progress.files, 'file')}, {progress.bytes / 1e6:,.1f} MB",
            counted(len(self._stream.owned), "partition")
            if self._stream.assigned_once
            else "waiting for partitions from the consumer group",
            *_watched_in_words(self._stream),
        ]
        line = Text(" · ".join(parts), style="bold" if not progress.waits_for else "bold red")
        if progress.waits_for:
            line.append(f" · waiting: {progress.waits_for}")
        self._live.update(line, refresh=True)
