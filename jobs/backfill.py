"""`stillwatch backfill`: past records into the lake, by the stages of the live job, each once."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from jobs import backfill_show as show
from jobs import logs, options
from jobs.backfill_work import Counts, FeedLog, Log, StoppedError, land, land_in_parallel
from jobs.run import Stop
from pipeline.backfilling.planning import BEGUN, FilePlan, check_unfinished, dealt, plan_files, unfinished
from pipeline.batch import Partition
from pipeline.config import Settings, read_settings
from pipeline.errors import ConfigError
from pipeline.io.backfill_trial import hours_held, try_feeds
from pipeline.io.catalog import Catalog
from pipeline.io.clock import SystemClock
from pipeline.io.file_feed import Feed, Planned
from pipeline.io.lake import Lake
from pipeline.io.row_files import find_sources, look_at
from pipeline.io.source_book import landed_to
from pipeline.io.source_notes import note_feeds
from pipeline.sources import FEED, FeedFile, SourceFile, own_feed

INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asks for, beside the settings; see `backfill`."""

    sources: tuple[str, ...]
    feed: str
    partitions: int | None
    parallel: int
    dry_run: bool


def backfill(  # noqa: PLR0913, PLR0917  # Typer: a parameter is a flag
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE|FOLDER|GLOB]...", help="NDJSON, plain, .gz or .zst, and Parquet.", show_default=False
        ),
    ] = None,
    score: Annotated[
        bool | None,
        typer.Option(
            "--score/--no-score",
            help="Whether accounts are scored and alerts raised, in the order in which files are named.",
            show_default="the setting `scoring`",
        ),
    ] = None,
    feed: Annotated[
        str, typer.Option(metavar="NAME", help="The log that scored files are added to; accounts are known along it.")
    ] = "backfill",
    partitions: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=4096,
            metavar="N",
            help="Of a new feed; as many as the topic has give the live job's scores. "
            "By default as many as the lake knows of the topic, or 1.",
        ),
    ] = None,
    parallel: Annotated[
        int, typer.Option(min=1, max=256, metavar="N", help="Processes: by file without scores, by partition with.")
    ] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and decode everything, say what would be landed, write nothing.")
    ] = False,
    config: options.ConfigFile = None,
    lake: options.LakeFolder = None,
    catalog: options.CatalogUrl = None,
    topic: Annotated[str | None, typer.Option(help="Topic of the access log.")] = None,
    rules: Annotated[
        str | None, typer.Option(metavar="FILE,…", help="Alert rules (TOML) instead of those that ship.")
    ] = None,
    models: Annotated[
        str | None, typer.Option(metavar="DIR", help="Models of `stillwatch train` instead of those that ship.")
    ] = None,
    accounts: options.AccountsFeed = None,
) -> None:
    """Land past records, each once, by the stages of the live job; safe beside `stillwatch run`.

    A file is known by the hash of its bytes: what is landed of it already is skipped, so the same command goes on where
    a killed one stopped.  Alerts that are raised are kept and listed, and sent to nobody: docs/backfill.md has recipes.

    Exit codes: 0 all is landed; 2 a file, flag or setting is wrong; 4 broker, catalog or disk failed for too long; 5
    files or catalog are not what Stillwatch wrote; 130 a signal ended it early.  After each of them the same command
    goes on where this one stopped.
    """
    scoring = None if score is None else "on" if score else "off"
    settings = read_settings(
        config, lake=lake, catalog=catalog, topic=topic, rules=rules, models=models, scoring=scoring,
        accounts=None if accounts is None else str(accounts),
    )  # fmt: skip
    logs.configure("warning")
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,80}", feed):
        raise ConfigError(f"--feed {feed}: letters, digits, '.', '_' and '-', at most 80")
    if not sources:
        raise ConfigError("nothing to backfill is named: give files, folders or globs")
    wish = Wish(tuple(sources), feed, partitions, parallel, dry_run)
    _files(wish, settings)


def _files(wish: Wish, settings: Settings) -> None:
    began = time.monotonic()
    paths = find_sources(wish.sources)
    with show.looking(len(paths)) as looked:
        found = []
        for path in paths:
            found.append(look_at(path))
            looked(found[-1])
    if wish.dry_run:
        _try(wish, settings, found)
        return
    storage = Lake.open(settings.lake, create=True)
    with contextlib.closing(Catalog.open(settings.catalog_url, create=True)) as ledger:
        plan = plan_files(
            found, ledger.sources.known(file.sha256 for file in found), ledger.offsets(), _feed_topic(wish, settings)
        )
        hands = (
            _placed_in_feed(wish, settings, plan, ledger) if _scores(settings) else _placed_alone(wish, plan, ledger)
        )
        note_feeds(storage.root, ledger.sources, {log.feed.topic for hand in hands for log in hand})
    show.plan(plan)
    counts = _land(hands, settings, sum(_rows(hand) for hand in hands), began)
    show.summary(counts, skipped=plan.rows - counts.read, seconds=time.monotonic() - began)


def _try(wish: Wish, settings: Settings, found: Sequence[SourceFile]) -> None:
    """Say what would be done; changes nothing."""
    with contextlib.ExitStack() as stack:
        ledger = Catalog.open_if_made(settings.catalog_url)
        if ledger is not None:
            stack.enter_context(contextlib.closing(ledger))
        known = ledger.sources.known(file.sha256 for file in found) if ledger else {}
        offsets = ledger.offsets() if ledger else {}
        plan = plan_files(found, known, offsets, _feed_topic(wish, settings))
        with show.landing(plan.rows, "reading") as shown:
            feeds = _feeds_to_try(wish, settings, plan, ledger)
            trial = try_feeds(feeds, offsets, lambda passed: shown(Counts(passed=passed), ""))
        before = hours_held(ledger.live_files("access") if ledger else ())
    show.plan(plan)
    show.trial(trial, skipped=plan.rows - trial.read, held=len(before & trial.hours.keys()))


def _feeds_to_try(wish: Wish, settings: Settings, plan: FilePlan, ledger: Catalog | None) -> list[Feed]:
    """The feeds as they would be, with files in places that nobody has given them yet."""
    topic = _feed_topic(wish, settings)
    if topic is None:
        places = [one.place or _place_of(one.file, own_feed(one.file.sha256), 0) for one in plan.to_land]
        paths = [one.file.path for one in plan.to_land]
        return [Feed(place.topic, 1, [0], [Planned(path, place)]) for path, place in zip(paths, places, strict=True)]
    count = _partitions(wish, settings, topic, ledger)
    placed = ledger.sources.files_of(topic) if ledger else []
    left = unfinished(placed, ledger.offsets() if ledger else {}, topic)
    check_unfinished(left, plan, wish.feed)
    at = left[-1].next_offset if left else landed_to(ledger.offsets() if ledger else {}, topic)
    for file in plan.new:
        left.append(_place_of(file, topic, at))
        at += file.rows
    return [Feed(topic, count, range(count), _planned(plan, left))] if left else []


def _place_of(file: SourceFile, topic: str, at: int) -> FeedFile:
    return FeedFile(file.sha256, str(file.path), topic, at, file.rows, 0)


def _planned(plan: FilePlan, places: Sequence[FeedFile]) -> list[Planned]:
    paths = {one.file.sha256: one.file.path for one in plan.found}
    return [Planned(paths[place.sha256], place) for place in places if place.sha256 in paths]


def _land(hands: Sequence[Sequence[Log]], settings: Settings, rows: int, began: float) -> Counts:
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
    finally:
        stop.unlisten()


def _scores(settings: Settings) -> bool:
    return settings.scoring == "on"


def _feed_topic(wish: Wish, settings: Settings) -> str | None:
    """Topic of the feed that scored files are added to."""
    return f"{FEED}{wish.feed}" if _scores(settings) else None


def _placed_in_feed(wish: Wish, settings: Settings, plan: FilePlan, ledger: Catalog) -> list[list[FeedLog]]:
    """Add files to the feed, those first that are begun; one log for each process."""
    topic = f"{FEED}{wish.feed}"
    count = _partitions(wish, settings, topic, ledger)
    if not plan.to_land:
        return []
    for number in range(count):  # from here on no other backfill of this feed lands anything
        ledger.start_at(Partition(topic, number), 0)
    left = unfinished(ledger.sources.files_of(topic), ledger.offsets(), topic)
    check_unfinished(left, plan, wish.feed)
    left += ledger.sources.place(topic, count, plan.new, SystemClock().now_us())
    files = _planned(plan, left)
    workers = min(wish.parallel, count)
    return [[FeedLog(Feed(topic, count, range(count)[hand::workers], files))] for hand in range(workers)]


def _partitions(wish: Wish, settings: Settings, topic: str, ledger: Catalog | None) -> int:
    """How many partitions the feed has, or is to have."""
    stands = ledger.sources.feed_of(topic) if ledger else None
    if stands is not None and wish.partitions not in (None, stands):
        raise ConfigError(
            f"--partitions {wish.partitions}: the feed {wish.feed} has {stands}, and an account keeps its partition: "
            "leave the flag out, or name another feed with --feed"
        )
    of_topic = sum(at.topic == settings.topic for at in ledger.offsets()) if ledger else 0
    return stands or wish.partitions or of_topic or 1


def _placed_alone(wish: Wish, plan: FilePlan, ledger: Catalog) -> list[list[FeedLog]]:
    """Make each file a feed of its own, and deal them out."""
    now_us = SystemClock().now_us()
    planned = []
    for one in plan.to_land:
        if one.state == BEGUN and one.place is not None:
            place = one.place
        else:
            [place] = ledger.sources.place(own_feed(one.file.sha256), 1, [one.file], now_us)
        planned.append(Planned(one.file.path, place))
    sizes = [(at, file.place.rows) for at, file in enumerate(planned)]
    return [
        [FeedLog(Feed(planned[at].place.topic, 1, [0], [planned[at]])) for at in hand]
        for hand in dealt(sizes, wish.parallel)
    ]


def _rows(hand: Sequence[Log]) -> int:
    return sum(log.rows for log in hand)
