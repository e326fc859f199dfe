"""Waiting for what comes sooner or later, with a bound."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

BOUND_S: Final = 60.0
_LOOK_S: Final = 0.02


def wait_until(condition: Callable[[], object], what: str, bound_s: float = BOUND_S) -> None:
    """Wait for a condition, and fail with words when it does not come true."""
    end_s = time.monotonic() + bound_s
    while not condition():
        if time.monotonic() > end_s:
            raise AssertionError(f"waited {bound_s:.0f} s in vain: {what}")
        time.sleep(_LOOK_S)
