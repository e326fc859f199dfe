"""An incoming webhook of Slack."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from pipeline.delivery.native import to_json
from pipeline.delivery.parcels import Later, Outcome, Parcel, Refused, Sent
from pipeline.delivery.sinks import SlackSink, checked_url
from pipeline.delivery.slack import as_message
from pipeline.errors import ConfigError
from pipeline.io.sinks.http import Answer, Http, judge
from pipeline.io.sinks.secrets import secret_of
from pipeline.ports import Clock

_CODE: Final = re.compile(rb"[a-z_]{1,60}")
"""What Slack says is wrong: `invalid_blocks`, `no_service`, …"""


class Slack:
    """See `Sink`."""

    batch_max = 1
    unmarked_max = 1  # Slack keeps no ids: what is sent again is seen again

    def __init__(self, name: str, sink: SlackSink, clock: Clock) -> None:
        url = secret_of(name, sink)
        try:
            checked_url(url, allow_http=False)
        except ValueError as error:
            raise ConfigError(f"sinks.{name}: the secret is to be the URL of an incoming webhook: {error}") from None
        self._http = Http(name, url, sink.timeout_s, clock)

    def send(self, parcels: Sequence[Parcel]) -> Sequence[Outcome]:
        """Send one."""
        (parcel,) = parcels
        return [_judge(self._http.post(to_json(as_message(parcel)), {}))]

    def close(self) -> None:
        """Let go of the connection."""
        self._http.close()


def _judge(answer: Answer | Later) -> Outcome:
    """Slack says `ok`; any other 200 is of somebody between, such as a captive portal."""
    outcome = judge(answer)
    if isinstance(answer, Later):
        return outcome
    said = (answer.body or b"").strip()
    if isinstance(outcome, Sent) and said != b"ok":
        return Later(f"it answered {answer.status}, but not `ok` as Slack does")
    if isinstance(outcome, Refused) and _CODE.fullmatch(said):
        return Refused(f"{outcome.reason}, {said.decode()}")
    return outcome
