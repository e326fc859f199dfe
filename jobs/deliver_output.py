"""How deliveries stand, as people and programs read it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from jobs.consoles import console
from pipeline.counted import counted
from pipeline.delivery.records import DeliveryState, SinkState
from pipeline.harmless import harmless
from pipeline.moments import rfc3339

_US_PER_S = 1_000_000
_WORDS = {
    "new": ("alert has", "alerts have", "no place in the log yet: `stillwatch deliver` gives one"),
    "suppressed": ("alert was", "alerts were", "suppressed by an exception when raised, and sent to nobody"),
    "unclear": (
        "alert",
        "alerts",
        "may have been sent before the catalog was made anew: `deliver replay --unclear` sends again",
    ),
    "past": (
        "alert was",
        "alerts were",
        "raised by a backfill, and nobody asked to send: `deliver replay --past` does",
    ),
}


def as_json(state: DeliveryState, new: Sequence[str]) -> str:
    """All of it as one object; times in RFC 3339."""
    return json.dumps(
        {
            "sinks": [_timed(asdict(sink)) for sink in state.sinks],
            "never_started": list(new),
            "outbox": dict(state.outbox),
            "dead": [_timed(asdict(one)) for one in state.dead],
        }
    )


def _timed(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name.removesuffix("_us"): rfc3339(value) if name.endswith("_us") and value is not None else value
        for name, value in row.items()
    }


def show(state: DeliveryState, new: Sequence[str], now_us: int) -> None:
    """Print it as tables and sentences."""
    out = console()
    columns = (
        "sink",
        "state",
        "waiting",
        "oldest",
        "sent",
        "in digests",
        "digests",
        "dead",
        "suppressed",
        "last success",
        "held by",
    )
    table = Table(*columns)
    for name in columns[2:9]:
        table.columns[columns.index(name)].justify = "right"
    for sink in state.sinks:
        table.add_row(*map(Text, _row(sink, now_us)))
    for name in new:
        table.add_row(Text(name), Text("never started"), *[Text("–")] * (len(columns) - 2))
    out.print(table)
    for sink in state.sinks:
        if sink.failures:
            out.print(Text(_failing(sink, now_us)))
    if state.dead:
        out.print(Text("dead, the latest first (`stillwatch deliver replay` sends them again):"))
        dead = Table("sink", "alert or digest", "alerts", "attempts", "given up", "why")
        for one in state.dead:
            why, tries = harmless(one.error), str(one.attempts or "–")
            dead.add_row(*map(Text, (one.sink, one.key, f"{one.alerts:,}", tries, _ago(one.at_us, now_us), why)))
        out.print(dead)
    for note in notes(state):
        out.print(Text(note))


def forgotten(sink: SinkState, *, applied: bool) -> str:
    """What goes, or would go, with a sink."""
    waits = f"{counted(sink.waiting, 'alert')} waiting for it and {_dead(sink)} dead"
    if applied:
        return f"sink {harmless(sink.sink)} is forgotten, with {waits}"
    return f"sink {harmless(sink.sink)} has {waits}; --apply forgets all of it, and none is sent to it"


def notes(state: DeliveryState) -> list[str]:
    """What is to be said of alerts that are at no sink."""
    return [
        f"{counted(count, one, several)} {rest}"
        for name, (one, several, rest) in _WORDS.items()
        if (count := state.outbox.get(name, 0))
    ]


def _row(sink: SinkState, now_us: int) -> tuple[str, ...]:
    held = f"{sink.holder.rpartition(':')[0]}" if sink.holder and (sink.held_until_us or 0) > now_us else "nobody"
    return (
        sink.sink, _state(sink), f"{sink.waiting:,}",
        "–" if sink.oldest_waiting_us is None else _ago(sink.oldest_waiting_us, now_us), f"{sink.sent:,}",
        f"{sink.digested:,}", f"{sink.digests:,}", _dead(sink), f"{sink.suppressed:,}",
        "never" if sink.sent_at_us is None else _ago(sink.sent_at_us, now_us), held,
    )  # fmt: skip


def _dead(sink: SinkState) -> str:
    return f"{sink.dead:,}" + (f" + {counted(sink.dead_digests, 'digest')}" if sink.dead_digests else "")


def _state(sink: SinkState) -> str:
    if not sink.configured:
        return "not in the settings"
    return "failing" if sink.failures else "well"


def _failing(sink: SinkState, now_us: int) -> str:
    left_s = max(0.0, ((sink.next_try_us or 0) - now_us) / _US_PER_S)
    when = f"next try in {left_s:.0f} s" if left_s else "next try at once"
    return f"{sink.sink}: {harmless(sink.error)}; failed {counted(sink.failures, 'time')} in a row, {when}"


def _ago(time_us: int, now_us: int) -> str:
    seconds = max(0, now_us - time_us) // _US_PER_S
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size:,} {unit} ago"
    return f"{seconds} s ago"
