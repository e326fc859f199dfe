"""Of a past range each offset is landed, skipped or left, and never two of these."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.backfilling.ranges import layers, plan_ranges
from pipeline.sources import PastRange, Span

EDGES = st.lists(st.integers(0, 60), min_size=2, max_size=10, unique=True).map(sorted)


def past(number: int, first: int, following: int, partition: int = 0) -> PastRange:
    return PastRange("t", partition, first, following, f"past:{number}:t", "")


def covered(spans: list[Span]) -> list[int]:
    return [offset for span in spans for offset in range(span.first_offset, span.next_offset)]


@st.composite
def known_ranges(draw: st.DrawFn) -> tuple[list[PastRange], dict[int, int]]:
    """Ranges that do not overlap, and how far each is landed."""
    edges = draw(EDGES)
    ranges = [past(at, low, high) for at, (low, high) in enumerate(zip(edges[::2], edges[1::2], strict=False))]
    return ranges, {at: draw(st.integers(it.first_offset, it.next_offset)) for at, it in enumerate(ranges)}


@given(
    st.integers(0, 60),
    st.integers(1, 60),
    known_ranges(),
    st.none() | st.tuples(st.integers(0, 60), st.integers(0, 20)),
)
def test_every_offset_has_one_fate(
    first: int, length: int, known: tuple[list[PastRange], dict[int, int]], job: tuple[int, int] | None
) -> None:
    """Against a naive model, offset by offset; the live job's span begins after what backfills have landed."""
    ranges, stands = known
    wanted = Span(0, first, first + length)
    begins = max([it.next_offset for it in ranges], default=0) + (job[0] if job else 0)
    live = {0: Span(0, begins, begins + job[1])} if job else {}
    plan = plan_ranges([wanted], live, ranges, {it.chain: stands[at] for at, it in enumerate(ranges)})

    there = [offset for at, it in enumerate(ranges) for offset in range(it.first_offset, stands[at])]
    there += covered(list(live.values()))
    left = range(begins + job[1], 1000) if job else range(0)
    in_ranges = [offset for it in ranges for offset in range(it.first_offset, it.next_offset)]
    asked = covered([wanted])
    assert plan.there == len(set(asked) & set(there))
    assert plan.left == len(set(asked) & set(left))
    assert sorted(covered(plan.fresh)) == sorted(set(asked) - set(there) - set(left) - set(in_ranges))
    unfinished = [it for at, it in enumerate(ranges) if stands[at] < it.next_offset]
    assert plan.begun == [it for it in unfinished if set(asked) & set(range(it.first_offset, it.next_offset))]


def test_partitions_know_nothing_of_each_other() -> None:
    plan = plan_ranges([Span(0, 0, 10), Span(1, 0, 10)], {1: Span(1, 4, 6)}, [past(1, 0, 5)], {})
    assert plan.fresh == [Span(0, 5, 10), Span(1, 0, 4)]
    assert (plan.there, plan.left, plan.begun) == (2, 4, [past(1, 0, 5)])


def test_a_layer_holds_a_partition_once() -> None:
    spans = [Span(0, 0, 1), Span(0, 4, 5), Span(1, 0, 1), Span(0, 8, 9)]
    assert layers(spans) == [[spans[0], spans[2]], [spans[1]], [spans[3]]]
