"""Waiting for something outside, aloud but not too often."""

from __future__ import annotations

from typing import Final

SAID_AFTER_S: Final = 10.0
"""How long something may be waited for before a line says so: longer than a broker's restart of a connection takes,
shorter than a person takes to wonder."""

SAID_EVERY_S_MAX: Final = 300.0
"""The distance between two such lines doubles up to this."""


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
