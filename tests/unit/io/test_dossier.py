"""The dossier: what it says of an account is what the log says, whoever the account is."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from pipeline.commits import FileEntry
from pipeline.config import read_settings
from pipeline.decisions import AllowEntry, Verdict
from pipeline.dossier import Bucket
from pipeline.errors import ConfigError
from pipeline.io.catalog import Catalog
from pipeline.io.desk.audit_log import AuditFilter
from pipeline.io.dossier import UnknownAccountError, Wanted, read_dossier
from pipeline.io.dossier.lake_time import last_hour
from pipeline.io.dossier.log import SAMPLES, timeline
from pipeline.io.dossier.neighbours import choose
from pipeline.io.read_only import read_only_engine
from pipeline.io.rewriting.ledger import RewriteLedger
from pipeline.io.rewriting.retention import Retainer
from pipeline.io.views.session import Session
from pipeline.watch import load_watch
from tests.lake_maker import LakeMaker, make_lake
from tests.rewrites import StandingClock
from tests.unit.io.dossier_lake import HARVESTER, HOSTILE, NOW_US, dossier_of, event, harvest, reading, traffic

HOUR_US = 3_600_000_000


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A lake that no test changes, but for the record of who looked."""
    folder = tmp_path_factory.mktemp("dossier") / "lake"
    with make_lake(folder, traffic(), rows_per_commit=50, watch=load_watch(read_settings(None))):
        yield folder


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[LakeMaker]:
    with make_lake(tmp_path / "lake", harvest()) as maker:
        yield maker


def test_totals_are_those_of_the_log(root: Path) -> None:
    activity = dossier_of(root, HARVESTER).seen.activity
    mine = [one for one in traffic() if one["account_id"] == HARVESTER]
    assert activity.requests == len(mine)
    assert activity.output_tokens == sum(one["output_tokens"] for one in mine)
    assert activity.errors == sum(one["status"] >= 400 for one in mine)
    assert [(used.value, used.requests) for used in activity.used["key"]] == [("key_shared", 80)]
    assert activity.used["network"][0].value == "192.0.2.0/24"
    assert activity.distinct["organisation"] == 0
    assert sum(bucket.requests for bucket in dossier_of(root, HARVESTER).seen.timeline) == len(mine)


def test_what_requests_came_with_is_counted_of_the_latest_week_or_of_as_long_as_is_looked_back(tmp_path: Path) -> None:
    day = 24 * 60
    keys = [(0, "old"), (20 * day, "new"), (20 * day + 1, "new"), (21 * day, "newest")]
    with make_lake(tmp_path / "lake", [event("a", at, api_key_id=key) for at, key in keys]) as maker:
        activity = dossier_of(maker.root, "a").seen.activity
        whole = dossier_of(maker.root, "a", look_back_us=30 * 24 * HOUR_US).seen.activity
    assert activity.requests == 4
    assert [(used.value, used.requests) for used in activity.used["key"]] == [("new", 2), ("newest", 1)]
    assert activity.distinct["key"] == 2
    assert activity.used_since_us == activity.last_us - 7 * 24 * HOUR_US
    assert [used.value for used in whole.used["key"]] == ["new", "newest", "old"]


def test_samples_are_spread_over_the_requests_and_always_the_same(root: Path) -> None:
    samples = dossier_of(root, HARVESTER).seen.samples
    assert samples == dossier_of(root, HARVESTER).seen.samples
    numbers = [int(sample.prompt.partition("topic ")[2].split()[0]) for sample in samples]
    assert numbers == [step * 79 // (SAMPLES - 1) for step in range(SAMPLES)]


def test_scores_are_read_with_reasons_in_sentences_and_features_beside_the_population(root: Path) -> None:
    inferred = dossier_of(root, HARVESTER).inferred
    assert inferred.risk == inferred.history[-1].risk
    assert inferred.risk > 0.3
    assert {"the latest", "the first risk"} <= {part for one in inferred.notable for part in one.why.split(", ")}
    assert all(
        "raises the risk" in reason or "lowers the risk" in reason for one in inferred.notable for reason in one.reasons
    )
    by_name = {measure.name: measure for measure in inferred.measures}
    single = by_name["single_turn_share_7d"]
    assert single.said == "100 %"
    assert single.place is not None
    places = [measure.place for measure in inferred.measures]
    known = [abs(place - 0.5) for place in places if place is not None]
    assert known == sorted(known, reverse=True)
    assert None not in places[: len(known)]


def test_scores_that_are_read_in_a_session_of_their_own_are_the_same(root: Path) -> None:
    settings, asked = read_settings(None, lake=str(root)), Wanted(NOW_US, "ann", texts=False)
    with reading(root) as (session, catalog):
        alone = read_dossier(session, catalog, HARVESTER, asked)
        assert read_dossier(session, catalog, HARVESTER, asked, aside=lambda: Session.open(settings)) == alone
        assert alone.inferred.history


def test_what_goes_wrong_aside_goes_wrong(root: Path, tmp_path: Path) -> None:
    settings = read_settings(None, lake=str(root))
    asked = Wanted(NOW_US, "ann", texts=False, models=tmp_path / "none")
    with reading(root) as (session, catalog):
        with pytest.raises(ConfigError, match="no models in"):
            read_dossier(session, catalog, HARVESTER, asked, aside=lambda: Session.open(settings))
        with pytest.raises(UnknownAccountError):
            read_dossier(session, catalog, "nobody", asked, aside=lambda: Session.open(settings))


def test_alerts_come_with_what_became_of_them(root: Path) -> None:
    inferred = dossier_of(root, HARVESTER).inferred
    live = [raised for raised in inferred.alerts if raised.alert.state == "live"]
    assert [raised.delivery for raised in live] == ["new"]
    assert any(f"raised {live[0].alert.rule}" in one.why for one in inferred.notable)


def test_what_others_have_too_is_said_with_how_many_the_rarest_first(root: Path) -> None:
    seen = dossier_of(root, HARVESTER).seen
    shared = {(one.kind, one.value): one for one in seen.shared}
    key = shared["key", "key_shared"]
    assert (key.others, key.examples, key.degree, key.alerted) == (1, ("acct_twin",), "rare", 0)
    assert shared["asn", "64500"].degree == "common"
    assert [one.others for one in seen.shared] == sorted(one.others for one in seen.shared)
    assert seen.looked is not None
    assert seen.looked.requests == len(traffic())
    assert dossier_of(root, "acct_one").seen.not_shared == ("network", "asn")
    twin = {one.kind: one for one in dossier_of(root, "acct_twin").seen.shared}
    assert (twin["key"].examples, twin["key"].alerted) == ((HARVESTER,), 1)


def test_an_account_of_one_request_has_a_dossier_without_scores(root: Path) -> None:
    dossier = dossier_of(root, "acct_one")
    assert (dossier.seen.activity.requests, len(dossier.seen.samples)) == (1, 1)
    assert (dossier.inferred.history, dossier.inferred.measures, dossier.inferred.risk) == ((), (), None)
    assert dossier.seen.samples[0].text == "absent"
    assert dossier.seen.texts.why_not == "the gateway sent no text with them"


def test_who_looks_at_texts_goes_on_record_and_nobody_else(maker: LakeMaker) -> None:
    assert not any(sample.prompt for sample in dossier_of(maker.root, HARVESTER, texts=False).seen.samples)
    assert not maker.catalog.desk.audit.records()
    shown = dossier_of(maker.root, HARVESTER, by="bea", where="page")
    assert shown.seen.texts.shown
    (record,) = maker.catalog.desk.audit.records(AuditFilter(action="content.seen"))
    assert (record.actor, record.subject, dict(record.details)) == ("bea", HARVESTER, {"requests": 8, "where": "page"})


def test_without_a_record_no_text_is_shown(maker: LakeMaker) -> None:
    with (
        reading(maker.root) as (session, _),
        contextlib.closing(Catalog(read_only_engine(maker.catalog_url))) as read_only,
    ):
        seen = read_dossier(session, read_only, HARVESTER, Wanted(NOW_US, "ann")).seen
    assert not seen.texts.shown
    assert "the record cannot be written" in seen.texts.why_not
    assert {sample.text for sample in seen.samples} == {"withheld"}
    assert not any(sample.prompt or sample.response for sample in seen.samples)


def test_a_role_that_may_read_alone_is_shown_no_text(tmp_path: Path, postgres_url: str) -> None:
    with make_lake(tmp_path / "lake", harvest(), catalog_url=postgres_url) as maker:
        with maker.catalog.transaction(write=True) as tx:
            for statement in (
                "CREATE ROLE only_reads LOGIN",
                "GRANT SELECT ON ALL TABLES IN SCHEMA public TO only_reads",
            ):
                tx.exec_driver_sql(statement)
        url = sa.make_url(postgres_url).set(username="only_reads").render_as_string(hide_password=False)
        catalog = Catalog.open(url, create=False)
        try:
            with Session(maker.lake, catalog) as session:
                seen = read_dossier(session, catalog, HARVESTER, Wanted(NOW_US, "ann")).seen
        finally:
            with maker.catalog.transaction(write=True) as tx:
                for statement in ("DROP OWNED BY only_reads", "DROP ROLE only_reads"):
                    tx.exec_driver_sql(statement)
    assert "the role only_reads may not " in seen.texts.why_not
    assert HARVESTER not in seen.texts.why_not
    assert not any(sample.prompt for sample in seen.samples)
    assert seen.activity.requests == 80


def test_texts_that_retention_took_are_said_to_be_gone(maker: LakeMaker) -> None:
    ledger = RewriteLedger(maker.catalog, "tests")
    Retainer(maker.lake, maker.catalog, ledger, StandingClock(NOW_US)).retain("content", 7)
    texts = dossier_of(maker.root, HARVESTER).seen.texts
    assert not texts.shown
    assert texts.why_not == "all of its requests are older than texts are kept"


@pytest.mark.parametrize(
    "account",
    ("nobody", "", "o'brien", "a\0b", "acct\udcff", "x" * 10_000, "x' OR '1' = '1", "'; DROP TABLE access; --"),
)
def test_an_account_that_is_not_there_is_an_error(root: Path, account: str) -> None:
    with pytest.raises(UnknownAccountError) as caught:
        dossier_of(root, account)
    assert not caught.value.near


def test_an_id_that_was_mistyped_brings_those_like_it(root: Path) -> None:
    with pytest.raises(UnknownAccountError) as caught:
        dossier_of(root, "acct_laud")
    assert caught.value.near[0] == HARVESTER


@pytest.mark.parametrize("account", (HOSTILE, "a\0b", "o'brien", "x" * 10_000, "a/../b", "acct_1%", "ünï\u202e"))
def test_an_account_of_any_name_has_its_own_requests_and_no_others(tmp_path: Path, account: str) -> None:
    events = [event(account, minute, prompt="p") for minute in range(3)] + [event("other", 1, prompt="q")]
    with make_lake(tmp_path / "lake", events) as maker:
        maker.catalog.desk.verdicts.give(Verdict("0" * 32, account, "benign", "why", "bea", NOW_US))
        dossier = dossier_of(maker.root, account)
    assert dossier.account_id == account
    assert dossier.seen.activity.requests == 3
    assert [sample.prompt for sample in dossier.seen.samples] == ["p"] * 3
    assert dossier.decided.standing is not None
    assert [(one.kind, one.examples) for one in dossier.seen.shared if one.kind == "network"] == [
        ("network", ("other",))
    ]


def test_an_id_with_a_nul_is_found_as_it_is_shown_for_nobody_can_type_one(tmp_path: Path) -> None:
    events = [event("a\0b", minute, prompt="p") for minute in range(3)] + [event("c\u2400", 1), event("c\0", 2)]
    with make_lake(tmp_path / "lake", events) as maker:
        found = dossier_of(maker.root, "a\u2400b")
        assert found.account_id == "a\0b"
        assert found.seen.activity.requests == 3
        assert dossier_of(maker.root, "c\u2400").account_id == "c\u2400"
        with pytest.raises(UnknownAccountError):
            dossier_of(maker.root, "b\u2400")


def test_verdicts_and_exceptions_that_speak_of_it_are_there(maker: LakeMaker) -> None:
    desk = maker.catalog.desk
    desk.verdicts.give(Verdict("1" * 32, HARVESTER, "harvesting", "one frame", "bea", NOW_US))
    desk.verdicts.give(Verdict("2" * 32, HARVESTER, "withdrawn", "a customer", "cyd", NOW_US + 1))
    for number, (scope, subject) in enumerate([("account", HARVESTER), ("account", "other"), ("rule", HARVESTER)]):
        desk.exceptions.add(
            AllowEntry(f"{number:032}", scope, subject, "", "dee", "contract", NOW_US, "bea", NOW_US + HOUR_US)
        )
    decided = dossier_of(maker.root, HARVESTER).decided
    assert [verdict.decision for verdict in decided.verdicts] == ["withdrawn", "harvesting"]
    assert decided.standing is None
    assert [entry.exception_id for entry in decided.exceptions] == [f"{0:032}"]


def test_the_feed_says_who_it_is_and_who_pays_alike(root: Path, tmp_path: Path) -> None:
    records = [
        {"account_id": HARVESTER, "plan": "free", "payment_fingerprint": "p1", "email_domain": "gmail.com"},
        {"account_id": "acct_twin", "payment_fingerprint": "p1", "email_domain": "gmail.com"},
        {"account_id": "acct_003", "payment_fingerprint": "p2"},
        {"account_id": HARVESTER, "plan": "max", "payment_fingerprint": "p1", "email_domain": "gmail.com", "created_at": "2026-03-01T00:00:00Z", "org_id": "o/1"},
    ]  # fmt: skip
    feed = tmp_path / "accounts.ndjson"
    feed.write_text("".join(json.dumps(record) + "\n" for record in records) + "\nno JSON acct_loud\n")
    seen = dossier_of(root, HARVESTER, feed=feed).seen
    assert seen.sign_up is not None
    assert (seen.sign_up.plan, seen.sign_up.org_id) == ("max", "o/1")
    assert seen.sign_up.created_at_us == 1_772_323_200_000_000
    assert [(one.others, one.examples) for one in seen.shared if one.kind == "payment"] == [(1, ("acct_twin",))]
    assert "organisation" in seen.not_shared
    assert not [one for one in seen.shared if one.kind == "email domain"], "anybody gets an address there"
    assert dossier_of(root, "acct_one", feed=feed).seen.sign_up is None
    with pytest.raises(ConfigError, match="cannot read the accounts feed"):
        dossier_of(root, HARVESTER, feed=tmp_path / "none")


def test_a_long_timeline_is_by_day() -> None:
    hours = [Bucket(hour * HOUR_US, 1, 2, 3, 0) for hour in range(0, 24 * 20, 6)]
    days, width = timeline(hours)
    assert (len(days), width) == (20, 24 * HOUR_US)
    assert days[3] == Bucket(3 * 24 * HOUR_US, 4, 8, 12, 0)
    assert timeline(hours[:8]) == (tuple(hours[:8]), HOUR_US)


def test_a_request_that_is_dated_far_ahead_moves_neither_neighbours_nor_what_an_account_came_with(
    tmp_path: Path,
) -> None:
    ahead = 400 * 24 * 60
    stray = [event(HARVESTER, ahead, api_key_id="key_later"), event("acct_005", ahead + 90)]
    with make_lake(tmp_path / "lake", [*traffic(), *stray]) as maker:
        seen = dossier_of(maker.root, HARVESTER).seen
        with pytest.raises(UnknownAccountError) as caught:
            dossier_of(maker.root, "acct_lou")
    assert seen.activity.last_us == 1_772_352_000_000_000 + ahead * 60_000_000, "a fact, and it is shown"
    assert [used.value for used in seen.activity.used["key"]] == ["key_shared", "key_later"]
    assert ("key", 1) in [(one.kind, one.others) for one in seen.shared]
    assert seen.looked is not None
    assert seen.looked.requests == len(traffic())
    assert caught.value.near[0] == HARVESTER


@pytest.mark.parametrize(
    ("hours", "last"),
    (
        ({}, None),
        ({10: 5}, 10),
        ({10: 5, 11: 1}, 11),
        ({10: 100, 34: 1}, 34),  # a day: clocks may be as much ahead
        ({10: 100, 35: 1}, 10),
        ({10: 100, 35: 1, 90: 1}, 10),
        ({10: 100, 35: 3, 36: 2}, 36),  # traffic that has begun again
        ({9: 30, 10: 30, 35: 1, 70: 1}, 10),
        ({10: 1, 400: 100}, 400),
    ),
)
def test_the_lakes_last_hour_is_not_that_of_a_clock_that_is_ahead(hours: dict[int, int], last: int | None) -> None:
    files = [
        FileEntry(str(hour), "access", "", 0, rows, 0, "", hour * HOUR_US, hour * HOUR_US + 1)
        for hour, rows in hours.items()
    ]
    assert last_hour(files) == last


def test_neighbours_are_looked_for_in_no_more_requests_than_bounded(root: Path) -> None:
    with reading(root) as (session, _):
        files = session.live_files()
    last = max(file.time_max_us or 0 for file in files if file.table_name == "access")
    everything = choose(files, last, 24 * HOUR_US, None)
    assert (everything.requests, everything.shortened) == (len(traffic()), False)
    little = choose(files, last, 24 * HOUR_US, 1)
    assert little.shortened
    assert little.until_us - little.since_us == HOUR_US
