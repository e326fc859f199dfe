"""An alert as an object of JSON, by the names of the lake's table `alerts`; times in RFC 3339."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pipeline.alerts import Alert

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TIMES: Final = ("window_start", "raised_at", "first_seen")


def rfc3339(time_us: int) -> str:
    """Microseconds since the epoch as `2026-03-01T12:00:00.000000Z`."""
    return (_EPOCH + timedelta(microseconds=time_us)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def as_object(alert: Alert) -> dict[str, Any]:
    """All of an alert."""
    row = asdict(alert)
    return {
        name.removesuffix("_us"): rfc3339(value) if name.removesuffix("_us") in _TIMES else value
        for name, value in row.items()
    }
