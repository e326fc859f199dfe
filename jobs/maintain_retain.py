"""`stillwatch maintain retain`: what is too old goes."""

from __future__ import annotations

import json
from typing import Annotated, Final

import typer
from rich.table import Table

from jobs import options
from jobs.consoles import console
from jobs.maintain_compact import GRACE_DEFAULT, Grace
from jobs.maintain_output import duration, opened, size
from pipeline.config import read_settings
from pipeline.counted import counted
from pipeline.errors import ConfigError
from pipeline.io.clock import SystemClock
from pipeline.io.rewriting.retention import KEPT_DAYS, Old, Retainer
from pipeline.io.rewriting.settling import tidy

_FOREVER: Final = "forever"
_DAY_S: Final = 86_400
_DEFAULTS: Final = ", ".join(f"{table}={days:g}d" for table, days in KEPT_DAYS.items())


def retain(  # noqa: PLR0913, PLR0917  # one argument per flag is how Typer reads a command
    config: options.ConfigFile = None,
    lake: options.LakeFolder = None,
    catalog: options.CatalogUrl = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep",
            metavar="TABLE=DURATION",
            help=f"How long a table's rows are kept, or `forever`; repeatable.  [default: {_DEFAULTS}]",
        ),
    ] = None,
    grace: Grace = GRACE_DEFAULT,  # type: ignore[assignment]  # Typer parses defaults, too
    apply: Annotated[
        bool, typer.Option("--apply/--dry-run", help="Do it; without this, only say what would go.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Let go, for good, whole hours of each table that are too old.

    By the time that rows are kept by (event time; of rejects, Kafka's).  From then on no query sees them; their files
    are removed by the first `retain`, `compact` or `sweep --apply` after the grace period.  Safe beside `stillwatch
    run`, queries and another `maintain`; after a crash, run it again.

    Exit codes: 0 done, or could be done; 2 a wrong setting; 4 the catalog or the disk fails, or other rewrites were in
    the way.
    """
    days = _days(keep)
    settings = read_settings(config, lake=lake, catalog=catalog)
    clock = SystemClock()
    with opened(settings, changes=apply) as what:
        retainer = Retainer(what.lake, what.catalog, what.ledger, clock)
        do = retainer.retain if apply else retainer.old
        found = [do(table, kept) for table, kept in days.items() if kept is not None]
        tidied = tidy(what.lake, what.ledger, clock.now_us(), grace) if apply else None
    removed = tidied.removed if tidied else []
    if as_json:
        tables = [_as_json(old) for old in found]
        typer.echo(json.dumps({"applied": apply, "tables": tables, "removed": removed}))
    else:
        _show(found, days, len(removed), grace, applied=apply)


def _days(given: list[str] | None) -> dict[str, float | None]:
    """How long each table is kept; None is forever.

    Raises:
        ConfigError: something is no table, or no time.
    """
    days: dict[str, float | None] = dict(KEPT_DAYS)
    for text in given or ():
        table, equals, kept = text.partition("=")
        if not equals or table not in days:
            raise ConfigError(f"--keep {text}: expected TABLE=DURATION, TABLE one of {', '.join(days)}")
        try:
            days[table] = None if kept == _FOREVER else options.duration_s(kept) / _DAY_S
        except typer.BadParameter as error:
            raise ConfigError(f"--keep {text}: {error.message}, or {_FOREVER}") from None
    return days


def _as_json(old: Old) -> dict[str, object]:
    return {
        "table": old.table, "before": old.before, "files": len(old.files), "rows": sum(file.rows for file in old.files),
        "bytes": sum(file.bytes for file in old.files),
    }  # fmt: skip


def _show(found: list[Old], days: dict[str, float | None], removed: int, grace_s: float, *, applied: bool) -> None:
    out = console()
    title = "Gone" if applied else "Would go"
    table = Table("table", "kept", "all before (UTC)", "files", "rows", "size", title=title, title_justify="left")
    for old in found:
        rows, stored = sum(file.rows for file in old.files), sum(file.bytes for file in old.files)
        kept = duration((days[old.table] or 0) * _DAY_S)
        table.add_row(old.table, kept, f"{old.before}:00", f"{len(old.files):,}", f"{rows:,}", size(stored))
    out.print(table)
    if removed:
        out.print(f"removed {counted(removed, 'file')} whose grace period was over", highlight=False)
    files = sum(len(old.files) for old in found)
    if not files:
        out.print("nothing is too old", style="bold green", highlight=False)
    elif applied:
        out.print(
            f"no query sees these rows any more; {counted(files, 'file of them is', 'files of them are')} "
            "removed by the next run after "
            f"{duration(grace_s)}" if grace_s else "these rows are gone",
            style="bold green", highlight=False, soft_wrap=True,
        )  # fmt: skip
    else:
        out.print("nothing was changed; --apply does it", style="bold", highlight=False)
