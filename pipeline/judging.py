"""A judgement of an account as somebody gives it, before it is joined to what is stored and put on record.

Pure: nothing here touches the world.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pipeline.alerts import spelled
from pipeline.decisions import DECISIONS, Decision
from pipeline.errors import ConfigError

ID_CHARS: Final = 32
"""Hex digits of a verdict's id."""

ACCOUNT_CHARS_MAX: Final = 100_000
WHY_CHARS_MAX: Final = 10_000
BY_CHARS_MAX: Final = 200

AHEAD_US: Final = 3_600_000_000
"""How far ahead of the clock a moment of event time may lie: as far as an event may."""

_SHOWN_CHARS: Final = 80
_VERDICT_ID: Final = re.compile(rf"[0-9a-f]{{{ID_CHARS}}}")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What somebody says of an account; see `Verdict`, which it becomes.

    Attributes:
        account_id: whom it judges.
        decision: what it says.
        why: the reason, in words.
        given_by: who decides.
        source: how it came: `command`, `page`, `csv:NAME`, `kafka:TOPIC`.
        about_us: moment of event time that it speaks of; None: of its alert, else of the account's newest live alert,
            else of whatever was stored last.
        alert_id: of the alert that it answers, or enough of its beginning; empty: none is named.
        verdict_id: 32 hex digits, where the same judgement may come again; empty: it is a new one.
    """

    account_id: str
    decision: Decision
    why: str
    given_by: str
    source: str = "command"
    about_us: int | None = None
    alert_id: str = ""
    verdict_id: str = ""


def check(judgement: Judgement, now_us: int) -> None:
    """See that a judgement says what one must.

    Raises:
        ConfigError: it does not: what is wrong, and what to do.
    """
    check_id("the account's id", judgement.account_id, ACCOUNT_CHARS_MAX)
    check_text("why (the reason, in words)", judgement.why, WHY_CHARS_MAX)
    check_text("by (who decides)", judgement.given_by, BY_CHARS_MAX)
    if judgement.decision not in DECISIONS:
        raise ConfigError(f"{shown(judgement.decision)} is no verdict: expected one of {', '.join(DECISIONS)}")
    if judgement.about_us is not None and judgement.about_us > now_us + AHEAD_US:
        raise ConfigError("the moment that the verdict speaks of lies in the future: it is of event time")
    if judgement.verdict_id and not _VERDICT_ID.fullmatch(judgement.verdict_id):
        raise ConfigError(f"verdict_id {shown(judgement.verdict_id)}: expected {ID_CHARS} hex digits (0-9, a-f)")


def check_text(what: str, text: str, chars_max: int) -> None:
    """See that a text is there, can be kept, and is no book.

    Raises:
        ConfigError: it is not.
    """
    if not text.strip():
        raise ConfigError(f"{what} is missing")
    check_id(what, text, chars_max)


def check_id(what: str, text: str, chars_max: int) -> None:
    """See that an id can be one: any text but the empty one, also of blanks alone, for so the log may have it.

    Raises:
        ConfigError: it cannot.
    """
    if not text:
        raise ConfigError(f"{what} is missing")
    if len(text) > chars_max:
        raise ConfigError(f"{what} has {len(text):,} characters, and at most {chars_max:,} are kept")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{what} is not valid UTF-8: {shown(text)!a}") from None


def verdict_id_of(*said: str) -> str:
    """Name a judgement by what it says, so that who brings it again changes nothing."""
    text = json.dumps(said, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:ID_CHARS]


def shown(text: str) -> str:
    """A text in an error, on one line: of a very long one its beginning and its length.  What shows it escapes it."""
    text = spelled(text)
    said = text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…({len(text):,} characters)"
    return said.replace("\n", "\\n")


def never_seen(
    account_id: str,
    near: Iterable[str],
    otherwise: str = " and --lake; --anyway records a verdict on it all the same, which teaches the models nothing",
) -> ConfigError:
    """The error about an account of which the lake holds nothing.

    Args:
        account_id: as it was said.
        near: ids that are like it.
        otherwise: what else to look at and to do; follows on "check the id".
    """
    names = ", ".join(map(shown, near))
    hint = f"; near to it are {names}" if names else ""
    return ConfigError(
        f"account {shown(account_id)} was never seen: the lake holds no event and no score of it{hint}. Check the id "
        f"(upper and lower case count, and so do spaces){otherwise}"
    )
