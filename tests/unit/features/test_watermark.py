"""The watermark: no account alone moves the time of the others, and cutting changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import SchemaError
from pipeline.features.clock import DAY, HOUR, NEVER
from pipeline.features.watermark import AHEAD, EVERY, LATENESS, VOTERS, WINDOW, Watermark

NOW = 1_772_366_400_000
ACCOUNTS = 40
COUNT = 4000


def traffic() -> tuple[np.ndarray, np.ndarray]:
    """Accounts and times of a record a second, in order."""
    keys = np.random.default_rng(0).integers(1, ACCOUNTS, COUNT).astype(np.uint64)
    return keys, NOW + np.arange(COUNT) * 1000


def taken(keys: np.ndarray, times: np.ndarray, cuts: tuple[int, ...] = ()) -> tuple[Watermark, np.ndarray, np.ndarray]:
    mark = Watermark.start()
    parts = []
    for some in np.split(np.arange(len(keys)), cuts):
        if len(some):
            parts.append(mark.advance(keys[some], times[some]))
            mark = Watermark.of(mark.scalars())
    return mark, np.concatenate([late for late, _ in parts]), np.concatenate([clipped for _, clipped in parts])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, COUNT), max_size=6).map(lambda cuts: tuple(sorted(cuts))))
def test_cuts_and_snapshots_change_nothing(cuts: tuple[int, ...]) -> None:
    keys, times = traffic()
    whole, cut = taken(keys, times), taken(keys, times, cuts)
    assert whole[0].mark == cut[0].mark
    assert (whole[1] == cut[1]).all()
    assert (whole[2] == cut[2]).all()


def test_time_in_order_is_kept_as_it_is() -> None:
    keys, times = traffic()
    mark, late, clipped = taken(keys, times)
    assert (clipped == times).all()
    assert (np.diff(late) >= 0).all()
    assert 0 <= times[-1] - mark.mark < (EVERY + 4 * VOTERS) * 1000


@pytest.mark.parametrize("records", (1, 16, 100, 400))
@pytest.mark.parametrize("shift", (-9 * HOUR, 55 * 60_000, DAY, 9 * 365 * DAY))
def test_one_account_moves_nobody_elses_time(records: int, shift: int) -> None:
    """In a row or now and then, hours late, less than an hour ahead or years: the others' times stay as they were."""
    keys, times = traffic()
    for at in (np.full(records, 2000), np.arange(100, COUNT, COUNT // records)):
        mixed_keys = np.insert(keys, at, np.uint64(999))
        mixed_times = np.insert(times, at, times[at] + shift)
        _, _, clipped = taken(mixed_keys, mixed_times)
        assert (clipped[mixed_keys != 999] == times).all()


@pytest.mark.parametrize("others", (4, 8))
@pytest.mark.parametrize("shift", (-2 * DAY, 2 * DAY))
def test_a_few_accounts_are_enough_to_outvote_one(others: int, shift: int) -> None:
    count = 2000
    keys = (np.arange(count) % (others + 1)).astype(np.uint64)
    times = NOW + np.arange(count) * 60_000
    odd = np.where(keys == 0, times + shift, times)
    _, _, clipped = taken(keys, odd)
    assert (clipped[keys != 0] == times[keys != 0]).all()


@pytest.mark.parametrize("accounts", (1, 3, 5, 20))
def test_cuts_change_nothing_where_few_are_active(accounts: int) -> None:
    """The whole window is looked at, and at times not filled."""
    random = np.random.default_rng(accounts)
    keys = np.minimum(random.geometric(0.5, 3000), accounts).astype(np.uint64)
    times = NOW + np.cumsum(random.integers(0, 120_000, 3000))
    whole = taken(keys, times)
    for cuts in ((1, 31, 32, 33, 511, 512, 513), tuple(range(7, 3000, 97))):
        cut = taken(keys, times, cuts)
        assert whole[0].mark == cut[0].mark
        assert (whole[1] == cut[1]).all()
        assert (whole[2] == cut[2]).all()


def test_after_an_erasure_one_account_is_not_believed_at_once() -> None:
    mark = Watermark.start()
    mark.advance(np.full(2 * WINDOW, 9, np.uint64), NOW + np.arange(2 * WINDOW))
    mark.keys, mark.times = mark.keys[:0], mark.times[:0]
    late, _ = mark.advance(np.full(4 * EVERY, 7, np.uint64), np.full(4 * EVERY, NOW + 40 * DAY))
    assert mark.mark < NOW + DAY
    assert (late < NOW + DAY).all()


def test_what_most_accounts_say_is_the_time() -> None:
    keys, times = traffic()
    gone_on = np.where(np.arange(COUNT) >= 2000, times + 5 * DAY, times)
    mark, _, clipped = taken(keys, gone_on)
    assert mark.mark > NOW + 5 * DAY
    assert (clipped[2000 + 4 * WINDOW // 5 :] == gone_on[2000 + 4 * WINDOW // 5 :]).all()


def test_one_account_alone_is_believed_after_a_window() -> None:
    times = NOW + np.arange(3 * WINDOW) * 60_000
    mark, late, clipped = taken(np.full(len(times), 7, np.uint64), times)
    assert (late[:WINDOW] == -NEVER - LATENESS).all()
    assert mark.mark >= times[-EVERY] - 60_000
    assert (clipped == times).all(), "and never held back"


def test_times_are_clipped_to_what_is_allowed() -> None:
    keys, times = traffic()
    odd = times.copy()
    odd[3000], odd[3001] = times[3000] + 9 * DAY, times[3001] - 9 * HOUR
    _, late, clipped = taken(keys, odd)
    assert clipped[3000] == late[3000] + LATENESS + AHEAD
    assert clipped[3001] == late[3001]


def test_a_watermark_of_another_version_is_refused() -> None:
    with pytest.raises(SchemaError, match="watermark"):
        Watermark.of({"mark": 1, "tail": [1] * 15, "seen": 20})
