"""What a backfill has done so far."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(slots=True)
class Counts:
    """What was done."""

    passed: int = 0
    """Rows that are behind, those among them that were landed before."""

    read: int = 0
    landed: int = 0
    rejected: int = 0
    windows: int = 0
    alerts: int = 0
    shadow_alerts: int = 0
    files: int = 0
    bytes: int = 0

    def add(self, other: Counts) -> None:
        """Count in what somebody else did."""
        for field in fields(Counts):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))
