"""The traffic of `stillwatch demo`: a simulation in time lapse, with a broken record now and then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Final, Self

import orjson

from pipeline.io.replay import KeyedLine, TopicWriter
from pipeline.simulation import Event, Simulation

BROKEN_EVERY: Final = 1000
"""After so many good records comes a broken one."""

HOUR_S: Final = 1.0
"""Real seconds that a simulated hour takes."""

_LATE: Final = 1.25
"""A machine that is too slow for the traffic gets no more of it after so many times its length."""

_STOP_S: Final = 5.0

_DAMAGES: Final[tuple[Callable[[Event], bytes], ...]] = (
    lambda event: orjson.dumps(event)[:200],
    lambda event: orjson.dumps({**event, "account_id": None}),
    lambda event: orjson.dumps({**event, "output_tokens": -7}),
    lambda event: orjson.dumps({**event, "event_time": "2999-01-01T00:00:00Z"}),
    lambda event: orjson.dumps({**event, "status": "teapot"}),
    lambda event: orjson.dumps(event).replace(b'"prompt":"', b'"prompt":"\xff\xfe'),
)
"""What happens to records on their way: cut short, incomplete, impossible, of the wrong type, not UTF-8."""


class Feed(threading.Thread):
    """Sends a simulation to a topic, an hour of it a second, from a thread of its own.

    Attributes:
        broken: how many records were broken on purpose.
        clock: simulated time of the newest record.
        ended: everything is sent and acknowledged, or `error` says why not.
        cut_short: the machine was too slow for all of it.
        error: what went wrong, for whoever watches to raise.
    """

    def __init__(self, simulation: Simulation, writer: TopicWriter, seconds: int) -> None:
        super().__init__(name="feed", daemon=True)
        self._simulation, self._writer, self._seconds = simulation, writer, seconds
        self._stopping = threading.Event()
        self._began_s = time.monotonic()
        self.broken = 0
        self.clock = ""
        self.ended = False
        self.cut_short = False
        self.error: BaseException | None = None

    @property
    def produced(self) -> int:
        """Records that the broker has acknowledged."""
        return self._writer.sent

    @property
    def elapsed_s(self) -> float:
        """Since the traffic began."""
        return time.monotonic() - self._began_s

    def __enter__(self) -> Self:
        """Begin."""
        self._began_s = time.monotonic()
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, whether all is sent or not."""
        self._stopping.set()
        self.join(timeout=_STOP_S)

    def run(self) -> None:
        """Send, in the thread."""
        try:
            self._send_all()
            self._writer.flush()
        except BaseException as error:  # noqa: BLE001  # raised again by whoever watches
            self.error = error
        self.ended = True

    def _send_all(self) -> None:
        for number, event in enumerate(self._simulation.events(), start=1):
            at = datetime.fromisoformat(event["event_time"])
            ahead_s = (at - self._simulation.start).total_seconds() / 3600 * HOUR_S - self.elapsed_s
            if ahead_s > 0.002:  # noqa: PLR2004  # below this, a sleep costs more than it corrects
                self._stopping.wait(ahead_s)
            self.cut_short = self.elapsed_s > self._seconds * _LATE
            if self._stopping.is_set() or self.cut_short:
                return
            key = event["account_id"].encode()
            self._writer.send(KeyedLine(key, orjson.dumps(event)))
            if number % BROKEN_EVERY == 0:
                damage = _DAMAGES[self.broken % len(_DAMAGES)]
                self.broken += 1
                self._writer.send(KeyedLine(key, damage(event)))
            self.clock = f"{at:%a %H:%M}"
