"""Evidence is the rarity of a score among honest accounts at the same stage, in one unit for all parts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.scoring.combination import PARTS
from pipeline.scoring.evidence import CHANNELS, Evidence, channels_of
from pipeline.scoring.kinds import KINDS, STAGES, kind_of, stage_of

RANDOM = np.random.default_rng(0)
ACCOUNTS = 400
ACCOUNT = np.repeat(np.arange(ACCOUNTS), 3)
STAGE = np.tile([0, 1, 4], ACCOUNTS)
SCORES = RANDOM.normal(size=(len(ACCOUNT), len(CHANNELS))) + STAGE[:, np.newaxis]
EVIDENCE = Evidence.fit(SCORES, STAGE, ACCOUNT, ACCOUNTS)


@pytest.mark.parametrize("stage", (0, 1, 4))
@pytest.mark.parametrize("share", (0.2, 0.05, 0.02))
def test_a_score_is_worth_the_share_of_honest_accounts_that_reach_it(stage: int, share: float) -> None:
    at_stage = SCORES[stage == STAGE]
    score = np.quantile(at_stage, 1 - share, axis=0)[np.newaxis, :]
    found = EVIDENCE.of(score, np.array([stage]))
    np.testing.assert_allclose(found, -np.log(share / 0.5), atol=0.25)


def test_the_same_score_is_worth_less_where_honest_accounts_score_high() -> None:
    score = np.full((3, len(CHANNELS)), 3.0)
    early, _, late = EVIDENCE.of(score, np.array([0, 1, 4]))
    assert (early > late).all()


def test_where_no_honest_account_ever_was_anything_is_rare() -> None:
    found = EVIDENCE.of(np.full((1, len(CHANNELS)), 1.0), np.array([3]))
    assert (found >= -np.log(1 / ACCOUNTS / 0.5) - 1e-9).all()


@given(st.floats(-20, 20), st.floats(0, 20), st.integers(0, STAGES - 1))
def test_more_is_never_worth_less(score: float, more: float, stage: int) -> None:
    pair = np.array([[score] * len(CHANNELS), [score + more] * len(CHANNELS)])
    low, high = EVIDENCE.of(pair, np.full(2, stage))
    assert (low >= 0).all()
    assert (low <= high).all()


def test_a_part_of_trees_counts_by_its_likeliest_kind() -> None:
    channels = np.full((1, len(CHANNELS)), -10.0)
    channels[0, CHANNELS.index("extra_trees_hidden")] = 10.0
    parts, kind = EVIDENCE.parts(channels, np.array([0]))
    assert parts[0, PARTS.index("extra_trees")] > 5
    assert parts[0, PARTS.index("mondrian_forest")] == 0
    assert kind[0, 1] == KINDS.index("hidden")


def test_channels_stand_in_their_order() -> None:
    columns = channels_of(
        np.array([1.0]), np.array([np.nan]), np.array([3.0]), np.full((1, 3), 0.5), np.full((1, 3), 0.5)
    )
    assert columns.shape == (1, len(CHANNELS))
    assert columns[0, :3].tolist() == [1.0, 0.0, 3.0]
    np.testing.assert_allclose(columns[0, 3:], 0.0)


def test_stages_divide_all_rows() -> None:
    exchanges = np.array([4, 15, 16, 63, 4, 63, 64, 255, 256, 9999])
    is_count = np.array([True, True, True, True, False, False, True, False, True, False])
    assert stage_of(exchanges, is_count).tolist() == [0, 0, 1, 1, 2, 3, 4, 4, 5, 5]


def test_variants_have_kinds() -> None:
    assert kind_of(["loud", "paced", "mixed", "faint", "hydra", "drip", "anything"]).tolist() == [1, 1, 2, 2, 3, 3, 1]
