"""How deliveries stand: what each sink has got, what waits for it, and what is the matter with it."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from jobs import deliver_output
from jobs.serving.serving import Serving
from pipeline.delivery.sinks import wanted_by

DEAD_SHOWN: Final = 20


def show(serving: Serving, request: Request) -> Response:
    """All sinks, what they gave up last, and what is at none; the same as `stillwatch deliver status` tells."""
    sinks = serving.settings.sinks
    state = serving.catalog.desk.delivery_records.state(wanted_by(sinks), DEAD_SHOWN)
    return serving.page(
        request,
        "deliveries.html",
        sinks=state.sinks,
        dead=state.dead,
        never_started=sorted(set(sinks) - {one.sink for one in state.sinks}),
        notes=deliver_output.notes(state),
        knows_sinks=bool(sinks),
    )
