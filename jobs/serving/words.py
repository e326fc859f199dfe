"""How the triage page says things: ages, numbers, ids, and what was just done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any, Final

import jinja2
from markupsafe import Markup

from jobs.alerts_output import requests_query
from jobs.listed import shown_account
from pipeline.alerts import Alert
from pipeline.counted import counted
from pipeline.dossier.page import css as dossier_css
from pipeline.harmless import harmless
from pipeline.io.desk.numbers import sha256_of_id
from pipeline.io.desk.seals import UNSAID
from pipeline.moments import rfc3339
from pipeline.reasons import ReasonParts, number_in_words, parts_of, time_in_words

DONE: Final[Mapping[str, str]] = {
    "claimed": "You have taken this alert on.",
    "held": "Somebody else was quicker.",
    "released": "The alert is free again.",
    "changed-hands": "Nothing was released: somebody else has taken this alert on since you looked.",
    "free": "Nobody had this alert, so there was nothing to release.",
    "judged": "Your verdict is on record. The account's alerts so far have left the open queue.",
    "withdrawn": "The verdict is withdrawn; it stays in the history. The account's alerts are open again.",
    "excepted": "The exception is on record. Alerts that it covers are kept and counted, and delivered to nobody.",
    "ended": "The exception has ended. Alerts from now on are delivered again.",
    "not-ended": "There was no active exception to end: it had expired, or somebody else has ended it.",
}
"""What a page says first after a form was dealt with, by the name that stands in its address."""

OVERTAKEN: Final = frozenset({"held", "changed-hands"})
"""What was not done because somebody else was quicker: the page then says who has the alert."""

STYLE: Final = "triage.css"
_FOLDER: Final = resources.files("jobs.serving")
_UNITS: Final = ((86_400 * 365, "year"), (86_400, "day"), (3_600, "h"), (60, "min"))


def environment() -> jinja2.Environment:
    """Templates: every value is escaped, and one that is missing is an error."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("jobs.serving", "templates"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters.update(
        account=shown_account, age=age, apart=apart, counted=counted, day=day, details=details, done_by=done_by,
        iso=iso,
        moment=time_in_words, number=number_in_words, parts=parts, plain=plain, query=requests_query, risk=risk,
        sha256=sha256_of_id, whole=whole, why=why,
    )  # fmt: skip
    return made


def style_sheet() -> tuple[str, bytes]:
    """Path of the style sheet, which changes with what is in it, and its bytes."""
    return _with_path(STYLE, _FOLDER.joinpath(STYLE).read_bytes())


def dossier_sheet() -> tuple[str, bytes]:
    """The same of the dossier's."""
    return _with_path("dossier.css", dossier_css().encode())


def _with_path(name: str, content: bytes) -> tuple[str, bytes]:
    return f"/static/{hashlib.sha256(content).hexdigest()[:16]}/{name}", content


def who_now(done: str, holder: str, person: str) -> str:
    """Who has the alert that somebody else was quicker with; empty if nobody was.

    Args:
        done: name of what a page says first.
        holder: who has the alert at this moment; empty: nobody.
        person: who looks.
    """
    if done not in OVERTAKEN:
        return ""
    if not holder:
        return "Nobody has it any more."
    return "By now it is yours." if holder == person else f"{plain(holder)} has it now, until it is released."


def age(time_us: int, now_us: int) -> str:
    """How long ago a moment is, or how far off, in one unit."""
    seconds = abs(now_us - time_us) // 1_000_000
    for size, unit in _UNITS:
        if seconds >= size:
            count = seconds // size
            said = counted(count, unit, "" if unit in {"day", "year"} else unit)
            return f"{said} ago" if time_us <= now_us else f"in {said}"
    return "just now" if time_us <= now_us else "in a moment"


def iso(time_us: int) -> str:
    """A moment in RFC 3339."""
    return rfc3339(time_us, "seconds")


def day(time_us: int) -> str:
    """The day of a moment, UTC."""
    return iso(time_us)[:10]


def whole(number: int) -> str:
    """A count."""
    return f"{number:,}"


def risk(value: float | None) -> str:
    """A risk; a dash where it is unknown."""
    return "–" if value is None else f"{value:.2f}"


def plain(text: str) -> str:
    """A stranger's text with what cannot be seen written out, so that nothing looks other than it is."""
    return harmless(text, keep="\n\t")


def apart(text: str) -> Markup:
    """The same within a sentence: written from right to left, it turns nothing beside it around."""
    return Markup("<bdi>{}</bdi>").format(plain(text))


def parts(alert: Alert) -> ReasonParts:
    """An alert's reasons, taken apart."""
    return parts_of(alert.reasons)


def why(alert: Alert) -> str:
    """The one line that says why."""
    found = parts_of(alert.reasons)
    if found.weighed:
        return plain(" ".join(found.weighed[0].split()))
    return plain(found.condition)


def details(said: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is worth knowing of an act, in pairs."""
    return [_detail(name, value) for name, value in said.items() if name not in UNSAID and value not in ("", None)]


def _detail(name: str, value: Any) -> tuple[str, str]:
    if name.endswith("_us") and isinstance(value, int):
        return name.removesuffix("_us"), time_in_words(value)
    return plain(name), plain(value if isinstance(value, str) else json.dumps(value))


def done_by(action: str) -> str:
    """An act in words; one that has none is said as it is."""
    return _ACTS.get(action, action)


_ACTS: Final[Mapping[str, str]] = {
    "alert.claimed": "took an alert on",
    "alert.released": "released an alert",
    "backfill.given_up": "gave up a file that was landed in part",
    "catalog.rebuilt": "made the catalog anew",
    "content.exported": "exported the views, with texts",
    "content.queried": "queried stored text",
    "content.seen": "looked at requests’ text",
    "decisions.erased": "erased what was decided about an account",
    "delivery.dead": "gave alerts up",
    "delivery.digest_left_out": "left a digest out: nothing remained of it",
    "delivery.digested": "sent a digest of alerts",
    "delivery.released": "let alerts be sent that were held back",
    "delivery.replayed": "let what was given up be sent again",
    "delivery.sent": "sent alerts",
    "delivery.sink_added": "began to send to a sink",
    "delivery.sink_forgotten": "let go of a sink",
    "delivery.suppressed": "left alerts out that an exception covers",
    "delivery.tested": "tried a sink",
    "erase": "erased an account",
    "erase.began": "began to erase an account",
    "exception.added": "added an exception",
    "exception.ended": "ended an exception",
    "replace": "replaced rows of the lake",
    "rule.began": "began to run a rule",
    "rule.changed": "runs a changed rule",
    "rule.stopped": "stopped running a rule",
    "verdict.given": "gave a verdict",
    "verdict.refused": "refused a verdict from a topic",
    "verdicts.skipped": "went on where Kafka had lost verdicts",
}
