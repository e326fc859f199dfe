"""The demo counts flagged accounts against the simulation's labels."""

from __future__ import annotations

from jobs.demo_flagged import Comparison
from pipeline.simulation import Label

LABELS = [
    Label("a", "attack", "attack", "f", "loud", ""),
    Label("b", "attack", "attack", "f", "loud", ""),
    Label("c", "attack", "attack", "f", "drip", "p"),
    Label("d", "benign", "people"),
    Label("e", "benign", "etl"),
]


def test_what_was_flagged_rightly_and_wrongly() -> None:
    compared = Comparison.of(["a", "c", "e"], LABELS)
    assert (compared.harvesters, compared.found, compared.wrong) == (3, 2, 1)
    assert compared.in_words() == {
        "harvesters": "2 of 3 flagged",
        "by variant": "drip 1 of 1, loud 1 of 2",
        "customers": "1 flagged (etl 1)",
    }


def test_nothing_flagged() -> None:
    words = Comparison.of([], LABELS).in_words()
    assert words["harvesters"] == "0 of 3 flagged"
    assert words["customers"] == "0 flagged"
