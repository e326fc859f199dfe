"""The law: rows (values, moments, order) depend on the events, not on cuts, restores or what was forgotten."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import fields
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.accounts import Accounts
from pipeline.errors import SchemaError
from pipeline.features import FAMILIES, FEATURES, NAMES, engine
from pipeline.features.engine import AccountStates
from pipeline.features.rows import COUNT, TICK, FeatureRows
from pipeline.features.sharing import Sharing
from tests.unit.features.logs import DAY_MS, START_MS, log, moved, nasty, without

COUNT_OF_EVENTS = 2500
FEED = Accounts([{"account_id": f"a{i}", "created_at": "2026-02-01T00:00:00Z", "country": "DE"} for i in range(20)])


def fresh() -> AccountStates:
    """With blocks so short that accounts see what others sent, and room for so few pairs that some are dropped."""
    return AccountStates(FAMILIES, FEED, sharing=Sharing(block=128, pairs_max=200))


def restored(states: AccountStates, seed: int) -> AccountStates:
    """A new object from a snapshot whose rows came in another order: row numbers mean nothing."""
    parts = states.snapshot()
    accounts = parts["accounts"].read_all()
    shuffled = accounts.take(np.random.default_rng(seed).permutation(len(accounts)))
    again = fresh()
    again.restore({**parts, "accounts": shuffled.to_reader()})
    return again


def run(events: pa.Table, cuts: Collection[int] = (), restore_at: Collection[int] = ()) -> FeatureRows:
    states, parts = fresh(), []
    for start, stop in pairwise([0, *sorted(set(cuts) | set(restore_at)), len(events)]):
        parts.append(states.step(events.slice(start, stop - start)))
        if stop in restore_at:
            states = restored(states, stop)
    return FeatureRows.concat(parts)


def assert_same(one: FeatureRows, other: FeatureRows) -> None:
    """To the last bit, NaN for NaN."""
    assert one.account_id == other.account_id
    for field in fields(FeatureRows):
        if field.name != "account_id":
            a, b = np.ascontiguousarray(getattr(one, field.name)), np.ascontiguousarray(getattr(other, field.name))
            assert a.dtype == b.dtype
            assert a.tobytes() == b.tobytes(), field.name


LOGS = {
    "plain": nasty(COUNT_OF_EVENTS, 0),
    "one far ahead": moved(nasty(COUNT_OF_EVENTS, 1), 900, 7),
    "first far ahead": moved(nasty(COUNT_OF_EVENTS, 2), 0, 7),
    "one far back": moved(nasty(COUNT_OF_EVENTS, 3), 900, -20),
    "a run ahead": moved(nasty(COUNT_OF_EVENTS, 4), 900, 7, many=40),
    "no texts": without(nasty(COUNT_OF_EVENTS, 5), "prompt", "system_prompt"),
}
WHOLE = {name: run(events) for name, events in LOGS.items()}
POSITIONS = st.integers(0, COUNT_OF_EVENTS)


@pytest.mark.parametrize("name", LOGS)
def test_the_logs_make_rows_of_both_kinds(name: str) -> None:
    rows = WHOLE[name]
    assert len(rows) > 60
    assert {TICK, COUNT} == set(rows.kind.tolist())
    assert rows.values.dtype == np.float32
    assert rows.values.shape == (len(rows), len(NAMES))
    assert (np.diff(rows.offset) >= 0).all()
    assert not np.isinf(rows.values).any()


@pytest.mark.parametrize("family", ("oneshot", "spread"))
def test_the_logs_show_what_hangs_on_other_events(family: str) -> None:
    """One-shots hang on the account's event before, sharing on others': the law must be tried on numbers, not nulls."""
    rows = WHOLE["plain"]
    for feature in (feature for feature in FEATURES if feature.family == family):
        values = rows.values[:, NAMES.index(feature.name)]
        assert len(np.unique(values[~np.isnan(values)])) > 10, feature.name


def test_the_logs_make_pairs_be_dropped() -> None:
    states = fresh()
    states.step(LOGS["plain"])
    kept = states.snapshot()["sharing"]
    assert 100 <= len(kept) <= 200
    assert kept["stamp"].to_numpy().min() > 5


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(sorted(LOGS)), cuts=st.lists(POSITIONS, max_size=30), at=st.lists(POSITIONS, max_size=3))
def test_any_cut_and_any_restore_give_the_same(name: str, cuts: Sequence[int], at: Sequence[int]) -> None:
    assert_same(WHOLE[name], run(LOGS[name], cuts, at))


@pytest.mark.parametrize("name", ("plain", "one far ahead"))
def test_batches_of_one_event_give_the_same(name: str) -> None:
    assert_same(WHOLE[name], run(LOGS[name], [*range(700, 1000)], [*range(850, 870)]))


def test_the_size_of_slices_plays_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "SLICE_MAX", 77)
    assert_same(WHOLE["plain"], run(LOGS["plain"]))


def test_forgetting_the_silent_cannot_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropped after every tenth event, or never before the end."""
    monkeypatch.setattr(engine, "CHECK_EVERY", 10)
    for name in ("plain", "one far ahead", "a run ahead"):
        assert_same(WHOLE[name], run(LOGS[name], [1000], [1500]))


def test_the_silent_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "CHECK_EVERY", 10)
    states = AccountStates(FAMILIES)
    many = 200
    states.step(log(many, account_id=[f"a{i}" for i in range(many)]))
    assert len(states) == many
    later = START_MS + 8 * DAY_MS
    states.step(log(256, account_id="b", times_ms=[later + i for i in range(256)]))
    assert len(states) == many + 1, "one account does not say what time it is"
    states.step(log(320, account_id="b", times_ms=[later + i for i in range(320)]))
    assert len(states) == 1, "but one alone for a whole window does"
    states.step(log(1, account_id="a7", times_ms=[later + 50]))
    assert len(states) == 2


def test_a_clock_that_jumps_touches_its_own_account_alone() -> None:
    """One event seven years ahead: nobody else's rows change; a tick may wait for a few records more."""
    plain = nasty(COUNT_OF_EVENTS, 1)
    names = plain["account_id"].to_pylist()
    ahead, as_it_was = WHOLE["one far ahead"], run(plain)
    for one in sorted(set(names) - {names[900]}):
        a = [i for i, name in enumerate(ahead.account_id) if name == one]
        b = [i for i, name in enumerate(as_it_was.account_id) if name == one]
        assert ahead.values[a].tobytes() == as_it_was.values[b].tobytes()
        assert ahead.exchanges[a].tolist() == as_it_was.exchanges[b].tolist()


def test_a_duplicate_is_an_event() -> None:
    """Stillwatch reads no request twice; what a gateway logs twice happened twice."""
    events = log(8, request_id="r", output_tokens=5)
    rows = run(events)
    assert rows.exchanges.tolist() == [8]
    assert rows.output_tokens.tolist() == [40]


def test_ids_of_one_hash_are_emitted_by_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """XXH3 is no secret: somebody may look for two ids of one key."""
    monkeypatch.setattr("pipeline.features.ids.hashes", lambda ids: np.full(len(ids), 5, np.uint64))
    events = log(
        60,
        account_id=["b", "a"] * 30,
        times_ms=[*(START_MS + i for i in range(30)), *(START_MS + 2 * DAY_MS + i for i in range(30))],
    )
    whole = run(events)
    assert whole.account_id.count("a") == whole.account_id.count("b") > 1
    for cuts in ([1, 30], [17, 45], range(1, 60)):
        assert_same(whole, run(events, [*cuts], [40]))


def test_a_snapshot_of_other_columns_is_refused() -> None:
    parts = fresh().snapshot()
    with pytest.raises(SchemaError, match="account columns"):
        AccountStates(FAMILIES[:2]).restore(parts)
    with pytest.raises(SchemaError, match="watermark"):
        fresh().restore({**parts, "state": {**parts["state"], "watermark": {"tail": [1]}}})
    with pytest.raises(SchemaError, match="other parts"):
        fresh().restore({name: part for name, part in parts.items() if name != "sharing"})


def test_a_state_that_has_seen_events_takes_no_snapshot() -> None:
    states = fresh()
    states.step(log(1))
    with pytest.raises(SchemaError, match="seen nothing"):
        states.restore(fresh().snapshot())


def test_no_events_make_no_rows() -> None:
    rows = fresh().step(log(0))
    assert len(rows) == 0
    assert rows.values.shape == (0, len(NAMES))
