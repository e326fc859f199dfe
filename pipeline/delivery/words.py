"""Strangers' words in messages: nothing in them is obeyed, and none is endless."""

from __future__ import annotations

from typing import Final

from pipeline.alerts import spelled
from pipeline.harmless import harmless

SHOWN_MAX: Final = 100
"""Characters of an account's name in a line for people; programs get it whole."""


def cut(text: str, most: int) -> str:
    """Text of so many characters at most."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def shown(account: str) -> str:
    """An account's name as people see it."""
    account = spelled(account)
    if len(account) <= SHOWN_MAX:
        return harmless(account)
    return f"{harmless(account[:SHOWN_MAX])}… ({len(account):,} characters)"
