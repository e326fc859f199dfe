"""Alerts as people and programs read them: a table, words, CSV, JSON."""

from __future__ import annotations

import csv
import io
import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, Final

from rich.cells import cell_len, set_cell_size

from jobs.harmless import harmless
from pipeline.alert_json import as_object, rfc3339
from pipeline.alerts import Alert
from pipeline.reasons import number_in_words, time_in_words

TEXT_CELLS: Final = 80
"""Width of words where no terminal has one."""

TABLE_CELLS_MIN: Final = 80

ID_SHOWN: Final = 8
"""Characters of an id in a table: two of ten thousand alerts share them once in a hundred times."""

ACCOUNT_CHARS_MAX: Final = 100
"""Longer account ids are cut for display; JSON and CSV have them whole."""

_ESCAPED_CELLS_MAX: Final = 10 * ACCOUNT_CHARS_MAX  # all of them written out as \\U000e0001
_GAP: Final = "  "

CSV_COLUMNS: Final = (
    "alert_id", "raised_at", "severity", "state", "rule", "rule_version", "entity_type", "entity_id", "risk",
    "exchanges", "output_tokens", "first_seen", "window_start", "topic", "partition", "offset", "reasons",
)  # fmt: skip


def shown_account(account: str, cells: int = _ESCAPED_CELLS_MAX) -> str:
    """An account's id for display: nothing in it is obeyed, and of a very long one the length is said."""
    text = harmless(account[: ACCOUNT_CHARS_MAX + 1])
    if len(account) <= ACCOUNT_CHARS_MAX:
        return _cut(text, cells)
    length = f"…({len(account):,} chars)"
    room = cells - cell_len(length)
    return f"{set_cell_size(text, min(room, ACCOUNT_CHARS_MAX)).rstrip()}{length}" if room > 0 else _cut(text, cells)


def as_table(alerts: Sequence[Alert], width: int | None, *, state: str, more: bool) -> str:
    """A line for each alert, none wider than the terminal, and a line that counts them.

    Args:
        alerts: the latest first.
        width: of the terminal, in cells; None if nothing bounds it.  Below 80 lines are as for 80.
        state: that was asked for: `live`, `shadow` or `all`.
        more: there are more than these.
    """
    if not alerts:
        hint = "" if state == "all" else "; --state all looks at live and shadow rules"
        return f"no {'' if state == 'all' else f'{state} '}alerts{hint}\n"
    head = ("id", "raised (UTC)", "severity", "state", "risk", "rule", "account")
    rows = [_row(alert) for alert in alerts]
    widths = [max(map(cell_len, column)) for column in zip(head, *rows, strict=True)]
    if state != "all":
        widths[_STATE] = 0  # all the same: left out
    if width is not None:
        _fit(widths, max(width, TABLE_CELLS_MIN))
    accounts = [shown_account(alert.entity_id, widths[_ACCOUNT]) for alert in alerts]
    lines = [_line(head, widths), *(_line((*row[:-1], who), widths) for row, who in zip(rows, accounts, strict=True))]
    count = f"{len(alerts):,} alert{'' if len(alerts) == 1 else 's'}"
    lines.append(f"(the latest {count}; --limit 0 shows all)" if more else f"({count})")
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _row(alert: Alert) -> tuple[str, ...]:
    return (
        alert.alert_id[:ID_SHOWN],
        time_in_words(alert.raised_at_us)[:_MINUTES],
        alert.severity,
        alert.state,
        "–" if alert.risk is None else f"{alert.risk:.2f}",
        harmless(alert.rule),
        shown_account(alert.entity_id),
    )


_MINUTES: Final = len("2026-03-01 12:00")
_SEVERITY, _STATE, _RISK, _RULE, _ACCOUNT = 2, 3, 4, 5, 6

_GIVE_WAY: Final = (
    (_ACCOUNT, 28), (_RULE, 21), (_ACCOUNT, 20), (_RULE, 14), (_ACCOUNT, 16), (_SEVERITY, 8), (_RULE, 10),
)  # fmt: skip
"""Which column is made narrower, to what, one after the other until all fit."""


def _fit(widths: list[int], width: int) -> None:
    room = width - len(_GAP) * (sum(map(bool, widths)) - 1)
    for column, least in _GIVE_WAY:
        excess = sum(widths) - room
        if excess > 0:
            widths[column] = max(min(widths[column], least), widths[column] - excess)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    cut = [(_cut(text, width), width) for text, width in zip(cells, widths, strict=True) if width]
    return _GAP.join(text + " " * (width - cell_len(text)) for text, width in cut)


def _cut(text: str, cells: int) -> str:
    return text if cell_len(text) <= cells else set_cell_size(text, cells - 1) + "…"


def as_text(alert: Alert, width: int) -> str:
    """One alert in words.

    Args:
        alert: the alert.
        width: cells of a line; longer words are left whole.
    """
    facts = (
        ("rule", f"{harmless(alert.rule)}, version {alert.rule_version}, {alert.state}"),
        ("severity", alert.severity),
        ("raised", f"{time_in_words(alert.raised_at_us)} (event time)"),
        ("since", f"{time_in_words(alert.first_seen_us)} (first seen)"),
        ("taken", f"{alert.exchanges:,} exchanges, {alert.output_tokens:,} output tokens until then"),
        ("risk", number_in_words(alert.risk)),
        ("where", f"{harmless(alert.topic)}, partition {alert.partition}, raised by offset {alert.offset}"),
    )
    account = f"  account   {shown_account(alert.entity_id)}"  # on one line, to be copied
    lines = [f"alert {alert.alert_id}", account, *_pairs(facts, width), "", "why, and what to do"]
    lines += [line for reason in alert.reasons for line in _wrapped("- ", harmless(" ".join(reason.split())), width)]
    if alert.features:
        lines += ["", "numbers"]
        lines += _pairs([(harmless(name), number_in_words(value)) for name, value in alert.features.items()], width)
    lines += ["", "its requests, in `stillwatch sql`", *_wrapped("", _query(alert), width)]
    if alert.versions:
        lines += ["", "made by"]
        lines += _pairs([(harmless(name), harmless(value)) for name, value in alert.versions.items()], width)
    return "".join(f"{line.rstrip()}\n" for line in lines)


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


def _query(alert: Alert) -> str:
    """What lists the requests behind an alert; of an id that cannot be shown as it is, by their place in the topic."""
    plain = harmless(alert.entity_id) == alert.entity_id and len(alert.entity_id) <= ACCOUNT_CHARS_MAX
    # Two spaces would be lost where lines are wrapped.
    whose = plain and alert.entity_id.split(" ") == alert.entity_id.split()
    account = f"account_id = {_quoted(alert.entity_id)}" if whose else f"account_id = ({_by_place(alert)})"
    # By place, not by time: what counted by then had come by then, however it is dated.
    where = f'topic = {_quoted(alert.topic)} AND "partition" = {alert.partition} AND "offset" <= {alert.offset}'
    day = rfc3339(alert.first_seen_us - _LATE_US)[:10]
    return f'FROM access WHERE {account} AND {where} AND dt >= {_quoted(day)} ORDER BY "offset"'


def _by_place(alert: Alert) -> str:
    day = rfc3339(alert.raised_at_us - _CLOCK_LAG_US)[:10]
    where = f'topic = {_quoted(alert.topic)} AND "partition" = {alert.partition} AND "offset" = {alert.offset}'
    return f"SELECT account_id FROM access WHERE {where} AND dt >= {_quoted(day)}"  # noqa: S608  # shown, never run here


_LATE_US: Final = 8 * 24 * 3_600_000_000
"""How much older than its account's clock a record may be dated and still be listed; it spares a look at older days."""

_CLOCK_LAG_US: Final = 24 * 3_600_000_000
"""The record that moved an account's clock may itself be dated earlier: event times come out of order."""


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def as_json_object(alert: Alert) -> str:
    """One alert as a JSON object; everything but ASCII is written out."""
    return json.dumps(as_object(alert), indent=2) + "\n"


def as_json(alerts: Sequence[Alert]) -> str:
    """Alerts as a JSON array, an object a line; everything but ASCII is written out."""
    return "[" + ",".join(f"\n{json.dumps(as_object(alert))}" for alert in alerts) + ("\n]\n" if alerts else "]\n")


def as_csv(alerts: Sequence[Alert]) -> str:
    """Alerts as CSV (RFC 4180 with line feeds); nothing is null, and each reason a line of its cell."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    writer.writerows(_csv_rows(alerts))
    return out.getvalue()


def _csv_rows(alerts: Sequence[Alert]) -> Iterator[list[Any]]:
    for alert in alerts:
        row = as_object(alert)
        yield [*(row[name] for name in CSV_COLUMNS[:-1]), "\n".join(alert.reasons)]
