"""An alert as an object of JSON, by the names of the lake's table `alerts`; times in RFC 3339."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from pipeline.alerts import Alert
from pipeline.moments import rfc3339

_TIMES: Final = ("window_start", "raised_at", "first_seen")


def as_object(alert: Alert) -> dict[str, Any]:
    """All of an alert."""
    row = asdict(alert)
    return {
        name.removesuffix("_us"): rfc3339(value) if name.removesuffix("_us") in _TIMES else value
        for name, value in row.items()
    }
