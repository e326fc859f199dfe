"""A real browser for tests of pages: Chromium by Playwright, on a machine that has one; nothing is downloaded."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from tests.servers import is_ci

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
"""Chromium as Debian, Ubuntu and Google call it; the first on PATH is taken."""

HOW_TO_GET_CHROMIUM: Final = (
    f"install Chromium or Chrome so that one of {', '.join(NAMES)} is on PATH (Debian, Ubuntu: apt-get install "
    "chromium; make test does so where it may)"
)

_FLAGS: Final = (
    "--disable-background-networking", "--disable-component-update", "--disable-quic", "--disable-sync",
    "--no-first-run",
)  # fmt: skip

WINDOW: Final = ViewportSize(width=1200, height=900)


def chromium_path() -> str:
    """Where Chromium is; a test that needs it is skipped where there is none, and fails in CI."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        said = f"no Chromium on this machine: {HOW_TO_GET_CHROMIUM}"
        if is_ci():
            pytest.fail(said)
        pytest.skip(said)
    return found


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with a profile of its own, gone afterwards.

    Never for a whole run: while Playwright runs, no other test of the process can start an event loop.
    """
    path = chromium_path()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_FLAGS), chromium_sandbox=False)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Watched:
    """A page, and what happened on it that a page of this project must never do.

    Attributes:
        page: Playwright's.
        dialogs: words of `alert`, `confirm` and `prompt`; each was dismissed.
        requests: addresses asked for, but the documents that the test itself went to.
        errors: exceptions of scripts, and what the console called an error (as it does where a policy stops one).
    """

    page: Page
    dialogs: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.on(
            "request", lambda asked: None if asked.is_navigation_request() else self.requests.append(asked.url)
        )


@contextlib.contextmanager
def watched_page(browser: Browser, *, scripts: bool = True) -> Iterator[Watched]:
    """A page in a context of its own: no cookies and no history but its own.

    Args:
        browser: of `chromium`.
        scripts: false: JavaScript is off, as some readers have it.
    """
    context = browser.new_context(viewport=WINDOW, java_script_enabled=scripts, timezone_id="UTC", locale="en-GB")
    try:
        yield Watched(context.new_page())
    finally:
        context.close()
