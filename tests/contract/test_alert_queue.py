"""The analyst's queue, on both databases."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from pipeline.decisions import Verdict
from pipeline.io.catalog import Catalog
from pipeline.io.desk.alert_queue import ORDERS, Order, QueueFilter
from pipeline.rules import SEVERITIES
from tests.contract.catalog_commits import P0, alert_of, commit_of
from tests.contract.test_desk import ODD, entry_of

COMMITTED_US = 1_780_000_000_000_000
EVERYTHING = QueueFilter(state="", decided="", suppressed="")


def bring(catalog: Catalog, *alerts: Any, at_us: int = COMMITTED_US) -> None:
    claim = catalog.take(P0) or catalog.start_at(P0, 0)
    commit = replace(commit_of(P0, claim.next_offset, claim.next_offset + 10), committed_at_us=at_us)
    catalog.commit(commit, claim.epoch, [], alerts=alerts)


def shown(catalog: Catalog, wanted: QueueFilter = QueueFilter(), order: Order = "time") -> list[str]:  # noqa: B008  # frozen
    found = catalog.desk.queue.page(wanted, order, 1000)
    assert catalog.desk.queue.count(wanted, 1000) == len(found)
    return [one.alert.entity_id for one in found]


def judge(catalog: Catalog, number: int, decision: Any, at_us: int, **changed: Any) -> None:
    account = alert_of(number).entity_id
    catalog.desk.verdicts.give(
        Verdict(f"{at_us:032x}", account, decision, "because", "ana", at_us, **{"alert_id": "", **changed})
    )


@pytest.mark.parametrize("order", ORDERS)
def test_pages_of_any_size_hold_each_alert_once_and_in_order(catalog: Catalog, order: Order) -> None:
    """Many alerts are alike in what they are sorted by, and some have no risk."""
    risks = (None, 0.5, 0.5, 1.0)
    bring(
        catalog,
        *(
            replace(alert_of(number), raised_at_us=number // 5, risk=risks[number % 4], severity=SEVERITIES[number % 3])
            for number in range(40)
        ),
    )
    whole = catalog.desk.queue.page(EVERYTHING, order, 1000)
    assert len({one.alert.alert_id for one in whole}) == 40
    for size in (1, 7, 39, 40):
        paged, after = [], ""
        while part := catalog.desk.queue.page(EVERYTHING, order, size, after):
            paged += part
            after = part[-1].alert.alert_id
        assert paged == whole
    keys = {
        "risk": lambda one: -1 if one.risk is None else one.risk,
        "time": lambda one: one.raised_at_us,
        "severity": lambda one: SEVERITIES.index(one.severity),
    }
    assert all(keys[order](first.alert) >= keys[order](second.alert) for first, second in pairwise(whole))


def test_a_verdict_answers_what_had_come_and_what_it_names_and_nothing_else(catalog: Catalog) -> None:
    bring(catalog, alert_of(1), alert_of(2))
    later = replace(alert_of(1), alert_id="f" * 32, raised_at_us=9_000_000)
    judge(catalog, 1, "benign", COMMITTED_US + 5)
    assert shown(catalog) == ["account-2"]
    bring(catalog, later, at_us=COMMITTED_US + 10)
    assert shown(catalog) == ["account-1", "account-2"]
    (open_again,) = [one for one in catalog.desk.queue.page(QueueFilter(), "time", 9) if one.alert == later]
    assert open_again.standing is not None
    assert (open_again.standing.decision, open_again.standing.answers) == ("benign", False)
    judge(catalog, 1, "unsure", COMMITTED_US + 9, alert_id="f" * 32)
    assert shown(catalog) == ["account-2"]
    assert shown(catalog, QueueFilter(decided="yes")) == ["account-1", "account-1"]


def test_a_verdict_that_is_withdrawn_opens_the_alerts_again(catalog: Catalog) -> None:
    bring(catalog, alert_of(1))
    judge(catalog, 1, "harvesting", COMMITTED_US + 1)
    assert shown(catalog) == []
    judge(catalog, 1, "withdrawn", COMMITTED_US + 2)
    assert shown(catalog) == ["account-1"]
    assert catalog.desk.queue.page(QueueFilter(), "risk", 1)[0].standing is None


def test_what_is_suppressed_or_in_shadow_is_seen_when_it_is_asked_for(catalog: Catalog) -> None:
    catalog.desk.exceptions.add(entry_of())
    bring(catalog, alert_of(1), alert_of(2, state="shadow"), alert_of(3))
    assert shown(catalog) == ["account-3"]
    assert shown(catalog, QueueFilter(suppressed="yes")) == ["account-1"]
    assert shown(catalog, QueueFilter(state="shadow")) == ["account-2"]
    found = {one.alert.entity_id: one.exception_id for one in catalog.desk.queue.page(EVERYTHING, "time", 9)}
    assert found == {"account-1": entry_of().exception_id, "account-2": "", "account-3": ""}


def test_claims_rule_severity_and_account_narrow_it(catalog: Catalog) -> None:
    bring(catalog, alert_of(1, rule="other"), alert_of(2, severity="low"), alert_of(3))
    catalog.desk.claims.claim(alert_of(2, severity="low").alert_id, "ana", 1)
    catalog.desk.claims.claim(alert_of(3).alert_id, "ben", 2)
    assert shown(catalog, QueueFilter(claimed="no")) == ["account-1"]
    assert shown(catalog, QueueFilter(claimed="yes")) == ["account-3", "account-2"]
    assert shown(catalog, QueueFilter(claimed_by="ana")) == ["account-2"]
    assert shown(catalog, QueueFilter(rule="other")) == ["account-1"]
    assert shown(catalog, QueueFilter(severity="low")) == ["account-2"]
    digest = hashlib.sha256(b"account-3").hexdigest()
    assert shown(catalog, QueueFilter(account_sha256=digest)) == ["account-3"]
    assert catalog.desk.queue.rules() == ["harvest", "other"]
    one = catalog.desk.queue.alert(alert_of(3).alert_id)
    assert one is not None
    assert (one.claimed_by, one.claimed_at_us, one.account_sha256) == ("ben", 2, digest)


def test_an_account_is_known_by_its_hash_once_anything_is_on_record(catalog: Catalog) -> None:
    digest = hashlib.sha256(ODD.replace("\0", "\u2400").encode()).hexdigest()
    assert catalog.desk.queue.account_of(digest) is None
    catalog.desk.verdicts.give(Verdict("0" * 32, ODD, "benign", "x", "ana", 1))
    assert catalog.desk.queue.account_of(digest) == ODD.replace("\0", "\u2400")
    assert catalog.desk.queue.alert("0" * 32) is None


def test_a_verdict_over_one_that_its_giver_has_not_seen_is_not_given(catalog: Catalog) -> None:
    book = catalog.desk.verdicts
    mine, theirs = (Verdict(letter * 32, "a", "benign", "x", "ana", 1) for letter in "ab")
    first = book.give_over(theirs, 0)
    assert first.verdict_id == theirs.verdict_id
    assert book.give_over(mine, 0) == first
    assert book.of("a") == [first]
    second = book.give_over(mine, first.seq)
    assert (second.verdict_id, book.standing("a")) == (mine.verdict_id, second)
    assert book.give_over(mine, second.seq) == second
