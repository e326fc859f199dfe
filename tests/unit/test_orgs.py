"""Which organisation an alert's account belongs to."""

from __future__ import annotations

from typing import Any

from pipeline.accounts import Accounts
from pipeline.batch import Decoded, Partition
from pipeline.decode import Decoder
from pipeline.orgs import no_org, orgs_of
from tests.contract.catalog_commits import alert_of
from tests.lake_maker import records_of

ACCOUNT = alert_of(1).entity_id


def decoded(*orgs: tuple[str, str | None]) -> Decoded:
    payloads: list[dict[str, Any]] = [
        {"event_time": "2026-03-01T12:00:00Z", "account_id": account, "model": "m", "org_id": org}
        for account, org in orgs
    ]
    return Decoder().decode(records_of(payloads, 0, Partition("t", 0)))


def test_the_last_that_its_events_name_counts() -> None:
    parts = [decoded((ACCOUNT, "org_1"), ("other", "org_9")), decoded((ACCOUNT, "org_2"), (ACCOUNT, None))]
    assert orgs_of([alert_of(1)], parts, no_org) == {ACCOUNT: "org_2"}


def test_where_events_name_none_the_feed_does() -> None:
    feed = Accounts([{"account_id": ACCOUNT, "org_id": "org_feed"}, {"account_id": "other"}])
    assert orgs_of([alert_of(1)], [decoded((ACCOUNT, None))], feed.org_of) == {ACCOUNT: "org_feed"}
    assert orgs_of([alert_of(1)], [decoded((ACCOUNT, "org_1"))], feed.org_of) == {ACCOUNT: "org_1"}
    assert (feed.org_of("other"), feed.org_of("nobody")) == (None, None)


def test_what_nobody_names_is_left_out() -> None:
    assert orgs_of([alert_of(1)], [decoded((ACCOUNT, None))], no_org) == {}
    assert orgs_of([], [decoded((ACCOUNT, "org_1"))], no_org) == {}
