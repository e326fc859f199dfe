"""What a feature is: its name, its meaning and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Feature:
    """One number about an account.

    Attributes:
        name: the column's name.
        family: the file that computes it.
        unit: what it is measured in.
        definition: exactly what is computed; a change of it makes trained models invalid.
        signals: numbers of the signals that it serves.
        source: paper, report or reason.
        words: short phrase for explanations, such as "share of requests that are single-turn".
    """

    name: str
    family: str
    unit: str
    definition: str
    signals: tuple[int, ...]
    source: str
    words: str
