"""`stillwatch maintain compact` and `sweep`: fewer, larger files, and no leftovers."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Final

import typer

from jobs import options
from jobs.consoles import console
from jobs.maintain_output import duration, opened, size
from pipeline.config import read_settings
from pipeline.counted import counted
from pipeline.errors import ConfigError, LakeDamagedError
from pipeline.io.clock import SystemClock
from pipeline.io.rewriting.compaction import Compacted, Compactor, add_files
from pipeline.io.rewriting.settling import GRACE_S, Tidied, tidy
from pipeline.io.rewriting.sweeping import Swept, sweep_lake
from pipeline.io.rewriting.writing import Limits
from pipeline.lake_tables import TABLES

_MB: Final = 1_000_000

Grace = Annotated[
    float,
    typer.Option(
        "--grace",
        metavar="DURATION",
        parser=options.duration_s,
        help="How long files that were replaced stay for queries that have begun.",
    ),
]
GRACE_DEFAULT: Final = duration(GRACE_S).replace(" ", "")


def compact(  # noqa: PLR0913, PLR0917  # one argument per flag is how Typer reads a command
    config: options.ConfigFile = None,
    lake: options.LakeFolder = None,
    catalog: options.CatalogUrl = None,
    table: Annotated[
        list[str] | None, typer.Option("--table", metavar="NAME", help="Only this table; repeatable.  [default: all]")
    ] = None,
    file_mb: Annotated[
        int, typer.Option("--file-mb", min=1, help="Megabytes that a file is to have; half of it is large enough.")
    ] = 128,
    closed_after: Annotated[
        float,
        typer.Option(
            "--closed-after",
            metavar="DURATION",
            parser=options.duration_s,
            help="How long an hour must be over before its files are merged.",
        ),
    ] = "1h",  # type: ignore[assignment]  # Typer parses defaults, too
    grace: Grace = GRACE_DEFAULT,  # type: ignore[assignment]
    memory_mb: Annotated[
        int, typer.Option("--memory-mb", min=64, help="Megabytes for sorting; more goes to disk.")
    ] = 512,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Merge the small files of hours that are over.

    No row changes, and every query gives the same answer before, during and after, faster afterwards.  Safe beside
    `stillwatch run`, queries, and another `maintain`; after a crash, run it again.  Files that were replaced are
    removed by the first run after the grace period, so run it from time to time, as each hour.

    Exit codes: 0 done; 2 a wrong setting; 4 the catalog or the disk fails; 6 some files cannot be read: the others were
    merged.
    """
    settings = read_settings(config, lake=lake, catalog=catalog)
    limits = Limits(file_mb * _MB, memory_mb * _MB)
    clock, done, tidied = SystemClock(), Compacted(), Tidied()
    out = console()
    with opened(settings, changes=not dry_run) as what:
        compactor = Compactor(what.lake, what.catalog, what.ledger, clock)
        if not dry_run:
            tidied = tidy(what.lake, what.ledger, clock.now_us(), grace)
        groups = compactor.groups(limits, closed_after, _tables(table))
        for number, group in enumerate(groups, 1):
            if dry_run:
                done.hours += 1
                add_files(done, group.files)
                continue
            compactor.compact(group, limits, done)
            if out.is_terminal and not as_json:
                out.print(f"{number} of {counted(len(groups), 'hour')} of tables", end="\r", highlight=False)
        tidied = tidied if dry_run else _both(tidied, tidy(what.lake, what.ledger, clock.now_us(), grace))
    if as_json:
        typer.echo(json.dumps({"applied": not dry_run, **asdict(done), "tidied": asdict(tidied)}))
    else:
        _show(done, tidied, grace, dry_run=dry_run)
    if done.damaged:
        raise LakeDamagedError(f"{done.damaged[0]}; files that cannot be read: `maintain verify` names all")


def sweep(  # noqa: PLR0913, PLR0917  # one argument per flag is how Typer reads a command
    config: options.ConfigFile = None,
    lake: options.LakeFolder = None,
    catalog: options.CatalogUrl = None,
    grace: Grace = GRACE_DEFAULT,  # type: ignore[assignment]
    abandoned: Annotated[
        float,
        typer.Option(
            "--abandoned",
            metavar="DURATION",
            parser=options.duration_s,
            help="A `backfill --replace` that nobody has gone on with for so long is given up; let a running one end.",
        ),
    ] = "1d",  # type: ignore[assignment]
    apply: Annotated[
        bool, typer.Option("--apply/--dry-run", help="Remove it; without this, only say what would be removed.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Remove what crashes left behind and nothing needs.

    That is: files below the tables that no commit and no rewrite lists (moved to `_quarantine`, not removed), what was
    written for rewrites that died, what `backfill --replace` had read before it was killed (--abandoned), files that
    were replaced longer ago than the grace period, and what is staged for commits that can never be made any more.
    Safe beside `stillwatch run`.

    Exit codes: 0 done; 2 a wrong setting; 4 the catalog or the disk fails.
    """
    settings = read_settings(config, lake=lake, catalog=catalog)
    with opened(settings, changes=apply) as what:
        now_us = SystemClock().now_us()
        swept = sweep_lake(
            what.lake, what.catalog, what.ledger, now_us, grace, apply=apply, abandoned_s=abandoned
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps({"applied": apply, **asdict(swept)}))
    else:
        _show_swept(swept, apply=apply)


def _tables(named: list[str] | None) -> list[str]:
    for name in named or ():
        if name not in TABLES:
            raise ConfigError(f"--table {name}: there is no such table; there are {', '.join(TABLES)}")
    return list(dict.fromkeys(named or TABLES))


def _both(first: Tidied, second: Tidied) -> Tidied:
    return Tidied(
        first.settled + second.settled, first.removed + second.removed, first.removed_bytes + second.removed_bytes,
        first.given_up + second.given_up, second.waiting,
    )  # fmt: skip


def _show(done: Compacted, tidied: Tidied, grace_s: float, *, dry_run: bool) -> None:
    out = console()
    merged = (
        f"{counted(done.files, 'file')} of {counted(done.hours, 'hour')} of tables "
        f"({counted(done.rows, 'row')}, {size(done.bytes)})"
    )
    if dry_run:
        out.print(f"would merge {merged}; without --dry-run it is done", style="bold", highlight=False, soft_wrap=True)
        return
    if done.files:
        new = f"merged {merged} into {counted(done.new_files, 'file')} ({size(done.new_bytes)})"
        out.print(new, style="bold green", highlight=False, soft_wrap=True)
    else:
        out.print("nothing to merge", style="bold green", highlight=False)
    if done.passed_over:
        out.print(f"{counted(done.passed_over, 'was', 'were')} merged by another run meanwhile", highlight=False)
    if tidied.removed:
        removed = f"removed {counted(len(tidied.removed), 'file')} ({size(tidied.removed_bytes)}) replaced before"
        out.print(removed, highlight=False)
    if tidied.waiting:
        out.print(
            f"{counted(tidied.waiting, 'rewrite waits', 'rewrites wait')} for the grace period "
            f"({duration(grace_s)}) to end; the next run after "
            "that removes the files that were replaced",
            highlight=False,
            soft_wrap=True,
        )


def _show_swept(swept: Swept, *, apply: bool) -> None:
    out = console()
    lists = (
        ("file", "below the tables that nothing lists, to _quarantine", swept.orphans),
        ("commit", "staged that can never be made", swept.staged),
        ("folder", "of rewrites that died before their swap", swept.died),
        ("replacement", "(`backfill --replace`) that nobody has gone on with, and what was read", swept.replacements),
        ("rewrite", "whose grace period is over", swept.due),
    )
    for thing, what, names in lists:
        if names:
            out.print(f"{counted(len(names), thing)} {what}:", highlight=False)
            for name in names:
                out.print(f"  {name}", highlight=False, soft_wrap=True)
    if not any(names for *_, names in lists):
        out.print("nothing to sweep", style="bold green", highlight=False)
    elif apply:
        removed = f"swept; {counted(len(swept.removed), 'replaced file')} ({size(swept.removed_bytes)}) gone"
        out.print(removed, style="bold green", highlight=False)
    else:
        out.print("nothing was changed; --apply does it", style="bold", highlight=False)
