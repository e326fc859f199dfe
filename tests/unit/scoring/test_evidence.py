"""Evidence is how far a score lies above what honest accounts reach at the same stage, in one unit for all parts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.scoring.combination import PARTS
from pipeline.scoring.evidence import CHANNELS, NOTHING, RARE, SPENT, Evidence, channels_of
from pipeline.scoring.kinds import (
    COLD,
    EARLY,
    FEW,
    GROWN,
    LOOKS,
    QUIET,
    STAGES,
    kind_of,
    likeliest_kind,
    looks_of,
    stage_of,
)

RANDOM = np.random.default_rng(0)
ACCOUNTS = 1200
ACCOUNT = np.repeat(np.arange(ACCOUNTS), 4)
STAGE = np.tile([EARLY, FEW, QUIET, GROWN], ACCOUNTS)
SCORES = RANDOM.normal(size=(len(ACCOUNT), len(CHANNELS))) + STAGE[:, np.newaxis]
EVIDENCE = Evidence.fit(SCORES, STAGE, ACCOUNT, ACCOUNTS)


@pytest.mark.parametrize(("stage", "look"), [(stage, look) for stage, looks in SPENT.items() for look in looks])
def test_what_the_channels_part_of_the_rare_exceed_is_worth_that_rarity(stage: int, look: str) -> None:
    at_stage = SCORES[stage == STAGE]
    score = np.quantile(at_stage, 1 - RARE * SPENT[stage][look], axis=0)[np.newaxis, :]
    found = EVIDENCE.of(score, np.array([stage]))[0, CHANNELS.index(f"extra_trees_{look}")]
    assert found == pytest.approx(-np.log(RARE), abs=0.25)


def test_what_may_be_spent_is_spent_once() -> None:
    """Of honest accounts whose looks are unlike each other, no larger share exceeds a pivot than it says."""
    assert sum(part for looks in SPENT.values() for part in looks.values()) == pytest.approx(1)
    parts, _ = EVIDENCE.parts(SCORES, STAGE)
    highest = np.full(ACCOUNTS, -np.inf)
    np.maximum.at(highest, ACCOUNT, parts[:, PARTS.index("extra_trees")])
    assert RARE / 2 < (highest > -np.log(RARE)).mean() < RARE * 1.2


def test_a_look_that_does_not_count_at_a_stage_is_worth_nothing() -> None:
    found = EVIDENCE.of(np.full((5, len(CHANNELS)), 99.0), np.array([COLD, EARLY, FEW, QUIET, GROWN]))
    counts = {name: found[:, CHANNELS.index(f"extra_trees_{name}")] > NOTHING for name in LOOKS}
    assert counts["any"].tolist() == [False, True, True, True, True]
    assert counts["open"].tolist() == [False, False, False, False, True]
    assert counts["hidden"].tolist() == [False] * 5


@given(st.floats(-5, 20), st.floats(0, 20))
def test_log_odds_count_as_they_are(score: float, more: float) -> None:
    pair = np.array([[score] * len(CHANNELS), [score + more] * len(CHANNELS)])
    low, high = EVIDENCE.of(pair, np.full(2, GROWN))[:, CHANNELS.index("extra_trees_open")]
    assert high - low == pytest.approx(more, abs=1e-6)


def test_the_same_score_is_worth_less_where_honest_accounts_score_high() -> None:
    score = np.full((2, len(CHANNELS)), 1.5)
    early, quiet = EVIDENCE.of(score, np.array([EARLY, QUIET]))[:, CHANNELS.index("extra_trees_any")]
    higher = Evidence.fit(SCORES + 1.0, STAGE, ACCOUNT, ACCOUNTS)
    assert (higher.of(score, np.array([EARLY, QUIET]))[:, CHANNELS.index("extra_trees_any")] < [early, quiet]).all()


def test_where_no_honest_account_ever_was_anything_is_rare() -> None:
    nobody = Evidence.fit(SCORES[STAGE != GROWN], STAGE[STAGE != GROWN], ACCOUNT[STAGE != GROWN], ACCOUNTS)
    lowest = np.full((1, len(CHANNELS)), float(SCORES[STAGE != GROWN].min()))
    found = nobody.of(lowest, np.array([GROWN]))[0]
    assert all(found[CHANNELS.index(f"extra_trees_{look}")] > -np.log(RARE) for look in SPENT[GROWN])


@given(st.floats(-20, 20), st.floats(0, 20), st.integers(0, STAGES - 1))
def test_more_is_never_worth_less(score: float, more: float, stage: int) -> None:
    pair = np.array([[score] * len(CHANNELS), [score + more] * len(CHANNELS)])
    low, high = EVIDENCE.of(pair, np.full(2, stage))
    assert (low <= high).all()


def test_a_part_of_trees_counts_by_its_rarest_look() -> None:
    channels = np.full((1, len(CHANNELS)), -10.0)
    channels[0, CHANNELS.index("extra_trees_any")] = 10.0
    parts, look = EVIDENCE.parts(channels, np.array([GROWN]))
    assert parts[0, PARTS.index("extra_trees")] > 5
    assert parts[0, PARTS.index("mondrian_forest")] < 0
    assert look[0, 1] == LOOKS.index("any")


def test_channels_stand_in_their_order() -> None:
    columns = channels_of(
        np.array([1.0]), np.array([np.nan]), np.array([3.0]), np.full((1, 3), 0.5), np.full((1, 3), 0.5)
    )
    assert columns.shape == (1, len(CHANNELS))
    assert columns[0, :3].tolist() == [1.0, 0.0, 3.0]
    np.testing.assert_allclose(columns[0, 3:], 0.0)


def test_stages_divide_all_rows() -> None:
    exchanges = np.array([3, 3, 4, 47, 4, 7, 8, 47, 48, 48, 9999])
    is_count = np.array([True, False, True, True, False, False, False, False, True, False, False])
    expected = [COLD, COLD, EARLY, EARLY, FEW, FEW, QUIET, QUIET, GROWN, GROWN, GROWN]
    assert stage_of(exchanges, is_count).tolist() == expected


def test_looks_and_kinds_say_the_same() -> None:
    kinds = np.array([[0.5, 0.1, 0.2], [0.1, 0.2, 0.3], [0.1, 0.3, 0.2]])
    looks = looks_of(kinds)
    np.testing.assert_allclose(looks[:, -1], kinds.sum(axis=1))
    assert likeliest_kind(looks).tolist() == [1, 3, 2]


def test_variants_have_kinds() -> None:
    assert kind_of(["loud", "paced", "mixed", "faint", "hydra", "drip", "anything"]).tolist() == [1, 1, 2, 2, 3, 3, 1]
