"""The form for a new exception: what it may say, and what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from jobs.desk_copies import keep_if_there
from jobs.serving import dossiers
from jobs.serving.serving import Serving
from pipeline.alerts import without_nul
from pipeline.allowing import check, check_rule, subject_of
from pipeline.decisions import SCOPES, AllowEntry
from pipeline.errors import ConfigError, SchemaError
from pipeline.io.desk.allowing import check_seen
from pipeline.io.lake import Lake
from pipeline.moments import micros_of, moment_at

FIELDS: Final = ("scope", "subject", "rule", "owner", "reason", "until")
DAYS_USUAL: Final = 30
SENT_BEFORE: Final = (
    "This form was sent before, and the exception that it made then says something else, or has ended since; what "
    "stands here now is not on record. If you want it, too, send it again."
)
"""Of a page that the browser kept, which was filled in anew."""

_ID: Final = re.compile(r"[0-9a-f]{32}")


def usual_until(serving: Serving) -> str:
    """The day that the form offers."""
    days = min(DAYS_USUAL, serving.settings.exception_days_max)
    return f"{moment_at(serving.clock.now_us()) + timedelta(days=days):%Y-%m-%d}"


def add(serving: Serving, form: Mapping[str, str], person: str) -> str:
    """Put an exception on record; a form that comes again, as of a second click, changes nothing.

    Returns:
        What is wrong with it, in words; empty: nothing, and it is on record.
    """
    serving.check_writable()
    now_us = serving.clock.now_us()
    try:
        entry = _entry(form, person, now_us)
        check(entry, now_us, serving.settings.exception_days_max)
        for rule in filter(None, (entry.rule, entry.subject if entry.scope == "rule" else "")):
            check_rule(rule, sorted(serving.rules))
        if entry.scope == "account":
            _check_seen(serving, entry.subject)
    except ConfigError as error:
        return str(error)
    except SchemaError as error:
        return f"It is not on record. {dossiers.unreadable(error)}"
    stands = serving.catalog.desk.exceptions.add(entry)
    keep_if_there(serving.settings, serving.catalog)
    return "" if _is_same(stands, entry) else SENT_BEFORE


def _check_seen(serving: Serving, account_id: str) -> None:
    otherwise = "; `stillwatch exception add --account ID --anyway` makes an exception of it all the same"
    with serving.reading():
        lake = Lake.open(serving.settings.lake, create=False)
        check_seen(lake, serving.catalog, account_id, otherwise)


def _is_same(stands: AllowEntry, entry: AllowEntry) -> bool:
    """Whether what is on record says what was sent, and still holds."""
    return stands == replace(entry, subject=without_nul(entry.subject), created_at_us=stands.created_at_us)


def _entry(form: Mapping[str, str], person: str, now_us: int) -> AllowEntry:
    said = {name: form.get(name, "").strip() for name in FIELDS}
    given = form.get("subject", "")
    exception_id = form.get("exception_id", "")
    if not _ID.fullmatch(exception_id):
        raise ConfigError("the form lacks the number by which it counts once, however often it is sent: send it again")
    if said["scope"] not in SCOPES:
        raise ConfigError("say what it speaks of: an account, an organisation or a rule")
    if not (given if said["scope"] == "account" else said["subject"]):
        raise ConfigError(f"the {said['scope']}'s name is missing")
    scope, subject, rule = {
        "account": lambda: subject_of(given, "", said["rule"]),
        "organisation": lambda: subject_of("", given, said["rule"]),
        "rule": lambda: subject_of("", "", given),
    }[said["scope"]]()
    return AllowEntry(
        exception_id=exception_id,
        scope=scope,
        subject=subject,
        rule=rule,
        owner=said["owner"],
        reason=said["reason"],
        created_at_us=now_us,
        created_by=person,
        expires_at_us=_until_us(said["until"]),
    )


def _until_us(day: str) -> int:
    try:
        return micros_of(datetime.fromisoformat(f"{day}T00:00:00+00:00"))
    except ValueError:
        raise ConfigError("name the day on which it ends, as 2026-06-30") from None
