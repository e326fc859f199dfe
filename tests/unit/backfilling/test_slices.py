"""Slices are sets of rows: what is landed of one is not landed of another."""

from __future__ import annotations

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.backfilling.slices import OPEN_HIGH, OPEN_LOW, WHOLE, FilePart, Slice, between, left_of
from pipeline.backfilling.stated_times import stated_times
from pipeline.decode import Decoder
from pipeline.errors import ConfigError

MOMENTS = np.arange(-2, 32)
AGES = st.integers(0, 30)


@st.composite
def ranges(draw: st.DrawFn) -> Slice:
    """As a command line asks for: one span, one side of which may be open."""
    low, high = sorted(draw(st.lists(AGES, min_size=2, max_size=2, unique=True)))
    ends = draw(st.sampled_from(((low, high), (OPEN_LOW, high), (low, OPEN_HIGH), (OPEN_LOW, OPEN_HIGH))))
    return Slice((ends,), timeless=True)


def rows_in(part: Slice) -> set[int | None]:
    times = np.concatenate([MOMENTS, [0]])
    known = np.arange(len(times)) < len(MOMENTS)
    held = part.holds(times, known)
    return {int(at) if is_known else None for at, is_known, here in zip(times, known, held, strict=True) if here}


@given(st.lists(ranges(), min_size=1, max_size=5))
def test_ranges_asked_for_one_after_the_other_land_each_row_once(asked: list[Slice]) -> None:
    landed: list[Slice] = []
    for wanted in asked:
        part = left_of(wanted, landed)
        assert rows_in(part) == rows_in(wanted) - {row for other in landed for row in rows_in(other)}
        assert all(not part.meets(other) for other in landed)
        if not part.is_empty:
            landed.append(part)
            said = FilePart("0" * 64, part, "e1")
            assert FilePart.parse(str(said)) == said
        assert left_of(wanted, landed).is_empty


def test_a_whole_file_is_known_by_its_hash_alone() -> None:
    assert str(FilePart("0" * 64)) == "0" * 64
    assert FilePart.parse("0" * 64).part == WHOLE


@pytest.mark.parametrize(
    ("low", "high", "words"),
    (
        ("yesterday", None, "--from yesterday: expected a day or a time"),
        (None, "17", "--to 17: expected a day or a time"),
        ("2026-03-02", "2026-03-02T00:00Z", "nothing lies between"),
        ("0001-01-01T00:00+14:00", None, "expected a day or a time"),
    ),
)
def test_what_is_no_range_is_refused(low: str | None, high: str | None, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        between(low, high)


def test_times_without_a_zone_are_utc() -> None:
    assert between("1970-01-01T01:00", "1970-01-01T01:00:00.000001Z").spans == ((3_600_000_000, 3_600_000_001),)
    assert between("1970-01-01T01:00+01:00", "1970-01-02").spans == ((0, 86_400_000_000),)


def test_a_reject_is_of_the_time_that_its_bytes_state() -> None:
    lines = [
        orjson.dumps(
            {"event_time": "1999-01-01T00:00:00Z", "account_id": "a", "model": "m"}
        ),  # too early to be an event
        orjson.dumps({"event_time": "2026-03-01T00:00:00.5+01:00", "model": "m"}),  # no account
        b'{"event_time": "2026-03-01T00:00:00Z", "account_id": "a", "mod',
        orjson.dumps({"event_time": 17, "account_id": "a", "model": "m"}),
        orjson.dumps({"event_time": "2026-03-01T00:00:00Z", "account_id": "a", "model": "m"}),
        b"[]",
    ]
    times, known = stated_times(Decoder(), lines)
    assert known.tolist() == [True, True, False, False, True, False]
    assert times[known].tolist() == [915_148_800_000_000, 1_772_319_600_500_000, 1_772_323_200_000_000]
