"""`stillwatch maintain stats`: what the lake is made of."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer
from rich.table import Table

from jobs import options
from jobs.consoles import console
from jobs.maintain_output import opened, size
from pipeline.config import read_settings
from pipeline.counted import counted
from pipeline.io.clock import SystemClock
from pipeline.io.rewriting.stats import LakeStats, lake_stats
from pipeline.io.rewriting.writing import Limits

_CLOSED_S = 3600.0


def stats(
    config: options.ConfigFile = None,
    lake: options.LakeFolder = None,
    catalog: options.CatalogUrl = None,
    as_json: options.AsJson = False,
) -> None:
    """Say how many files, rows and bytes each table has, and how much there is to merge.

    Opens no file: all of it stands in the catalog.  Changes nothing, and may run at any time.

    Exit codes: 0 done; 2 there is no such lake or catalog; 4 the catalog does not answer.
    """
    settings = read_settings(config, lake=lake, catalog=catalog)
    with opened(settings, changes=False) as what:
        found = lake_stats(what.catalog, what.ledger, Limits(), SystemClock().now_us(), _CLOSED_S)
        root = str(what.lake.root)
    if as_json:
        typer.echo(json.dumps({"lake": root, **asdict(found)}))
    else:
        _show(found, root)


def _show(found: LakeStats, root: str) -> None:
    out = console()
    columns = (
        "table",
        "files",
        "rows",
        "size",
        "bytes/row",
        "hours",
        "files/hour",
        "to merge",
        "first hour",
        "last hour",
    )
    table = Table(*columns, title=f"Lake {root}", title_justify="left")
    for one in found.tables:
        per_row = f"{one.bytes / one.rows:.0f}" if one.rows else "-"
        table.add_row(
            one.table, f"{one.files:,}", f"{one.rows:,}", size(one.bytes), per_row, f"{one.hours:,}",
            f"{one.files_median:,}", f"{one.to_merge:,}", one.first or "-", one.last or "-",
        )  # fmt: skip
    out.print(table)
    out.print(
        f"{counted(found.partitions, 'partition')}, {counted(found.commits, 'commit')}; "
        f"{counted(found.snapshots, 'snapshot')} "
        f"({size(found.snapshot_bytes)})",
        highlight=False,
    )
    for one in found.tables:
        if one.before:
            out.print(f"{one.table} holds nothing from before {one.before}:00 UTC (retention)", highlight=False)
    if found.replaced:
        out.print(
            f"{counted(found.replaced, 'file')}, replaced or too old, still to be removed by `maintain compact` or "
            "`maintain sweep --apply` after the grace period",
            highlight=False,
            soft_wrap=True,
        )
