"""What `stillwatch backfill --replace` says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rich.table import Table

from jobs.backfill_show import commonest
from jobs.consoles import console
from pipeline.counted import counted
from pipeline.io.backfill_trial import Trial
from pipeline.io.replaced_sources import Sources
from pipeline.io.rewriting.chosen import REPLACED
from pipeline.io.rewriting.replacement import Replaced

_SHOWN_MAX: Final = 20


def trial(goes: Mapping[str, Mapping[str, int]], stays: Mapping[str, int], found: Trial, sources: Sources) -> None:
    """What a dry run found out."""
    out = console()
    out.print("Dry run: nothing was written", highlight=False)
    _goes("Would go", goes, sources)
    table = _table("Would come")
    table.add_row("to be read", f"{found.read:,}")
    table.add_row("events", f"{found.events:,}")
    table.add_row("rejects", f"{found.rejects:,}")
    out.print(table)
    commonest(found.reasons)
    _stays(stays)
    _unscored("comes")


def summary(done: Replaced, comes: tuple[int, int], stays: Mapping[str, int], sources: Sources, seconds: float) -> None:
    """What was done."""
    _goes("Went", done.gone, sources)
    table = _table("Replacement")
    table.add_row("events that went", f"{sum(done.gone['access'].values()):,}")
    table.add_row("events that came", f"{comes[0]:,}")
    table.add_row("rejects that went", f"{sum(done.gone['rejects'].values()):,}")
    table.add_row("rejects that came", f"{comes[1]:,}")
    table.add_row("files replaced", f"{done.files:,}")
    table.add_row("files written", f"{done.new_files:,}, {counted(done.new_bytes, 'byte')}")
    table.add_row("seconds", f"{seconds:,.1f}")
    out = console()
    out.print(table)
    _stays(stays)
    _unscored("came")
    out.print(
        "former files stay on disk for queries that have begun; `stillwatch maintain compact` or `sweep --apply` "
        "removes them after the grace period",
        highlight=False,
        soft_wrap=True,
    )


def _unscored(comes: str) -> None:
    console().print(
        f"what {comes} has no scores and raises no alerts: `stillwatch backtest --events lake` says what it would have "
        "raised",
        highlight=False,
        soft_wrap=True,
    )


def beyond(out_of_range: int | None, there: int) -> None:
    """Rows of the files that do not come, and why."""
    out = console()
    if out_of_range is not None:
        out.print(
            f"{counted(out_of_range, 'row')} of the files out of range: left out",
            highlight=False,
        )
    if there:
        out.print(
            f"{counted(there, 'row')} of the files landed before, from sources that stay: skipped as already there",
            highlight=False,
            soft_wrap=True,
        )


def not_landed(offsets: int) -> None:
    """Offsets of a range of a log that are not replaced, for nothing is there of them."""
    if offsets:
        console().print(
            f"left out: {counted(offsets, 'offset')} of the range without a row in the lake: never landed (`backfill` "
            "without --replace lands what is not left to `stillwatch run`), erased, too old, or no records",
            highlight=False,
            soft_wrap=True,
        )


def not_held(records: int) -> None:
    """Records that would go and could not come; without --dry-run this is refused."""
    if records:
        console().print(
            f"note: {counted(records, 'landed record')} of the range not found in Kafka (compacted, or cut away), "
            "so without --dry-run nothing would be changed",
            highlight=False,
            soft_wrap=True,
        )


def nothing_comes() -> None:
    """A replacement by nothing is refused."""
    console().print(
        "note: no event would come, so without --dry-run nothing would be changed", highlight=False, soft_wrap=True
    )


def there_already() -> None:
    """A killed backfill had done it all but say so."""
    console().print(
        "this replacement was made already, by a backfill that was ended right after: nothing was left to do",
        style="bold green",
        highlight=False,
        soft_wrap=True,
    )


def _goes(title: str, goes: Mapping[str, Mapping[str, int]], sources: Sources) -> None:
    topics = sorted({topic for of_table in goes.values() for topic in of_table})
    table = Table("source", *REPLACED, title=title, title_justify="left")
    for topic in topics[:_SHOWN_MAX]:
        counts = [f"{goes[name].get(topic, 0):,}" for name in REPLACED]
        table.add_row(sources.named(topic), *counts)
    if len(topics) > _SHOWN_MAX:
        table.add_row(f"and {len(topics) - _SHOWN_MAX:,} more", *[""] * len(REPLACED))
    table.add_section()
    table.add_row("rows in all", *[f"{sum(goes[name].values()):,}" for name in REPLACED])
    console().print(table)


def _stays(stays: Mapping[str, int]) -> None:
    if any(stays.values()):
        console().print(
            f"what was concluded from rows that go stays as it was: {counted(stays['account_windows'], 'score')}, "
            f"{counted(stays['alerts'], 'alert')}; their topic, partition and offset say from which source",
            highlight=False,
            soft_wrap=True,
        )


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    return table
