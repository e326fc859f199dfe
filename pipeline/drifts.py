"""A drift: what is scored has changed.  It is told, and nothing is done about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Drift:
    """A change that a detector noticed.

    Attributes:
        signal: what changed: "risk" (mean of a block's risks) or "verdicts" (share of verdicts that say harvesting).
        count: how many changes of this signal were noticed so far.
        rows: rows that the ensemble had learned by then.
        before: mean of the values that ADWIN had in view before the change was noticed.
        after: mean of those that it kept.
    """

    signal: str
    count: int
    rows: int
    before: float
    after: float
