"""Exceptions: what is allowed, who answers for it, and until when."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from jobs.desk_copies import keep_if_there
from jobs.serving import dossiers, exception_form
from jobs.serving.guard import RefusedError, asked
from jobs.serving.serving import Serving, to
from pipeline.decisions import SCOPES

SHOWN_MAX: Final = 500
_ID: Final = re.compile(r"[0-9a-f]{32}")


def show(serving: Serving, request: Request) -> Response:
    """All exceptions, the active ones first, and the form for a new one."""
    return _page(serving, request, {"scope": "organisation"})


def add(serving: Serving, request: Request) -> Response:
    """Put an exception on record."""
    known = asked(request)
    subject = known.form.get("subject", "")
    is_account = known.form.get("scope") == "account"
    form = {**known.form, "subject": dossiers.as_meant(serving, subject) if is_account else subject}
    wrong = exception_form.add(serving, form, known.person)
    return _page(serving, request, known.form, wrong) if wrong else to("/exceptions", "excepted")


def end(serving: Serving, request: Request) -> Response:
    """End an exception before its time."""
    serving.check_writable()
    exception_id = request.path_params["exception_id"]
    if not _ID.fullmatch(exception_id):
        raise RefusedError(404, "There is no such exception", "No exception has this id.")
    has_ended = serving.catalog.desk.exceptions.end(exception_id, asked(request).person, serving.clock.now_us())
    keep_if_there(serving.settings, serving.catalog)
    return to("/exceptions", "ended" if has_ended else "not-ended")


def _page(serving: Serving, request: Request, form: Mapping[str, str], wrong: str = "") -> Response:
    book = serving.catalog.desk.exceptions
    now_us = serving.clock.now_us()
    entries = sorted(book.find(), key=lambda entry: (entry.state_at(now_us) != "active", -entry.created_at_us))
    return serving.page(
        request,
        "exceptions.html",
        400 if wrong else 200,
        entries=entries[:SHOWN_MAX],
        hidden=max(0, len(entries) - SHOWN_MAX),
        suppressed=book.suppressed(),
        form={name: form.get(name, "") for name in exception_form.FIELDS},
        wrong=wrong,
        scopes=SCOPES,
        rules=sorted(serving.rules),
        usual_until=exception_form.usual_until(serving),
    )
