"""The queue: which alerts are open, the gravest first, and which of them are mine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from starlette.requests import Request
from starlette.responses import Response

from jobs.serving import words
from jobs.serving.guard import asked
from jobs.serving.serving import Serving
from pipeline.alerts import ID_CHARS
from pipeline.io.desk.alert_queue import ORDERS, Order, QueueFilter
from pipeline.rules import SEVERITIES, STATES

PAGE_ROWS: Final = 50
COUNTED_MAX: Final = 10_000
"""Alerts are counted up to here: more is said as `more than`."""

ANY: Final = "any"
MINE: Final = "mine"
DEFAULTS: Final[Mapping[str, str]] = {
    "rule": ANY, "severity": ANY, "state": "live", "claimed": ANY, "decided": "no", "suppressed": "no", "sort": "risk",
    "account": "",
}  # fmt: skip
"""What the queue shows unless its address says otherwise: live alerts that wait for a verdict."""

_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "severity": (ANY, *reversed(SEVERITIES)),
    "state": ("live", *(state for state in STATES if state != "live"), ANY),
    "claimed": (ANY, "no", MINE, "yes"),
    "decided": ("no", "yes", ANY),
    "suppressed": ("no", "yes", ANY),
    "sort": ORDERS,
}
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_ALERT_ID: Final = re.compile(rf"[0-9a-f]{{{ID_CHARS}}}")


@dataclass(frozen=True, slots=True)
class View:
    """What the address of the queue asks for.

    Attributes:
        said: each choice, by its name in the address.
        after: id of the alert after which the page begins; empty: the first page.
    """

    said: Mapping[str, str]
    after: str = ""

    def pairs(self, **changed: str) -> list[tuple[str, str]]:
        """The address again, with changes; what is as usual is left out."""
        said = {**self.said, "after": self.after, **changed}
        return [(name, value) for name, value in said.items() if value != DEFAULTS.get(name, "")]

    def filter(self, person: str) -> QueueFilter:
        """The same as the catalog is asked."""
        said = {name: "" if value == ANY else value for name, value in self.said.items()}
        claimed = said["claimed"]
        return QueueFilter(
            rule=said["rule"],
            severity=said["severity"],
            state=said["state"],
            account_sha256=said["account"],
            claimed=cast(Any, "" if claimed == MINE else claimed),
            claimed_by=person if claimed == MINE else "",
            decided=cast(Any, said["decided"]),
            suppressed=cast(Any, said["suppressed"]),
        )

    @property
    def order(self) -> Order:
        """What it is sorted by."""
        return cast(Order, self.said["sort"])

    @property
    def is_usual(self) -> bool:
        """Nothing is filtered but what always is."""
        return all(self.said[name] == value for name, value in DEFAULTS.items() if name != "sort")


def view_of(given: Mapping[str, str]) -> View:
    """What an address asks for; what makes no sense is as if it was not said."""
    said = dict(DEFAULTS)
    for name, choices in _CHOICES.items():
        if given.get(name) in choices:
            said[name] = given[name]
    if _NAME.fullmatch(given.get("rule", "")):
        said["rule"] = given["rule"]
    if _SHA256.fullmatch(given.get("account", "")):
        said["account"] = given["account"]
    after = given.get("after", "")
    return View(said, after if _ALERT_ID.fullmatch(after) else "")


def show(serving: Serving, request: Request) -> Response:
    """A page of alerts."""
    view = view_of(request.query_params)
    queue = serving.catalog.desk.queue
    wanted = view.filter(asked(request).person)
    found = queue.page(wanted, view.order, PAGE_ROWS + 1, view.after)
    shown = found[:PAGE_ROWS]
    account = view.said["account"]
    return serving.page(
        request,
        "queue.html",
        view=view,
        alerts=shown,
        more=view.pairs(after=shown[-1].alert.alert_id) if len(found) > PAGE_ROWS else None,
        counted=queue.count(wanted, COUNTED_MAX + 1),
        counted_max=COUNTED_MAX,
        choices=_CHOICES,
        rules=sorted(serving.rule_names() | {view.said["rule"]} - {ANY}),
        account=queue.account_of(account) if account else None,
        who_now=_who_now(serving, request),
        any_at_all=bool(found) or bool(queue.count(QueueFilter(state="", decided="", suppressed=""), 1)),
    )


def _who_now(serving: Serving, request: Request) -> str:
    """Who has the alert that somebody else was quicker with; the alert may be on no page of the queue any more."""
    done, alert_id = (request.query_params.get(name, "") for name in ("done", "alert"))
    if done not in words.OVERTAKEN or not _ALERT_ID.fullmatch(alert_id):
        return ""
    return words.who_now(done, serving.catalog.desk.claims.holders([alert_id]).get(alert_id, ""), asked(request).person)
