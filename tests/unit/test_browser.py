"""The browser that pages are tested in sees what it is to see: a check that cannot fail would prove nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests import browser as browsers
from tests.browser import Watched, watched_page

BAD = """<!doctype html><title>before</title><img src=x onerror="alert('an event')"><script>
document.title = 'after'; alert('a script'); throw new Error('thrown')</script><img src="http://127.0.0.1:1/seen">"""


def test_scripts_dialogs_errors_and_requests_of_a_bad_page_are_seen(watched: Watched, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(BAD)
    watched.page.goto(page.as_uri())
    watched.page.wait_for_load_state("networkidle")
    assert watched.page.title() == "after"
    assert {"a script", "an event"} <= set(watched.dialogs)
    assert any("thrown" in error for error in watched.errors)
    assert "http://127.0.0.1:1/seen" in watched.requests


def test_a_page_without_scripts_runs_none(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(BAD)
    with watched_page(browser, scripts=False) as watched:
        watched.page.goto(page.as_uri())
        assert watched.page.title() == "before"
        assert not watched.dialogs


def test_without_a_browser_a_test_is_skipped_and_fails_in_ci_each_with_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install chromium"):
        browsers.chromium_path()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install chromium"):
        browsers.chromium_path()
