"""However many accounts, ids or bytes come: memory has a bound, and what is dropped for it depends on the events alone."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.features import FAMILIES, engine, state
from pipeline.features.engine import AccountStates
from pipeline.features.rows import FeatureRows
from tests.unit.features.logs import log, nasty
from tests.unit.features.test_law import assert_same


@pytest.fixture
def _check_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "CHECK_EVERY", 64)


@pytest.mark.usefixtures("_check_often")
def test_the_accounts_idle_longest_are_dropped_for_room() -> None:
    states = AccountStates(FAMILIES, accounts_max=10)
    states.step(log(64, account_id=[f"a{i:02}" for i in range(64)]))
    assert len(states) == 10
    assert states.dropped_for_room == 54
    names = states.snapshot()["accounts"].read_all()["account_id"]
    assert sorted(names.to_pylist()) == [f"a{i:02}" for i in range(54, 64)]


@pytest.mark.usefixtures("_check_often")
def test_what_is_dropped_for_room_does_not_depend_on_batches_or_restores() -> None:
    events = nasty(1500, 20)
    whole = AccountStates(FAMILIES, accounts_max=6)
    expected = whole.step(events)
    unbounded = AccountStates(FAMILIES).step(events)
    assert whole.dropped_for_room > 0
    assert len(expected) < len(unbounded)
    for size in (700, 64, 13):
        states, parts = AccountStates(FAMILIES, accounts_max=6), []
        for start in range(0, len(events), size):
            parts.append(states.step(events.slice(start, size)))
            if start == size * 3:
                again = AccountStates(FAMILIES, accounts_max=6)
                again.restore(states.snapshot())
                states = again
        assert_same(expected, FeatureRows.concat(parts))


@pytest.mark.usefixtures("_check_often")
def test_one_who_was_dropped_for_room_begins_anew() -> None:
    states = AccountStates(FAMILIES, accounts_max=3)
    states.step(log(64, account_id=["old"] * 7 + [f"a{i}" for i in range(57)]))
    assert len(states.step(log(1, account_id="old"))) == 0
    rows = states.step(log(7, account_id="old"))
    assert rows.exchanges.tolist() == [8]


@pytest.mark.usefixtures("_check_often")
def test_long_ids_are_bounded_by_their_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "ID_CHARS", 10)
    states = AccountStates(FAMILIES, accounts_max=100)
    states.step(log(64, account_id=[f"{i:0100}" for i in range(64)]))
    assert len(states) == 10


def test_a_prompt_of_five_megabytes_and_an_id_of_ten_kilobytes() -> None:
    rows = AccountStates(FAMILIES).step(log(8, prompt="ß9: " * 1_250_000, account_id="x" * 10_240))
    assert rows.exchanges.tolist() == [8]
    assert rows.account_id == ["x" * 10_240]


def test_extreme_numbers_stay_numbers() -> None:
    """Every number of the schema at its largest, and empty texts."""
    largest = 1 << 40
    columns = {"input_tokens": largest, "output_tokens": largest, "latency_ms": (1 << 53) - 1, "max_tokens": largest}
    rows = AccountStates(FAMILIES).step(log(300, prompt="", client_ip="", user_agent="", **columns))
    assert len(rows) > 10
    assert not np.isinf(rows.values).any()
    assert rows.output_tokens[-1] == rows.exchanges[-1] * largest


def test_state_fits_in_what_is_planned() -> None:
    """A million active accounts fit in 4 GB, with their ids and the map of them; docs/features.md says so too."""
    assert AccountStates(FAMILIES).bytes_per_account <= state.BYTES_PER_ACCOUNT_MAX
