"""What rules add and cost, from small tables by hand."""

from __future__ import annotations

from typing import Any

import polars as pl

from pipeline.backtesting.rule_figures import rule_figures
from pipeline.rules import read_rules
from tests.rule_files import KNOWN, rule_text
from tests.unit.backtesting.test_figures import alerts

RULES = read_rules(
    None,
    KNOWN,
    text=rule_text(name="s", severity="high") + rule_text(name="r", state="live", severity="high")
    + rule_text(name="never", severity="high"),
)  # fmt: skip
ALERTS = alerts(
    ("r", "live", "a", 20), ("r", "live", "a", 9), ("s", "shadow", "a", 8), ("s", "shadow", "b", 30), ("s", "shadow", "c", 40),
)  # fmt: skip
LABELS = pl.DataFrame({"account_id": ["a", "b", "d", "e"], "attack": [True, False, False, True]})


def figures(told: dict[str, pl.DataFrame] | None = None) -> dict[str, dict[str, Any]]:
    return {row["rule"]: row for row in rule_figures(RULES, ALERTS, {"s": 7}, told or {})}


def test_every_rule_is_counted_live_ones_first_and_silent_ones_too() -> None:
    found = figures()
    assert list(found) == ["r", "s", "never"]
    assert [(row["alerts"], row["accounts"], row["suppressed"]) for row in found.values()] == [
        (2, 1, 0),
        (3, 3, 7),
        (0, 0, 0),
    ]
    assert [row["exchanges_before_first_alert"] for row in found.values()] == [
        {"median": 9.0, "p90": 9.0}, {"median": 30.0, "p90": 40.0}, {"median": None, "p90": None},
    ]  # fmt: skip
    assert [row["told"] for row in found.values()] == [{}, {}, {}]


def test_added_is_who_no_other_live_rule_alerts() -> None:
    """A live rule's own alerts do not count against it, nor do those of shadow rules."""
    assert {name: row["added"] for name, row in figures().items()} == {"r": 1, "s": 2, "never": 0}


def test_labels_and_verdicts_say_what_is_right_and_what_it_costs() -> None:
    verdicts = pl.DataFrame({"account_id": ["c"], "attack": [True]})
    found = figures({"labels": LABELS, "verdicts": verdicts})
    told = found["s"]["told"]["labels"]
    assert [(told[name]["count"], told[name]["of"]) for name in ("attack", "benign", "precision")] == [
        (1, 2),
        (1, 2),
        (1, 2),
    ]
    assert [(told[name]["count"], told[name]["of"]) for name in ("added_attack", "added_benign")] == [(0, 2), (1, 2)]
    assert told["unknown"] == 1
    by_verdicts = found["s"]["told"]["verdicts"]
    assert (by_verdicts["attack"]["count"], by_verdicts["added_attack"]["count"], by_verdicts["unknown"]) == (1, 1, 2)
    assert found["never"]["told"]["labels"]["precision"]["share"] is None


def test_rules_that_only_alerts_tell_of_are_counted_too() -> None:
    assert [row["rule"] for row in rule_figures((), ALERTS, {}, {})] == ["r", "s"]
    assert rule_figures((), alerts(), {}, {}) == []
