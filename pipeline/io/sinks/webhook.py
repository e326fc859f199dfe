"""A signed POST to a server of one's own."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.delivery.native import as_native, to_json
from pipeline.delivery.ocsf import as_finding
from pipeline.delivery.parcels import Outcome, Parcel
from pipeline.delivery.rate import US_PER_S
from pipeline.delivery.signing import headers_of, key_of
from pipeline.delivery.sinks import WebhookSink
from pipeline.io.sinks.http import Http, judge
from pipeline.io.sinks.secrets import secret_of
from pipeline.ports import Clock


class Webhook:
    """See `Sink`."""

    batch_max = 1
    unmarked_max = 100

    def __init__(self, name: str, sink: WebhookSink, clock: Clock) -> None:
        self._key = key_of(secret_of(name, sink), f"sinks.{name}")
        self._format, self._clock = sink.format, clock
        self._http = Http(name, sink.url, sink.timeout_s, clock, sink.ca_file)

    def send(self, parcels: Sequence[Parcel]) -> Sequence[Outcome]:
        """Send one."""
        (parcel,) = parcels
        now_us = self._clock.now_us()
        body = to_json(as_native(parcel) if self._format == "native" else as_finding(parcel, now_us))
        headers = headers_of(self._key, parcel.key, now_us // US_PER_S, body)
        return [judge(self._http.post(body, headers))]

    def close(self) -> None:
        """Let go of the connection."""
        self._http.close()
