"""What the pages share: the lake's catalog, the rules, the clocks, and how a page is made."""

from __future__ import annotations

import threading
import urllib.parse
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from jobs.serving import words
from jobs.serving.guard import Gate, RefusedError, asked
from pipeline.config import Settings
from pipeline.io.catalog import Catalog
from pipeline.io.clock import SystemClock
from pipeline.rules import Rule

READERS_MAX: Final = 2
"""Requests that read the lake's files at once: each of them uses all cores."""

READER_WAIT_S: Final = 20.0
RULES_KEPT_S: Final = 60.0

KNOWN_MAX: Final = 1_000

PARTS: Final = (("/", "Alerts"), ("/exceptions", "Exceptions"), ("/deliveries", "Deliveries"), ("/audit", "Audit"))
"""The pages that every page leads to."""


class KnownAccounts:
    """Ids that people typed, by their hashes, of late: addresses of pages hold hashes.  Safe to use from threads."""

    def __init__(self) -> None:
        self._by_hash: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, digest: str, account_id: str) -> None:
        """Remember one."""
        with self._lock:
            self._by_hash[digest] = account_id
            self._by_hash.move_to_end(digest)
            if len(self._by_hash) > KNOWN_MAX:
                self._by_hash.popitem(last=False)

    def of(self, digest: str) -> str | None:
        """The id of a hash; None if it was not typed of late."""
        with self._lock:
            return self._by_hash.get(digest)


@dataclass(slots=True)
class Serving:
    """One run of the page.

    Attributes:
        settings: which lake, which catalog.
        catalog: open.
        gate: who is let in.
        rules: by name, as they run now.
        read_only: the catalog cannot be written here, so nothing can be decided.
        style: path of the style sheet, with a hash of it.
        clock: the machine's.
        readers: who reads the lake's files now.
        drawing: held by who draws plots: Matplotlib is not made for several threads.
        known: accounts that were looked for by their ids.
    """

    settings: Settings
    catalog: Catalog
    gate: Gate
    rules: Mapping[str, Rule]
    read_only: bool
    style: str
    clock: SystemClock = field(default_factory=SystemClock)
    readers: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(READERS_MAX))
    drawing: threading.Lock = field(default_factory=threading.Lock)
    known: KnownAccounts = field(default_factory=KnownAccounts)
    _environment: jinja2.Environment | None = None
    _raised_by: tuple[float, frozenset[str]] | None = None

    def page(self, request: Request, template: str, status: int = 200, **values: Any) -> Response:
        """Make a page of a template."""
        if self._environment is None:
            self._environment = words.environment()
        known = asked(request)
        text = self._environment.get_template(template).render(
            person=known.person,
            csrf=known.session.csrf if known.session else "",
            can_log_out=self.gate.proxy is None,
            read_only=self.read_only,
            style=self.style,
            parts=PARTS,
            here=request.url.path,
            new_id=uuid.uuid4().hex,
            now_us=self.clock.now_us(),
            done=words.DONE.get(request.query_params.get("done", ""), ""),
            **values,
        )
        return HTMLResponse(text.encode("utf-8", "replace"), status)  # a lone surrogate has no bytes

    def rule_names(self) -> frozenset[str]:
        """Names of the rules that run, and of those that have raised an alert, as of a minute ago or less."""
        now_s = self.clock.elapsed_s()
        if self._raised_by is None or now_s - self._raised_by[0] > RULES_KEPT_S:
            self._raised_by = now_s, frozenset(self.catalog.desk.queue.rules())  # looks through all alerts
        return self._raised_by[1] | self.rules.keys()

    def refuse(self, request: Request, refused: RefusedError) -> Response:
        """The page that says why not."""
        return self.page(request, "refused.html", refused.status, title=refused.title, words=refused.words)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read the lake's files, when fewer than `READERS_MAX` others do.

        Raises:
            RefusedError: the others take too long.
        """
        if not self.readers.acquire(timeout=READER_WAIT_S):
            raise RefusedError(503, "Busy", "Too many people read the lake at this moment. Try again in a few seconds.")
        try:
            yield
        finally:
            self.readers.release()

    def check_writable(self) -> None:
        """Refuse to decide where nothing can be put on record.

        Raises:
            RefusedError: the catalog is open for reading only.
        """
        if self.read_only:
            raise RefusedError(
                403, "For reading only", "The catalog cannot be written from here, so nothing was put on record."
            )


def to(path: str, done: str = "", pairs: Sequence[tuple[str, str]] = (), anchor: str = "") -> Response:
    """Lead the browser on to one of the pages, after a form was dealt with.

    Args:
        path: of the page; made by this program, never by what a request says.
        done: name of what the page is to say first, see `words.DONE`.
        pairs: of its query.
        anchor: place on it.
    """
    query = urllib.parse.urlencode([*pairs, *([("done", done)] if done else [])])
    return RedirectResponse(f"{path}{'?' if query else ''}{query}{f'#{anchor}' if anchor else ''}", 303)
