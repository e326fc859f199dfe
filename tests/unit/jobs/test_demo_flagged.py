"""The demo counts flagged accounts against the simulation's labels."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from jobs.demo_flagged import Comparison, Group, report
from jobs.demo_view import Answer
from pipeline.simulation import Label

LABELS = [
    Label("a", "attack", "attack", "f", "loud", ""),
    Label("b", "attack", "attack", "f", "loud", ""),
    Label("c", "attack", "attack", "f", "drip", "p"),
    Label("d", "benign", "people"),
    Label("e", "benign", "etl"),
    Label("f", "benign", "people"),
    Label("silent", "attack", "attack", "f", "drip", "p"),
]
RISKS = {"a": 0.9, "b": 0.4, "c": None, "d": 0.1, "e": 0.6, "f": None}


def test_what_was_flagged_rightly_and_wrongly_and_missed() -> None:
    compared = Comparison.of({"a": 12, "e": 40}, RISKS, LABELS)
    assert compared.variants == [Group("loud", 2, 1, 0), Group("drip", 1, 0, 1)]
    assert [group.missed for group in compared.variants] == [1, 1]
    assert compared.populations == [Group("etl", 1, 1, 0), Group("people", 2, 0, 1)]
    assert compared.exchanges == 12


def test_accounts_are_ranked_by_their_highest_risk_and_never_scored_ones_are_zero() -> None:
    swept = Comparison.of({}, RISKS, LABELS).swept
    # Pairs of a harvester and a customer: a beats all 3, b beats 2, c loses to 2 and ties with f.
    assert swept.auc == pytest.approx((3 + 2 + 0.5) / 9)
    # a first; b third, after e; c with f, fifth and sixth.
    assert swept.average_precision == pytest.approx((1 + 2 / 3 + 3 / 6) / 3)


def test_in_words() -> None:
    words = Comparison.of({"a": 12, "e": 40}, RISKS, LABELS).in_words()
    assert words["harvesters"] == "1 of 3 in the traffic flagged (33.3%)"
    assert words["customers"] == "1 of 3 in the traffic flagged (33.3%)"
    assert words["precision"] == "1 of 2 flagged accounts harvest (50.0%); 3 of all 6 do (50.0%)"
    assert words["how soon"] == "half of the flagged harvesters had made 12 exchanges or fewer"


@pytest.mark.parametrize("risks", (RISKS, {"d": 0.2}, {}))
def test_nothing_flagged(risks: dict[str, float | None]) -> None:
    words = Comparison.of({}, risks, LABELS).in_words()
    assert words["customers"].startswith("0 of ")
    assert "how soon" not in words
    assert ("ranking" in words) == ("a" in risks)


def told(flagged: list[tuple[object, ...]]) -> str:
    def ask(sql: str) -> Answer:
        if "QUALIFY" in sql:
            return Answer(sql, (), flagged, 0.0)
        return Answer(sql, ("rule", "alerts", "accounts"), list(RISKS.items()) if "access" in sql else [], 0.0)

    out = io.StringIO()
    first = report(Console(file=out, width=100), ask, LABELS)
    assert (first.alert_id if first else None) == (flagged[0][-1] if flagged else None)
    return out.getvalue()


def test_each_account_is_told_with_when_after_how_much_and_why() -> None:
    reasons = ["Risk is high: risk >= 0.5", "one-shots: 90 % raises the risk", "taken", "look", "what to do"]
    said = told([("a", "Wed 04:47", 12, 0.9, reasons, "0123")])
    assert "  a  Wed 04:47, after 12 exchanges, risk 0.90  (simulated as harvester, loud)\n" in said
    assert "    - one-shots: 90 % raises the risk\n" in said
    assert "look" not in said
    assert "simulated traffic" in said


def test_an_account_that_a_rule_without_risk_flagged() -> None:
    reasons = ["Never pauses: hours >= 24, where hours is 24", "taken", "look", "what to do"]
    said = told([("e", "Wed 04:47", 300, None, reasons, "0123")])
    assert "risk unknown  (simulated as customer, etl)" in said
    assert "    - Never pauses: hours >= 24, where hours is 24\n" in said


def test_that_nothing_was_flagged_is_said() -> None:
    assert "Accounts that the job flagged: 0" in told([])
