"""What is known of the whole partition: when its models came, and what is typical of its plans."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from pipeline.accounts import Accounts
from pipeline.errors import SchemaError
from pipeline.features import FAMILIES, NAMES, launches, typical, watermark
from pipeline.features.clock import DAY, NEVER
from pipeline.features.engine import AccountStates
from pipeline.features.launches import Launches
from pipeline.features.rows import FeatureRows
from tests.unit.features.logs import START_MS, log, nasty

COUNT = 2500
FEED = Accounts([{"account_id": f"a{i}", "plan": "pro"} for i in range(25)])
OLD, NEW, NEWER = (np.uint64(n) for n in (1, 2, 3))


def with_launches() -> pa.Table:
    """Nine days in which two models come, one after the other."""
    events = nasty(COUNT, 7)
    models = ["m"] * 1200 + ["m", "n"] * 400 + ["n", "o"] * 250
    at = events.schema.get_field_index("model")
    return events.set_column(at, events.schema.field(at), pa.array(models, events.schema.field(at).type))


def run(events: pa.Table, cuts: list[int]) -> FeatureRows:
    states, parts = AccountStates(FAMILIES, FEED), []
    for start, stop in pairwise([0, *cuts, len(events)]):
        parts.append(states.step(events.slice(start, stop - start)))
        again = AccountStates(FAMILIES, FEED)
        again.restore(states.snapshot())
        states = again
    return FeatureRows.concat(parts)


def test_cuts_and_restores_change_neither_launches_nor_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typical, "EVERY", 200)
    monkeypatch.setattr(typical, "ACCOUNTS_MIN", 3)
    events = with_launches()
    whole = run(events, [])
    for name in ("new_model_share_24h", "new_model_share_7d", "plan_tokens_ratio"):
        values = whole.values[:, NAMES.index(name)]
        assert np.isnan(values).any(), name
        assert np.nanmax(values) > 0, name
    for cuts in ([1, 199, 200, 201, 1999], list(range(50, COUNT, 50)), list(range(1150, 1300))):
        assert run(events, cuts).values.tobytes() == whole.values.tobytes()


def test_a_model_is_new_for_a_day_if_the_partition_was_watched_for_a_day() -> None:
    known = Launches()
    before = -NEVER - 1
    times = np.array([before, 0, DAY - 1, DAY, DAY, DAY + 5, 2 * DAY - 1, 2 * DAY], np.int64)
    models = np.array([OLD, OLD, NEW, OLD, NEWER, NEW, NEWER, NEWER], np.uint64)
    told, new = known.look(models, times)
    assert told.tolist() == [False] * 3 + [True] * 5
    assert new.tolist() == [False] * 4 + [True, False, True, False]


def test_models_beyond_the_table_count_as_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launches, "MODELS_MAX", 2)
    known = Launches()
    known.look(np.array([OLD], np.uint64), np.array([0], np.int64))
    told, new = known.look(np.array([NEW, NEWER, NEWER], np.uint64), np.full(3, 2 * DAY))
    assert told.all()
    assert new.tolist() == [True, False, False]


def test_typical_of_a_plan_is_the_95th_percentile_of_its_accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty accounts of 1 to 20 tokens, then eight requests of 4 tokens each; those of no plan have nothing typical."""
    monkeypatch.setattr(typical, "EVERY", 20)
    monkeypatch.setattr(watermark, "EVERY", 4)
    events = log(
        36,
        account_id=[f"a{i}" for i in range(20)] + ["a20"] * 8 + ["b"] * 8,
        output_tokens=[*range(1, 21), *[4] * 16],
        times_ms=[START_MS + i for i in range(36)],
    )
    rows = AccountStates(FAMILIES, FEED).step(events)
    found = dict(zip(rows.account_id, rows.values[:, NAMES.index("plan_tokens_ratio")].tolist(), strict=True))
    assert found["a20"] == pytest.approx(np.log2(33 / 20), abs=1e-4)
    assert np.isnan(found["b"])


def test_what_the_operator_names_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typical, "EVERY", 8)
    monkeypatch.setattr(typical, "ACCOUNTS_MIN", 1)
    named = Accounts([{"account_id": "a", "plan": "pro"}], {"pro": 63.0})
    rows = AccountStates(FAMILIES, named).step(log(16, output_tokens=4))
    assert rows.values[:, NAMES.index("plan_tokens_ratio")].tolist() == pytest.approx(
        [np.log2(33 / 64), np.log2(65 / 64)], abs=1e-4
    )


@pytest.mark.parametrize("name", ("launches", "typical"))
def test_a_snapshot_without_them_is_refused(name: str) -> None:
    parts = AccountStates(FAMILIES).snapshot()
    state = {key: value for key, value in parts["state"].items() if key != name}
    with pytest.raises(SchemaError, match="other parts"):
        AccountStates(FAMILIES).restore({**parts, "state": state})
