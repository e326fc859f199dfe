"""`stillwatch backfill` of files."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jobs import backfill_show as show
from jobs.backfill_watched import finish_what_was_left, work
from jobs.backfill_wish import Wish
from jobs.backfill_work import FeedLog
from pipeline.backfilling.counts import Counts
from pipeline.backfilling.planning import BEGUN, FilePlan, check_unfinished, dealt, plan_files, unfinished
from pipeline.batch import Partition
from pipeline.config import Settings
from pipeline.errors import ConfigError
from pipeline.io.backfill_trial import hours_held, try_logs
from pipeline.io.catalog import Catalog
from pipeline.io.clock import SystemClock
from pipeline.io.file_feed import Feed, FileFeed, Planned
from pipeline.io.lake import Lake
from pipeline.io.reject_reasons import reasons_since
from pipeline.io.rewriting.held import rows_below
from pipeline.io.rewriting.marks import read_marks
from pipeline.io.row_files import find_sources, look_at
from pipeline.io.source_book import landed_to
from pipeline.io.source_notes import note_feeds
from pipeline.sources import FeedFile, SourceFile, own_feed


def backfill_files(wish: Wish, settings: Settings) -> None:
    """Land files, or say what would be landed of them."""
    began = time.monotonic()
    paths = find_sources(wish.sources)
    found = looked_at(paths, wish)
    if wish.dry_run:
        _try(wish, settings, found)
        return
    storage = Lake.open(settings.lake, create=True)
    with contextlib.closing(Catalog.open(settings.catalog_url, create=True)) as ledger:
        finish_what_was_left(storage, ledger)
        before = ledger.offsets()
        plan = plan_files(
            found, ledger.sources.known(file.sha256 for file in found), before,
            _feed_topic(wish, settings), wish.asked,
        )  # fmt: skip
        hands = (
            _placed_in_feed(wish, settings, plan, ledger)
            if settings.scoring == "on"
            else placed_alone(wish, plan, ledger)
        )
        topics = {log.feed.topic for hand in hands for log in hand}
        note_feeds(storage.root, ledger.sources, topics | {*plan.dropped})
    show.plan(plan)
    rows = sum(log.rows for hand in hands for log in hand)
    counts = work(hands, settings, rows, began)
    show.summary(
        counts, skipped=plan.rows_asked - counts.read, out_of_range=_out_of_range(wish, plan), blank=plan.blank,
        seconds=time.monotonic() - began,
    )  # fmt: skip
    with contextlib.closing(Catalog.open(settings.catalog_url, create=False)) as ledger:
        if counts.rejected:
            show.reasons(reasons_since(storage.root, ledger, topics, before), landed=counts.landed)
        marks = read_marks(storage.root)
        show.too_old(rows_below(ledger.live_files() if counts.landed else (), marks), marks)


def looked_at(paths: Sequence[Path], wish: Wish) -> list[SourceFile]:
    """Look at files, several at a time: hashing lets other threads run."""
    found = []
    with show.looking(len(paths)) as looked, ThreadPoolExecutor(wish.parallel) as threads:
        try:
            for file in threads.map(lambda path: look_at(path, wish.asked), paths):
                found.append(file)
                looked(file)
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    return found


def _out_of_range(wish: Wish, plan: FilePlan) -> int | None:
    """Rows that were not asked for; None where all were."""
    return None if wish.asked.is_whole else plan.rows_beyond


def _try(wish: Wish, settings: Settings, found: Sequence[SourceFile]) -> None:
    """Say what would be done; changes nothing."""
    with contextlib.ExitStack() as stack:
        ledger = Catalog.open_if_made(settings.catalog_url)
        if ledger is not None:
            stack.enter_context(contextlib.closing(ledger))
        known = ledger.sources.known(file.sha256 for file in found) if ledger else {}
        offsets = ledger.offsets() if ledger else {}
        plan = plan_files(found, known, offsets, _feed_topic(wish, settings), wish.asked)
        with show.landing(plan.rows, "reading") as shown:
            feeds = _feeds_to_try(wish, settings, plan, ledger)
            trial = try_logs(map(FileFeed, feeds), offsets, lambda passed: shown(Counts(passed=passed), ""))
        before = hours_held(ledger.live_files("access") if ledger else ())
    show.plan(plan)
    show.trial(
        trial, skipped=plan.rows_asked - trial.read, out_of_range=_out_of_range(wish, plan),
        blank=plan.blank, held=len(before & trial.hours.keys()),
    )  # fmt: skip
    marks = read_marks(Path(settings.lake))
    show.too_old({table: trial.before(marks[table]) for table in ("access", "content") if table in marks}, marks)


def _feeds_to_try(wish: Wish, settings: Settings, plan: FilePlan, ledger: Catalog | None) -> list[Feed]:
    """The feeds as they would be, with files in places that nobody has given them yet."""
    topic = _feed_topic(wish, settings)
    if topic is None:
        places = [one.place or _place_of(one.file, own_feed(one.file.identity), 0) for one in plan.to_land]
        paths = [one.file.path for one in plan.to_land]
        return [Feed(place.topic, 1, [0], [Planned(path, place)]) for path, place in zip(paths, places, strict=True)]
    count = _partitions(wish, settings, topic, ledger)
    placed = ledger.sources.files_of(topic) if ledger else []
    left = unfinished(placed, ledger.offsets() if ledger else {}, topic)
    check_unfinished(left, plan, wish.feed_name)
    at = left[-1].next_offset if left else landed_to(ledger.offsets() if ledger else {}, topic)
    for file in plan.new:
        left.append(_place_of(file, topic, at))
        at += file.rows
    return [Feed(topic, count, range(count), _planned(plan, left))] if left else []


def _place_of(file: SourceFile, topic: str, at: int) -> FeedFile:
    return FeedFile(file.identity, str(file.path), topic, at, file.rows, 0)


def _planned(plan: FilePlan, places: Sequence[FeedFile]) -> list[Planned]:
    paths = {one.file.sha256: one.file.path for one in plan.found}
    return [Planned(paths[place.of.sha256], place) for place in places if place.of.sha256 in paths]


def _feed_topic(wish: Wish, settings: Settings) -> str | None:
    """Where scored files are added; None where files are not scored."""
    return wish.topic if settings.scoring == "on" else None


def _placed_in_feed(wish: Wish, settings: Settings, plan: FilePlan, ledger: Catalog) -> list[list[FeedLog]]:
    """Add files to the feed, those first that are begun; one log for each process."""
    topic = wish.topic
    count = _partitions(wish, settings, topic, ledger)
    if not plan.to_land:
        return []
    for number in range(count):  # from here on no other backfill of this feed lands anything
        ledger.start_at(Partition(topic, number), 0)
    left = unfinished(ledger.sources.files_of(topic), ledger.offsets(), topic)
    check_unfinished(left, plan, wish.feed_name)
    ledger.sources.drop_unbegun(plan.dropped)
    left += ledger.sources.place(topic, count, plan.new, SystemClock().now_us())
    files = _planned(plan, left)
    workers = min(wish.parallel, count)
    return [[FeedLog(Feed(topic, count, range(count)[hand::workers], files))] for hand in range(workers)]


def _partitions(wish: Wish, settings: Settings, topic: str, ledger: Catalog | None) -> int:
    """How many partitions the feed has, or is to have."""
    stands = ledger.sources.feed_of(topic) if ledger else None
    if stands is not None and wish.partitions not in (None, stands):
        raise ConfigError(
            f"--partitions {wish.partitions}: the feed {wish.feed_name} has {stands}, and an account keeps its "
            "partition: leave the flag out, or name another feed with --feed"
        )
    of_topic = sum(at.topic == settings.topic for at in ledger.offsets()) if ledger else 0
    return stands or wish.partitions or of_topic or 1


def placed_alone(wish: Wish, plan: FilePlan, ledger: Catalog) -> list[list[FeedLog]]:
    """Make each file, or each slice of one, a feed of its own, and deal them out."""
    now_us = SystemClock().now_us()
    ledger.sources.drop_unbegun(plan.dropped)
    planned = []
    for one in plan.to_land:
        if one.state == BEGUN and one.place is not None:
            place = one.place
        else:
            [place] = ledger.sources.place(own_feed(one.file.identity), 1, [one.file], now_us)
        planned.append(Planned(one.file.path, place))
    sizes = [(at, file.place.rows) for at, file in enumerate(planned)]
    return [
        [FeedLog(Feed(planned[at].place.topic, 1, [0], [planned[at]])) for at in hand]
        for hand in dealt(sizes, wish.parallel)
    ]
