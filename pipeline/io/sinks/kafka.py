"""A topic of findings, by kafka-python's idempotent producer: a batch arrives whole and in order, or is sent again."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kafka import KafkaProducer
from kafka import errors as kafka_errors

from pipeline.config import Settings
from pipeline.delivery.native import as_native, to_json
from pipeline.delivery.ocsf import as_finding
from pipeline.delivery.parcels import Later, Outcome, Parcel, Refused, Sent
from pipeline.delivery.sinks import KafkaSink
from pipeline.errors import ConfigError
from pipeline.io.kafka import RECONNECT_MS_MAX, passed_through
from pipeline.ports import Clock

OURS: Final = ("bootstrap_servers", "acks", "enable_idempotence", "key_serializer", "value_serializer", "retries")
"""Client settings that at-least-once and order hang on."""

_BYTES_MAX: Final = 8 << 20
"""Far above any alert; the broker's own limit may be lower, and then the alert is refused."""

_REFUSED: Final = (
    kafka_errors.MessageSizeTooLargeError,
    kafka_errors.RecordListTooLargeError,
    kafka_errors.InvalidTopicError,
    kafka_errors.TopicAuthorizationFailedError,
)


class Topic:
    """See `Sink`."""

    batch_max = 500
    unmarked_max = 500

    def __init__(self, name: str, sink: KafkaSink, settings: Settings, clock: Clock) -> None:
        self._sink, self._clock = sink, clock
        self._settings = _client_settings(name, sink, settings)
        self._producer: Any = None
        logging.getLogger("kafka").setLevel(logging.CRITICAL)  # it logs every reconnect as an error

    def send(self, parcels: Sequence[Parcel]) -> Sequence[Outcome]:
        """Send a batch, keyed by the parcels' ids, and wait until all replicas have it."""
        until_s = time.monotonic() + self._sink.timeout_s
        try:
            if self._producer is None:
                self._producer = KafkaProducer(**self._settings)
            futures = [
                self._producer.send(self._sink.topic, key=parcel.key.encode("ascii"), value=self._value(parcel))
                for parcel in parcels
            ]
        except (kafka_errors.KafkaError, AssertionError, ValueError, OSError) as error:
            return [self._failed(error)]
        outcomes: list[Outcome] = []
        for future in futures:
            try:
                future.get(timeout=max(0.0, until_s - time.monotonic()))
                outcomes.append(Sent())
            except kafka_errors.KafkaError as error:
                outcomes.append(self._failed(error))
                if isinstance(outcomes[-1], Later):
                    break
        return outcomes

    def close(self) -> None:
        """Let go of the brokers; what was not confirmed counts as not sent."""
        if self._producer is not None:
            producer, self._producer = self._producer, None
            with contextlib.suppress(kafka_errors.KafkaError):
                producer.close(timeout=0)

    def _value(self, parcel: Parcel) -> bytes:
        if self._sink.format == "native":
            return to_json(as_native(parcel))
        return to_json(as_finding(parcel, self._clock.now_us()))

    def _failed(self, error: Exception) -> Outcome:
        if isinstance(error, _REFUSED):
            return Refused(type(error).__name__)
        self.close()  # what is still in its buffer must not arrive after what will be sent instead
        return Later(f"Kafka: {type(error).__name__}", unreachable=True)


def _client_settings(name: str, sink: KafkaSink, settings: Settings) -> dict[str, Any]:
    bootstrap = sink.bootstrap or settings.bootstrap
    if not bootstrap:
        raise ConfigError(f"sinks.{name}: no Kafka broker is named: give bootstrap here or among the settings")
    known: Mapping[str, Any] = KafkaProducer.DEFAULT_CONFIG
    shared = {key: value for key, value in settings.kafka.items() if key in known and key not in OURS}
    timeout_ms = int(sink.timeout_s * 1000)
    try:
        given = passed_through({**shared, **sink.kafka}, known, OURS, "producer")
    except ConfigError as error:
        raise ConfigError(f"sinks.{name}: {error}") from None
    return {
        "client_id": "stillwatch",
        "max_request_size": _BYTES_MAX,
        "compression_type": "lz4",
        "linger_ms": 5,
        "reconnect_backoff_max_ms": RECONNECT_MS_MAX,
        "max_block_ms": timeout_ms,
        "bootstrap_timeout_ms": timeout_ms,
        "request_timeout_ms": timeout_ms,
        "delivery_timeout_ms": timeout_ms + 1_000,
        **given,
        "bootstrap_servers": bootstrap.split(","),
        "acks": "all",
        "enable_idempotence": True,
    }
