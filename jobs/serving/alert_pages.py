"""One alert: who, since when, why, and what to do; and taking it on."""

from __future__ import annotations

import re
import urllib.parse
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from jobs.desk_copies import keep_if_there
from jobs.serving import queue_pages, words
from jobs.serving.guard import RefusedError, asked
from jobs.serving.serving import Serving, to
from pipeline.alerts import ID_CHARS
from pipeline.io.desk.alert_queue import QueuedAlert, QueueFilter

OTHERS_MAX: Final = 20
_ID: Final = re.compile(rf"[0-9a-f]{{{ID_CHARS}}}")


def show(serving: Serving, request: Request) -> Response:
    """The alert, its account's other alerts, and the forms to decide about it."""
    found = _found(serving, request)
    desk = serving.catalog.desk
    all_of_it = QueueFilter(state="", decided="", suppressed="", account_sha256=found.account_sha256)
    others = desk.queue.page(all_of_it, "time", OTHERS_MAX + 1)
    rule = serving.rules.get(found.alert.rule)
    return serving.page(
        request,
        "alert.html",
        found=found,
        alert=found.alert,
        rule=rule if rule is not None and rule.version == found.alert.rule_version else None,
        others=[other for other in others if other.alert.alert_id != found.alert.alert_id][:OTHERS_MAX],
        verdicts=desk.verdicts.of(found.alert.entity_id),
        who_now=words.who_now(request.query_params.get("done", ""), found.claimed_by, asked(request).person),
    )


def claim(serving: Serving, request: Request) -> Response:
    """Take the alert on."""
    serving.check_writable()
    alert_id, person = _found(serving, request).alert.alert_id, asked(request).person
    holder = serving.catalog.desk.claims.claim(alert_id, person, serving.clock.now_us())
    keep_if_there(serving.settings, serving.catalog)
    return _back(request, alert_id, "claimed" if holder == person else "held")


def release(serving: Serving, request: Request) -> Response:
    """Let go of it, unless somebody else has taken it on since the page was shown."""
    serving.check_writable()
    alert_id, known = _found(serving, request).alert.alert_id, asked(request)
    claims, seen = serving.catalog.desk.claims, known.form.get("held_by", "")
    was_released = claims.release(alert_id, known.person, serving.clock.now_us(), seen)
    keep_if_there(serving.settings, serving.catalog)
    if was_released:
        return _back(request, alert_id, "released")
    return _back(request, alert_id, "changed-hands" if claims.holders([alert_id]) else "free")


def _found(serving: Serving, request: Request) -> QueuedAlert:
    alert_id = request.path_params["alert_id"]
    found = serving.catalog.desk.queue.alert(alert_id) if _ID.fullmatch(alert_id) else None
    if found is None:
        raise RefusedError(
            404, "There is no such alert", "No alert has this id; it may have been erased with its account."
        )
    return found


def _back(request: Request, alert_id: str, done: str) -> Response:
    """To the queue as it was, if the form was sent from there; else to the alert."""
    form = asked(request).form
    if "queue" not in form:
        return to(f"/alerts/{alert_id}", done)
    view = queue_pages.view_of(dict(urllib.parse.parse_qsl(form["queue"], max_num_fields=20)))
    return to("/", done, [*view.pairs(), ("alert", alert_id)], anchor=f"a{alert_id}")
