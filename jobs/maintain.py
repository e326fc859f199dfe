"""`stillwatch maintain`: look after the lake."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from jobs import maintain_compact, maintain_erase, maintain_retain, maintain_stats, options
from jobs.actors import actor_here
from jobs.consoles import console
from pipeline.config import Settings, read_settings
from pipeline.counted import counted
from pipeline.errors import LakeDamagedError
from pipeline.io.catalog import Catalog, url_without_password
from pipeline.io.clock import SystemClock
from pipeline.io.inspection import Finding, Inspection, inspect
from pipeline.io.lake import Lake
from pipeline.io.rebuild import Plan, plan_of, rebuild

app = typer.Typer(
    help="Look after the lake: merge its files, forget what is too old, erase an account, check, mend.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

app.command()(maintain_compact.compact)
app.command()(maintain_retain.retain)
app.command()(maintain_compact.sweep)
app.command()(maintain_erase.erase)
app.command()(maintain_stats.stats)


@app.command()
def verify(
    config: options.ConfigFile = None,
    lake: options.LakeFolder = None,
    catalog: options.CatalogUrl = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Compare sizes and footers, but do not hash the files.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Check that the lake holds what the catalog says, every record once, and nothing else.

    Changes nothing, and may run while workers write.  Looks at every live file (there, size, SHA-256, footer, rows), at
    the offsets of every commit (no overlap, no gap but accepted holes), for files that no commit lists, and for records
    that are there twice.

    Exit codes: 0 all is well (notes are no errors); 2 there is no such lake or catalog; 4 the catalog does not answer;
    6 something is wrong, and what it is was printed.
    """
    settings = read_settings(config, lake=lake, catalog=catalog)
    storage = Lake.open(settings.lake, create=False)
    ledger = Catalog.open(settings.catalog_url, create=False)
    try:
        inspection = inspect(storage, ledger, quick=quick)
    finally:
        ledger.close()
    if as_json:
        typer.echo(
            json.dumps({"ok": not inspection.errors, "lake": str(storage.root), "quick": quick, **asdict(inspection)})
        )
    else:
        _show_inspection(inspection, storage, quick=quick)
    if inspection.errors:
        raise LakeDamagedError(f"the lake in {storage.root} is damaged; findings: {len(inspection.errors)}")


@app.command(name="rebuild-catalog")
def rebuild_catalog(
    config: options.ConfigFile = None,
    lake: options.LakeFolder = None,
    catalog: options.CatalogUrl = None,
    apply: Annotated[
        bool, typer.Option("--apply/--dry-run", help="Do it; without this, only say what would be done.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Make a lost catalog anew from the files' footers.

    Stop every `stillwatch run` of this lake first, and let the catalog be one that does not exist or is empty: move a
    damaged one away, or name another with --catalog.  A commit that was half placed is completed from its staged files,
    or else moved to `_quarantine`, and its records are read from Kafka again; so are those of commits that were never
    placed at all.  Offsets that no file holds, between two commits, get an empty commit of their own.  What `compact`
    and `erase` had written, and whose grace period had not ended, holds, and the period begins anew; where it is not
    whole, it is named, and the former files count again.

    Exit codes: 0 done, or could be done; 2 the catalog is not empty; 4 it does not answer; 6 the files contradict each
    other, or one is missing that Kafka's next reading could not replace; nothing was changed.
    """
    settings = read_settings(config, lake=lake, catalog=catalog)
    storage = Lake.open(settings.lake, create=False)
    plan = plan_of(storage)
    if apply:
        from jobs import logs  # noqa: PLC0415  # takes longer to load than a lake takes to look at

        logs.configure("info")
        rebuild(storage, settings.catalog_url, plan, SystemClock().now_us(), actor_here())
    else:
        Catalog.check_empty(settings.catalog_url)
    if as_json:
        typer.echo(json.dumps(_plan_as_json(plan, applied=apply)))
    else:
        _show_plan(plan, settings, applied=apply)


def _show_inspection(inspection: Inspection, lake: Lake, *, quick: bool) -> None:
    out = console()
    counts = Table(title=f"Lake {lake.root}", title_justify="left", show_header=False)
    for name in ("partitions", "commits", "files", "bytes", "events", "rejects"):
        counts.add_row(name, f"{getattr(inspection, name):,}")
    out.print(counts)
    for title, findings in (("Notes", inspection.notes), ("Errors", inspection.errors)):
        if findings:
            out.print(_table(title, findings))
    how = " (files not hashed: --quick)" if quick else ""
    verdict = f"{len(inspection.errors)} errors" if inspection.errors else "all is well"
    out.print(f"{verdict}{how}", style="bold red" if inspection.errors else "bold green", highlight=False)


def _table(title: str, findings: list[Finding]) -> Table:
    table = Table("what", "where", "details", title=title, title_justify="left")
    for finding in findings:
        table.add_row(finding.kind, finding.subject, finding.detail)
    return table


def _plan_as_json(plan: Plan, *, applied: bool) -> dict[str, object]:
    return {
        "applied": applied,
        "commits": len(plan.commits),
        "verdicts": plan.desk.count("verdicts"),
        "exceptions": plan.desk.count("exceptions"),
        "audit_records": plan.desk.count("audit"),
        "files": plan.files,
        "offsets": {str(partition): offset for partition, offset in plan.offsets.items()},
        "complete": plan.to_place,
        "quarantine": plan.to_quarantine,
        "left_out": plan.left_out,
        "below_marks": plan.below_marks,
        "taken_over": plan.taken_over,
        "unfinished": plan.unfinished,
        "replacements": plan.replacements,
        "filled": [
            {"partition": str(commit.partition), "first_offset": commit.first_offset, "next_offset": commit.next_offset}
            for commit in plan.filled
        ],
    }


def _show_plan(plan: Plan, settings: Settings, *, applied: bool) -> None:
    out = console()
    table = Table("partition", "next offset", title="Offsets from the files", title_justify="left")
    for partition, offset in plan.offsets.items():
        table.add_row(str(partition), f"{offset:,}")
    out.print(table)
    lists = (
        ("files to complete half-placed commits with, from staging", plan.to_place),
        ("files of incomplete commits, to _quarantine", plan.to_quarantine),
        ("commits that were staged only, left out and read again", plan.left_out),
        ("files of hours that `retain` had let go of, and that queries see until it runs again", plan.below_marks),
        ("rewrites whose grace period had not ended; they hold, and it begins anew", plan.taken_over),
        (
            "rewrites that were not finished: what they were made of counts again; was it an erasure, run it again",
            plan.unfinished,
        ),
        (
            "replacements that were begun and are not in this catalog; the same `backfill --replace` goes on",
            plan.replacements,
        ),
        ("ranges without files, filled with empty commits", [str(commit.partition) for commit in plan.filled]),
    )
    for what, names in lists:
        if names:
            out.print(f"{what}: {len(names):,}", highlight=False)
            for name in names:
                out.print(f"  {name}", highlight=False, soft_wrap=True)
    where = url_without_password(settings.catalog_url)
    summary = f"{counted(len(plan.commits), 'commit')} with {counted(plan.files, 'file')}"
    if plan.desk.rows:
        decided = (
            f"{counted(plan.desk.count('verdicts'), 'verdict')}, {counted(plan.desk.count('exceptions'), 'exception')}"
        )
        summary += f", {decided} and {counted(plan.desk.count('audit'), 'record')} of who did what"
    if applied:
        out.print(f"wrote {summary} to {where}", style="bold green", highlight=False, soft_wrap=True)
    else:
        out.print(f"would write {summary} to {where}; --apply does it", style="bold", highlight=False, soft_wrap=True)
