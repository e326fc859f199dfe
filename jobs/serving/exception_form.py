"""The form for a new exception: what it may say, and what is wrong with it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from jobs.desk_copies import keep_if_there
from jobs.serving.serving import Serving
from pipeline.allowing import check, check_rule
from pipeline.decisions import SCOPES, AllowEntry
from pipeline.errors import ConfigError
from pipeline.moments import micros_of, moment_at

FIELDS: Final = ("scope", "subject", "rule", "owner", "reason", "until")
DAYS_USUAL: Final = 30


def usual_until(serving: Serving) -> str:
    """The day that the form offers."""
    days = min(DAYS_USUAL, serving.settings.exception_days_max)
    return f"{moment_at(serving.clock.now_us()) + timedelta(days=days):%Y-%m-%d}"


def add(serving: Serving, form: Mapping[str, str], person: str) -> str:
    """Put an exception on record.

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
    except ConfigError as error:
        return str(error)
    serving.catalog.desk.exceptions.add(entry)
    keep_if_there(serving.settings, serving.catalog)
    return ""


def _entry(form: Mapping[str, str], person: str, now_us: int) -> AllowEntry:
    said = {name: form.get(name, "").strip() for name in FIELDS}
    if said["scope"] not in SCOPES:
        raise ConfigError("say what it speaks of: an account, an organisation or a rule")
    return AllowEntry(
        exception_id=uuid.uuid4().hex, scope=said["scope"], subject=form.get("subject", ""),
        rule="" if said["scope"] == "rule" else said["rule"], owner=said["owner"], reason=said["reason"],
        created_at_us=now_us, created_by=person, expires_at_us=_until_us(said["until"]),
    )  # fmt: skip


def _until_us(day: str) -> int:
    try:
        return micros_of(datetime.fromisoformat(f"{day}T00:00:00+00:00"))
    except ValueError:
        raise ConfigError("name the day on which it ends, as 2026-06-30") from None
