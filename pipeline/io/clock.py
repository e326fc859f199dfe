"""The machine's clocks."""

from __future__ import annotations

import time


class SystemClock:
    """Time as the machine has it."""

    def now_us(self) -> int:
        """Wall clock, microseconds since the epoch."""
        return time.time_ns() // 1_000

    def elapsed_s(self) -> float:
        """Seconds on a clock that never jumps."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)
