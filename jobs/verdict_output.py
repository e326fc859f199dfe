"""Verdicts as people and programs read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from jobs import listed
from pipeline.counted import counted
from pipeline.decisions import Verdict
from pipeline.harmless import harmless
from pipeline.reasons import number_in_words, time_in_words

CSV_COLUMNS: Final = (
    "seq", "given_at", "account_id", "decision", "why", "given_by", "source", "about", "alert_id", "scored_at", "risk",
    "verdict_id",
)  # fmt: skip

_HEAD: Final = ("given (UTC)", "verdict", "by", "row", "why", "account")
_GIVE_WAY: Final = ((4, 30), (5, 28), (2, 12), (5, 16), (4, 12))
_MINUTES: Final = len("2026-03-01 12:00")


def given(verdict: Verdict, before: Verdict | None) -> str:
    """What a verdict did, in words."""
    account = listed.shown_account(verdict.account_id)
    lines = [f"{verdict.decision}: {account}, by {harmless(verdict.given_by)}"]
    if before is not None:
        when = time_in_words(before.given_at_us)
        lines.append(f"  in the place of {before.decision}, given by {harmless(before.given_by)}, {when}")
    if verdict.alert_id:
        lines.append(f"  answers alert {verdict.alert_id[: listed.ID_SHOWN]}")
    if verdict.decision == "withdrawn":
        lines.append("  no verdict on the account stands any more; the former ones stay on record")
    elif verdict.unread:
        lines += [
            f"  {harmless(verdict.unread)} cannot be read, and may hold what was",
            "  stored of the account then: the verdict is on record without it, and the models learn nothing from it.",
            "  `stillwatch maintain verify` says what is broken; when the file is restored, give the verdict again",
        ]
    elif verdict.row is None:
        lines.append("  nothing was stored of the account then, so the models learn nothing from it")
    else:
        risk = number_in_words(verdict.row.risk)
        lines.append(
            f"  joined to its features as of {time_in_words(verdict.row.scored_at_us)}, when its risk was {risk}"
        )
    return "".join(f"{line}\n" for line in lines)


def as_list(verdicts: Sequence[Verdict], form: listed.Form, *, more: bool) -> Iterable[str]:
    """Verdicts in a form, the latest first."""
    return listed.in_form(
        form, CSV_COLUMNS, map(_as_object, verdicts), lambda width: _as_table(verdicts, width, more=more)
    )


def _as_table(verdicts: Sequence[Verdict], width: int | None, *, more: bool) -> str:
    if not verdicts:
        return "no verdicts\n"
    lines = listed.table(_HEAD, [_row(verdict) for verdict in verdicts], width, _GIVE_WAY)
    count = counted(len(verdicts), "verdict")
    lines.append(f"(the latest {count}; --limit 0 shows all)" if more else f"({count})")
    return "".join(f"{line}\n" for line in lines)


def _row(verdict: Verdict) -> tuple[str, ...]:
    return (
        time_in_words(verdict.given_at_us)[:_MINUTES],
        verdict.decision,
        harmless(verdict.given_by),
        "none" if verdict.row is None else time_in_words(verdict.row.scored_at_us)[:_MINUTES],
        harmless(" ".join(verdict.why.split())),
        listed.shown_account(verdict.account_id),
    )


def _as_object(verdict: Verdict) -> dict[str, Any]:
    row = verdict.row
    return {
        "seq": verdict.seq,
        "given_at": listed.rfc3339(verdict.given_at_us),
        "account_id": verdict.account_id,
        "decision": verdict.decision,
        "why": verdict.why,
        "given_by": verdict.given_by,
        "source": verdict.source,
        "about": None if verdict.about_us is None else listed.rfc3339(verdict.about_us),
        "alert_id": verdict.alert_id or None,
        "scored_at": None if row is None else listed.rfc3339(row.scored_at_us),
        "risk": None if row is None else row.risk,
        "features": None if row is None else dict(row.features),
        "verdict_id": verdict.verdict_id,
    }


def loaded(verdicts: Sequence[Verdict], there: int, *, dry_run: bool) -> str:
    """What a file did, in words."""
    new = len(verdicts) - there
    if not verdicts:
        return "the file holds no verdict\n"
    counts = ", ".join(f"{count:,} {decision}" for decision, count in sorted(_decisions(verdicts).items()))
    did = "would be given" if dry_run else "given"
    said = f"{counted(new, 'verdict')} {did}"
    said += f", {there:,} on record already" if there else ""
    without = sum(
        verdict.row is None and not verdict.unread and verdict.decision != "withdrawn" for verdict in verdicts
    )
    note = (
        f"; {without:,} of accounts that nothing was stored of, from which the models learn nothing" if without else ""
    )
    return f"{said} (in the file: {counts}{note})\n{_unread_in_words({one.unread for one in verdicts if one.unread})}"


def _unread_in_words(paths: Iterable[str]) -> str:
    return "".join(
        f"  {harmless(path)} cannot be read: verdicts that speak of what it may hold are without it, and the models "
        "learn nothing from them; `stillwatch maintain verify` says what is broken\n"
        for path in sorted(paths)
    )


def _decisions(verdicts: Sequence[Verdict]) -> Counter[str]:
    return Counter(verdict.decision for verdict in verdicts)


def heard(given_count: int, refused: int, without_row: int) -> str:
    """What a topic brought, in words."""
    said = f"{counted(given_count, 'verdict')} given"
    said += f", {without_row:,} of them without stored features" if without_row else ""
    hint = "; `stillwatch audit --action verdict.refused` says where they lie" if refused else ""
    return f"{said}, {counted(refused, 'record')} refused{hint}\n"
