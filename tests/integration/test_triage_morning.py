"""An analyst's morning in a real browser: an alert arrives, is understood, decided, and on record.

`STILLWATCH_TEST_SCREENSHOTS=DIR` keeps the pictures there; else they lie in pytest's own folder of the test.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from pipeline.config import CATALOG_FILE, read_settings
from pipeline.decisions import AllowEntry, Verdict
from pipeline.io.catalog import Catalog, sqlite_url
from pipeline.io.clock import SystemClock
from pipeline.io.desk.audit_log import AuditFilter
from pipeline.watch import load_watch
from tests.browser import Watched, watched_page
from tests.lake_maker import LakeMaker
from tests.triage import Served, serving
from tests.unit.io.dossier_lake import HARVESTER, HOSTILE, event, traffic
from tests.unit.jobs.test_alerts import alert, keep

SCREENSHOTS = "STILLWATCH_TEST_SCREENSHOTS"
NARROW, NARROWEST = 390, 320
SOON = f"{datetime.now(UTC) + timedelta(days=20):%Y-%m-%d}"
Shoot = Callable[[Page, str], None]


@pytest.fixture
def shoot(tmp_path: Path) -> Iterator[Shoot]:
    """Takes a picture of a page, wide and narrow; on a narrow screen nothing may stick out."""
    folder = tmp_path / "screenshots"

    def take(page: Page, name: str) -> None:
        page.screenshot(path=folder / f"{name}.png", full_page=True)
        usual = page.viewport_size
        assert usual is not None
        page.set_viewport_size({"width": NARROW, "height": 800})
        page.screenshot(path=folder / f"{name}-narrow.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW, name
        page.set_viewport_size(usual)

    yield take
    kept = os.environ.get(SCREENSHOTS)
    if kept and folder.exists():
        shutil.copytree(folder, kept, dirs_exist_ok=True)


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[LakeMaker]:
    """A lake that has seen one harmless request."""
    watch = load_watch(read_settings(None))
    with contextlib.closing(LakeMaker(tmp_path / "lake", watch=watch)) as maker:
        maker.append([event("acct_calm", 0, prompt="Hello", response="Hi")])
        yield maker


@pytest.fixture
def served(maker: LakeMaker) -> Iterator[Served]:
    with serving(maker.root) as running:
        yield running


@pytest.fixture
def catalog(maker: LakeMaker) -> Iterator[Catalog]:
    with contextlib.closing(Catalog.open(sqlite_url(maker.root / CATALOG_FILE), create=False)) as opened:
        yield opened


def log_in(page: Page, served: Served, name: str) -> None:
    page.goto(served.log_in_address())
    page.get_by_label("Your name").fill(name)
    page.get_by_role("button", name="Log in").click()


def check_calm(watched: Watched) -> None:
    """No script, no error of policy or console, and nothing asked of anybody else."""
    assert watched.dialogs == []
    assert watched.errors == []
    own = re.compile(r"(http://127\.0\.0\.1:\d+/static/|data:)")
    assert [asked for asked in watched.requests if not own.match(asked)] == []


def see_it_arrive(page: Page, maker: LakeMaker, shoot: Shoot) -> None:
    """The queue is empty, an alert is raised, and it is taken on."""
    expect(page.get_by_role("heading", name="No alert was ever raised here")).to_be_visible()
    shoot(page, "01-nothing-yet")
    maker.append(traffic())
    page.reload()
    expect(page.get_by_role("heading", name="Open alerts")).to_be_visible()
    row = page.locator(".queue li", has_text=HARVESTER)
    expect(row).to_contain_text("raises the risk")
    shoot(page, "02-queue")
    row.get_by_role("button", name="Claim").click()
    expect(page.get_by_role("status")).to_contain_text("You have taken this alert on")
    expect(page.locator(".queue li", has_text=HARVESTER)).to_contain_text("yours")


def understand(page: Page, shoot: Shoot) -> None:
    """Why, who, with whom, and what was asked for."""
    page.get_by_role("link", name=HARVESTER).click()
    for heading in ("Why", "Facts", "What to do", "Verdict"):
        expect(page.get_by_role("heading", name=heading).first).to_be_visible()
    expect(page.locator("section", has_text="What to do")).to_contain_text("Read the numbers that weighed most")
    shoot(page, "03-alert")
    page.get_by_role("link", name="Look at the account").click()
    expect(page.locator(".dossier")).to_contain_text("80 requests")
    expect(page.locator(".dossier")).to_contain_text("acct_twin")  # whose key it shares
    expect(page.get_by_text("exam question about topic")).to_have_count(0)
    shoot(page, "04-account")
    page.get_by_role("button", name="Show the requests’ text").click()
    expect(page.locator(".dossier pre", has_text="exam question about topic").first).to_be_visible()
    shoot(page, "05-texts")


def decide(page: Page, shoot: Shoot) -> None:
    """A verdict, and an exception."""
    page.get_by_label("harvesting").check()
    page.get_by_label("Why").fill("One frame, eighty fillings, nobody follows up.")
    page.get_by_role("button", name="Give this verdict").click()
    expect(page.get_by_role("status").first).to_contain_text("on record")
    expect(page.locator("aside")).to_contain_text("harvesting stands, given by Ana Analyst just now")
    shoot(page, "06-judged")
    page.get_by_text("Add an exception on this account").click()
    page.get_by_label("Owner").fill("Research access")
    page.get_by_label("Reason", exact=True).fill("Red team until the end of the quarter")
    page.get_by_label("Ends at").fill(SOON)
    page.get_by_role("button", name="Add the exception").click()
    expect(page.get_by_role("status").first).to_contain_text("The exception is on record")
    expect(page.locator("aside")).to_contain_text(f"active until {SOON}")


def find_it_on_record(page: Page, shoot: Shoot) -> None:
    """The queue is done with it, and the lists have all of it."""
    page.get_by_role("link", name="Alerts").first.click()
    expect(page.locator(".queue li", has_text=HARVESTER)).to_have_count(0)
    shoot(page, "07-queue-after")
    page.get_by_role("link", name="Exceptions").click()
    expect(page.get_by_role("row", name="Red team")).to_contain_text("Research access")
    shoot(page, "08-exceptions")
    page.get_by_role("link", name="Audit").click()
    for words in ("took an alert on", "looked at requests’ text", "gave a verdict", "added an exception"):
        expect(page.get_by_role("row", name=words)).to_contain_text("Ana Analyst")
    shoot(page, "09-audit")


def test_a_morning(browser: Browser, served: Served, maker: LakeMaker, catalog: Catalog, shoot: Shoot) -> None:
    """From the first look at an empty queue to the last line of the audit log; without JavaScript, as the page is."""
    with watched_page(browser, scripts=False) as watched:
        log_in(watched.page, served, "Ana Analyst")
        see_it_arrive(watched.page, maker, shoot)
        understand(watched.page, shoot)
        decide(watched.page, shoot)
        find_it_on_record(watched.page, shoot)
        check_calm(watched)

    (verdict,) = catalog.desk.verdicts.of(HARVESTER)
    (alert,) = [one for one in catalog.alerts() if one.entity_id == HARVESTER and one.state == "live"]
    assert (verdict.decision, verdict.given_by, verdict.source) == ("harvesting", "Ana Analyst", "page")
    assert verdict.alert_id == alert.alert_id
    assert verdict.row is not None  # joined to what was stored then: the models learn from it
    assert (verdict.row.offset, verdict.row.risk) == (alert.offset, pytest.approx(alert.risk))
    acts = [one.action for one in catalog.desk.audit.records(AuditFilter(actor="Ana Analyst"))]
    assert acts == ["exception.added", "verdict.given", "content.seen", "alert.claimed"]
    assert catalog.desk.audit.broken_at() is None


def test_two_people_at_once(browser: Browser, served: Served, maker: LakeMaker, shoot: Shoot) -> None:
    """Who has an alert is seen by the other, and a verdict that came in between is not written over."""
    maker.append(traffic())
    with watched_page(browser) as hers, watched_page(browser) as his:
        ana, ben = hers.page, his.page
        log_in(ana, served, "Ana")
        log_in(ben, served, "Ben")
        ana.locator(".queue li", has_text=HARVESTER).get_by_role("button", name="Claim").click()
        ben.locator(".queue li", has_text=HARVESTER).get_by_role("button", name="Claim").click()
        expect(ben.get_by_role("status")).to_contain_text("Somebody else was quicker")
        expect(ben.locator(".queue li", has_text=HARVESTER)).to_contain_text("Ana")
        for page in (ana, ben):
            page.get_by_role("link", name=HARVESTER).click()
        ben.get_by_label("benign").check()
        ben.get_by_label("Why").fill("I know them")
        ben.get_by_role("button", name="Give this verdict").click()
        expect(ben.locator("aside")).to_contain_text("benign stands, given by Ben")
        ana.get_by_label("harvesting").check()
        ana.get_by_label("Why").fill("One frame")
        ana.get_by_role("button", name="Give this verdict").click()
        expect(ana.get_by_role("alert")).to_contain_text("Ben was quicker")
        expect(ana.locator("aside")).to_contain_text("I know them")
        expect(ana.get_by_label("Why")).to_have_value("One frame")
        shoot(ana, "10-overtaken")
        ana.get_by_role("button", name="Put the change on record").click()
        expect(ana.locator("aside")).to_contain_text("harvesting stands, given by Ana")
        assert hers.dialogs == his.dialogs == []


def test_what_strangers_wrote_runs_nowhere(browser: Browser, served: Served, maker: LakeMaker, shoot: Shoot) -> None:
    """With scripts on: the account's id, its prompts and the reasons of people are all made to break out."""
    maker.append(traffic())
    with watched_page(browser) as watched:
        page = watched.page
        log_in(page, served, "<b onmouseover=alert(2)>Ana</b>")
        page.get_by_label("Account id").fill(HOSTILE.replace("\n", " "))  # what a browser makes of it
        page.get_by_role("button", name="Find").click()
        expect(page.get_by_text("Nothing is known of this account")).to_be_visible()
        page.goto(f"{served.address}/?state=any")
        page.get_by_role("link", name=HARVESTER).first.click()
        page.get_by_label("unsure").check()
        page.get_by_label("Why").fill(HOSTILE)
        page.get_by_role("button", name="Give this verdict").click()
        page.get_by_role("button", name="Show the requests’ text").click()
        expect(page.locator("aside blockquote").first).to_contain_text("onload=alert(1)")
        shoot(page, "11-hostile")
        for path in ("/audit", "/exceptions", "/?decided=yes"):
            page.goto(served.address + path)
            page.wait_for_load_state("networkidle")
        assert page.locator("script, svg[onload], b[onmouseover]").count() == 0
        check_calm(watched)


def test_long_words_names_and_ids_stick_out_of_no_page(
    browser: Browser, served: Served, maker: LakeMaker, catalog: Catalog, shoot: Shoot
) -> None:
    """Whatever the width; and text from right to left turns nothing beside it around."""
    right_to_left = "חשבון לקוח 17 (ראשי)"
    ids = ("x" * 10_000, "tenant:eu-west-1/" + "abcdef" * 40, right_to_left)
    alerts = [alert(one, number, reasons=("w" * 300, "do")) for number, one in enumerate(ids)]
    keep(catalog, alerts)
    now_us = SystemClock().now_us()
    for one in alerts:
        catalog.desk.claims.claim(one.alert_id, "Somebody " * 9, now_us)
    catalog.desk.verdicts.give(Verdict("1" * 32, right_to_left, "benign", "לקוח ותיק", "דנה", now_us))
    entry = AllowEntry("2" * 32, "account", ids[0], "", "o" * 200, "w" * 300, now_us, "ana", now_us + 10**12)
    catalog.desk.exceptions.add(entry)
    catalog.desk.deliveries.register(["s" * 60], now_us)
    with watched_page(browser, scripts=False) as watched:
        page = watched.page
        log_in(page, served, "A" * 80)
        paths = ["/?decided=any&suppressed=any", "/exceptions", "/deliveries", "/audit"]
        for path in [*paths, *(f"/alerts/{one.alert_id}" for one in alerts)]:
            page.goto(served.address + path)
            for width in (NARROWEST, NARROW, 800, 1200):
                page.set_viewport_size({"width": width, "height": 800})
                assert page.evaluate("document.documentElement.scrollWidth") <= width, (path, width)
        expect(page.locator(".tag bdi")).to_have_text("דנה")
        shoot(page, "12-right-to-left")
        check_calm(watched)


def test_the_keyboard_is_enough(browser: Browser, served: Served, maker: LakeMaker) -> None:
    """From the link that skips what is above the content to a claim, by Tab and Enter."""
    maker.append(traffic())
    with watched_page(browser, scripts=False) as watched:
        page = watched.page
        page.goto(served.log_in_address())
        page.keyboard.type("Ana")
        page.keyboard.press("Enter")
        expect(page.locator(".queue")).to_be_visible()
        page.keyboard.press("Tab")
        expect(page.locator(":focus")).to_have_text("Skip to the content")
        page.keyboard.press("Enter")
        for _ in range(10):
            page.keyboard.press("Tab")
            if (page.locator(":focus").text_content() or "").startswith("Claim"):
                break
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_contain_text("You have taken this alert on")
