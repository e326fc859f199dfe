"""`stillwatch alerts`: what was raised, and why."""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import replace
from typing import Annotated, Final, Literal

import typer

from jobs import actors, alerts_output, listed, options
from jobs.catalogs import opened
from jobs.desk_copies import keep_after
from jobs.listed import say
from jobs.moments import since_us
from pipeline.alerts import ID_CHARS, Alert, Severity
from pipeline.config import read_settings
from pipeline.counted import counted
from pipeline.errors import ConfigError
from pipeline.io.catalog import AlertFilter, Catalog
from pipeline.io.clock import SystemClock
from pipeline.io.desk.standing import standing_of

"""Alerts that a table shows unless told otherwise."""

SAID_AT_MOST: Final = 5
"""Ids that the error about a prefix of several alerts names."""

_ID: Final = re.compile(rf"[0-9a-f]{{1,{ID_CHARS}}}")

app = typer.Typer(
    help="List the alerts, show one with its reasons, and claim it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@app.command(name="list")
def list_alerts(  # noqa: PLR0913, PLR0917  # one argument per flag is how Typer reads a command
    lake: options.LakeFolder = None,
    catalog: options.CatalogUrl = None,
    config: options.ConfigFile = None,
    rule: Annotated[str, typer.Option(metavar="NAME", help="Of this rule.")] = "",
    severity: Annotated[
        Severity | None,
        typer.Option(metavar="informational|low|medium|high|critical", help="Of this severity."),
    ] = None,
    state: Annotated[
        Literal["live", "shadow", "all"],
        typer.Option(metavar="live|shadow|all", help="Of rules that were live, in shadow, or both."),
    ] = "live",
    account: Annotated[str, typer.Option(metavar="ID", help="About this account.")] = "",
    since: Annotated[
        str,
        typer.Option(
            metavar="WHEN", help="Raised since then, in event time: 2026-03-01, 2026-03-01T12:00Z, 90m, 24h, 7d."
        ),
    ] = "",
    suppressed: Annotated[
        bool | None,
        typer.Option("--suppressed/--not-suppressed", help="That an exception covers, or only others."),
    ] = None,
    limit: listed.LimitFlag = None,
    form: listed.FormFlag = "table",
) -> None:
    """List the alerts, the latest first.

    Reads the catalog and changes nothing, also while `stillwatch run` writes.  The id's first characters are enough for
    `stillwatch alerts show`.

    Exit codes: 0 done, also if there are none; 2 a wrong setting, or there is no catalog; 4 it does not answer.
    """
    wanted = AlertFilter(
        rule=rule,
        severity=severity or "",
        state="" if state == "all" else state,
        entity_id=account,
        since_us=since_us(since, SystemClock().now_us()) if since else None,
        suppressed=suppressed,
    )
    limit = listed.limit_of(limit, form)
    with opened(read_settings(config, lake=lake, catalog=catalog)) as ledger:
        found = ledger.alerts(
            replace(wanted, limit=limit + 1 if limit else None)
        )  # one more tells whether there are more
        standing = standing_of(ledger, found)
    shown = found[:limit] if limit else found
    if form == "json":
        say(alerts_output.as_json(shown, standing))
    elif form == "csv":
        say(alerts_output.as_csv(shown, standing))
    else:
        width = listed.width()
        say(alerts_output.as_table(shown, width, state=state, more=len(found) > len(shown), standing=standing))


@app.command()
def show(
    alert_id: Annotated[str, typer.Argument(metavar="ALERT_ID", help="The alert's id, or enough of its beginning.")],
    lake: options.LakeFolder = None,
    catalog: options.CatalogUrl = None,
    config: options.ConfigFile = None,
    form: Annotated[
        Literal["text", "json"], typer.Option("--format", metavar="text|json", help="What is printed.")
    ] = "text",
) -> None:
    """Show one alert: who, since when, how much was taken, why, which requests to look at, what to do.

    Exit codes: 0 done; 2 there is no such alert, or several begin so, or there is no catalog; 4 it does not answer.
    """
    with opened(read_settings(config, lake=lake, catalog=catalog)) as ledger:
        alert = _named(ledger, alert_id)
        standing = standing_of(ledger, [alert])[alert.alert_id]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else alerts_output.TEXT_CELLS
    as_json = alerts_output.as_json_object(alert, standing)
    say(as_json if form == "json" else alerts_output.as_text(alert, width, standing))


@app.command()
def claim(
    alert_id: Annotated[str, typer.Argument(metavar="ALERT_ID", help="The alert's id, or enough of its beginning.")],
    by: actors.By = "",
    lake: options.LakeFolder = None,
    catalog: options.CatalogUrl = None,
    config: options.ConfigFile = None,
) -> None:
    """Take an alert on, so that nobody else does.

    Exit codes: 0 done, also if it was yours already; 2 somebody else has it, or there is no such alert; 4 the catalog
    does not answer.
    """
    who, settings = actors.actor(by), read_settings(config, lake=lake, catalog=catalog)
    with opened(settings) as ledger:
        alert = _named(ledger, alert_id)
        holder = ledger.desk.claims.claim(alert.alert_id, who, SystemClock().now_us())
        keep_after(settings, ledger)
    if holder != who:
        raise ConfigError(f"{holder} has claimed alert {alert.alert_id[:8]}; `stillwatch alerts release` frees it")
    say(f"alert {alert.alert_id[:8]} is {holder}'s\n")


@app.command()
def release(
    alert_id: Annotated[str, typer.Argument(metavar="ALERT_ID", help="The alert's id, or enough of its beginning.")],
    by: actors.By = "",
    lake: options.LakeFolder = None,
    catalog: options.CatalogUrl = None,
    config: options.ConfigFile = None,
) -> None:
    """Let go of an alert, whoever has claimed it.

    Exit codes: 0 done, also if nobody had it; 2 there is no such alert; 4 the catalog does not answer.
    """
    settings = read_settings(config, lake=lake, catalog=catalog)
    with opened(settings) as ledger:
        alert = _named(ledger, alert_id)
        freed = ledger.desk.claims.release(alert.alert_id, actors.actor(by), SystemClock().now_us())
        keep_after(settings, ledger)
    said = "free now" if freed else "free, as it was"
    say(f"alert {alert.alert_id[:8]} is {said}\n")


def _named(ledger: Catalog, alert_id: str) -> Alert:
    """The one alert that is meant.

    Raises:
        ConfigError: there is none, or there are several.
    """
    prefix = alert_id.strip().lower()
    if not _ID.fullmatch(prefix):
        raise ConfigError(
            f"an alert's id has up to {ID_CHARS} of the characters 0-9 and a-f; `stillwatch alerts list` shows the ids"
        )
    return _only(prefix, ledger.alerts(AlertFilter(id_prefix=prefix, limit=SAID_AT_MOST + 1)))


def _only(prefix: str, found: list[Alert]) -> Alert:
    """The one alert whose id begins so.

    Raises:
        ConfigError: there is none, or there are several.
    """
    if not found:
        raise ConfigError(f"no alert's id begins with {prefix}; `stillwatch alerts list --state all` shows them")
    if len(found) > 1:
        ids = ", ".join(alert.alert_id for alert in found[:SAID_AT_MOST])
        count, rest = counted(len(found), "alert's id begins", "alerts' ids begin"), ""
        if len(found) > SAID_AT_MOST:
            count, rest = f"more than {SAID_AT_MOST} alerts' ids begin", ", …"
        raise ConfigError(f"{count} with {prefix}: {ids}{rest}; give more of it")
    return found[0]
