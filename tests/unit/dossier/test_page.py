"""The page of a dossier in a real browser: whatever strangers wrote, nothing runs and nothing is asked for."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser

from pipeline.config import read_settings
from pipeline.decisions import AllowEntry, Verdict
from pipeline.dossier import Dossier
from pipeline.dossier.page import body, css, page
from pipeline.watch import load_watch
from tests.browser import Watched, watched_page
from tests.lake_maker import make_lake
from tests.unit.io.dossier_lake import HARVESTER, NOW_US, dossier_of, event

ATTACKS = (
    "<script>alert('script')</script>",
    "</pre></style></title></script><script>alert('closed')</script>",
    "<img src=x onerror=alert('img')><svg onload=alert('svg')><svg/onload=alert('svg2')>",
    "<iframe srcdoc=\"<script>parent.alert('frame')</script>\"></iframe><object data=javascript:alert('object')>",
    "\" autofocus onfocus=alert('quote') x=\"' onmouseover=alert('single') '",
    "[click](javascript:alert('markdown')) ![x](http://127.0.0.1:1/markdown.png) `{{ 7 * 7 }}` ${alert(1)} {% raw %}",
    "<base href=http://127.0.0.1:1/><link rel=stylesheet href=http://127.0.0.1:1/a.css><meta http-equiv=refresh content=0>",
    "<style>*{background:url(http://127.0.0.1:1/seen)}</style><form action=http://127.0.0.1:1/><button>go</button></form>",
    "\u202egnihtemos \u2066hidden\u2069 \u200bzero \x1b[31mred\x1b]8;;http://127.0.0.1:1/\x07link \x00 \x9b31m \U000e0041",
    "<math><mtext></mtext><mglyph><svg><mtext><textarea><a title=\"</textarea><img src=x onerror=alert('mxss')>\">",
)
ALL = "\n".join(ATTACKS)
CALM = {"script", "iframe", "object", "embed", "link", "form", "base", "input", "button", "math", "frame"}


def hostile_events() -> list[dict[str, object]]:
    return [
        event(
            ALL, 5 * number, prompt=ATTACKS[number % len(ATTACKS)], system_prompt=ALL, response=ALL, user_agent=ALL,
            api_key_id=ALL, org_id=ALL, model=ALL, client_ip=ALL, country=ALL, tls_ja4=ALL, request_id=ALL, operation=ALL,
        )
        for number in range(40)
    ] + [event(ALL + "2", 50, api_key_id=ALL)]  # fmt: skip


@pytest.fixture(scope="module")
def dossier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dossier]:
    """Of an account whose every word means harm; scored, judged, allowed, and known to a feed."""
    folder = tmp_path_factory.mktemp("hostile")
    feed = folder / "feed.ndjson"
    fields = ("plan", "org_id", "payment_fingerprint", "email_domain", "country")
    feed.write_text(
        "".join(json.dumps({"account_id": name, **dict.fromkeys(fields, ALL)}) + "\n" for name in (ALL, "b"))
    )
    with make_lake(folder / "lake", hostile_events(), watch=load_watch(read_settings(None))) as maker:
        desk = maker.catalog.desk
        desk.verdicts.give(Verdict("1" * 32, ALL, "unsure", ALL, ALL, NOW_US))
        desk.exceptions.add(AllowEntry("2" * 32, "account", ALL, "rule", ALL, ALL, NOW_US, ALL, NOW_US + 1))
        yield dossier_of(maker.root, ALL, feed=feed)


def opened(watched: Watched, folder: Path, content: bytes) -> None:
    """Go to a page and wait until it has done all that it does by itself."""
    file = folder / "page.html"
    file.write_bytes(content)
    watched.page.goto(file.as_uri())
    watched.page.wait_for_load_state("networkidle")


def without_policy(content: bytes) -> bytes:
    found, count = re.subn(rb'<meta http-equiv="Content-Security-Policy"[^>]*>', b"", content)
    assert count == 1
    return found


@pytest.mark.parametrize("policy", (True, False))
def test_nothing_that_strangers_wrote_runs_or_asks_for_anything(
    watched: Watched, dossier: Dossier, tmp_path: Path, policy: bool
) -> None:
    """Twice: the policy alone would stop it all, and escaping alone leaves it nothing to stop."""
    content = page(dossier)
    opened(watched, tmp_path, content if policy else without_policy(content))
    for summary in watched.page.locator("summary").all():
        summary.click()
    for element in ("h1", ".sample", "td", "dd"):
        watched.page.locator(element).first.hover()
    watched.page.keyboard.press("Tab")
    assert (watched.dialogs, [url for url in watched.requests if not url.startswith("data:image/svg+xml")]) == ([], [])
    assert watched.errors == []
    tags = set(watched.page.evaluate("[...document.querySelectorAll('*')].map(e => e.localName)"))
    assert not tags & CALM
    names = watched.page.evaluate("[...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames())")
    assert not [name for name in names if name.startswith("on") or name in {"style", "srcdoc", "action"}]
    links = watched.page.evaluate("[...document.querySelectorAll('a')].map(e => e.getAttribute('href'))")
    assert links
    assert all(link.startswith("#") for link in links)
    watched.page.screenshot(path=tmp_path / "hostile.png", full_page=True)


def test_what_strangers_wrote_is_read_as_they_wrote_it_and_turns_nothing_around(
    watched: Watched, dossier: Dossier, tmp_path: Path
) -> None:
    opened(watched, tmp_path, page(dossier))
    text = watched.page.inner_text("body")
    for attack in ATTACKS[:4]:
        assert attack in text
    assert "\\u202egnihtemos" in text
    assert "\\u001b[31mred" in text
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\U000e0000-\U000e0fff]", text
    )


def test_the_policy_stops_what_would_slip_through_and_the_browser_would_have_run_it(
    browser: Browser, dossier: Dossier, tmp_path: Path
) -> None:
    """So that the tests above can fail: the same page with nothing escaped (but for what would reload it for ever)."""
    raw = html.unescape(page(dossier).decode()).replace("http-equiv=refresh", "").encode()
    with watched_page(browser) as unprotected:
        opened(unprotected, tmp_path, without_policy(raw))
        assert unprotected.dialogs
    with watched_page(browser) as protected:
        opened(protected, tmp_path, raw)
        assert protected.dialogs == []
        assert protected.errors, "the console says what the policy stopped"


def test_the_page_looks_as_it_should(watched: Watched, dossier: Dossier, tmp_path: Path) -> None:
    opened(watched, tmp_path, page(dossier))
    sizes = watched.page.evaluate("[...document.images].map(i => [i.complete, i.naturalWidth, i.naturalHeight])")
    assert len(sizes) == 2
    assert all(complete and width > 500 and height > 100 for complete, width, height in sizes)
    assert watched.page.evaluate("getComputedStyle(document.querySelector('.card')).borderTopWidth") == "3px", "styled"
    watched.page.set_viewport_size({"width": 400, "height": 800})
    assert watched.page.evaluate("document.documentElement.scrollWidth") <= 400, "nothing hangs over"
    names = watched.page.evaluate("[...document.querySelectorAll('tr td:first-child')].map(e => e.clientWidth)")
    assert min(width for width in names if width) >= 120, "names are no column of syllables"
    parts = watched.page.evaluate("[...document.querySelectorAll('h2')].map(e => e.firstChild.textContent.trim())")
    assert parts == ["Facts", "Inference", "Decisions"]


def test_it_prints(watched: Watched, dossier: Dossier, tmp_path: Path) -> None:
    opened(watched, tmp_path, page(dossier))
    assert watched.page.pdf(path=tmp_path / "page.pdf").startswith(b"%PDF")


def test_the_body_fits_into_a_page_with_a_stricter_policy_and_its_links_are_quoted(
    watched: Watched, dossier: Dossier, tmp_path: Path
) -> None:
    """As the triage page has it: no style but from a file, and links to other accounts."""
    (tmp_path / "page.css").write_text(css())
    policy = "default-src 'none'; style-src 'self' file:; img-src data:"
    inner = body(dossier, link=lambda name: f"/account?id={quote(name)}")
    opened(
        watched, tmp_path,
        f'<!doctype html><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<link rel="stylesheet" href="page.css"><body>{inner}</body>'.encode(),
    )  # fmt: skip
    assert (watched.dialogs, watched.errors) == ([], [])
    links = watched.page.evaluate("[...document.querySelectorAll('td a')].map(e => e.getAttribute('href'))")
    assert links
    assert all(re.fullmatch(r"/account\?id=[A-Za-z0-9%._~/-]+", link) for link in links)


def test_without_scripts_the_page_is_the_same(browser: Browser, dossier: Dossier, tmp_path: Path) -> None:
    with watched_page(browser, scripts=False) as watched:
        opened(watched, tmp_path, page(dossier))
        assert "Facts" in watched.page.inner_text("h2 >> nth=0")


def test_the_same_dossier_gives_the_same_bytes(dossier: Dossier) -> None:
    assert page(dossier) == page(dossier)


def test_an_ordinary_name_is_the_title(watched: Watched, tmp_path: Path) -> None:
    with make_lake(tmp_path / "lake", [event(HARVESTER, 0)]) as maker:
        opened(watched, tmp_path, page(dossier_of(maker.root, HARVESTER)))
    assert watched.page.title() == f"{HARVESTER}: Stillwatch account"
    assert "1 request, at 2026-03-01 08:00:00 UTC" in watched.page.inner_text(".said")


def test_of_an_account_of_which_there_is_a_verdict_and_nothing_else_there_is_a_page(tmp_path: Path) -> None:
    with make_lake(tmp_path / "lake", [event("other", 0)]) as maker:
        maker.catalog.desk.verdicts.give(
            Verdict("1" * 32, "gone", "harvesting", "before the lake began", "bea", NOW_US)
        )
        text = str(body(dossier_of(maker.root, "gone")))
    assert "The lake holds no request of this account (any more)." in text
    assert "before the lake began" in text
    assert "<img" not in text
    assert "None" not in re.sub(r"<p>None\.</p>", "", text)
