"""Runs are the sets that they stand for."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.backfilling.runs import Runs

OFFSETS = st.sets(st.integers(0, 40))
SPANS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=8)


def same(runs: Runs, offsets: set[int]) -> None:
    every = np.arange(-2, 45)
    assert set(every[runs.holds(every)].tolist()) == offsets
    assert len(runs) == len(offsets)
    assert runs.ends == ((min(offsets), max(offsets) + 1) if offsets else (0, 0))
    assert all(before[1] < after[0] for before, after in zip(runs.spans, runs.spans[1:], strict=False))


@given(offsets=OFFSETS)
def test_runs_of_offsets_hold_these_and_no_others(offsets: set[int]) -> None:
    same(Runs.of(np.array(sorted(offsets, reverse=True), np.int64)), offsets)


@given(spans=SPANS, first=st.integers(0, 40), following=st.integers(0, 40))
def test_spans_are_merged_and_what_they_cover_is_all_of_it(
    spans: list[tuple[int, int]], first: int, following: int
) -> None:
    offsets = {at for low, high in spans for at in range(low, high)}
    runs = Runs.merged(spans)
    same(runs, offsets)
    assert runs.covers(first, following) == offsets.issuperset(range(first, following))
