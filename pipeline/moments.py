"""Moments as whole microseconds since the epoch, and as people and programs write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def micros_of(moment: datetime) -> int:
    """Microseconds since the epoch of a moment that has a zone."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def moment_at(time_us: int) -> datetime:
    """The moment of microseconds since the epoch, UTC.

    Raises:
        OverflowError: no calendar has it.
    """
    return EPOCH + timedelta(microseconds=time_us)


def parsed(text: str) -> datetime:
    """A day or a time in ISO 8601; without a zone it is UTC.

    Raises:
        ValueError: it is neither.
    """
    return in_utc_unless_said(datetime.fromisoformat(text))


def in_utc_unless_said(moment: datetime) -> datetime:
    """A moment with its zone: UTC where it has none."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def rfc3339(time_us: int, timespec: str = "microseconds") -> str:
    """Microseconds since the epoch as `2026-03-01T12:00:00.000000Z`, or as long as `datetime.isoformat` has it."""
    return moment_at(time_us).isoformat(timespec=timespec).replace("+00:00", "Z")
