"""What `stillwatch backfill` shows: progress on standard error, what was done on standard output."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table

from jobs.consoles import console, progress_columns
from pipeline.backfilling.counts import Counts
from pipeline.backfilling.planning import FilePlan
from pipeline.backfilling.ranges import RangePlan
from pipeline.counted import counted
from pipeline.io.backfill_trial import Trial
from pipeline.io.past_range import LogSpan
from pipeline.sources import SourceFile, Span

_FILES_MAX: Final = 20
_REASONS_MAX: Final = 5
_LOGGED_EVERY_S: Final = 30.0


@contextmanager
def looking(files: int) -> Iterator[Callable[[SourceFile], None]]:
    """Progress of the first look at files."""
    if not sys.stderr.isatty():
        yield lambda _file: None
        return
    columns = (TextColumn("looking at files"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[said]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=files, said="")
        yield lambda file: progress.update(task, advance=1, said=file.path.name)


@contextmanager
def landing(rows: int, doing: str = "backfill") -> Iterator[Callable[[Counts, str], None]]:
    """Progress with rate and time left; where there is no terminal, a line now and then."""
    began = time.monotonic()
    if not sys.stderr.isatty():
        yield _lines(rows, doing, began)
        return
    with Progress(*progress_columns(doing), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=rows, said="")

        def shown(counts: Counts, waits_for: str) -> None:
            progress.update(task, completed=counts.passed, said=_said(counts, began, waits_for))

        yield shown


def _lines(rows: int, doing: str, began: float) -> Callable[[Counts, str], None]:
    shown_s = began

    def shown(counts: Counts, waits_for: str) -> None:
        nonlocal shown_s
        now_s = time.monotonic()
        if now_s - shown_s < _LOGGED_EVERY_S:
            return
        shown_s = now_s
        left = (rows - counts.passed) / max(counts.passed / (now_s - began), 1e-3)
        said = _said(counts, began, waits_for)
        done = f"{counts.passed:,} of {counted(rows, 'row')}"
        print(f"{doing}: {done}, {said}, {left:,.0f} s left", file=sys.stderr, flush=True)  # noqa: T201

    return shown


def _said(counts: Counts, began: float, waits_for: str) -> str:
    said = f"{counts.passed / max(time.monotonic() - began, 1e-3):,.0f} rows/s"
    if counts.alerts:
        said += f", {counted(counts.alerts, 'alert')}"
    return f"{said}, waiting: {waits_for}" if waits_for else said


def plan(of_files: FilePlan) -> None:
    """Every file and what becomes of it; of many, the first."""
    table = Table("file", "rows", "bytes", "state", title="Files", title_justify="left")
    for one in of_files.found[:_FILES_MAX]:
        table.add_row(str(one.file.path), f"{one.file.rows:,}", f"{one.file.bytes:,}", one.in_words())
    left = len(of_files.files) - _FILES_MAX
    if left > 0:
        table.add_row(f"and {left:,} more", "", "", "")
    table.add_section()
    table.add_row(f"{len(of_files.files):,} in all", f"{of_files.rows:,}", f"{of_files.bytes:,}", "")
    console().print(table)


def ranges(topic: str, of_ranges: RangePlan, log: LogSpan, *, started: Sequence[Span]) -> None:
    """What is asked for of each partition, what the log holds of it, and what becomes of it."""
    table = Table("partition", "log holds", "asked for")
    wanted = {span.partition: span for span in of_ranges.wanted}
    for held in log.spans:
        asked = wanted.get(held.partition)
        table.add_row(str(held.partition), _span(held), "nothing that it holds" if asked is None else _span(asked))
    out = console()
    out.print(f"Past of {topic}", highlight=False, soft_wrap=True)
    out.print(table)
    for count, what in (
        (of_ranges.there, "offsets are in the lake already and are skipped"),
        (of_ranges.left, "offsets are left to `stillwatch run`, which goes on from before them"),
        (len(of_ranges.begun), "ranges were begun before and are finished"),
    ):
        if count:
            out.print(f"{count:,} {what}", highlight=False, soft_wrap=True)
    if not of_ranges.wanted:
        out.print("note: the log holds nothing of this range", style="yellow", highlight=False)
    for span in started:
        out.print(
            f"note: `stillwatch run` has never read {topic}-{span.partition}; with this lake it is going to begin at "
            f"offset {span.next_offset:,}, after this range",
            highlight=False,
            soft_wrap=True,
        )


def _span(span: Span) -> str:
    return f"{span.first_offset:,} to {span.next_offset - 1:,}" if span.next_offset > span.first_offset else "nothing"


def trial(found: Trial, *, skipped: int, held: int, out_of_range: int | None = None, blank: int = 0) -> None:
    """What a dry run found out."""
    table = _counts_table("Dry run: nothing was written")
    table.add_row("to be read", f"{found.read:,}")
    table.add_row("to be landed", f"{found.events:,}")
    table.add_row("to be rejected", f"{found.rejects:,}")
    table.add_row("skipped as already there", f"{skipped:,}")
    _add_passed_over(table, out_of_range, blank)
    if found.hours:
        span = f"{len(found.hours):,}, from {_hour(min(found.hours))} to {_hour(max(found.hours) + 1)}"
        table.add_row("hours of events", span)
    out = console()
    out.print(table)
    commonest(found.reasons)
    if held:
        out.print(
            f"note: of these hours {counted(held, 'holds', 'hold')} events in the lake already. They are landed "
            "beside one another: a "
            "request that came by Kafka and stands in a file too is there twice (docs/backfill.md says how to see it)",
            highlight=False,
            soft_wrap=True,
        )


def too_old(found: Mapping[str, int], marks: Mapping[str, str]) -> None:
    """Rows that the next `maintain retain` lets go again."""
    for table, rows in found.items():
        if rows:
            console().print(
                f"note: {counted(rows, f'row of {table} is', f'rows of {table} are')} "
                f"of hours before {marks[table]}:00, where `maintain retain` has "
                "let go all there was: its next run lets go of that, too, unless it is given a longer "
                f"--keep {table}=…",
                style="yellow",
                highlight=False,
                soft_wrap=True,
            )


def reasons(found: Counter[str], *, landed: int) -> None:
    """Why rows were rejected, the most frequent reasons, and what to do where none was an event."""
    commonest(found)
    if not landed:
        console().print(
            "no row was an event, and what was landed as rejects counts as landed: docs/backfill.md says of which form "
            "files are; a mended one takes the place of this one by `stillwatch backfill --replace --of FILE MENDED`",
            style="yellow",
            highlight=False,
            soft_wrap=True,
        )


def commonest(found: Counter[str]) -> None:
    """Why records were rejected, the commonest reasons first, and how many more there are."""
    for reason, count in found.most_common(_REASONS_MAX):
        console().print(f"reject, {counted(count, 'time')}: {reason}", highlight=False, markup=False, soft_wrap=True)
    others = len(found) - _REASONS_MAX
    if others > 0:
        words = counted(others, "reason")
        console().print(f"reject: {words} more, in the column reason of rejects", highlight=False, soft_wrap=True)


def rejects(found: Trial, done: Counts, *, out_of_range: int | None, seconds: float | None) -> None:
    """What became, or would become, of rejects."""
    is_dry = seconds is None
    table = _counts_table("Dry run: nothing was written" if is_dry else "Backfill of rejects")
    table.add_row("rejects read", f"{found.read:,}")
    table.add_row("to be landed as events" if is_dry else "landed as events", f"{found.events:,}")
    table.add_row("still no events", f"{found.read - found.events - (out_of_range or 0):,}")
    _add_passed_over(table, out_of_range, 0)
    if seconds is not None:
        table.add_row("files written", f"{done.files:,}, {counted(done.bytes, 'byte')}")
        table.add_row("seconds", f"{seconds:,.1f}")
    console().print(table)


def summary(
    counts: Counts, *, skipped: int | None, seconds: float, out_of_range: int | None = None, blank: int = 0
) -> None:
    """What was done."""
    table = _counts_table("Backfill")
    table.add_row("read", f"{counts.read:,}")
    table.add_row("landed", f"{counts.landed:,}")
    table.add_row("rejected", f"{counts.rejected:,}")
    if skipped is not None:
        table.add_row("skipped as already there", f"{skipped:,}")
    _add_passed_over(table, out_of_range, blank)
    if counts.windows:
        table.add_row("scores", f"{counts.windows:,}")
        table.add_row("alerts of live rules", f"{counts.alerts:,}")
        table.add_row("alerts of shadow rules", f"{counts.shadow_alerts:,}")
    table.add_row("files written", f"{counts.files:,}, {counted(counts.bytes, 'byte')}")
    table.add_row("seconds", f"{seconds:,.1f}")
    console().print(table)


def _add_passed_over(table: Table, out_of_range: int | None, blank: int) -> None:
    """Rows out of range, where one was asked for, and blank lines, where there are any."""
    if out_of_range is not None:
        table.add_row("out of range", f"{out_of_range:,}")
    if blank:
        table.add_row("blank lines", f"{blank:,}")


def _counts_table(title: str) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    return table


def _hour(hours: int) -> str:
    return datetime.fromtimestamp(hours * 3600, UTC).strftime("%Y-%m-%d %H:00")
