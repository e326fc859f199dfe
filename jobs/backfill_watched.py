"""How the work of `stillwatch backfill` is watched, stopped and reported."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import typer

from jobs import backfill_show as show
from jobs.backfill_work import Log, StoppedError, land, land_in_parallel
from jobs.run import Stop
from pipeline.backfilling.counts import Counts
from pipeline.committing import finish_pending
from pipeline.config import Settings
from pipeline.errors import RetryableError
from pipeline.io.catalog import Catalog
from pipeline.io.lake import Lake
from pipeline.sources import is_past

INTERRUPTED = 130


def finish_what_was_left(storage: Lake, ledger: Catalog) -> None:
    """Show what a killed backfill had committed: nobody may have a reason to open its partitions again."""
    for partition in {commit.partition for commit in ledger.pending() if is_past(commit.partition.topic)}:
        finish_pending(storage, ledger, partition)


def work(hands: Sequence[Sequence[Log]], settings: Settings, rows: int, began: float) -> Counts:
    """Do the work; a signal ends it after what is read is written."""
    stop, latest = Stop(), Counts()
    if not hands:
        return latest
    stop.listen()
    try:
        with show.landing(rows) as shown:

            def tell(counts: Counts, waits_for: str) -> None:
                nonlocal latest
                latest = counts
                shown(counts, waits_for)

            def stopped() -> bool:
                return bool(stop.reason)

            if len(hands) == 1:
                return land(hands[0], settings, tell, stopped)
            return land_in_parallel(hands, settings, tell, stopped)
    except StoppedError:
        show.summary(latest, skipped=None, seconds=time.monotonic() - began)
        print(  # noqa: T201  # the one line that says why
            f"stillwatch: ended early by {stop.reason}; what is landed stays, and the same command goes on from there",
            file=sys.stderr,
        )
        raise typer.Exit(INTERRUPTED) from None
    except RetryableError as error:
        raise RetryableError(f"{error}; what is written stays, and the same command goes on from there") from error
    finally:
        stop.unlisten()
