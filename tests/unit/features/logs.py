"""Made-up logs for the tests of features: orderly ones, and nasty ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.events import DECODED_SCHEMA, TIME

START_MS = 1_772_366_400_000  # 2026-03-01T12:00:00Z
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def log(count: int, **columns: Any) -> pa.Table:
    """Events with some columns given (a list, or one value for all) and the others null.

    `times_ms` gives the event times; offsets go up by one unless given.
    """
    columns.setdefault("account_id", "a")
    columns.setdefault("model", "m")
    columns |= {"topic": "t", "partition": 0}
    columns.setdefault("offset", list(range(count)))
    times = columns.pop("times_ms", [START_MS + i * 1000 for i in range(count)])
    columns["event_time"] = pa.array([int(t) * 1000 for t in times], pa.int64()).cast(TIME)
    arrays = []
    for field in DECODED_SCHEMA:
        value = columns.pop(field.name, None)
        if isinstance(value, pa.Array):
            arrays.append(value)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            arrays.append(pa.array(value, field.type))
        else:
            arrays.append(pa.array([value] * count, field.type))
    assert not columns, f"no such columns: {sorted(columns)}"
    return pa.table(arrays, schema=DECODED_SCHEMA)


WORDS = [
    "sort",
    "a list",
    "Übersetze:",
    "总结",
    "explain",
    "why",
    '"quoted"',
    "42",
    "in one line",
    "\n",
    "résumé",
    "code?",
]

FRAME = (
    "Correct every mistake in the sentence that follows, and answer with the corrected sentence alone, as plain " * 2
)
"""A long beginning: whoever sends it and something after it fills a frame."""


def nasty(count: int, seed: int) -> pa.Table:
    """About nine days: bursts, silence, disorder by hours, duplicates, 10 kB ids, nulls everywhere, gaps in offsets."""
    rng = np.random.default_rng(seed)
    names = [*(f"a{i}" for i in range(30)), "x" * 10_240, "x" * 10_240 + "1", "é中文", "a1 ", "\x00"]
    weight = np.r_[0.3, 0.15, 0.1, np.full(len(names) - 3, 0.45 / (len(names) - 3))]
    spans = np.where(rng.random(count) < 0.7, rng.integers(0, 2 * DAY_MS, count), rng.integers(0, 9 * DAY_MS, count))
    times = START_MS + np.sort(spans)
    times = np.where(rng.random(count) < 0.05, times - rng.integers(0, 12 * HOUR_MS, count), times)
    times = np.where(rng.random(count) < 0.02, times + rng.integers(0, HOUR_MS // 2, count), times)

    def some(values: Sequence[Any], share: float = 0.9) -> list[Any]:
        picks = rng.integers(0, len(values), count)
        return [values[p] if r < share else None for p, r in zip(picks, rng.random(count), strict=True)]

    prompts = [" ".join(rng.choice(WORDS, rng.integers(0, 40))) for _ in range(count // 2)]
    prompts[::3] = [FRAME + prompt for prompt in prompts[::3]]
    return log(
        count,
        times_ms=times.tolist(),
        offset=rng.integers(1, 4, count).cumsum().tolist(),
        account_id=rng.choice(np.array(names, object), count, p=weight).tolist(),
        prompt=some(prompts),
        prompt_hash=some(["h1", "h2"], 0.2),
        system_prompt=some(["You are kind.", "Be brief."], 0.5),
        client_ip=some(["10.0.0.1", "10.0.0.7", "10.1.2.3", "2001:db8::1", "2001:db8::2", "9f86d081884c7d65", ""]),
        country=some(["DE", "CN"]),
        asn=some([1, 2, 3]),
        user_agent=some(["curl/8", "python-requests/2", "Mozilla/5.0"]),
        tls_ja4=some(["t13d", "t12x"]),
        api_key_id=some(["k1", "k2", "k3"]),
        model=some(["m1", "m2"], 1.0),
        status=some([200, 200, 200, 429, 500]),
        stream=some([True, False]),
        temperature=some([0.0, 0.7, 1.0], 0.5),
        max_tokens=some([16, 1024]),
        tool_count=some([0, 0, 3]),
        message_count=some([1, 1, 2, 7]),
        conversation_id=some(["c1", "c2"], 0.3),
        input_tokens=some([0, 7, 100, 1 << 40]),
        output_tokens=some([0, 9, 900, 1 << 40]),
        cached_input_tokens=some([0, 50]),
        latency_ms=some([3, 800, 60_000]),
        finish_reason=some(["stop", "length", "content_filter"]),
    )


def moved(table: pa.Table, at: int, years: int, many: int = 1) -> pa.Table:
    """The same events, some of which are dated years away."""
    times = np.array(table["event_time"].cast(pa.int64()).to_numpy())
    times[at : at + many] += years * 365 * DAY_MS * 1000
    column = table.schema.get_field_index("event_time")
    return table.set_column(column, table.schema.field(column), pa.array(times).cast(TIME))


def without(table: pa.Table, *names: str) -> pa.Table:
    """The same events in a log that does not have some columns."""
    for name in names:
        column = table.schema.get_field_index(name)
        field = table.schema.field(column)
        table = table.set_column(column, field, pa.nulls(len(table), field.type))
    return table
