"""A parcel as a message of Slack: Block Kit, for an incoming webhook.

Every text is of the type `plain_text`, in which `*`, `_` and `~` mean nothing, and `&`, `<` and `>` are written out
as Slack asks, so that an account called `<!channel>` calls nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pipeline.alerts import Alert
from pipeline.counted import counted
from pipeline.delivery.parcels import AlertParcel, DigestParcel, Parcel, see_all, see_one
from pipeline.delivery.words import shown
from pipeline.harmless import harmless
from pipeline.reasons import number_in_words, time_in_words

_HEADER_MAX: Final = 150
_SECTION_MAX: Final = 3000
_FIELD_MAX: Final = 2000
_TEXT_MAX: Final = 3000
_WRITTEN_OUT: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def as_message(parcel: Parcel) -> dict[str, Any]:
    """The message; Slack keeps no ids, so the same parcel again is shown again."""
    blocks = _digest(parcel) if isinstance(parcel, DigestParcel) else _alert(parcel)
    severity = parcel.severity if isinstance(parcel, DigestParcel) else parcel.alert.severity
    return {
        "text": escaped(f"[{severity}] {parcel.title}", _TEXT_MAX),
        "mrkdwn": False,
        "unfurl_links": False,
        "unfurl_media": False,
        "blocks": [_header(f"[{severity}] {parcel.title}"), *blocks],
    }


def _alert(parcel: AlertParcel) -> list[dict[str, Any]]:
    alert = parcel.alert
    facts = (
        f"{alert.entity_type}\n{shown(alert.entity_id)}",
        f"risk\n{number_in_words(alert.risk)}",
        f"taken\n{counted(alert.exchanges, 'exchange')}, {counted(alert.output_tokens, 'output token')}",
        f"since\n{time_in_words(alert.first_seen_us)}",
        f"raised\n{time_in_words(alert.raised_at_us)}",
        f"rule\n{alert.rule}, version {alert.rule_version}",
    )
    blocks = [_fields(facts), _section("\n".join(f"• {reason}" for reason in alert.reasons))]
    if parcel.rule:
        blocks.append(_context(f"{', '.join(parcel.rule.atlas) or 'no ATLAS id'} · owner: {parcel.rule.owner}"))
    blocks.append(_context(see_one(alert.alert_id)))
    if parcel.link:
        text = {"type": "plain_text", "text": "Open the alert", "emoji": False}
        blocks.append({"type": "actions", "elements": [{"type": "button", "text": text, "url": parcel.link}]})
    return blocks


def _digest(digest: DigestParcel) -> list[dict[str, Any]]:
    rules = [f"{count:,} × {rule}" for rule, count in digest.rules]
    if digest.rules_count > len(digest.rules):
        rules.append(f"and {digest.rules_count - len(digest.rules):,} more rules")
    facts = (
        "severity\n" + "\n".join(f"{count:,} × {severity}" for severity, count in digest.severities.items()),
        "rules\n" + "\n".join(rules),
        "accounts with most\n" + "\n".join(f"{count:,} × {shown(account)}" for account, count in digest.accounts),
        f"raised\n{time_in_words(digest.first_raised_us)}\nto {time_in_words(digest.last_raised_us)}",
    )
    worst = "\n".join(map(_line, digest.worst))
    return [_fields(facts), _section(f"the gravest of them\n{worst}"), _context(f"all of them: {see_all(digest)}")]


def _line(alert: Alert) -> str:
    return f"• {alert.alert_id} {alert.severity}, {alert.rule}, {shown(alert.entity_id)}"


def _header(text: str) -> dict[str, Any]:
    return {"type": "header", "text": _text(text, _HEADER_MAX)}


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": _text(text, _SECTION_MAX)}


def _fields(texts: Sequence[str]) -> dict[str, Any]:
    return {"type": "section", "fields": [_text(text, _FIELD_MAX) for text in texts]}


def _context(text: str) -> dict[str, Any]:
    return {"type": "context", "elements": [_text(text, _FIELD_MAX)]}


def _text(text: str, most: int) -> dict[str, Any]:
    return {"type": "plain_text", "text": escaped(text, most), "emoji": False}


def escaped(text: str, most: int) -> str:
    """Text that Slack shows as it is, of so many characters at most; an escape is never cut in two."""
    parts: list[str] = []
    room = most - 1
    for character in harmless(text, keep="\n"):
        part = _WRITTEN_OUT.get(character, character)
        room -= len(part)
        if room < 0:
            return "".join([*parts, "…"])
        parts.append(part)
    return "".join(parts) or "–"
