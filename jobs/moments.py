"""Moments as people give them on the command line."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from pipeline.errors import ConfigError
from pipeline.harmless import harmless
from pipeline.moments import micros_of, parsed

_SPAN: Final = re.compile(r"([0-9]{1,6})([mhd])")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}
_SHOWN_CHARS: Final = 40


def since_us(said: str, now_us: int, flag: str = "--since") -> int:
    """A moment, or how long ago, microseconds since the epoch; without a zone it is UTC.

    Raises:
        ConfigError: it is none.
    """
    ago = span_us(said)
    if ago is not None:
        return now_us - ago
    expected = "a day (2026-03-01), a time (2026-03-01T12:00Z) or how long ago (24h)"
    return moment_us(said, f"{flag} {harmless(said[:_SHOWN_CHARS])}: expected {expected}")


def span_us(said: str) -> int | None:
    """A span such as 90m, 24h or 7d, microseconds; None where it is none."""
    found = _SPAN.fullmatch(said)
    return None if found is None else timedelta(**{_UNITS[found[2]]: int(found[1])}) // timedelta(microseconds=1)


def moment_us(said: str, otherwise: str) -> int:
    """A moment, microseconds since the epoch; without a zone it is UTC.

    Args:
        said: in ISO 8601.
        otherwise: what the error says.

    Raises:
        ConfigError: it is none.
    """
    try:
        return micros_of(parsed(said))
    except ValueError:
        raise ConfigError(otherwise) from None
