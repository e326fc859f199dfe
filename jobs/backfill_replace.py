"""`stillwatch backfill --replace`: rows of the lake go and those of files come, at one moment."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from jobs import backfill_replace_show as show
from jobs import backfill_show
from jobs.backfill_files import looked_at, placed_alone
from jobs.backfill_watched import finish_what_was_left, work
from jobs.backfill_wish import Wish
from jobs.maintain_output import Opened, opened
from pipeline.backfilling.counts import Counts
from pipeline.backfilling.planning import FilePlan, plan_files
from pipeline.backfilling.runs import Runs
from pipeline.backfilling.slices import TIMELESS, FilePart, left_of
from pipeline.commits import FileEntry
from pipeline.committing import finish_pending
from pipeline.config import Settings
from pipeline.errors import ConfigError, FencedError, RetryableError
from pipeline.io.backfill_trial import try_logs
from pipeline.io.catalog import Catalog
from pipeline.io.clock import SystemClock
from pipeline.io.desk.audit_log import AuditFilter
from pipeline.io.file_feed import Feed, FileFeed, Planned
from pipeline.io.lake import Lake
from pipeline.io.replaced_sources import Sources, Spans
from pipeline.io.rewriting.annex import ANNEXES, Annex, Replacement, topics_of
from pipeline.io.rewriting.arrivals import Arrivals
from pipeline.io.rewriting.chosen import Chosen, total
from pipeline.io.rewriting.held import Place, is_below
from pipeline.io.rewriting.replacement import REPLACE, Replaced, Replacer, below
from pipeline.io.rewriting.same_records import SameRecords
from pipeline.io.row_files import find_sources
from pipeline.io.source_notes import note_feeds
from pipeline.sources import FeedFile, SourceFile, own_feed

_CONCLUSIONS = ("account_windows", "alerts")
_KEY_CHARS = 16


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the command line comes to.

    Attributes:
        files: each once, in order.
        sources: what is landed.
        replacement: what goes and what comes.
    """

    files: Sequence[SourceFile]
    sources: Sources
    replacement: Replacement


def backfill_replace(wish: Wish, settings: Settings) -> None:
    """Replace rows, or say which would go and which would come."""
    began = time.monotonic()
    settings = settings.model_copy(update={"scoring": "off"})
    paths = find_sources(wish.sources)
    with opened(settings, changes=not wish.dry_run) as what:
        found = {file.sha256: file for file in reversed(looked_at(paths, wish))}
        asked = _asked(wish, what, [*reversed(found.values())])
        replacer = Replacer(what.lake, what.catalog, what.ledger, SystemClock())
        if wish.dry_run:
            _try(wish, asked, replacer)
            return
        _replace(wish, settings, what, asked, replacer, began)


def _asked(wish: Wish, what: Opened, files: Sequence[SourceFile]) -> _Asked:
    """Decide what goes and what comes.

    Of a file that comes, rows that are in the lake and stay there are left out, so that none is there twice.
    """
    sources = Sources(what.catalog.offsets(), what.catalog.sources.all_files())
    spans = sources.spans(wish.of)
    parts: dict[str, FilePart] = {}
    for file in files:
        places = sources.places_of([file.sha256])
        for place in places:
            if sources.is_begun(place):
                raise ConfigError(f"{file.path}: it is landed in part: let that backfill come to its end first")
        stay = [place.of.part for place in places if not sources.is_covered(place, spans)]
        if not wish.asked.is_whole:  # rejects of no range stay, too
            stay += [TIMELESS for place in places if place.of.part.timeless]
        part = left_of(wish.asked, stay)
        if file.rows > file.blank and not part.is_empty:
            parts[file.sha256] = FilePart(file.sha256, part)
    now_us = SystemClock().now_us()
    return _Asked(files, sources, Replacement.made(_chosen(spans, wish), parts, now_us))


def _chosen(spans: Spans, wish: Wish) -> Chosen:
    return Chosen({partition: Runs.merged(ends) for partition, ends in spans.items()}, wish.asked)


def _try(wish: Wish, asked: _Asked, replacer: Replacer) -> None:
    """Say what would be done; changes nothing."""
    replacement = asked.replacement
    logs = []
    for file in asked.files:
        if file.sha256 in replacement.parts:
            identity = str(replacement.parts[file.sha256])
            place = FeedFile(identity, str(file.path), own_feed(identity), 0, file.rows, 0)
            logs.append(Feed(place.topic, 1, [0], [Planned(file.path, place)]))
    with backfill_show.landing(sum(log.files[0].place.rows for log in logs), "reading") as shown:
        trial = try_logs(map(FileFeed, logs), {}, lambda passed: shown(Counts(passed=passed), ""))
    show.trial(goes(replacer, replacement.chosen), stays(replacer, replacement.chosen), trial, asked.sources)
    show.beyond(_out_of_range(wish, asked), _rows_asked(asked) - trial.read)
    if not trial.events:
        show.nothing_comes()


def goes(replacer: Replacer, chosen: Chosen) -> dict[str, Mapping[str, int]]:
    """Rows that go, by table and topic."""
    return {table: total(found) for table, found in replacer.find(chosen).items()}


def stays(replacer: Replacer, chosen: Chosen) -> dict[str, int]:
    """Scores and alerts that were concluded from rows that go."""
    return {table: total(found).total() for table, found in replacer.find(chosen, _CONCLUSIONS).items()}


def _out_of_range(wish: Wish, asked: _Asked) -> int | None:
    return None if wish.asked.is_whole else sum(file.rows_beyond for file in asked.files)


def _rows_asked(asked: _Asked) -> int:
    return sum(file.rows_asked for file in asked.files)


def _replace(  # the command, and what it found
    wish: Wish, settings: Settings, what: Opened, asked: _Asked, replacer: Replacer, began: float
) -> None:
    for partition in {commit.partition for commit in what.catalog.pending()}:
        finish_pending(what.lake, what.catalog, partition)
    key = _key(wish, asked.files)
    annex = Annex.begun(what.lake, key, topics_of(what.catalog)) or Annex.begin(what.lake, key, asked.replacement)
    arrivals = _landed(wish, settings, annex, asked.files, began)
    done = swapped(wish, what, annex, arrivals, replacer)
    if done is None:
        show.there_already()
        return
    comes = sum(commit.events for commit in arrivals.commits), sum(commit.rejects for commit in arrivals.commits)
    show.summary(done, comes, stays(replacer, annex.replacement.chosen), asked.sources, time.monotonic() - began)
    show.beyond(_out_of_range(wish, asked), _rows_asked(asked) - sum(comes))


def _landed(wish: Wish, settings: Settings, annex: Annex, files: Sequence[SourceFile], began: float) -> Arrivals:
    """Land the files' rows in the annex, where nobody sees them."""
    with in_annex(settings, annex) as (aside, ledger):
        hands = placed_alone(wish, _plan(annex.replacement, files, ledger), ledger)
        note_feeds(annex.lake.root, ledger.sources, ledger.sources.all_feeds())
        work(hands, aside, sum(log.rows for hand in hands for log in hand), began)
        return arrived(
            annex,
            ledger,
            "the files hold no event that would come, so none goes: nothing was changed. Wanted are "
            "events of the range that are not there already, from sources that stay; --dry-run says what there is",
        )


@contextlib.contextmanager
def in_annex(settings: Settings, annex: Annex) -> Iterator[tuple[Settings, Catalog]]:
    """The annex as a lake of its own: its settings and catalog, with what a killed backfill left there finished."""
    aside = settings.model_copy(update={"lake": str(annex.root), "catalog": annex.catalog_url})
    storage = Lake.open(aside.lake, create=True)
    with contextlib.closing(Catalog.open(aside.catalog_url, create=True)) as ledger:
        finish_what_was_left(storage, ledger)
        yield aside, ledger


def arrived(annex: Annex, ledger: Catalog, why_none: str) -> Arrivals:
    """What was landed in the annex.

    Raises:
        ConfigError: no event was, for the reason `why_none`; the annex is removed.
    """
    arrivals = Arrivals.of(ledger, annex.replacement.since_us)
    if not sum(commit.events for commit in arrivals.commits):
        annex.remove()
        raise ConfigError(f"--replace: {why_none}")
    return arrivals


def _plan(replacement: Replacement, files: Sequence[SourceFile], ledger: Catalog) -> FilePlan:
    """What of the files is not in the annex yet."""
    plan = FilePlan()
    known, offsets = ledger.sources.known(file.sha256 for file in files), ledger.offsets()
    for file in files:
        part = replacement.parts.get(file.sha256)
        if part is not None:
            of_edition = replace(file, edition=part.edition)
            one = plan_files([of_edition], known, offsets, None, part.part)
            plan.files += one.files
            plan.found += one.found
            plan.dropped += one.dropped
    return plan


def swapped(
    wish: Wish, what: Opened, annex: Annex, arrivals: Arrivals, replacer: Replacer, same: SameRecords | None = None
) -> Replaced | None:
    """Let the rows that go and those that come change places; None where a killed backfill has done it."""
    note = {
        "range": _range_of(wish, annex.replacement), "of": list(wish.of), "edition": annex.replacement.edition,
        "files": [file.sha256 for file in arrivals.files], "comes": sum(commit.events for commit in arrivals.commits),
    }  # fmt: skip
    done = None
    if not arrivals.are_in(what.catalog):
        try:
            done = replacer.replace(annex.replacement.chosen, arrivals, files_of(what, annex), note, same)
        except FencedError as error:
            if not arrivals.are_in(what.catalog):
                raise RetryableError(f"{error}; run the same command again") from error
        except ConfigError:
            annex.remove()
            raise
    annex.swapped(done.rewrite_id if done else _rewrite_of(what.catalog, annex))
    return done


def files_of(what: Opened, annex: Annex) -> list[FileEntry]:
    """Files of the rows that come, by their paths below the lake.

    Texts of records that are read again do not come back where they have grown too old.
    """
    with contextlib.closing(Catalog.open(annex.catalog_url, create=False)) as ledger:
        files = below(f"{ANNEXES}/{annex.name}", ledger.live_files())
    marks = what.ledger.marks() if annex.replacement.ranges else {}
    return [
        file for file in files
        if file.table_name != "content" or not is_below(Place(file.table_name, file.dt, file.hour), marks)
    ]  # fmt: skip


def _range_of(wish: Wish, replacement: Replacement) -> str:
    """What is replaced, for the record: event times, or offsets of a log."""
    if not replacement.ranges:
        return replacement.chosen.asked.in_words()
    spans = [
        f"{past.topic}-{past.partition} {past.first_offset} to {past.next_offset - 1}" for past in replacement.ranges
    ]
    flags = [f"{flag} {text}" for flag, text in (("--from", wish.low), ("--to", wish.high)) if text is not None]
    return f"{' '.join(flags)} of Kafka's log: offsets {', '.join(spans)}"


def _rewrite_of(catalog: Catalog, annex: Annex) -> str:
    """By which rewrite a replacement was made, as the audit log has it."""
    noted = catalog.desk.audit.records(AuditFilter(action=REPLACE))
    mine = [record for record in noted if record.details.get("edition") == annex.replacement.edition]
    return str(mine[0].details["rewrite_id"]) if mine else ""


def _key(wish: Wish, files: Sequence[SourceFile]) -> str:
    """By what the same command finds again what it has begun."""
    return key_of([str(FilePart("asked", wish.asked)), sorted(wish.of), [file.sha256 for file in files]])


def key_of(said: Sequence[object]) -> str:
    """A name for what a command was asked to do, from what it was told; of JSON's types."""
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:_KEY_CHARS]
