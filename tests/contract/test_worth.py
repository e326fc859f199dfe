"""What rules' alerts were worth, on both databases."""

from __future__ import annotations

from dataclasses import replace

from pipeline.io.catalog import Catalog
from pipeline.io.desk.worth import Worth, worth_of_rules
from tests.contract.catalog_commits import P0, alert_of, commit_of
from tests.contract.test_desk import entry_of, verdict_of


def test_a_rule_is_worth_what_the_verdicts_that_stand_say(catalog: Catalog) -> None:
    """Each account counts once, by its last verdict, however often it was alerted and judged."""
    alerts = [replace(alert_of(number), rule="one", entity_id=f"a{number % 4}") for number in range(6)]
    alerts += [replace(alert_of(number), rule="two", entity_id=f"a{number % 4}") for number in range(6, 8)]
    catalog.desk.exceptions.add(entry_of(subject="a3"))
    claim = catalog.start_at(P0, 0)
    at_us = entry_of().created_at_us
    catalog.commit(replace(commit_of(P0, 0, 10), committed_at_us=at_us), claim.epoch, [], alerts=alerts)
    said = (("a0", "benign"), ("a0", "harvesting"), ("a1", "benign"), ("a2", "unsure"), ("a3", "harvesting"))
    for number, (account, decision) in enumerate((*said, ("a3", "withdrawn"), ("other", "benign"))):
        catalog.desk.verdicts.give(verdict_of(number, account_id=account, decision=decision))
    worth = worth_of_rules(catalog)
    assert worth == {
        "one": Worth(6, 4, suppressed=1, harvesting=1, benign=1, unsure=1),
        "two": Worth(2, 2, suppressed=1, unsure=1),
    }
    assert worth["one"].precision == 0.5
    assert worth["two"].precision is None


def test_without_alerts_there_is_nothing_to_say(catalog: Catalog) -> None:
    assert worth_of_rules(catalog) == {}
