"""`stillwatch serve` as a process: what its pages say, also of hostile values."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.delivery.ports import Done, Wanted
from pipeline.io.catalog import Catalog
from tests.integration.serving.site import KEY, LONG, SOON, SPACED, WORDS, alert_id, digest_of
from tests.lake_maker import make_lake
from tests.triage import Visitor, serving
from tests.unit.io.dossier_lake import HARVESTER, HOSTILE, traffic
from tests.unit.jobs.test_alerts import alert, keep


@pytest.mark.parametrize("account", (HOSTILE, LONG))
def test_a_hostile_account_is_shown_as_text_wherever_it_stands(ana: Visitor, catalog: Catalog, account: str) -> None:
    number = alert_id(catalog, account)
    ana.fill(f"/accounts/{digest_of(account)}", f"/accounts/{digest_of(account)}/verdict", decision="unsure", why=WORDS)
    fields = {"owner": WORDS[:180], "reason": WORDS, "until": SOON, "rule": ""}
    ana.fill(f"/accounts/{digest_of(account)}", f"/accounts/{digest_of(account)}/exception", **fields)
    pages = (
        "/?decided=any&state=any&suppressed=any",
        f"/alerts/{number}",
        f"/accounts/{digest_of(account)}",
        "/exceptions",
        "/audit",
        f"/?account={digest_of(account)}&decided=any",
    )
    for path in pages:
        answer = ana.get(path)
        assert answer.status == 200, path
        assert not re.search(r"<(script|svg onload|img src=x)", answer.text), path
        assert "\x1b" not in answer.text
        assert "\u202e" not in answer.text
        assert "onload=alert(1)" in html.unescape(answer.text), path
        for name in re.findall(r'(?:href|action|src)="([^"]*)"', answer.text):
            assert re.match(r"(/|data:image/|data:,|#)", html.unescape(name)), name
    (verdict,) = [one for one in catalog.desk.verdicts.of(account) if one.source == "page"]
    assert (verdict.why, verdict.given_by) == (WORDS, "Ana")


@pytest.mark.parametrize(
    "path",
    (
        "/alerts/%3Cscript%3E", "/alerts/..%2f..%2fetc", f"/alerts/{'a' * 5000}", "/alerts/%00", f"/accounts/{'F' * 64}",
        f"/accounts/{'0' * 64}", "/accounts/%ff", "/%2e%2e/%2e%2e/etc/passwd", "/exceptions/x/end", "//evil.example/",
    ),
)  # fmt: skip
def test_addresses_of_nothing_are_pages_that_say_so(ana: Visitor, path: str) -> None:
    answer = ana.get(path)
    assert answer.status in {404, 405}
    assert "Stillwatch" in answer.text
    assert "<script>" not in answer.text


@pytest.mark.parametrize(
    "query",
    (
        "rule=%3Cscript%3E&severity=x&state=%00&sort=id;drop&after=zz", "after=" + "0" * 32, "account=x", "claimed=mine&done=x",
        "done=%3Cscript%3E", "before=-1&actor=%ff&action=';--", "before=" + "9" * 40, "state=any&state=live",
    ),
)  # fmt: skip
def test_addresses_that_ask_for_nonsense_get_what_is_usual(ana: Visitor, query: str) -> None:
    for path in ("/", "/audit", "/exceptions"):
        answer = ana.get(f"{path}?{query}")
        assert answer.status == 200
        assert "<script>" not in answer.text


def test_an_account_is_found_by_its_id_and_one_that_was_never_seen_says_what_is_like_it(ana: Visitor) -> None:
    found = ana.fill("/", "/accounts", account=f" {HARVESTER}\n")
    assert found.headers["location"] == f"/accounts/{digest_of(HARVESTER)}"
    missing = ana.fill("/", "/accounts", account="acct_lou")
    answer = ana.get(missing.headers["location"])
    assert answer.status == 200
    assert "Nothing is known of this account" in answer.text
    assert ana.fill("/", "/accounts", account=" ").status == 400
    spaced = ana.fill("/", "/accounts", account=SPACED)
    assert spaced.headers["location"] == f"/accounts/{digest_of(SPACED)}"
    assert "Nothing is known" not in ana.get(spaced.headers["location"]).text
    judged = ana.fill(missing.headers["location"], f"{missing.headers['location']}/verdict", decision="benign", why="x")
    assert (judged.status, "never seen" in judged.text) == (400, True)


def test_how_deliveries_stand_is_on_a_page(tmp_path: Path) -> None:
    root = tmp_path / "lake"
    sinks = ("well", "soc <b>")
    with make_lake(root, traffic()) as maker:
        keep(maker.catalog, [alert("acct_1"), alert("acct_2", 1)])
        book = maker.catalog.desk.deliveries
        book.register(sinks, 1)
        book.route(1)
        for sink in sinks:
            lease = book.acquire(sink, "host:1", 60.0, 1)
            assert lease is not None
            queue = book.queue(lease, Wanted(), 10)
            standing = replace(lease.standing, cursor=queue.items[0].seq + 1)
            if sink == "well":
                book.mark(
                    lease, replace(standing, cursor=queue.end, sent=2, sent_at_us=1), Done(sent=queue.items), 1, 1
                )
                continue
            failing = replace(standing, failures=3, error="no <i>answer</i>", error_at_us=1, next_try_us=1)
            book.mark(lease, failing, Done(dead=[(queue.items[0], "it answered 400 <u>", 1)]), 1, 1)
        config = tmp_path / "stillwatch.toml"
        config.write_text("[sinks.late]\ntype = 'file'\npath = 'x'\n")
        with serving(root, "--config", str(config), STILLWATCH_SERVE_TOKEN=KEY) as served:
            page = served.visitor("Ana", KEY).get("/deliveries").text
    words = " ".join(re.sub("<[^>]*>", " ", page).split())
    assert "soc &lt;b&gt; failing not in the settings waiting 1" in words
    assert "no &lt;i&gt;answer&lt;/i&gt; 3 failures in a row" in words
    assert "it answered 400 &lt;u&gt;" in words
    assert "late new" in words
    assert "and never started" in words
    assert "well well not in the settings" in words
    for markup in ("<i>", "<u>", "soc <b>"):
        assert markup not in page
