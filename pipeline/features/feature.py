"""What is known of one number in a feature row."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of `FeatureRows.values`.

    Attributes:
        name: unique, lower case, with the view last (`_1h`, `_24h`, `_7d`) where there is one.
        family: the file that computes it.
        unit: `share`, `bits`, `log2(1 + requests)`, ...
        definition: how it is computed; a change of it changes `FEATURES_HASH`.
        signals: the rows of the table of signals in docs/features.md that it serves; empty where it is context.
        source: paper, report or practice that it comes from.
        words: what the number is, for the reasons of an alert: "share of requests that are single-turn".
    """

    name: str
    family: str
    unit: str
    definition: str
    signals: tuple[int, ...]
    source: str
    words: str
