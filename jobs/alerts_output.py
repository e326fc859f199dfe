"""Alerts as people and programs read them: a table, words, CSV, JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from rich.cells import cell_len

from jobs import listed
from pipeline.alert_json import as_object
from pipeline.alerts import Alert
from pipeline.counted import counted
from pipeline.decisions import AllowEntry
from pipeline.harmless import harmless
from pipeline.io.desk.standing import Standing
from pipeline.moments import rfc3339
from pipeline.reasons import number_in_words, time_in_words
from pipeline.sql_text import literal

TEXT_CELLS: Final = 80
"""Width of words where no terminal has one."""


CSV_COLUMNS: Final = (
    "alert_id", "raised_at", "severity", "state", "rule", "rule_version", "entity_type", "entity_id", "risk",
    "exchanges", "output_tokens", "first_seen", "window_start", "topic", "partition", "offset", "reasons",
    "delivery", "suppressed_by", "claimed_by", "verdict",
)  # fmt: skip

Standings = Mapping[str, Standing]
NOWHERE: Final[Standings] = {}
_UNKNOWN: Final = Standing()


def as_table(
    alerts: Sequence[Alert], width: int | None, *, state: str, more: bool, standing: Standings = NOWHERE
) -> str:
    """A line for each alert, none wider than the terminal, and a line that counts them.

    Args:
        alerts: the latest first.
        width: of the terminal, in cells; None if nothing bounds it.  Below 80 lines are as for 80.
        state: that was asked for: `live`, `shadow` or `all`.
        more: there are more than these.
        standing: how they stand, by their ids.
    """
    if not alerts:
        hint = "" if state == "all" else "; --state all looks at live and shadow rules"
        return f"no {'' if state == 'all' else f'{state} '}alerts{hint}\n"
    head = ("id", "raised (UTC)", "severity", "state", "risk", "rule", "desk", "account")
    rows = [_row(alert, standing.get(alert.alert_id, _UNKNOWN)) for alert in alerts]
    widths = [max(map(cell_len, column)) for column in zip(head, *rows, strict=True)]
    if state != "all":
        widths[_STATE] = 0  # all the same: left out
    if not any(row[_DESK] for row in rows):
        widths[_DESK] = 0
    if width is not None:
        listed.fit(widths, width, _GIVE_WAY)
    accounts = [listed.shown_account(alert.entity_id, widths[_ACCOUNT]) for alert in alerts]
    shown = [(*row[:-1], who) for row, who in zip(rows, accounts, strict=True)]
    lines = [listed.line(cells, widths) for cells in (head, *shown)]
    count = counted(len(alerts), "alert")
    lines.append(f"(the latest {count}; --limit 0 shows all)" if more else f"({count})")
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _row(alert: Alert, standing: Standing) -> tuple[str, ...]:
    return (
        alert.alert_id[: listed.ID_SHOWN],
        time_in_words(alert.raised_at_us)[:_MINUTES],
        alert.severity,
        alert.state,
        "–" if alert.risk is None else f"{alert.risk:.2f}",
        harmless(alert.rule),
        _at_desk(standing),
        listed.shown_account(alert.entity_id),
    )


_MINUTES: Final = len("2026-03-01 12:00")
_SEVERITY, _STATE, _RULE, _DESK, _ACCOUNT = 2, 3, 5, 6, 7

_GIVE_WAY: Final = (
    (_ACCOUNT, 28), (_DESK, 24), (_RULE, 21), (_ACCOUNT, 20), (_DESK, 16), (_RULE, 14), (_ACCOUNT, 16), (_SEVERITY, 8),
    (_RULE, 10), (_DESK, 10), (_ACCOUNT, 8),
)  # fmt: skip
"""Which column is made narrower, to what, one after the other until all fit."""


def _at_desk(standing: Standing) -> str:
    """What people have to do with an alert, in a few words: the weightiest first."""
    said = []
    if standing.verdict is not None:
        said.append(f"{standing.verdict.decision} by {standing.verdict.given_by}")
    if standing.covered_by is not None:
        said.append("suppressed")
    if standing.holder:
        said.append(f"claimed by {standing.holder}")
    return harmless(", ".join(said))


def as_text(alert: Alert, width: int, standing: Standing = _UNKNOWN) -> str:
    """One alert in words.

    Args:
        alert: the alert.
        width: cells of a line; longer words are left whole.
        standing: how it stands.
    """
    facts = (
        ("rule", f"{harmless(alert.rule)}, version {alert.rule_version}, {alert.state}"),
        ("severity", alert.severity),
        ("raised", f"{time_in_words(alert.raised_at_us)} (event time)"),
        ("since", f"{time_in_words(alert.first_seen_us)} (first seen)"),
        ("taken", f"{counted(alert.exchanges, 'exchange')}, {counted(alert.output_tokens, 'output token')} until then"),
        ("risk", number_in_words(alert.risk)),
        ("where", f"{harmless(alert.topic)}, partition {alert.partition}, raised by offset {alert.offset}"),
    )
    desk = list(_desk_facts(standing))
    account = f"  account   {listed.shown_account(alert.entity_id)}"  # on one line, to be copied
    lines = [f"alert {alert.alert_id}", account, *_pairs(facts, width), "", "why, and what to do"]
    lines += [line for reason in alert.reasons for line in _wrapped("- ", harmless(" ".join(reason.split())), width)]
    if desk:
        lines += ["", "at the desk", *_pairs(desk, width)]
    if alert.features:
        lines += ["", "numbers"]
        lines += _pairs([(harmless(name), number_in_words(value)) for name, value in alert.features.items()], width)
    lines += ["", "its requests, in `stillwatch sql`", *_wrapped("", requests_query(alert), width)]
    if alert.versions:
        lines += ["", "made by"]
        lines += _pairs([(harmless(name), harmless(value)) for name, value in alert.versions.items()], width)
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _desk_facts(standing: Standing) -> Iterator[tuple[str, str]]:
    """What people have decided, in words."""
    if standing.covered_by is not None:
        yield "suppressed", f"by {_in_words(standing.covered_by)}: it is delivered to nobody"
    if standing.lapsed is not None:
        entry = standing.lapsed
        how = f"ended by {entry.ended_by}" if entry.ended_by else "expired"
        yield "not covered", f"{_in_words(entry)} covered this until then, and had {how} when the alert came"
    if standing.delivery:
        yield "delivery", standing.delivery
    if standing.holder:
        yield "claimed", f"by {harmless(standing.holder)}"
    verdict = standing.verdict
    if verdict is not None:
        when = time_in_words(verdict.given_at_us)
        yield "verdict", harmless(f"{verdict.decision}, by {verdict.given_by}, {when}: {' '.join(verdict.why.split())}")


def _in_words(entry: AllowEntry) -> str:
    """An exception in words."""
    of = "" if entry.scope == "account" else f" on {entry.scope} {listed.shown_account(entry.subject)}"
    rule = f" for rule {entry.rule}" if entry.rule and entry.scope != "rule" else ""
    until = time_in_words(entry.ended_at_us or entry.expires_at_us)
    reason = " ".join(entry.reason.split())
    return harmless(f"exception {entry.exception_id[:8]} of {entry.owner}{of}{rule} until {until} ({reason})")


def _pairs(pairs: Sequence[tuple[str, str]], width: int) -> list[str]:
    margin = max(cell_len(name) for name, _ in pairs)
    return [
        line for name, text in pairs for line in _wrapped(f"{name}{' ' * (margin - cell_len(name))}  ", text, width)
    ]


def _wrapped(head: str, text: str, width: int) -> list[str]:
    """Text in lines, its head before the first and as much space before the others."""
    return textwrap.wrap(
        text, max(width, len(head) + 20), initial_indent=f"  {head}", subsequent_indent=" " * (len(head) + 2),
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def requests_query(alert: Alert) -> str:
    """What lists the requests behind an alert; of an id that cannot be shown as it is, by their place in the topic."""
    plain = harmless(alert.entity_id) == alert.entity_id and len(alert.entity_id) <= listed.ACCOUNT_CHARS_MAX
    # Two spaces would be lost where lines are wrapped.
    whose = plain and alert.entity_id.split(" ") == alert.entity_id.split()
    account = f"account_id = {literal(alert.entity_id)}" if whose else f"account_id = ({_by_place(alert)})"
    # By place, not by time: what counted by then had come by then, however it is dated.
    where = f'topic = {literal(alert.topic)} AND "partition" = {alert.partition} AND "offset" <= {alert.offset}'
    day = rfc3339(alert.first_seen_us - _LATE_US)[:10]
    return f'FROM access WHERE {account} AND {where} AND dt >= {literal(day)} ORDER BY "offset"'


def _by_place(alert: Alert) -> str:
    day = rfc3339(alert.raised_at_us - _CLOCK_LAG_US)[:10]
    where = f'topic = {literal(alert.topic)} AND "partition" = {alert.partition} AND "offset" = {alert.offset}'
    return f"SELECT account_id FROM access WHERE {where} AND dt >= {literal(day)}"  # noqa: S608  # shown, never run here


_LATE_US: Final = 8 * 24 * 3_600_000_000
"""How much older than its account's clock a record may be dated and still be listed; it spares a look at older days."""

_CLOCK_LAG_US: Final = 24 * 3_600_000_000
"""The record that moved an account's clock may itself be dated earlier: event times come out of order."""


def _as_object(alert: Alert, standing: Standing = _UNKNOWN) -> dict[str, Any]:
    """All of an alert, by the names of the lake's table `alerts`, and how it stands; times in RFC 3339."""
    return as_object(alert) | {
        "delivery": standing.delivery or None,
        "suppressed_by": standing.covered_by.exception_id if standing.covered_by else None,
        "claimed_by": standing.holder or None,
        "verdict": standing.verdict.decision if standing.verdict else None,
    }


def as_json_object(alert: Alert, standing: Standing = _UNKNOWN) -> str:
    """One alert as a JSON object; everything but ASCII is written out."""
    return json.dumps(_as_object(alert, standing), indent=2) + "\n"


def as_json(alerts: Sequence[Alert], standing: Standings = NOWHERE) -> Iterator[str]:
    """Alerts as a JSON array in pieces, an object a line; everything but ASCII is written out."""
    return listed.as_json(_as_object(alert, standing.get(alert.alert_id, _UNKNOWN)) for alert in alerts)


def as_csv(alerts: Sequence[Alert], standing: Standings = NOWHERE) -> Iterator[str]:
    """Alerts as CSV in pieces (RFC 4180 with line feeds); what is null is empty, and each reason a line of its cell."""
    rows = (_as_object(alert, standing.get(alert.alert_id, _UNKNOWN)) for alert in alerts)
    return listed.as_csv(CSV_COLUMNS, ({**row, "reasons": "\n".join(row["reasons"])} for row in rows))
