"""Who did what and when."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from jobs.serving.access import name_of
from jobs.serving.serving import Serving
from pipeline.io.desk.audit_log import AuditFilter

PAGE_ROWS: Final = 100
ACTIONS: Final = ("verdict", "exception", "alert", "content", "delivery", "rule", "erase")
"""What acts begin with, as the filter offers it."""

_SEQ_MAX: Final = 1 << 62


def show(serving: Serving, request: Request) -> Response:
    """A page of the audit log, the latest first."""
    query = request.query_params
    action = query.get("action", "") if query.get("action", "") in ACTIONS else ""
    actor = name_of(query.get("actor", ""))
    said = query.get("before", "")
    before = int(said) if said.isdecimal() and len(said) < len(str(_SEQ_MAX)) else None
    wanted = AuditFilter(action=action, actor=actor, before_seq=before, limit=PAGE_ROWS + 1)
    found = serving.catalog.desk.audit.records(wanted)
    return serving.page(
        request, "audit.html", records=found[:PAGE_ROWS], more=len(found) > PAGE_ROWS, action=action, actor=actor,
        before=before, actions=ACTIONS,
    )  # fmt: skip
