"""`stillwatch backfill --rejects`: what was no event and is one today, after a fix."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

from jobs import backfill_show as show
from jobs.backfill_watched import finish_what_was_left, work
from jobs.backfill_wish import Wish
from pipeline.backfilling.counts import Counts
from pipeline.backfilling.slices import Slice
from pipeline.config import Settings
from pipeline.errors import ConfigError
from pipeline.io.backfill_trial import Trial, try_logs
from pipeline.io.catalog import Catalog
from pipeline.io.clock import SystemClock
from pipeline.io.lake import Lake
from pipeline.io.reject_source import RejectSource, open_rejects
from pipeline.io.views.session import Session


@dataclass(slots=True)
class RejectLog:
    """The rejects of a lake, as a log to be landed."""

    number: int
    rows: int
    asked: Slice
    out_of_range: int = 0
    kept_back: int = 0

    @contextlib.contextmanager
    def open(self, settings: Settings, ledger: Catalog) -> Iterator[RejectSource]:
        """Take over what an earlier replay may still hold, and only then look what is left to do."""
        with Session.open(settings) as session:
            before = RejectSource(session, self.number, open_rejects(session))
            for partition in before.partitions:
                ledger.start_at(partition, 0)
            finish_what_was_left(Lake.open(settings.lake, create=False), ledger)
            source = RejectSource(session, self.number, open_rejects(session), self.asked)
            yield source
        self.out_of_range, self.kept_back = source.out_of_range, source.kept_back


def backfill_rejects(wish: Wish, settings: Settings) -> None:
    """Land rejects that are events today, or say how many are."""
    if wish.parallel > 1:
        raise ConfigError("--parallel: rejects are read by one process")
    settings = settings.model_copy(update={"scoring": "off"})
    Lake.open(settings.lake, create=False)
    began = time.monotonic()
    if wish.dry_run:
        trial, beyond = _tried(wish, settings)
        show.rejects(trial, Counts(), out_of_range=_said(wish, beyond), seconds=None)
        return
    done, first = Counts(), None
    with contextlib.closing(Catalog.open(settings.catalog_url, create=True)) as ledger:
        finish_what_was_left(Lake.open(settings.lake, create=False), ledger)
        while True:
            with Session.open(settings) as session:
                rows = sum(open_rejects(session).values())
            first = rows if first is None else first
            log = RejectLog(ledger.sources.begin_replay(), rows, wish.asked)
            done.add(work([[log]], settings, rows, began))
            ledger.sources.end_replay(log.number, SystemClock().now_us())
            if not log.kept_back:
                break
    trial = Trial(read=first, events=done.landed)
    show.rejects(trial, done, out_of_range=_said(wish, log.out_of_range), seconds=time.monotonic() - began)


def _said(wish: Wish, out_of_range: int) -> int | None:
    return None if wish.asked.is_whole else out_of_range


def _tried(wish: Wish, settings: Settings) -> tuple[Trial, int]:
    """What would be done, and how many events are out of the range."""
    with Session.open(settings) as session:
        source = RejectSource(session, 0, open_rejects(session), wish.asked)
        with show.landing(0, "reading"):
            trial = try_logs([source], {}, lambda _passed: None)
    trial.read += source.still_rejects + source.out_of_range
    return trial, source.out_of_range
