"""Alerting: what is alerted, who is silent for how long, who may teach the models, and what an alert says."""

from __future__ import annotations

import math
import re
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import alerting
from pipeline.alerting import Alerting
from pipeline.alerts import Alert, alert_id_of
from pipeline.batch import Partition
from pipeline.errors import ConfigError, SchemaError
from pipeline.rules import Rule, read_rules
from tests.rule_files import rule_text
from tests.scored_rows import DESCRIBED, FEATURES, START_US, US_PER_HOUR, Explainer, Rows, row, rows_of

PARTITION = Partition("llm-access", 3)
NAN = math.nan

RISK = {"name": "risk_high", "state": "live", "severity": "high", "condition": "risk >= 0.9 and exchanges >= 8"}
SHADOW = {"name": "risk_some", "state": "shadow", "condition": "risk >= 0.5", "suppress_hours": 2}
SINGLE = {"name": "one_shot", "state": "live", "condition": "not one_shot_share <= 0.5", "suppress_hours": 1}


def rules_of(*rules: dict[str, Any], text: str = "") -> tuple[Rule, ...]:
    return read_rules(None, FEATURES, text=text + "".join(rule_text(**rule) for rule in rules))


ALL = rules_of(RISK, SHADOW, SINGLE)


def started(rules: tuple[Rule, ...] = ALL) -> Alerting:
    return Alerting(rules, DESCRIBED, PARTITION, Explainer())


def raised(rows: list[dict[str, Any]], rules: tuple[Rule, ...]) -> tuple[list[tuple[str, float]], list[int]]:
    """Who was alerted at which hour, and which rows may teach."""
    alerts, may_learn = started(rules).step(rows_of(rows), rows_of(rows))
    return [(alert.entity_id, (alert.raised_at_us - START_US) / US_PER_HOUR) for alert in alerts], may_learn.astype(
        int
    ).tolist()


def test_an_account_is_silent_for_a_rule_until_its_own_clock_has_passed_the_window() -> None:
    rows = [
        row("a", 0, 0.95),
        row("b", 1, 0.95),
        row("a", 23.9, 0.99),
        row("b", 24, 0.99),
        row("a", 24, 0.91),
        row("a", 25, 0.99),
    ]
    assert raised(rows, rules_of(RISK)) == ([("a", 0), ("b", 1), ("a", 24)], [0, 0, 0, 0, 0, 0])


def test_another_accounts_clock_ends_nobodys_silence() -> None:
    rows = [row("a", 0, 0.95), row("future", 100_000, 0.95), row("a", 1, 0.95)]
    assert raised(rows, rules_of(RISK))[0] == [("a", 0), ("future", 100_000)]


def test_a_clock_that_falls_back_beyond_the_window_silences_no_longer() -> None:
    rows = [row("a", 1000, 0.95), row("a", 980, 0.95), row("a", 5, 0.95), row("a", 6, 0.95)]
    assert raised(rows, rules_of(RISK))[0] == [("a", 1000), ("a", 5)]


def test_what_is_unknown_does_not_fire() -> None:
    rows = [row("a", 0), row("b", 0, 0.95, exchanges=7), row("c", 0, 0.2)]
    assert raised(rows, rules_of(RISK)) == ([], [1, 1, 1])
    assert raised(rows, rules_of(SINGLE)) == ([], [1, 1, 1])


def test_who_may_teach() -> None:
    """Not accounts that a live rule on the risk alerted, from that row on until its window ends; others always."""
    rows = [
        row("a", 0, 0.5, one_shot_share=0.9), row("a", 1, 0.95), row("b", 1, 0.1), row("a", 2, 0.1), row("a", 25, 0.1), row("a", 26, 0.95),
    ]  # fmt: skip
    assert raised(rows, ALL)[1] == [1, 0, 1, 0, 1, 0]
    assert raised(rows, rules_of(SHADOW, SINGLE))[1] == [1] * 6


def test_several_rules_speak_in_their_order_row_by_row() -> None:
    rows = rows_of([row("a", 0, 0.95, one_shot_share=0.9), row("b", 0, 0.6)])
    alerts, _ = started().step(rows, rows)
    assert [(alert.entity_id, alert.rule) for alert in alerts] == [
        ("a", "risk_high"), ("a", "risk_some"), ("a", "one_shot"), ("b", "risk_some"),
    ]  # fmt: skip


def test_an_alert_says_all_that_is_known() -> None:
    (rule,) = rules_of({**RISK, "condition": "risk >= high and frame_share > 0.1"}, text="[constants]\nhigh = 0.9\n")
    rows = rows_of(
        [row("a", 0, 0.953, exchanges=1), row("x" * 10_000, 0.5, 0.953, exchanges=1234, frame_share=0.5, rate_1h=2.5)]
    )
    (alert,), _ = started((rule,)).step(rows, rows)
    window = (START_US + US_PER_HOUR // 2) // (24 * US_PER_HOUR) * (24 * US_PER_HOUR)
    assert alert == Alert(
        alert_id=alert_id_of("risk_high", 1, "account", "x" * 10_000, window),
        rule="risk_high",
        rule_version=1,
        state="live",
        severity="high",
        entity_type="account",
        entity_id="x" * 10_000,
        window_start_us=window,
        raised_at_us=START_US + US_PER_HOUR // 2,
        first_seen_us=START_US - US_PER_HOUR,
        topic="llm-access",
        partition=3,
        offset=101,
        exchanges=1234,
        output_tokens=617_000,
        risk=float(np.float32(0.953)),
        reasons=(
            "Nearly all requests are single-turn: risk >= high and frame_share > 0.1, where risk is 0.953, frame_share (the frame share) is 0.5, high stands for 0.9",
            "rate_1h 2.50 adds 0.75",
            "1,234 exchanges and 617,000 output tokens taken since 2026-03-03 00:06:40 UTC",
            "look at this account's requests in llm-access-3 up to offset 101, from 2026-03-03 00:06:40 UTC to 2026-03-03 01:36:40 UTC",
            "what to do: Look at its prompts.",
        ),
        features={"frame_share": 0.5, "rate_1h": 2.5},
        versions={"features": "f1", "models": "m1", "rule": rule.fingerprint[:16]},
    )


def test_an_alert_says_what_is_unknown_and_a_rule_without_risk_gives_its_own_numbers_alone() -> None:
    rows = rows_of([row("a", 0, exchanges=1, frame_share=2000.4)])
    (alert,), _ = started(rules_of({"condition": "frame_share > 1 or one_shot_share > 1"})).step(rows, rows)
    assert alert.risk is None
    assert alert.features == {"frame_share": float(np.float32(2000.4)), "one_shot_share": None, "rate_1h": None}
    assert alert.reasons[0].endswith(
        "where frame_share (the frame share) is 2,000, one_shot_share (the one shot share) is unknown"
    )
    assert alert.reasons[1] == "1 exchange and 500 output tokens taken since 2026-03-03 00:06:40 UTC"


def test_an_alert_says_what_verdicts_on_accounts_like_it_did() -> None:
    one = row("a", 0, 0.95) | {"precedents": 1.5}
    (alert,), _ = started(rules_of(RISK)).step(rows_of([one]), rows_of([one]))
    assert "verdicts on accounts like it raised the risk from 0.809 to 0.95" in alert.reasons
    (alert,), _ = started(rules_of(RISK)).step(rows_of([row("a", 0, 0.95)]), rows_of([row("a", 0, 0.95)]))
    assert not any("verdicts" in reason for reason in alert.reasons)


def test_ids_are_the_same_in_a_replay_and_differ_from_window_to_window() -> None:
    rows = rows_of([row("a", hours, 0.95) for hours in range(0, 240, 5)])
    ids = [alert.alert_id for alert in started(rules_of(RISK)).step(rows, rows)[0]]
    assert ids == [alert.alert_id for alert in started(rules_of(RISK)).step(rows, rows)[0]]
    assert len(set(ids)) == len(ids) == 10


def test_no_rows_and_no_rules_are_no_trouble() -> None:
    alerts, may_learn = started().step(rows_of([]), rows_of([]))
    assert (alerts, may_learn.tolist()) == ([], [])
    rows = rows_of([row("a", 0, 0.95)])
    assert started(()).step(rows, rows)[1].tolist() == [True]


ROWS = st.lists(
    st.builds(
        row,
        st.sampled_from("abcd"),
        st.sampled_from((0.0, 0.5, 1.0, 1.9, 2.0, 3.0, 23.0, 24.0, 25.0, 48.0)),
        st.sampled_from((NAN, 0.1, 0.5, 0.9, 0.95)),
        st.sampled_from((4, 8, 64)),
        one_shot_share=st.sampled_from((NAN, 0.2, 0.9)),
    ),
    max_size=40,
)
CUTS = st.lists(st.integers(0, 40), max_size=5)


Said = tuple[str, str, int, str | None]
"""Rule, account and offset of an alert, and how often the rule had held and kept silent; None: it never had alerted."""


def naive(rows: list[dict[str, Any]], entries_max: int) -> tuple[list[Said], list[bool], Counter[str]]:
    """One row at a time, by the words of the documentation: alerts, who may teach, and what was suppressed."""
    conditions = {
        "risk_high": lambda one: one["risk"] >= 0.9 and one["exchanges"] >= 8,
        "risk_some": lambda one: one["risk"] >= 0.5,
        "one_shot": lambda one: one["values"][0] > 0.5,
    }
    windows = {"risk_high": 24, "risk_some": 2, "one_shot": 1}
    past: dict[str, dict[str, tuple[float, int]]] = {name: {} for name in conditions}
    alerts: list[Said] = []
    may_learn, suppressed = [], Counter[str]()
    for offset, one in enumerate(rows, 100):
        teaches = True
        for name, holds in conditions.items():
            entries, account, hours = past[name], one["account"], one["hours"]
            before = entries.get(account)
            silent = before is not None and abs(before[0] - hours) < windows[name]
            if silent and before is not None and holds(one):
                entries[account] = (before[0], before[1] + 1)
                suppressed[name] += 1
            elif not silent and holds(one):
                entries.pop(account, None)
                entries[account] = (hours, 0)
                past[name] = dict(list(entries.items())[-entries_max:])
                alerts.append((name, account, offset, None if before is None else held(before[1])))
                silent = True
            teaches = teaches and not (name == "risk_high" and silent)
        may_learn.append(teaches)
    return alerts, may_learn, suppressed


def held(times: int) -> str:
    if not times:
        return "in which the rule did not hold"
    return f"while the rule held {times} more time{'' if times == 1 else 's'}"


def said_of(alert: Alert) -> Said:
    again = re.search(r"(while|in which) the rule .*$", alert.reasons[-3])
    return alert.rule, alert.entity_id, alert.offset, again and again[0]


def in_pieces(rows: Rows, cuts: list[int], *, restart: bool) -> tuple[list[Alert], list[bool], Counter[str]]:
    """Step by step, through a snapshot between any two."""
    ends = sorted({0, len(rows), *(min(cut, len(rows)) for cut in cuts)})
    stage, alerts, may_learn, suppressed = started(), [], [], Counter[str]()
    for start, stop in pairwise(ends):
        if restart:
            tables = stage.snapshot()
            stage = started()
            stage.restore(tables)
        part = rows.slice(start, stop)
        some, teaches = stage.step(part, part)
        alerts += some
        may_learn += teaches.tolist()
        suppressed.update(stage.take_suppressed())
    assert not stage.take_suppressed()
    return alerts, may_learn, suppressed


@given(ROWS, CUTS, st.sampled_from((1, 2, 3, 100)), st.booleans())
def test_all_rows_at_once_in_pieces_and_after_restarts_are_as_one_by_one(
    made: list[dict[str, Any]], cuts: list[int], entries_max: int, restart: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alerting, "ENTRIES_MAX", entries_max)
        alerts, may_learn, suppressed = in_pieces(rows_of(made), cuts, restart=restart)
    expected, teaches, kept_silent = naive(made, entries_max)
    assert [said_of(alert) for alert in alerts] == expected
    assert may_learn == teaches
    assert suppressed == kept_silent


def test_an_alert_says_how_often_its_rule_held_and_kept_silent_since_the_last() -> None:
    hours = (0, 1, 2, 25, 60)
    rows = rows_of([row("a", at, 0.95) for at in hours])
    first, second, third = started(rules_of(RISK)).step(rows, rows)[0]
    assert "alerted before" not in first.reasons[-3]
    assert second.reasons[-3].endswith(
        "; alerted before, on 2026-03-03 01:06:40 UTC, then silent for 24 h while the rule held 2 more times"
    )
    assert third.reasons[-3].endswith(
        "; alerted before, on 2026-03-04 02:06:40 UTC, then silent for 24 h in which the rule did not hold"
    )


def test_memory_is_bounded_and_the_longest_silent_account_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerting, "ENTRIES_MAX", 100)
    stage = started(rules_of(RISK))
    many = rows_of([row(f"{number:04}", 0, 0.95) for number in range(1000)])
    assert len(stage.step(many, many)[0]) == 1000
    assert stage.snapshot()["raised"].num_rows == 100
    again = rows_of([row(f"{number:04}", 1, 0.95) for number in (999, 900, 899)])
    assert [alert.entity_id for alert in stage.step(again, again)[0]] == ["0899"]


def snapshot() -> dict[str, pa.Table]:
    stage = started()
    rows = rows_of([row("a", 0, 0.95, one_shot_share=0.9), row("b", 1, 0.95)])
    stage.step(rows, rows)
    return stage.snapshot()


def restored(tables: dict[str, pa.Table], *rules: dict[str, Any]) -> list[tuple[str, str]]:
    """Who is alerted by rows right after those of the snapshot."""
    stage = started(rules_of(*rules))
    stage.restore(tables)
    rows = rows_of([row("a", 1.5, 0.95), row("b", 1.5, 0.95)])
    return [(alert.rule, alert.entity_id) for alert in stage.step(rows, rows)[0]]


def test_a_snapshot_serves_rules_in_another_order_and_new_ones_begin_anew() -> None:
    assert restored(snapshot(), SINGLE, SHADOW, RISK) == []
    new = {**SHADOW, "name": "new"}
    assert restored(snapshot(), new, RISK) == [("new", "a"), ("new", "b")]
    assert restored(snapshot(), {**RISK, "version": 2, "condition": "risk > 0.94"}) == [
        ("risk_high", "a"),
        ("risk_high", "b"),
    ]
    assert restored(snapshot(), {**RISK, "runbook": "Other words."}) == []


@pytest.mark.parametrize("change", ({"condition": "risk >= 0.8"}, {"suppress_hours": 1}, {"state": "shadow"}))
def test_a_rule_that_decides_otherwise_under_the_same_version_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"rule 'risk_high' is still version 1, but .*; give it version 2"):
        restored(snapshot(), {**RISK, **change})


def test_what_is_no_snapshot_is_refused_and_changes_nothing() -> None:
    good = snapshot()
    foreign = pa.table(
        {
            "rule": pa.array([9], pa.uint16()),
            "key": pa.array([1], pa.uint64()),
            "raised_at": pa.array([1], pa.int64()),
            "suppressed": pa.array([0], pa.int64()),
        },
        schema=alerting.RAISED_SCHEMA,
    )
    for bad in (
        {},
        {**good, "more": good["rules"]},
        {**good, "raised": b"bytes"},
        {"rules": good["rules"]},
        {**good, "raised": good["raised"].drop_columns("key")},
        {**good, "raised": foreign},
    ):
        stage = started()
        with pytest.raises(SchemaError, match="the snapshot's part"):
            stage.restore(bad)
        assert stage.snapshot()["raised"].num_rows == 0
