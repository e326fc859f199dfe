"""An exception as somebody asks for it, before it is on record.

Pure: nothing here touches the world.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Final

from pipeline.decisions import AllowEntry, Scope
from pipeline.errors import ConfigError
from pipeline.judging import check_id, check_text, shown

SUBJECT_CHARS_MAX: Final = 100_000
REASON_CHARS_MAX: Final = 10_000
OWNER_CHARS_MAX: Final = 200
DAY_US: Final = 86_400_000_000


def subject_of(account: str, organisation: str, rule: str) -> tuple[Scope, str, str]:
    """What an exception speaks of: scope, subject, and the rule that it is narrowed to.

    Spaces around the name of an organisation or a rule are those of whoever pasted it.  An account's id may have them:
    it is left as it is, and whether there is such an account is for who asks to see.

    Raises:
        ConfigError: of nothing, or of two things.
    """
    organisation, rule = organisation.strip(), rule.strip()
    if account and organisation:
        raise ConfigError("an exception speaks of an account or of an organisation: make one for each")
    if account or organisation:
        return ("account", account, rule) if account else ("organisation", organisation, rule)
    if not rule:
        raise ConfigError(
            "name what it covers: an account, an organisation or a rule, or one of the first two and a rule"
        )
    return "rule", rule, ""


def check(entry: AllowEntry, now_us: int, days_max: int) -> None:
    """See that an exception says what one must.

    Raises:
        ConfigError: it does not: what is wrong, and what to do.
    """
    check_subject = check_id if entry.scope == "account" else check_text
    check_subject(f"the {entry.scope}'s name", entry.subject, SUBJECT_CHARS_MAX)
    check_text("the owner (who answers for it)", entry.owner, OWNER_CHARS_MAX)
    check_text("the reason", entry.reason, REASON_CHARS_MAX)
    check_text("by (who makes it)", entry.created_by, OWNER_CHARS_MAX)
    if entry.expires_at_us <= now_us:
        raise ConfigError("it would have expired already: name a later end")
    if entry.expires_at_us > now_us + days_max * DAY_US:
        raise ConfigError(
            f"it would hold for more than {days_max} days, which is the most (setting exception_days_max): whoever "
            "still needs it then makes another"
        )


def check_rule(name: str, known: Sequence[str]) -> None:
    """See that there is a rule of this name.

    Raises:
        ConfigError: there is none.
    """
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise ConfigError(f"there is no rule {shown(name)}: {hint} (--rules names the files of others)")
