"""`stillwatch maintain erase`: one account's rows, state, snapshots and alerts go."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from jobs import logs, options
from jobs.consoles import console
from jobs.maintain_output import duration, opened, size
from pipeline.alerts import NUL_SHOWN
from pipeline.config import Settings, read_settings
from pipeline.counted import counted
from pipeline.errors import ConfigError, LakeDamagedError
from pipeline.io.clock import SystemClock
from pipeline.io.rewriting.erasure import Erased, Eraser, Found
from pipeline.io.views.session import Session
from pipeline.io.views.spelling import as_in_lake
from pipeline.lake_tables import TABLES

_NOTHING = "there was nothing of it in this lake: ids are compared exactly, letter by letter"


def erase(  # noqa: PLR0913, PLR0917  # one argument per flag is how Typer reads a command
    account: Annotated[
        str,
        typer.Option(
            "--account", metavar="ID", help="Whose; `-` reads the id from standard input, which no process list shows."
        ),
    ],
    config: options.ConfigFile = None,
    lake: options.LakeFolder = None,
    catalog: options.CatalogUrl = None,
    grace: Annotated[
        float,
        typer.Option(
            "--grace",
            metavar="DURATION",
            parser=options.duration_s,
            help="How long files that held it stay on disk for queries that have begun; these may fail without.",
        ),
    ] = "0s",  # type: ignore[assignment]  # Typer parses defaults, too
    apply: Annotated[
        bool, typer.Option("--apply/--dry-run", help="Do it; without this, only say what there is.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Erase an account: its rows in every table, its state and snapshots, its alerts; and prove that it is gone.

    Files that hold it are rewritten without it; rows of others stay.  Running workers are made to begin again from
    snapshots without it, which takes them seconds.  What the models learned from all accounts together stays; it names
    nobody.  Events of the account that come later are landed like any other: close the account first.  An audit record
    without the id in clear is kept in the catalog.  After a crash, run it again.

    Exit codes: 0 erased and proven, or there is nothing; 2 a wrong setting; 4 the catalog or the disk fails, or events
    of the account still arrive; 5 a file cannot be read; 6 some of it is left, and what it is was printed.
    """
    account = _checked(_from_input() if account == "-" else account)
    settings = read_settings(config, lake=lake, catalog=catalog)
    logs.configure("warning")
    with opened(settings, changes=apply) as what:
        whom = _as_in_lake(settings, account)
        eraser = Eraser(what.lake, what.catalog, what.ledger, SystemClock(), whom)
        if not apply:
            found = eraser.find()
            typer.echo(json.dumps({"applied": False, **asdict(found)})) if as_json else _show_found(found)
            return
        done = eraser.erase(grace)
    if as_json:
        typer.echo(json.dumps({"applied": True, "proven": done.is_proven, "found_any": done.found_any, **asdict(done)}))
    else:
        _show(done, grace)
    if not done.is_proven and not (grace and _only_on_disk(done)):
        raise LakeDamagedError(_left_in_words(done))


def _from_input() -> str:
    """The id that standard input brings: all of it, but for the end of its line."""
    given = sys.stdin.readline() if sys.stdin.isatty() else sys.stdin.read()
    account = given.removesuffix("\n").removesuffix("\r")
    if "\n" in account:
        raise ConfigError(
            f"--account -: standard input holds {account.count(chr(10)) + 1} lines, and one id is erased at a time: "
            "give one line; an id that holds a line break is given as --account ID"
        )
    return account


def _as_in_lake(settings: Settings, account: str) -> str:
    if NUL_SHOWN not in account:
        return account
    with Session.open(settings) as session:
        return as_in_lake(session, account, also_rejects=True)


def _checked(account: str) -> str:
    if not account:
        raise ConfigError("--account: whose? The id is empty")
    try:
        account.encode()
    except UnicodeEncodeError:
        raise ConfigError("--account: its bytes are no UTF-8, and no account has such an id") from None
    return account


def _only_on_disk(done: Erased) -> bool:
    """Whether all that is left goes with the grace period."""
    left = (done.left_in_snapshots, done.left_alerts, done.left_decisions, done.left_in_annexes, done.unread)
    return not (any(done.left_in_lake.values()) or any(left))


def _left_in_words(done: Erased) -> str:
    """What is left, and what is to be done about it."""
    if not (done.left_in_annexes or done.unread):
        return "some of the account is left; run it again, and see `maintain verify`"
    held = [f"{folder} holds {counted(rows, 'row')}" for folder, rows in done.left_in_annexes.items()]
    if done.unread:
        held.append(
            f"{counted(done.unread, 'file below _replacing was', 'files below _replacing were')} not "
            "written to their end, and may hold some"
        )
    return (
        f"some of the account is left: {', '.join(held)}. That is what a `backfill --replace` has read that was not "
        "brought to its end: give it up with `stillwatch maintain sweep --abandoned 0s --apply`, or let the same "
        "command end first, which brings the account back; then run erase again"
    )


def _mentioned(mentions: int) -> None:
    """What holds the id and is not the account's, as far as anybody can tell."""
    if mentions:
        console().print(
            f"its id also stands in {counted(mentions, 'reject', 'rejects')} of other forms than "
            '"account_id": "ID", which stay: '
            "`stillwatch sql` finds them in the table rejects, by contains(decode(raw, 'replace'), 'ID')",
            style="yellow",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    console().print(
        "texts and unknown fields of other accounts are theirs: they were not searched for the id", highlight=False
    )


def _show_found(found: Found) -> None:
    out = console()
    table = Table("table", "rows", "files to rewrite", title="Of the account there is", title_justify="left")
    for name in TABLES:
        table.add_row(name, f"{found.rows.get(name, 0):,}", f"{found.files.get(name, 0):,}")
    out.print(table)
    out.print(
        f"{size(found.bytes)} to rewrite; {counted(found.alerts, 'alert')} in the catalog; "
        f"{counted(found.snapshots, 'snapshot knows it', 'snapshots know it')}",
        highlight=False,
    )
    _mentioned(found.mentions)
    there = found.rows or found.alerts or found.snapshots
    end = "--apply erases it" if there else _NOTHING
    out.print(f"nothing was changed; {end}", style="bold" if there else "bold yellow", highlight=False, soft_wrap=True)


def _show(done: Erased, grace_s: float) -> None:
    out = console()
    table = Table(
        "table", "rows erased", "rows left by query", "rows left on disk", title="Erased", title_justify="left"
    )
    for name in TABLES:
        table.add_row(
            name, f"{done.rows.get(name, 0):,}", f"{done.left_in_lake[name]:,}", f"{done.left_on_disk[name]:,}"
        )
    out.print(table)
    out.print(
        f"{counted(done.files, 'file')} and {counted(done.snapshots, 'snapshot')} rewritten, "
        f"{counted(done.alerts, 'alert')} and "
        f"{counted(done.decisions, 'verdict or exception', 'verdicts and exceptions')} removed, "
        f"{counted(done.partitions, 'partition')} taken over",
        highlight=False,
    )
    if done.unkeyed:
        out.print(
            f"{counted(done.unkeyed, 'record of the audit log is', 'records of the audit log are')} "
            "from before catalog version 7: the hash of the id has no "
            'key, so who reads them can find it by trying ids (docs/verdicts.md, "Erased accounts")',
            style="yellow", highlight=False, soft_wrap=True,
        )  # fmt: skip
    if done.aside:
        out.print("there are files in _quarantine, which were not looked into: remove them", style="yellow")
    out.print(f"audit record {done.audit_id}", highlight=False)
    _mentioned(done.mentions)
    if done.is_proven:
        out.print(
            "no row, alert, decision or snapshot of the account is left" + ("" if done.found_any else f"; {_NOTHING}"),
            style="bold green" if done.found_any else "bold yellow", highlight=False, soft_wrap=True,
        )  # fmt: skip
    elif grace_s and _only_on_disk(done):
        out.print(
            f"no query finds it any more; its files are removed by the first `maintain` run after {duration(grace_s)}, "
            "and only then it is gone: run `erase` again to prove it",
            style="bold yellow", highlight=False, soft_wrap=True,
        )  # fmt: skip
