"""The lake's files depend on the rows and not on how they were batched; each row is where and in what order it belongs."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.batch import Decoded, Partition
from pipeline.events import CONTENT_COLUMNS, DECODED_SCHEMA, REJECT_SCHEMA, with_views
from pipeline.lake_tables import TABLE_SCHEMAS
from pipeline.land import Section, _order, sections

P0 = Partition("access", 0)
LINEAGE = {"topic": P0.topic, "partition": P0.number}
BEGIN = datetime(2026, 3, 1, 22, 30, tzinfo=UTC)

MOMENTS = st.sampled_from([0, 1, 29 * 60, 30 * 60 - 1, 30 * 60, 90 * 60, 26 * 3600]).map(
    lambda seconds: BEGIN + timedelta(seconds=seconds)
) | st.integers(0, 3 * 3600 * 10**6).map(lambda micros: BEGIN + timedelta(microseconds=micros))
KAFKA_TIMES = st.none() | MOMENTS | st.just(datetime(1970, 1, 1, 0, 30, tzinfo=UTC))
EVENTS = st.fixed_dictionaries(
    {
        "event_time": MOMENTS,
        "account_id": st.sampled_from(["a", "b", "B", "ä", "", "\U0001f600", "a\x00"]),
        "model": st.just("m"),
        "kafka_time": KAFKA_TIMES,
    },
    optional={"prompt": st.sampled_from(["", "hi"]), "extra": st.just('{"x":1}'), "status": st.just(200)},
)
REJECTS = st.fixed_dictionaries(
    {
        "kafka_time": KAFKA_TIMES,
        "error_type": st.just("invalid_json"),
        "reason": st.just("r"),
        "raw": st.binary(max_size=3),
    }
)
RECORDS = st.lists(EVENTS | REJECTS, min_size=1, max_size=40)


def decoded(rows: Iterable[tuple[int, dict[str, Any]]]) -> Decoded:
    """The rows of one batch, by offset."""
    placed = [{**row, **LINEAGE, "offset": offset} for offset, row in rows]
    return Decoded(
        pa.Table.from_pylist([row for row in placed if "model" in row], schema=DECODED_SCHEMA),
        pa.Table.from_pylist([row for row in placed if "raw" in row], schema=REJECT_SCHEMA),
    )


def cut(rows: list[tuple[int, dict[str, Any]]], at: list[int]) -> list[Decoded]:
    edges = [0, *sorted(at), len(rows)]
    return [decoded(rows[start:stop]) for start, stop in itertools.pairwise(edges)]


def contents(found: Iterable[Section]) -> dict[tuple[str, str, int], list[dict[str, Any]]]:
    return {(section.table, section.dt, section.hour): section.rows.to_pylist() for section in found}


@settings(max_examples=100, deadline=None)
@given(RECORDS, st.lists(st.integers(0, 40), max_size=4))
def test_batching_changes_nothing(records: list[dict[str, Any]], at: list[int]) -> None:
    rows = list(enumerate(records))
    whole = contents(sections([decoded(rows)]))
    assert contents(sections(cut(rows, [min(place, len(rows)) for place in at]))) == whole


@settings(max_examples=100, deadline=None)
@given(RECORDS, st.integers(0, 40))
def test_commits_in_any_number_hold_the_same_rows_by_table_and_hour(records: list[dict[str, Any]], at: int) -> None:
    rows = list(enumerate(records))
    together: Counter[tuple[Any, ...]] = Counter()
    apart: Counter[tuple[Any, ...]] = Counter()
    for section, table in contents(sections([decoded(rows)])).items():
        together.update((section, row) for row in map(repr, table))
    for part in (rows[:at], rows[at:]):
        if part:
            for section, table in contents(sections([decoded(part)])).items():
                apart.update((section, row) for row in map(repr, table))
    assert apart == together


@settings(max_examples=100, deadline=None)
@given(RECORDS)
def test_each_row_is_in_its_hour_in_order_and_nothing_is_lost(records: list[dict[str, Any]]) -> None:
    found = list(sections([decoded(enumerate(records))]))
    assert len({(section.table, section.dt, section.hour) for section in found}) == len(found)
    offsets: dict[str, list[int]] = {table: [] for table in TABLE_SCHEMAS}
    for section in found:
        rows = section.rows.to_pylist()
        assert rows
        schema = TABLE_SCHEMAS[section.table]
        assert section.rows.schema == (schema if section.table == "rejects" else with_views(schema))
        offsets[section.table] += [row["offset"] for row in rows]
        column = "kafka_time" if section.table == "rejects" else "event_time"
        times = [row[column] for row in rows]
        hour = datetime.fromisoformat(section.dt).replace(hour=section.hour, tzinfo=UTC)
        epoch = datetime(1970, 1, 1, tzinfo=UTC)
        assert all(hour <= (time or epoch) < hour + timedelta(hours=1) for time in times)
        if None in times:
            assert (section.time_min_us, section.time_max_us) == (None, None), "a file that may hold any time"
        else:
            assert (section.time_min_us, section.time_max_us) == (_us(min(times)), _us(max(times)))
        if section.table == "rejects":
            order = [row["offset"] for row in rows]
        else:
            order = [(row["account_id"].encode(), row["event_time"], row["offset"]) for row in rows]
        assert order == sorted(order)
    expected: dict[str, list[int]] = {"access": [], "content": [], "rejects": []}
    for offset, record in enumerate(records):
        expected["rejects" if "raw" in record else "access"].append(offset)
        if any(record.get(name) is not None for name in CONTENT_COLUMNS):
            expected["content"].append(offset)
    assert {table: sorted(found) for table, found in offsets.items() if table in expected} == expected


def test_rows_of_one_moment_stay_in_the_order_of_their_offsets() -> None:
    """More of them than a sort keeps in order by chance."""
    rows = [{"event_time": BEGIN, "account_id": "ab"[n % 2], "model": "m"} for n in range(200)]
    (section,) = sections([decoded(enumerate(rows))])
    assert section.rows["offset"].to_pylist() == [*range(0, 200, 2), *range(1, 200, 2)]


def test_rows_of_many_accounts_and_years_are_in_order() -> None:
    """As many accounts as hours: too much for one number to hold, with the time within the hour."""
    times = np.array([0, 7, 3_600_000_000 * 10**9, 3_600_000_000 * 10**9 - 1] * 300)
    accounts = pa.array([f"a{n * 7919 % 1_200:04}" for n in range(1_200)], pa.string_view())
    names = accounts.to_pylist()
    expected = sorted(range(1_200), key=lambda n: (times[n] // 3_600_000_000, names[n], times[n], n))
    assert _order(accounts, times).tolist() == expected


def test_a_row_of_text_and_its_facts_are_apart_and_can_be_joined() -> None:
    row = {
        "event_time": BEGIN,
        "account_id": "a",
        "model": "m",
        "prompt": "secret",
        "extra": '{"x":"also"}',
        "status": 200,
    }
    found = {section.table: section.rows.to_pylist()[0] for section in sections([decoded([(7, row)])])}
    assert not {"prompt", "response", "system_prompt", "extra"} & found["access"].keys()
    assert found["access"]["status"] == 200
    assert found["content"]["prompt"] == "secret"
    assert found["content"]["extra"] == '{"x":"also"}'
    for key in ("account_id", "event_time", "topic", "partition", "offset"):
        assert found["access"][key] == found["content"][key]


def test_nothing_gives_nothing() -> None:
    assert list(sections([decoded([])])) == []


def _us(time: datetime) -> int:
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
