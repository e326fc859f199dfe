"""Counting who was there, whatever the batches."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.backtesting import activity
from pipeline.backtesting.activity import Activity, span
from pipeline.events import DECODED_SCHEMA

START = datetime(2026, 3, 1, tzinfo=UTC)
Event = tuple[str, int, int | None]


def table(events: list[Event]) -> pa.Table:
    return pa.table(
        {
            "account_id": pa.array([account for account, _, _ in events], pa.string_view()),
            "event_time": pa.array(
                [START + timedelta(minutes=at) for _, at, _ in events], DECODED_SCHEMA.field("event_time").type
            ),
            "output_tokens": pa.array([tokens for _, _, tokens in events], pa.int64()),
        }
    )


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 500), st.none() | st.integers(0, 9)), min_size=1, max_size=30
    ),
    st.integers(1, 30),
)
def test_counts_do_not_depend_on_the_batches(events: list[Event], size: int) -> None:
    whole, parts = Activity(), Activity()
    whole.add(table(events))
    for start in range(0, len(events), size):
        parts.add(table(events[start : start + size]))
        parts._accounts, parts._hours = [parts.accounts()], [parts.hours()]  # as when too much is pending
    assert whole.accounts().equals(parts.accounts())
    assert whole.hours().equals(parts.hours())
    assert dict(whole.accounts().select("account_id", "events").iter_rows()) == {
        name: sum(account == name for account, _, _ in events) for name in {account for account, _, _ in events}
    }


def test_what_is_pending_is_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity, "_PENDING_ROWS_MAX", 3)
    counts = Activity()
    for at in range(10):
        counts.add(table([("a", at, 1), ("b", at, None)]))
    assert len(counts._accounts) == 1
    assert counts.accounts()["events"].to_list() == [10, 10]
    assert counts.accounts()["output_tokens"].to_list() == [10, 0]


def test_one_event_dated_years_ahead_does_not_make_the_log_longer() -> None:
    hours = pl.DataFrame({"hour": [3, 100, 101, 147, 90_000], "events": [1, 3000, 3000, 3000, 1]})
    assert span(hours) == (100, 147)


def test_a_short_log_counts_every_hour() -> None:
    assert span(pl.DataFrame({"hour": [10, 12], "events": [1, 1]})) == (10, 12)
    assert span(Activity().hours()) is None
