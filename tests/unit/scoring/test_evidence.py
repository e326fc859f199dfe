"""Evidence is the rarity of a score among honest accounts at the same stage, in one unit for all parts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.scoring.combination import PARTS
from pipeline.scoring.evidence import CHANNELS, NOTHING, SPENT, Evidence, channels_of
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


@pytest.mark.parametrize(
    ("stage", "look"), ((EARLY, "any"), (FEW, "any"), (QUIET, "any"), (GROWN, "open"), (GROWN, "hidden"))
)
@pytest.mark.parametrize("share", (0.2, 0.05, 0.02))
def test_a_score_is_worth_the_share_of_honest_accounts_that_reach_it(stage: int, look: str, share: float) -> None:
    at_stage = SCORES[stage == STAGE]
    score = np.quantile(at_stage, 1 - share, axis=0)[np.newaxis, :]
    found = EVIDENCE.of(score, np.array([stage]))[0, CHANNELS.index(f"extra_trees_{look}")]
    assert found == pytest.approx(-np.log(share / SPENT[stage][look]), abs=0.35)


def test_what_may_be_spent_is_spent_once() -> None:
    """Of honest accounts whose looks are unlike each other, no larger share reaches some evidence than it says."""
    assert sum(part for looks in SPENT.values() for part in looks.values()) == pytest.approx(1)
    parts, _ = EVIDENCE.parts(SCORES, STAGE)
    highest = np.full(ACCOUNTS, -np.inf)
    np.maximum.at(highest, ACCOUNT, parts[:, PARTS.index("extra_trees")])
    for share in (0.2, 0.05):
        assert share / 2 < (highest > -np.log(share)).mean() < share * 1.3


def test_a_look_that_does_not_count_at_a_stage_is_worth_nothing() -> None:
    found = EVIDENCE.of(np.full((5, len(CHANNELS)), 99.0), np.array([COLD, EARLY, FEW, QUIET, GROWN]))
    counts = {name: found[:, CHANNELS.index(f"extra_trees_{name}")] > NOTHING for name in LOOKS}
    assert counts["any"].tolist() == [False, True, True, True, False]
    assert counts["open"].tolist() == counts["hidden"].tolist() == [False, False, False, False, True]


def test_rare_scores_lie_on_a_line() -> None:
    """How rare the rarest are is not left to the three accounts that happened to have them."""
    random = np.random.default_rng(1)
    scores = np.tile(random.exponential(2.0, 4000)[:, np.newaxis], (1, len(CHANNELS)))
    evidence = Evidence.fit(scores, np.full(4000, GROWN), np.arange(4000), 4000)
    found = evidence.of(np.full((1, len(CHANNELS)), 30.0), np.array([GROWN]))[0, CHANNELS.index("extra_trees_open")]
    assert found == pytest.approx(30.0 / 2.0 + np.log(SPENT[GROWN]["open"]), rel=0.2)


def test_the_same_score_is_worth_less_where_honest_accounts_score_high() -> None:
    score = np.full((2, len(CHANNELS)), 1.5)
    early, quiet = EVIDENCE.of(score, np.array([EARLY, QUIET]))[:, CHANNELS.index("extra_trees_any")]
    assert early - np.log(SPENT[EARLY]["any"]) > quiet - np.log(SPENT[QUIET]["any"])


def test_where_no_honest_account_ever_was_anything_is_rare() -> None:
    nobody = Evidence.fit(SCORES[STAGE != GROWN], STAGE[STAGE != GROWN], ACCOUNT[STAGE != GROWN], ACCOUNTS)
    found = nobody.of(np.full((1, len(CHANNELS)), 1.0), np.array([GROWN]))[0, CHANNELS.index("extra_trees_open")]
    assert np.log(ACCOUNTS * SPENT[GROWN]["open"]) - 1e-9 <= found < 30


@given(st.floats(-20, 20), st.floats(0, 20), st.integers(0, STAGES - 1))
def test_more_is_never_worth_less(score: float, more: float, stage: int) -> None:
    pair = np.array([[score] * len(CHANNELS), [score + more] * len(CHANNELS)])
    low, high = EVIDENCE.of(pair, np.full(2, stage))
    assert (low <= high).all()


def test_a_part_of_trees_counts_by_its_rarest_look() -> None:
    channels = np.full((1, len(CHANNELS)), -10.0)
    channels[0, CHANNELS.index("extra_trees_hidden")] = 10.0
    parts, look = EVIDENCE.parts(channels, np.array([GROWN]))
    assert parts[0, PARTS.index("extra_trees")] > 5
    assert parts[0, PARTS.index("mondrian_forest")] < 0
    assert look[0, 1] == LOOKS.index("hidden")


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
