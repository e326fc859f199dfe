"""What verdicts do to the risk of accounts like those they judged."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.scoring import precedents as module
from pipeline.scoring.kinds import COLD, EARLY, GROWN
from pipeline.scoring.precedents import Precedent, Precedents
from tests.unit.scoring import traffic

MODELS = traffic.models()
ROWS = traffic.labelled(60, seed=4)
FILLED = MODELS.forest.scaling.filled(ROWS.values)
HARVESTS, HONEST = np.flatnonzero(ROWS.harvesting), np.flatnonzero(~ROWS.harvesting)


def filled(values: Any) -> Any:
    return MODELS.forest.scaling.filled(values[np.newaxis])[0]


@cache
def honest() -> Any:
    return MODELS.forest.scaling.filled(MODELS.population)


def precedents_of(verdicts: list[tuple[int, bool | None]], stage: int = GROWN) -> Precedents:
    """Of rows of ROWS, in this order; each row is an account of its own."""
    made = Precedents(MODELS.trees, honest())
    for row, says in verdicts:
        precedent = None if says is None else Precedent(says, stage, ROWS.values[row])
        made.judge(row, precedent, FILLED[row])
    made.settle()
    return made


def moved(made: Precedents, rows: Any, stage: int = GROWN) -> Any:
    return made.moved(MODELS.trees.of(stage).seen(FILLED[rows]), stage)


def test_without_verdicts_nothing_moves() -> None:
    assert not moved(precedents_of([]), HARVESTS).any()


def test_a_harvester_raises_those_like_it_and_an_honest_account_lowers_those_like_it() -> None:
    made = precedents_of([(row, True) for row in HARVESTS[:10]] + [(row, False) for row in HONEST[:10]])
    others, honest_others = moved(made, HARVESTS[10:]), moved(made, HONEST[10:])
    assert np.median(others) > 0 > np.median(honest_others)
    assert moved(made, HARVESTS[:1])[0] > np.median(others), "the judged account itself moves most"


def test_right_alerts_alone_do_not_raise_everybody() -> None:
    made = precedents_of([(row, True) for row in HARVESTS])
    of_honest = made.moved(MODELS.trees.of(GROWN).seen(honest()), GROWN)
    assert np.median(of_honest) == pytest.approx(0, abs=1e-12)
    assert np.median(moved(made, HARVESTS)) > 0.1


def test_verdicts_on_grown_accounts_say_nothing_of_young_ones() -> None:
    made = precedents_of([(row, True) for row in HARVESTS], GROWN)
    assert not moved(made, HARVESTS, EARLY).any()


def test_an_account_that_was_never_scored_is_no_precedent() -> None:
    assert len(precedents_of([(0, True)], COLD)) == 0


VERDICTS = st.lists(st.tuples(st.integers(0, 20), st.sampled_from([True, False, None])), max_size=30)


@settings(deadline=None, max_examples=30)
@given(VERDICTS)
def test_only_the_last_verdict_of_an_account_counts(verdicts: list[tuple[int, bool | None]]) -> None:
    """As if the others had never been given, to the bit."""
    last = dict(verdicts)
    order = [row for at, (row, _) in enumerate(verdicts) if row not in {later for later, _ in verdicts[at + 1 :]}]
    same = precedents_of([(row, last[row]) for row in order])
    made = precedents_of(verdicts)
    assert moved(made, np.arange(len(ROWS))).tobytes() == moved(same, np.arange(len(ROWS))).tobytes()
    assert list(made.by_account) == list(same.by_account)


@settings(deadline=None, max_examples=10)
@given(st.permutations([(int(row), True) for row in HARVESTS[:5]] + [(int(row), False) for row in HONEST[:5]]))
def test_the_order_of_verdicts_does_not_matter(verdicts: list[tuple[int, bool | None]]) -> None:
    same = moved(precedents_of(sorted(verdicts)), np.arange(len(ROWS)))
    assert moved(precedents_of(verdicts), np.arange(len(ROWS))).tobytes() == same.tobytes()


def test_a_row_is_moved_the_same_whoever_is_looked_at_with_it() -> None:
    made = precedents_of([(row, row in HARVESTS) for row in range(30)])
    together = moved(made, np.arange(len(ROWS)))
    alone = np.concatenate([moved(made, np.array([row])) for row in range(len(ROWS))])
    assert alone.tobytes() == together.tobytes()


def test_of_too_many_the_longest_ago_count_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PRECEDENTS_MAX", 3)
    made = precedents_of([(row, True) for row in (0, 1, 2, 3, 1)])
    assert list(made.by_account) == [2, 3, 1]
    same = precedents_of([(row, True) for row in (2, 3, 1)])
    assert moved(made, HARVESTS).tobytes() == moved(same, HARVESTS).tobytes()
