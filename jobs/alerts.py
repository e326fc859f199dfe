"""`stillwatch alerts`: what was raised, and why."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal

import typer

from jobs import alerts_output, options
from jobs.harmless import harmless
from pipeline.alerts import ID_CHARS, Alert, Severity
from pipeline.config import Settings, read_settings
from pipeline.errors import ConfigError
from pipeline.io.catalog import AlertFilter, Catalog
from pipeline.io.clock import SystemClock

LIMIT_DEFAULT: Final = 40
"""Alerts that a table shows unless told otherwise."""

SAID_AT_MOST: Final = 5
"""Ids that the error about a prefix of several alerts names."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_AGO: Final = re.compile(r"(\d{1,6})([mhd])")
_AGO_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}
_ID: Final = re.compile(rf"[0-9a-f]{{1,{ID_CHARS}}}")

app = typer.Typer(
    help="List the alerts, and show one with its reasons.",
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
    limit: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help=f"The latest N; 0: all.  [default: {LIMIT_DEFAULT}, all as csv or json]"),
    ] = None,
    form: Annotated[
        Literal["table", "csv", "json"], typer.Option("--format", metavar="table|csv|json", help="What is printed.")
    ] = "table",
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
        since_us=_since_us(since, SystemClock().now_us()) if since else None,
    )
    if limit is None:
        limit = LIMIT_DEFAULT if form == "table" else 0
    with _catalog(read_settings(config, lake=lake, catalog=catalog)) as ledger:
        found = ledger.alerts(
            replace(wanted, limit=limit + 1 if limit else None)
        )  # one more tells whether there are more
    shown = found[:limit] if limit else found
    if form == "json":
        _print(alerts_output.as_json(shown))
    elif form == "csv":
        _print(alerts_output.as_csv(shown))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        _print(alerts_output.as_table(shown, width, state=state, more=len(found) > len(shown)))


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
    prefix = alert_id.strip().lower()
    if not _ID.fullmatch(prefix):
        raise ConfigError(
            f"an alert's id has up to {ID_CHARS} of the characters 0-9 and a-f; `stillwatch alerts list` shows the ids"
        )
    with _catalog(read_settings(config, lake=lake, catalog=catalog)) as ledger:
        found = ledger.alerts(AlertFilter(id_prefix=prefix, limit=SAID_AT_MOST + 1))
    alert = _only(prefix, found)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else alerts_output.TEXT_CELLS
    _print(alerts_output.as_json_object(alert) if form == "json" else alerts_output.as_text(alert, width))


def _only(prefix: str, found: list[Alert]) -> Alert:
    """The one alert whose id begins so.

    Raises:
        ConfigError: there is none, or there are several.
    """
    if not found:
        raise ConfigError(f"no alert's id begins with {prefix}; `stillwatch alerts list --state all` shows them")
    if len(found) > 1:
        ids = ", ".join(alert.alert_id for alert in found[:SAID_AT_MOST])
        count = f"more than {SAID_AT_MOST}" if len(found) > SAID_AT_MOST else str(len(found))
        rest = ", …" if len(found) > SAID_AT_MOST else ""
        raise ConfigError(f"{count} alerts' ids begin with {prefix}: {ids}{rest}; give more of it")
    return found[0]


def _since_us(said: str, now_us: int) -> int:
    """A moment as it may be given, microseconds since the epoch; without a zone it is UTC.

    Raises:
        ConfigError: it is none.
    """
    ago = _AGO.fullmatch(said)
    if ago:
        return now_us - timedelta(**{_AGO_UNITS[ago[2]]: int(ago[1])}) // timedelta(microseconds=1)
    try:
        moment = datetime.fromisoformat(said)
    except ValueError:
        expected = "a day (2026-03-01), a time (2026-03-01T12:00Z) or how long ago (24h)"
        raise ConfigError(f"--since {harmless(said[:40])}: expected {expected}") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1)


@contextlib.contextmanager
def _catalog(settings: Settings) -> Iterator[Catalog]:
    with contextlib.closing(Catalog.open(settings.catalog_url, create=False)) as ledger:
        yield ledger


def _print(text: str) -> None:
    """Print; a terminal must not obey what is written by strangers."""
    typer.echo(harmless(text, keep="\n") if sys.stdout.isatty() else text, nl=False)
