"""A snapshot without one account is the snapshot of everybody else, to the bit where that can be."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline.analysis import Analysis, Watch
from pipeline.batch import Partition
from pipeline.config import Settings
from pipeline.decisions import JudgedRow, Verdict
from pipeline.decode import Decoder
from pipeline.features.hashing import keys
from pipeline.forgetting import without_account
from pipeline.simulation import Simulation
from pipeline.snapshots import label_of, unpack
from pipeline.text_views import kept
from pipeline.watch import load_watch
from tests.lake_maker import records_of

WHERE = Partition("llm-access", 0)


@pytest.fixture(scope="module")
def watch() -> Watch:
    return load_watch(Settings())


@pytest.fixture(scope="module")
def events() -> pa.Table:
    """A day of simulated traffic, harvesters among it."""
    simulation = Simulation(seed=3, accounts=60, start=datetime(2026, 3, 2, tzinfo=UTC), hours=24, attack_share=0.4)
    return Decoder().decode(records_of(list(simulation.events()), 0, WHERE)).events


def accounts_in(blob: bytes) -> set[str]:
    reader = unpack(blob, label_of(blob))["states.accounts"]
    assert isinstance(reader, pa.RecordBatchReader)
    return set(reader.read_all()["account_id"].to_pylist())


def names(blob: bytes, account: str) -> bool:
    """Whether any part holds the id, compressed as the parts may be."""
    parts = unpack(blob, label_of(blob)).values()
    tables = (part.read_all() if isinstance(part, pa.RecordBatchReader) else part for part in parts)
    return any(account in repr(part.to_pydict() if isinstance(part, pa.Table) else part) for part in tables)


def test_no_part_holds_the_account_any_more_and_others_stay(watch: Watch, events: pa.Table) -> None:
    analysis = Analysis(WHERE, watch)
    analysed = analysis.step(events)
    blob = analysis.snapshot()
    account = analysed.alerts[0].entity_id
    clean = without_account(blob, account)
    assert clean is not None
    assert names(blob, account)
    assert not names(clean, account)
    assert account in accounts_in(blob)
    assert accounts_in(clean) == accounts_in(blob) - {account}
    assert without_account(clean, account) is None
    former, parts = unpack(blob, label_of(blob)), unpack(clean, label_of(clean))
    for name in ("states.sharing", "states.sharing_new", "alerting.raised"):
        assert len(parts[name]) <= len(former[name]), name  # type: ignore[arg-type]
    assert len(parts["states.sharing"]) + len(parts["states.sharing_new"]) < len(former["states.sharing"]) + len(
        former["states.sharing_new"]
    )  # type: ignore[arg-type]
    rest = Analysis.restore(WHERE, watch, clean, analysis.next_offset)
    assert rest.accounts == analysis.accounts - 1


def test_an_account_that_was_there_last_has_no_say_any_more(watch: Watch, events: pa.Table) -> None:
    analysis = Analysis(WHERE, watch)
    analysis.step(events)
    blob = analysis.snapshot()
    account = events["account_id"][-1].as_py()
    clean = without_account(blob, account)
    assert clean is not None
    voters = [unpack(one, label_of(one))["states.state"]["watermark"]["keys"] for one in (blob, clean)]  # type: ignore[index]
    key = int(keys([account])[0])
    assert key in voters[0]
    assert voters[1] == [voter for voter in voters[0] if voter != key]


def test_what_a_verdict_on_it_said_is_forgotten_and_others_count_on(watch: Watch, events: pa.Table) -> None:
    analysis = Analysis(WHERE, watch)
    rows = {row["account_id"]: row for row in analysis.step(events).windows.to_pylist() if row["exchanges"] > 3}
    judged = [
        JudgedRow(WHERE, row["offset"], 0, row["risk"], row["features"], row["exchanges"], row["kind"])
        for row in list(rows.values())[:4]
    ]
    names = list(rows)[:4]
    said = zip(names, judged, strict=True)
    analysis.judge(
        [Verdict(str(n), name, "benign", "", "", 0, row=row, seq=n) for n, (name, row) in enumerate(said, 1)]
    )
    blob = analysis.snapshot()
    clean = without_account(blob, names[1])
    assert clean is not None
    before, after = (unpack(one, label_of(one))["ensemble.precedents"] for one in (blob, clean))
    others = [key for number, key in enumerate(keys(names).tolist()) if number != 1]
    assert before["key"].to_pylist() == keys(names).tolist()  # type: ignore[index, call-overload]
    assert after["key"].to_pylist() == others  # type: ignore[index, call-overload]
    Analysis.restore(WHERE, watch, clean, analysis.next_offset)


def test_what_a_verdict_said_of_an_id_with_a_nul_is_forgotten_too(watch: Watch, events: pa.Table) -> None:
    """The catalog, and so the verdict, has it without: by PostgreSQL's rules."""
    analysis = Analysis(WHERE, watch)
    row = next(row for row in analysis.step(events).windows.to_pylist() if row["exchanges"] > 3)
    judged = JudgedRow(WHERE, row["offset"], 0, row["risk"], row["features"], row["exchanges"], row["kind"])
    analysis.judge([Verdict("1", "n\u2400", "benign", "", "", 0, row=judged, seq=1)])
    clean = without_account(analysis.snapshot(), "n\0")
    assert clean is not None
    assert not len(unpack(clean, label_of(clean)).get("ensemble.precedents", ()))  # type: ignore[arg-type]


def test_an_account_named_like_a_part_of_the_state_takes_nothing_else_along(watch: Watch, events: pa.Table) -> None:
    analysis = Analysis(WHERE, watch)
    analysis.step(events)
    blob = analysis.snapshot()
    for name in ("typical", "watermark"):
        assert without_account(blob, name) is None


def test_when_others_are_scored_and_what_they_have_done_does_not_change(watch: Watch, events: pa.Table) -> None:
    """Counts, clocks and panes of others are theirs alone."""
    half = len(events) // 2
    analysis = Analysis(WHERE, watch)
    analysis.step(events.slice(0, half))
    blob = analysis.snapshot()
    account = events["account_id"][0].as_py()
    clean = without_account(blob, account)
    assert clean is not None
    rest = events.slice(half)
    mine = np.array(rest["account_id"].to_pylist()) == account
    later = kept(rest, ~mine)
    found = [
        Analysis.restore(WHERE, watch, snapshot, analysis.next_offset).step(later).windows for snapshot in (blob, clean)
    ]
    of_others = [rows.filter(pc.not_equal(rows["account_id"], account)) for rows in found]
    for name in ("account_id", "scored_at", "kind", "exchanges", "output_tokens", "first_seen", "offset"):
        assert of_others[0][name].equals(of_others[1][name]), name


def test_an_account_that_is_not_known_leaves_no_trace_to_remove(watch: Watch, events: pa.Table) -> None:
    analysis = Analysis(WHERE, watch)
    analysis.step(events)
    assert without_account(analysis.snapshot(), "nobody") is None
