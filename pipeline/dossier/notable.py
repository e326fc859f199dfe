"""Which scores of an account are worth a look."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Final

from pipeline.dossier.dossier import ScoredMoment

Place = tuple[int, int]
"""Of a score: its moment, microseconds, and the offset of its record."""

NOTABLE_MAX: Final = 8


def notable(history: Sequence[ScoredMoment], alerted: Mapping[Place, str]) -> list[tuple[int, str]]:
    """Places in a history, in its order, and why each is worth a look.

    Args:
        history: scores in order.
        alerted: names of rules that raised an alert, by time and offset of the score.
    """
    known = [place for place, moment in enumerate(history) if moment.risk is not None]
    why: dict[int, list[str]] = {}

    def note(place: int, words: str) -> None:
        if place in why or len(why) < NOTABLE_MAX:
            why.setdefault(place, []).append(words)

    if history:
        note(len(history) - 1, "the latest")
    if known:
        note(max(known, key=lambda place: (_risk(history[place]), -place)), "the highest risk")
        note(known[0], "the first risk")
        rises = [
            (_risk(history[later]) - _risk(history[earlier]), -later) for earlier, later in itertools.pairwise(known)
        ]
        if rises and max(rises)[0] > 0:
            note(-max(rises)[1], "the steepest rise")
    for place in reversed(range(len(history))):
        rule = alerted.get((history[place].scored_at_us, history[place].offset))
        if rule is not None:
            note(place, f"raised {rule}")
    return [(place, ", ".join(why[place])) for place in sorted(why)]


def _risk(moment: ScoredMoment) -> float:
    return -1.0 if moment.risk is None else moment.risk
