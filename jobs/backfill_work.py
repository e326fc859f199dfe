"""The working half of `stillwatch backfill`: logs through the live job's stream, in this process or in several."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

import pyarrow as pa

from jobs import logs
from pipeline.backfilling.counts import Counts
from pipeline.config import Settings
from pipeline.errors import ConfigError, RetryableError, StillwatchError
from pipeline.io import catalog_alerts
from pipeline.io.catalog import Catalog
from pipeline.io.clock import SystemClock
from pipeline.io.file_feed import Feed, FileFeed
from pipeline.io.lake import Lake
from pipeline.ports import FiniteSource, Source
from pipeline.stream import Limits, Stream
from pipeline.watching import WatchLimits

TOLD_EVERY_S: Final = 0.3
_NEVER_S: Final = float("inf")
_ENDED_S: Final = 60.0


class Log(Protocol):
    """Something that can be landed, by whichever process it is sent to."""

    @property
    def rows(self) -> int:
        """How many it has, landed or not."""

    def open(self, settings: Settings, ledger: Catalog) -> Any:
        """A context with a `FiniteSource`."""


@dataclass(frozen=True, slots=True)
class FeedLog:
    """A feed, as a log to be landed."""

    feed: Feed

    @property
    def rows(self) -> int:
        """Of all its files."""
        return sum(file.place.rows for file in self.feed.files)

    def open(self, settings: Settings, ledger: Catalog) -> contextlib.AbstractContextManager[FileFeed]:
        """Begin to read it."""
        del settings
        places = [file.place for file in self.feed.files]
        return contextlib.nullcontext(FileFeed(self.feed, lambda: ledger.sources.check_placed(places)))


Tell = Callable[[Counts, str], None]
"""Is told now and then how far it is, and what is waited for."""


class StoppedError(Exception):
    """A signal asked for the end; what is landed stays."""


def land(logs_: Sequence[Log], settings: Settings, tell: Tell, stop: Callable[[], bool]) -> Counts:
    """Land logs one after the other, by the live job's own steps.

    Args:
        logs_: what is to be landed.
        settings: of the lake, the catalog and what scores.
        tell: is told how far it is.
        stop: whether to end early; what is read is written then.

    Raises:
        StoppedError: it ended early.
        ConfigError: another backfill has taken one of the logs over.
        RetryableError: lake, catalog or broker failed for too long.
    """
    pa.set_memory_pool(pa.system_memory_pool())
    clock = SystemClock()
    storage = Lake.open(settings.lake, create=True)
    watch = _watch_of(settings)
    done = Counts()
    with contextlib.closing(Catalog.open(settings.catalog_url, create=True)) as ledger:
        ledger.alerts_are = catalog_alerts.PAST
        for one in logs_:
            if stop():
                raise StoppedError
            with one.open(settings, ledger) as source:
                stream = Stream(
                    source, storage, ledger, clock, _limits(settings),
                    worker=f"{socket.gethostname()}:{os.getpid()} backfill", watch=watch,
                )  # fmt: skip
                _land_one(stream, source, clock, lambda counts, why: tell(_sum(done, counts), why), stop)
                _write_rest(stream, clock, settings, stop)
                _check_fenced(stream, source)
                done.add(_counts(stream, source))
                tell(done, "")
            if not source.exhausted:
                raise StoppedError
    return done


def _land_one(stream: Stream, source: FiniteSource, clock: SystemClock, tell: Tell, stop: Callable[[], bool]) -> None:
    told_s = clock.elapsed_s()
    while not (source.exhausted or stop()):
        stream.round()
        _check_fenced(stream, source)
        if clock.elapsed_s() - told_s >= TOLD_EVERY_S:
            told_s = clock.elapsed_s()
            tell(_counts(stream, source), stream.progress.waits_for)


def _write_rest(stream: Stream, clock: SystemClock, settings: Settings, stop: Callable[[], bool]) -> None:
    """Write what is read, trying for as long as the job may; for `stop_s` once a signal has asked for the end."""
    until_s, stopping = clock.elapsed_s() + settings.retry_s, False
    while not stream.flush(min(until_s, clock.elapsed_s() + TOLD_EVERY_S)):
        if stop() and not stopping:
            until_s, stopping = min(until_s, clock.elapsed_s() + settings.stop_s), True
        if clock.elapsed_s() >= until_s:
            raise RetryableError(f"not everything could be written: {stream.progress.failing}")


def _check_fenced(stream: Stream, source: Source) -> None:
    if stream.progress.fenced:
        raise ConfigError(
            f"another `stillwatch backfill` has begun to land {source.address}, and this one ends: nothing is lost and "
            "nothing is there twice. Let the other one finish"
        )


def _counts(stream: Stream, source: FiniteSource) -> Counts:
    progress = stream.progress
    return Counts(
        passed=source.passed, read=progress.records, landed=progress.events, rejected=progress.rejects,
        windows=progress.windows, alerts=progress.alerts, shadow_alerts=progress.shadow_alerts, files=progress.files,
        bytes=progress.bytes,
    )  # fmt: skip


def _sum(one: Counts, other: Counts) -> Counts:
    both = Counts(**asdict(one))
    both.add(other)
    return both


def _watch_of(settings: Settings) -> Any:
    if settings.scoring == "off":
        return None
    from pipeline.watch import load_watch  # noqa: PLC0415  # what scores takes most of a second to import

    return load_watch(settings)


def _limits(settings: Settings) -> Limits:
    """As in the live job, but nobody waits for rows or alerts, and no replay is cut short: it would change scores."""
    return Limits(
        file_rows_max=settings.file_rows_max, file_bytes_max=settings.file_bytes_max, file_age_s=_NEVER_S,
        buffer_bytes_max=settings.buffer_bytes_max, retry_s=settings.retry_s,
        watch=WatchLimits(
            alert_age_s=_NEVER_S, snapshot_events=settings.snapshot_events, snapshot_age_s=settings.snapshot_age_s,
            replay_events_max=sys.maxsize,
        ),
    )  # fmt: skip


# ---- several processes


def land_in_parallel(
    hands: Sequence[Sequence[Log]], settings: Settings, tell: Tell, stop: Callable[[], bool]
) -> Counts:
    """Land logs in a process for each hand.

    Raises:
        As `land`; the first failure ends the others.
    """
    context = multiprocessing.get_context("spawn")
    said: Any = context.Queue()
    buffer_bytes = max(1 << 20, settings.buffer_bytes_max // len(hands))
    shared = settings.model_copy(update={"buffer_bytes_max": buffer_bytes})
    children = [
        context.Process(target=_child, args=(number, hand, shared, said), daemon=True)
        for number, hand in enumerate(hands)
    ]
    for child in children:
        child.start()
    try:
        return _gathered(children, said, tell, stop)
    finally:
        for child in children:
            if child.is_alive():
                child.terminate()  # it writes what it has read
        for child in children:
            child.join(_ENDED_S)
            if child.is_alive():
                child.kill()


def _gathered(children: Sequence[Any], said: Any, tell: Tell, stop: Callable[[], bool]) -> Counts:
    so_far = [Counts() for _ in children]
    whole, waiting, ended_early = Counts(), set(range(len(children))), False
    while waiting:
        if stop():
            for child in children:
                if child.is_alive():
                    child.terminate()
        try:
            number, counts, why, error = said.get(timeout=TOLD_EVERY_S)
        except queue.Empty:
            _check_alive(children, waiting, said)
            continue
        so_far[number] = counts or so_far[number]
        if error is not None and not isinstance(error, StoppedError):
            raise error
        ended_early |= error is not None
        if why is None:
            waiting.discard(number)
        whole = Counts()
        for part in so_far:
            whole.add(part)
        tell(whole, why or "")
    if ended_early:
        raise StoppedError
    return whole


def _check_alive(children: Sequence[Any], waiting: set[int], said: Any) -> None:
    dead = [number for number in waiting if not children[number].is_alive()]
    if dead and said.empty():
        code = children[dead[0]].exitcode
        raise RetryableError(f"one of the processes ended with {code} and said nothing (killed, out of memory)")


def _child(number: int, hand: Sequence[Log], settings: Settings, said: Any) -> None:
    """Runs in a process of its own, until it is done, told to end, or left alone."""
    parent, asked = os.getppid(), []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent decides
    logs.configure("warning")

    def tell(counts: Counts, why: str) -> None:
        said.put((number, Counts(**asdict(counts)), why, None))

    try:
        counts = land(hand, settings, tell, lambda: bool(asked) or os.getppid() != parent)
    except (StillwatchError, StoppedError) as error:
        said.put((number, None, None, error))
    else:
        said.put((number, counts, None, None))
