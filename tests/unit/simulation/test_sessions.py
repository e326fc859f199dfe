"""Arrivals keep their rates and rhythms; sessions are merged in time order."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice, pairwise, takewhile

from hypothesis import given
from hypothesis import strategies as st

from pipeline.simulation.rhythm import EVENING, FLAT, HOUR_MS, OFFICE, PRODUCT, arrivals, clustered, schedule
from pipeline.simulation.sessions import Request, Session, interleave

MONDAY_MS = int(datetime(2026, 3, 2, tzinfo=UTC).timestamp() * 1000)
WEEK_MS = 7 * 24 * HOUR_MS


def test_a_rhythm_passes_one_hour_of_weight_an_hour_on_average() -> None:
    for rhythm in (OFFICE, EVENING, PRODUCT, FLAT):
        end_ms = rhythm.after(MONDAY_MS, 168.0, 0)
        # The quietest hours have a small rate of their own, which adds a little to the week.
        assert abs(end_ms - MONDAY_MS - WEEK_MS) < 0.03 * WEEK_MS


def test_office_arrivals_come_by_day_and_on_weekdays() -> None:
    stream = arrivals(random.Random(1), OFFICE, 500, 0, MONDAY_MS)
    hours = [(at_ms - MONDAY_MS) // HOUR_MS for at_ms in takewhile(lambda at_ms: at_ms < MONDAY_MS + WEEK_MS, stream)]

    night = sum(hour % 24 < 6 for hour in hours) / len(hours)
    weekend = sum(hour // 24 >= 5 for hour in hours) / len(hours)

    assert 3300 < len(hours) < 3700
    assert night < 0.03
    assert weekend < 0.08


def test_local_time_shifts_the_rhythm() -> None:
    def busiest(utc_offset_h: int) -> int:
        stream = islice(arrivals(random.Random(2), OFFICE, 2000, utc_offset_h, MONDAY_MS), 8000)
        counts = [0] * 24
        for at_ms in stream:
            counts[at_ms // HOUR_MS % 24] += 1
        return max(range(24), key=counts.__getitem__)

    assert busiest(0) in range(8, 17)
    assert busiest(9) in {hour % 24 for hour in range(-1, 8)}


def test_clusters_raise_the_rate_by_their_branching_and_stay_in_order() -> None:
    rng = random.Random(3)
    parents = arrivals(rng, FLAT, 1000, 0, MONDAY_MS)
    times = list(takewhile(lambda at_ms: at_ms < MONDAY_MS + WEEK_MS, clustered(rng, parents, 0.5, 60)))

    assert all(earlier <= later for earlier, later in pairwise(times))
    assert 13_000 < len(times) < 15_000  # 7 × 1000 / (1 - 0.5)


def test_a_schedule_keeps_its_minute_and_never_begins_before_its_start() -> None:
    starts = list(islice(schedule(random.Random(4), 6, 0, MONDAY_MS + 1), 40))

    assert starts[0] > MONDAY_MS
    gaps_h = {round((later - earlier) / HOUR_MS, 1) for earlier, later in pairwise(starts)}
    assert gaps_h == {6.0}


def request(text: str) -> Request:
    return Request(text, None, 1, 0, 10)


def session(start_ms: int, gaps_ms: list[int]) -> Session:
    at_ms = start_ms
    yield at_ms, request(f"{start_ms}:0")
    for number, gap_ms in enumerate(gaps_ms, start=1):
        at_ms += gap_ms
        yield at_ms, request(f"{start_ms}:{number}")


@given(
    st.lists(st.tuples(st.integers(0, 50), st.lists(st.integers(0, 60), max_size=6)), max_size=12), st.integers(0, 400)
)
def test_interleaving_keeps_every_request_in_time_order(plans: list[tuple[int, list[int]]], until_ms: int) -> None:
    starts, at_ms = [], 0
    for gap_ms, gaps in plans:
        at_ms += gap_ms
        starts.append((at_ms, gaps))

    def sessions() -> Iterator[tuple[int, Session]]:
        for start_ms, gaps in starts:
            yield start_ms, session(start_ms, gaps)

    merged = [(time_ms, item.prompt) for time_ms, item in interleave(sessions(), until_ms)]
    naive = sorted(
        (time_ms, item.prompt)
        for start_ms, gaps in starts
        for time_ms, item in session(start_ms, gaps)
        if time_ms < until_ms
    )

    assert [time_ms for time_ms, _ in merged] == [time_ms for time_ms, _ in naive]
    assert sorted(merged) == naive
