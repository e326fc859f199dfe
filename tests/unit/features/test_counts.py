"""A program that takes one event at a time, written from the rules alone, agrees on moments, order, counts and sums."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xxhash

from pipeline.features import FAMILIES, NAMES
from pipeline.features.engine import AccountStates
from tests.unit.features.logs import DAY_MS, HOUR_MS, moved, nasty

HALF_MS = HOUR_MS // 2
MARKS = {8, 16, 32, 48, 64, 96, 128, 160, 192, 224, 256, *range(384, 10_000, 128)}
FOREVER = 10**18


@dataclass
class Life:
    name: str
    key: int
    clock: int
    born: int
    fresh: int = 0
    events: int = 0
    tokens: int = 0
    by_half: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    tokens_by_half: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    @property
    def phase(self) -> int:
        return self.key % DAY_MS

    @property
    def half(self) -> int:
        return (self.clock + self.phase) // HALF_MS

    def view(self, counts: dict[int, int], halves: int) -> int:
        now = self.half // halves
        return sum(count for half, count in counts.items() if now - 1 <= half // halves <= now)

    def due(self) -> int:
        if self.fresh >= 16:
            at = self.clock + self.phase
            return at - at % HOUR_MS + HOUR_MS - self.phase
        return self.clock + 2 * HOUR_MS if self.fresh >= 2 and self.events >= 4 else FOREVER


def voices(seen: list[tuple[str, int]]) -> list[int]:
    """Last times of the 16 accounts seen last."""
    last: dict[str, int] = {}
    for name, time in reversed(seen):
        last.setdefault(name, time)
    return list(last.values())[:16]


def naive(events: pa.Table) -> list[tuple[Any, ...]]:
    lives: dict[str, Life] = {}
    rows: list[tuple[Any, ...]] = []
    seen: list[tuple[str, int]] = []
    mark = -FOREVER

    def emit(life: Life, offset: int, kind: int) -> None:
        life.fresh = 0
        spans = [life.view(life.by_half, halves) for halves in (1, 24, 168)]
        tokens = life.view(life.tokens_by_half, 24)
        rows.append((offset, kind, life.name, life.clock, life.born, life.events, life.tokens, *spans, tokens))

    for event in events.select(["offset", "account_id", "event_time", "output_tokens"]).to_pylist():
        raw = int(event["event_time"].timestamp() * 1000 + 0.5)
        if seen and len(seen) % 32 == 0:
            votes = sorted(voices(seen[-512:]))
            if len(votes) >= 4 or len(seen) >= 512:
                mark = max(mark, votes[(len(votes) - 1) // 4])
        seen.append((event["account_id"], raw))
        near = mark if mark > -FOREVER else raw
        time = min(max(raw, near - 120_000), near + DAY_MS)
        mine = lives.get(event["account_id"])
        due = [
            life for life in lives.values() if life.due() <= (max(time, life.clock) if life is mine else mark - 120_000)
        ]
        for life in sorted(due, key=lambda life: life.key):
            emit(life, event["offset"], 0)
        if mine is None or time - mine.clock >= 7 * DAY_MS:
            name = event["account_id"]
            mine = lives[name] = Life(name, xxhash.xxh3_64_intdigest(name.encode()), time, time)
        mine.clock = max(mine.clock, time)
        mine.events += 1
        mine.fresh += 1
        mine.by_half[mine.half] += 1
        mine.tokens += event["output_tokens"] or 0
        mine.tokens_by_half[mine.half] += event["output_tokens"] or 0
        if mine.events in MARKS:
            emit(mine, event["offset"], 1)
    return rows


LOGS = {
    "plain": nasty(4000, 10),
    "one far ahead": moved(nasty(3000, 11), 900, 7),
    "first far ahead": moved(nasty(3000, 12), 0, 7),
    "a run ahead": moved(nasty(3000, 13), 900, 7, many=40),
}


@pytest.mark.parametrize("name", LOGS)
def test_moments_order_counts_and_sums_are_those_of_a_naive_program(name: str) -> None:
    expected = naive(LOGS[name])
    rows = AccountStates(FAMILIES).step(LOGS[name])
    assert len(expected) > 60
    counts = [
        np.rint(2.0 ** rows.values[:, NAMES.index(f"requests_{span}")] - 1).astype(int) for span in ("1h", "24h", "7d")
    ]
    columns = [rows.offset, rows.kind, rows.account_id, rows.scored_at // 1000, rows.first_seen // 1000]
    columns += [rows.exchanges, rows.output_tokens, *counts]
    found = list(zip(*(column if isinstance(column, list) else column.tolist() for column in columns), strict=True))
    assert found == [row[:-1] for row in expected]
    tokens = rows.values[:, NAMES.index("output_tokens_24h")]
    assert np.allclose(np.nan_to_num(tokens), [np.log2(1 + row[-1]) for row in expected], atol=1e-3)
