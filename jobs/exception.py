"""`stillwatch exception`: whose alerts are known and allowed, by whom, why, and until when."""

from __future__ import annotations

import re
import uuid
from typing import Annotated, Final

import typer

from jobs import actors, exception_output, listed, options
from jobs.catalogs import opened
from jobs.desk_copies import keep_after
from jobs.listed import say
from jobs.moments import moment_us, span_us
from pipeline.allowing import check, check_rule, subject_of
from pipeline.config import Settings, read_settings
from pipeline.decisions import AllowEntry
from pipeline.errors import ConfigError
from pipeline.io.catalog import Catalog
from pipeline.io.clock import SystemClock
from pipeline.judging import shown

_ID: Final = re.compile(r"[0-9a-f]{1,32}")

app = typer.Typer(
    help="Say whose alerts are known and allowed: add, list and end exceptions, each with an owner and an end.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@app.command()
def add(  # noqa: PLR0913, PLR0917  # one argument per flag is how Typer reads a command
    owner: Annotated[str, typer.Option(metavar="NAME", help="Who answers for it.")],
    reason: Annotated[str, typer.Option(metavar="WORDS", help="Why, for whoever looks later.")],
    expires: Annotated[str, typer.Option(metavar="WHEN", help="Until when: 30d, 12h, 2026-06-30, 2026-06-30T12:00Z.")],
    account: Annotated[str, typer.Option(metavar="ID", help="Covers this account.")] = "",
    organisation: Annotated[
        str, typer.Option(metavar="ID", help="Covers accounts of this organisation, where log or feed name it.")
    ] = "",
    rule: Annotated[
        str, typer.Option(metavar="NAME", help="Covers alerts of this rule: of the account or organisation, or of all.")
    ] = "",
    by: actors.By = "",
    anyway: Annotated[bool, typer.Option("--anyway", help="Also of an account that was never seen.")] = False,
    rules: options.Rules = None,
    lake: options.LakeFolder = None,
    catalog: options.CatalogUrl = None,
    config: options.ConfigFile = None,
) -> None:
    """Add an exception: alerts that it covers are kept and counted as suppressed, and delivered to nobody.

    It covers alerts that are raised from now on, until it expires.  Of an organisation, only alerts of accounts whose
    organisation the events of the same commit, or the accounts feed, name.

    Exit codes: 0 done; 2 it cannot be made, and why; 4 the catalog does not answer; 5 a file of the lake is missing or
    broken.
    """
    settings = read_settings(config, lake=lake, catalog=catalog, rules=rules)
    now_us, who = SystemClock().now_us(), actors.actor(by)
    scope, subject, only = subject_of(account, organisation, rule)
    until_us = _until_us(expires, now_us)
    made = AllowEntry(uuid.uuid4().hex, scope, subject, only, owner.strip(), reason.strip(), now_us, who, until_us)
    check(made, now_us, settings.exception_days_max)
    if rule.strip():
        check_rule(rule.strip(), _rule_names(settings))
    with opened(settings) as ledger:
        if scope == "account" and not anyway:
            _check_seen(settings, ledger, subject)
        ledger.desk.exceptions.add(made)
        keep_after(settings, ledger)
    say(exception_output.added(made))


@app.command(name="list")
def list_exceptions(
    every: Annotated[bool, typer.Option("--all", help="Also those that expired or were ended.")] = False,
    subject: Annotated[str, typer.Option(metavar="ID", help="Only on this account, organisation or rule.")] = "",
    form: listed.FormFlag = "table",
    lake: options.LakeFolder = None,
    catalog: options.CatalogUrl = None,
    config: options.ConfigFile = None,
) -> None:
    """List the exceptions that hold, with how many alerts each has suppressed, and say which have expired of late.

    Exit codes: 0 done, also if there are none; 2 a wrong setting, or there is no catalog; 4 it does not answer.
    """
    settings = read_settings(config, lake=lake, catalog=catalog)
    with opened(settings) as ledger:
        found = ledger.desk.exceptions.find(subject=subject)
        suppressed = ledger.desk.exceptions.suppressed()
    listing = exception_output.Listing(found, suppressed, SystemClock().now_us(), every=every)
    say(listing.in_form(form))


@app.command()
def expire(
    exception_id: Annotated[str, typer.Argument(metavar="ID", help="The exception's id, or enough of its beginning.")],
    by: actors.By = "",
    lake: options.LakeFolder = None,
    catalog: options.CatalogUrl = None,
    config: options.ConfigFile = None,
) -> None:
    """End an exception before its time; what it suppressed stays suppressed.

    Exit codes: 0 done; 2 there is no such exception, or it is over already; 4 the catalog does not answer.
    """
    prefix, now_us = exception_id.strip().lower(), SystemClock().now_us()
    settings = read_settings(config, lake=lake, catalog=catalog)
    if not _ID.fullmatch(prefix):
        raise ConfigError(
            "an exception's id has up to 32 of the characters 0-9 and a-f; `stillwatch exception list` shows the ids"
        )
    with opened(settings) as ledger:
        entry = _only(ledger, prefix)
        if not ledger.desk.exceptions.end(entry.exception_id, actors.actor(by), now_us):
            raise ConfigError(exception_output.over(entry, now_us))
        count = ledger.desk.exceptions.suppressed().get(entry.exception_id, 0)
        keep_after(settings, ledger)
    say(exception_output.ended(entry, count))


def _only(ledger: Catalog, prefix: str) -> AllowEntry:
    """The one exception whose id begins so.

    Raises:
        ConfigError: there is none, or there are several.
    """
    found = ledger.desk.exceptions.beginning(prefix, 2)
    if not found:
        raise ConfigError(f"no exception's id begins with {prefix}; `stillwatch exception list --all` shows them")
    if len(found) > 1:
        raise ConfigError(f"several exceptions' ids begin with {prefix}: give more of it")
    return found[0]


def _until_us(said: str, now_us: int) -> int:
    span = span_us(said)
    if span is not None:
        return now_us + span
    expected = "how long (30d, 12h), a day (2026-06-30) or a time (2026-06-30T12:00Z)"
    return moment_us(said, f"--expires {shown(said)}: expected {expected}")


def _rule_names(settings: Settings) -> list[str]:
    from pipeline.watch import load_rules  # noqa: PLC0415  # takes a while to import, and few exceptions need it

    return [one.name for one in load_rules(settings)]


def _check_seen(settings: Settings, ledger: Catalog, account: str) -> None:
    from pipeline.io.desk.allowing import check_seen  # noqa: PLC0415  # DuckDB, as above
    from pipeline.io.lake import Lake  # noqa: PLC0415

    otherwise = " and --lake; --anyway makes an exception of it all the same"
    check_seen(Lake.open(settings.lake, create=False), ledger, account, otherwise)
