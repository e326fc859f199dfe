"""Events API v2 of PagerDuty."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pipeline.delivery.native import to_json
from pipeline.delivery.pagerduty import as_event
from pipeline.delivery.parcels import Later, Outcome, Parcel, Sent
from pipeline.delivery.sinks import PagerdutySink
from pipeline.io.sinks.http import Answer, Http, judge
from pipeline.io.sinks.secrets import secret_of
from pipeline.ports import Clock


class Pagerduty:
    """See `Sink`."""

    batch_max = 1
    unmarked_max = 10

    def __init__(self, name: str, sink: PagerdutySink, clock: Clock) -> None:
        self._routing_key = secret_of(name, sink)
        self._http = Http(name, sink.url, sink.timeout_s, clock)

    def send(self, parcels: Sequence[Parcel]) -> Sequence[Outcome]:
        """Send one."""
        (parcel,) = parcels
        return [_judge(self._http.post(to_json(as_event(parcel, self._routing_key)), {}))]

    def close(self) -> None:
        """Let go of the connection."""
        self._http.close()


def _judge(answer: Answer | Later) -> Outcome:
    """PagerDuty says `{"status": "success", …}`; any other 2xx is of somebody between, such as a captive portal."""
    outcome = judge(answer)
    if isinstance(answer, Later) or not isinstance(outcome, Sent):
        return outcome
    try:
        said = json.loads(answer.body or b"")
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict) or said.get("status") != "success":
        return Later(f"it answered {answer.status}, but not as PagerDuty does")
    return outcome
