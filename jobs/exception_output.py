"""Exceptions as people and programs read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from jobs import listed
from pipeline.allowing import DAY_US
from pipeline.counted import counted
from pipeline.decisions import AllowEntry
from pipeline.harmless import harmless
from pipeline.reasons import time_in_words

CSV_COLUMNS: Final = (
    "exception_id", "state", "scope", "subject", "rule", "owner", "reason", "created_at", "created_by", "expires_at",
    "ended_at", "ended_by", "suppressed",
)  # fmt: skip

LATELY_DAYS: Final = 7
_NAMED_MAX: Final = 5
_HEAD: Final = ("id", "state", "covers", "rule", "owner", "until (UTC)", "suppressed", "reason", "name")
_RULE, _OWNER, _REASON, _NAME = 3, 4, 7, 8
_GIVE_WAY: Final = (
    (_REASON, 24), (_NAME, 28), (_RULE, 14), (_OWNER, 10), (_REASON, 8), (_NAME, 12), (_RULE, 8), (_REASON, 6),
)  # fmt: skip
_MINUTES: Final = len("2026-03-01 12:00")


def added(entry: AllowEntry) -> str:
    """What was added, in words."""
    return (
        f"exception {entry.exception_id[: listed.ID_SHOWN]}: alerts of {_covers(entry)} are suppressed until "
        f"{time_in_words(entry.expires_at_us)}; {harmless(entry.owner)} answers for it\n"
    )


def ended(entry: AllowEntry, count: int) -> str:
    """What was ended, in words."""
    of = f"exception {entry.exception_id[: listed.ID_SHOWN]} of {harmless(entry.owner)}"
    return f"{of} on {_covers(entry)} is ended; it has suppressed {counted(count, 'alert')}\n"


def over(entry: AllowEntry, now_us: int) -> str:
    """Why an exception cannot be ended."""
    when = time_in_words(entry.ended_at_us or entry.expires_at_us)
    return f"exception {entry.exception_id[: listed.ID_SHOWN]} is over already: {entry.state_at(now_us)} at {when}"


def _covers(entry: AllowEntry) -> str:
    name = listed.shown_account(entry.subject)
    narrowed = f", only rule {harmless(entry.rule)}" if entry.rule else ""
    return f"{entry.scope} {name}{narrowed}"


@dataclass(frozen=True, slots=True)
class Listing:
    """Exceptions, and what is to be shown of them.

    Attributes:
        entries: all, the latest first.
        suppressed: how many alerts each has suppressed, by its id.
        now_us: wall clock.
        every: show those that are over, too.
    """

    entries: Sequence[AllowEntry]
    suppressed: Mapping[str, int]
    now_us: int
    every: bool

    def in_form(self, form: listed.Form) -> Iterable[str]:
        """The list, for people or for programs."""
        shown = [entry for entry in self.entries if self.every or entry.state_at(self.now_us) == "active"]
        return listed.in_form(form, CSV_COLUMNS, map(self._object, shown), lambda width: self._as_table(shown, width))

    def _as_table(self, shown: Sequence[AllowEntry], width: int | None) -> str:
        lines = listed.table(_HEAD, [self._row(entry) for entry in shown], width, _GIVE_WAY) if shown else []
        kind = "" if self.every else "active "
        lines.append(f"({counted(len(shown), f'{kind}exception')})")
        return "".join(f"{line}\n" for line in [*lines, *([] if self.every else self._over())])

    def _over(self) -> list[str]:
        """Which have expired of late: nobody is to find out by the alerts alone."""
        gone = [entry for entry in self.entries if entry.state_at(self.now_us) != "active"]
        expired = [entry for entry in gone if entry.state_at(self.now_us) == "expired"]
        lately = [entry for entry in expired if entry.expires_at_us > self.now_us - LATELY_DAYS * DAY_US]
        lines = [
            f"expired {time_in_words(entry.expires_at_us)[:_MINUTES]}: {entry.exception_id[: listed.ID_SHOWN]} of "
            f"{harmless(entry.owner)}, {_covers(entry)}; alerts of it are delivered again"
            for entry in lately[:_NAMED_MAX]
        ]
        return [*lines, f"({len(gone):,} that expired or were ended: --all shows them)"] if gone else []

    def _row(self, entry: AllowEntry) -> tuple[str, ...]:
        return (
            entry.exception_id[: listed.ID_SHOWN],
            entry.state_at(self.now_us) if self.every else "",
            entry.scope,
            harmless(entry.rule),
            harmless(entry.owner),
            time_in_words(entry.ended_at_us or entry.expires_at_us)[:_MINUTES],
            f"{self.suppressed.get(entry.exception_id, 0):,}",
            harmless(" ".join(entry.reason.split())),
            listed.shown_account(entry.subject),
        )

    def _object(self, entry: AllowEntry) -> dict[str, Any]:
        ended_at = entry.ended_at_us
        return {
            "exception_id": entry.exception_id,
            "state": entry.state_at(self.now_us),
            "scope": entry.scope,
            "subject": entry.subject,
            "rule": entry.rule or None,
            "owner": entry.owner,
            "reason": entry.reason,
            "created_at": listed.rfc3339(entry.created_at_us),
            "created_by": entry.created_by,
            "expires_at": listed.rfc3339(entry.expires_at_us),
            "ended_at": None if ended_at is None else listed.rfc3339(ended_at),
            "ended_by": entry.ended_by or None,
            "suppressed": self.suppressed.get(entry.exception_id, 0),
        }
