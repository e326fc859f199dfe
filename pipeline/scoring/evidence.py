"""How rare a score is among honest accounts at the same stage: what makes scores of different models comparable.

For each stage and channel (a kind of the forest, or another part) the table holds the highest scores that honest
accounts reached there, as quantiles.  The evidence of a score is -ln of the share of all honest accounts that ever
reach as much at that stage: the same unit for all, and an account's maximum over its rows is not carried by the one
stage at which everybody looks odd.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from pipeline.scoring.combination import log_odds_of
from pipeline.scoring.kinds import KINDS, STAGES
from pipeline.scoring.scaling import Floats

CHANNELS: Final = (
    "zscore", "half_space_trees", "logistic_regression",
    *(f"mondrian_forest_{kind}" for kind in KINDS), *(f"extra_trees_{kind}" for kind in KINDS),
)  # fmt: skip
_FOREST: Final = slice(3, 3 + len(KINDS))
_TREES: Final = slice(3 + len(KINDS), 3 + 2 * len(KINDS))

POINTS: Final = 24
"""Quantiles kept of a stage and channel."""

_COMMON: Final = 0.5
"""Scores that more than this share of honest accounts reach are no evidence."""

_BEYOND: Final = 0.5
"""Evidence for each unit above all that honest accounts ever scored."""


def channels_of(zscore: Floats, half_space_trees: Floats, linear: Floats, forest: Floats, trees: Floats) -> Floats:
    """Scores side by side, float64[n, C]; an unknown one is lower than any.

    Args:
        zscore: float64[n].
        half_space_trees: float64[n]; NaN while cold.
        linear: float64[n], log-odds.
        forest: float64[n, K], probabilities.
        trees: float64[n, K], probabilities.
    """
    return np.column_stack(
        [zscore, np.nan_to_num(half_space_trees, nan=0.0), linear, log_odds_of(forest), log_odds_of(trees)]
    )


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Quantiles of honest accounts' highest scores.

    Attributes:
        scores: float64[STAGES, C, POINTS], ascending: what the shares `tails` of honest accounts exceed.
        tails: float64[POINTS], descending.
    """

    scores: Floats
    tails: Floats

    @classmethod
    def fit(cls, channels: Floats, stage: npt.NDArray[np.int64], account: npt.NDArray[np.int64], accounts: int) -> Self:
        """From scores of honest accounts by models that did not learn them.

        Args:
            channels: float64[n, C].
            stage: int64[n].
            account: int64[n]: number of each row's account.
            accounts: how many there are, those that never got a row included.
        """
        tails = np.geomspace(_COMMON, 1.0 / max(accounts, 2), POINTS)
        at = np.minimum(np.round(tails * accounts).astype(np.int64), accounts) - 1
        scores = np.zeros((STAGES, channels.shape[1], POINTS))
        for number in range(STAGES):
            inside = stage == number
            highest = np.full((accounts, channels.shape[1]), -np.inf)
            np.maximum.at(highest, account[inside], channels[inside])
            ordered = -np.sort(-highest, axis=0)
            picked = ordered[np.clip(at, 0, accounts - 1)]
            lowest = channels.min(axis=0) - 1.0  # where fewer accounts than that reach the stage at all
            scores[number] = np.maximum.accumulate(np.where(np.isfinite(picked), picked, lowest), axis=0).T
        return cls(scores, tails)

    def of(self, channels: Floats, stage: npt.NDArray[np.int64]) -> Floats:
        """Evidence of scores float64[n, C] at their stages, float64[n, C], at least 0."""
        found = np.zeros(channels.shape)
        surprise = -np.log(self.tails / _COMMON)
        for number in range(STAGES):
            rows = np.flatnonzero(stage == number)
            if not len(rows):
                continue
            for channel in range(channels.shape[1]):
                points = self.scores[number, channel] + np.arange(POINTS) * 1e-9  # interp wants them apart
                score = channels[rows, channel]
                beyond = np.maximum(score - points[-1], 0.0) * _BEYOND
                found[rows, channel] = np.interp(score, points, surprise) + beyond
        return found

    def parts(self, channels: Floats, stage: npt.NDArray[np.int64]) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Evidence of each part, float64[n, P] by PARTS, and the kind that each tree part's is of, int64[n, 2]."""
        found = self.of(channels, stage)
        forest, trees = found[:, _FOREST], found[:, _TREES]
        kind = np.column_stack([forest.argmax(axis=1), trees.argmax(axis=1)])
        parts = [found[:, 0], found[:, 1], forest.max(axis=1), found[:, 2], trees.max(axis=1)]
        return np.column_stack(parts), kind
