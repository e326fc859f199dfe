"""Waiting for something outside, aloud but not too often."""

from __future__ import annotations

import datetime as dt
from typing import Final

import structlog

from pipeline.errors import RetryableError
from pipeline.ports import Clock, Source

SAID_AFTER_S: Final = 10.0
"""How long something may be waited for before a line says so: longer than moving a partition to another broker takes,
shorter than a person takes to wonder."""

SAID_EVERY_S_MAX: Final = 300.0
"""The distance between two such lines doubles up to this."""

log = structlog.get_logger("stream")


class Wait:
    """Tells when to say that something is being waited for: after 10 s, then after 20 s, 40 s, and so on."""

    def __init__(self) -> None:
        self._next_s = SAID_AFTER_S

    @property
    def is_said(self) -> bool:
        """Whether a line was due already."""
        return self._next_s > SAID_AFTER_S

    def is_due(self, lasting_s: float) -> bool:
        """Whether a line is due now; asking counts as saying it.

        Args:
            lasting_s: how long the wait lasts by now.
        """
        if lasting_s < self._next_s:
            return False
        self._next_s = lasting_s + min(max(lasting_s, SAID_AFTER_S), SAID_EVERY_S_MAX)
        return True

    def is_over(self) -> bool:
        """End the wait; whether it was ever said, so that its end is to be said too."""
        said, self._next_s = self.is_said, SAID_AFTER_S
        return said


class SilenceWatch:
    """Says when no Kafka broker answers, and when one does again."""

    def __init__(self, source: Source, clock: Clock, retry_s: float) -> None:
        self._source, self._clock, self._retry_s = source, clock, retry_s
        self._wait, self._since, self._silent_s = Wait(), "", 0.0

    def look(self) -> str:
        """To be called after each poll.

        Returns:
            The silence in words; empty while brokers answer.

        Raises:
            RetryableError: they have been silent for longer than `retry_s`.
        """
        silent_s = self._source.silent_s
        if silent_s < SAID_AFTER_S:
            if self._wait.is_over():
                log.info("Kafka answers again", bootstrap=self._source.address, after_s=round(self._silent_s, 1))
            return ""
        if not self._wait.is_said:
            since = dt.datetime.fromtimestamp(self._clock.now_us() / 1e6 - silent_s, dt.UTC)
            self._since = since.isoformat(timespec="seconds")
        self._silent_s = silent_s
        in_words = f"no Kafka broker at {self._source.address} has answered since {self._since}"
        if silent_s >= self._retry_s:
            raise RetryableError(
                f"gave up after {silent_s:.0f} s: {in_words}. Nothing is lost; start again when it is back"
            )
        if self._wait.is_due(silent_s):
            log.warning(
                "no Kafka broker answers",
                bootstrap=self._source.address,
                since=self._since,
                silent_s=round(silent_s, 1),
                meanwhile="nothing is lost; reading goes on by itself when a broker answers again",
                gives_up_after_s=self._retry_s,
            )
        return in_words
