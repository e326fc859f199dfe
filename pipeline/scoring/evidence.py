"""How far a score lies above what honest accounts reach at the same stage: what makes scores of models comparable.

For each stage and channel (a look of the trees, or another part) there is a pivot: the score that few honest accounts
ever exceed there, as few as the channel's part in the false alerts that may be spent allows.  The evidence of a score
is -ln of the share of honest accounts that exceed a pivot anywhere, and what the score lies above its own: in log-odds
for forests and logistic regression, one unit for all stages and looks, so that an account's maximum over its rows is
not carried by the one at which everybody looks odd; in their own units for z-scores and half-space trees.  How rare
scores far above a pivot are is not asked: a handful of honest accounts cannot tell, and to ask them cost 0.017 of the
AUC on unseen families, with the same trees.

The parts are weights of p-values as of Genovese, Roeder and Wasserman: False discovery control with p-value weighting,
Biometrika 93, 2006.  They add up to 1, so that the share of honest accounts above some evidence is known for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from pipeline.scoring.combination import log_odds_of
from pipeline.scoring.kinds import EARLY, FEW, GROWN, LOOKS, QUIET, STAGES
from pipeline.scoring.scaling import Floats

CHANNELS: Final = (
    "zscore", "half_space_trees", "logistic_regression",
    *(f"mondrian_forest_{look}" for look in LOOKS), *(f"extra_trees_{look}" for look in LOOKS),
)  # fmt: skip
_FOREST: Final = slice(3, 3 + len(LOOKS))
_TREES: Final = slice(3 + len(LOOKS), 3 + 2 * len(LOOKS))

SPENT: Final = {
    EARLY: {"any": 0.02}, FEW: {"any": 0.06}, QUIET: {"any": 0.28}, GROWN: {"open": 0.24, "any": 0.4},
}  # fmt: skip
"""Of the false alerts that may be spent, the part of each look at each stage.  Whether a grown account harvests at all
gets most: hidden harvests are the hardest to tell, from resellers that do a bit of everything for honest reasons."""

RARE: Final = 0.05
"""The share of honest accounts that exceed a pivot anywhere.  Most of it goes to grown and quiet accounts, whose pivots
dozens exceed; at the early stages it is a few, and the pivot as uncertain as they are."""

NOTHING: Final = -10.0
"""What cold rows, and looks that do not count at a stage, are worth: less than anything else."""


def _spent() -> Floats:
    """The part of each channel at each stage, float64[STAGES, C]: 0 where it does not count."""
    spent = np.zeros((STAGES, len(CHANNELS)))
    for stage, looks in SPENT.items():
        by_look = [looks.get(look, 0.0) for look in LOOKS]
        spent[stage, :] = [*[sum(by_look)] * 3, *by_look, *by_look]
    return spent


_SPENT: Final = _spent()


def channels_of(zscore: Floats, half_space_trees: Floats, linear: Floats, forest: Floats, trees: Floats) -> Floats:
    """Scores side by side, float64[n, C]; an unknown one is lower than any.

    Args:
        zscore: float64[n].
        half_space_trees: float64[n]; NaN while cold.
        linear: float64[n], log-odds.
        forest: float64[n, K], probabilities of LOOKS.
        trees: the same; NaN for cold rows.
    """
    return np.column_stack(
        [zscore, np.nan_to_num(half_space_trees), linear, log_odds_of(forest), log_odds_of(np.nan_to_num(trees))]
    )


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Where the scores of honest accounts end.

    Attributes:
        pivots: float64[STAGES, C]: what honest accounts exceed at a stage, `RARE` times the channel's part of them; of
            channels that do not count there, nothing.
    """

    pivots: Floats

    @classmethod
    def fit(cls, channels: Floats, stage: npt.NDArray[np.int64], account: npt.NDArray[np.int64], accounts: int) -> Self:
        """From scores of honest accounts by models that did not learn them.

        Args:
            channels: float64[n, C].
            stage: int64[n].
            account: int64[n]: number of each row's account.
            accounts: how many have rows at any stage.
        """
        pivots = np.zeros((STAGES, channels.shape[1]))
        lowest = channels.min(axis=0) - 1.0  # where fewer accounts than that reach the stage at all
        for number in range(STAGES):
            inside = stage == number
            highest = np.full((accounts, channels.shape[1]), -np.inf)
            np.maximum.at(highest, account[inside], channels[inside])
            ordered = -np.sort(-highest, axis=0)
            for channel in np.flatnonzero(_SPENT[number]):
                reached = ordered[int(RARE * _SPENT[number, channel] * accounts), channel]
                pivots[number, channel] = reached if np.isfinite(reached) else lowest[channel]
        return cls(pivots)

    def of(self, channels: Floats, stage: npt.NDArray[np.int64]) -> Floats:
        """Evidence of scores float64[n, C] at their stages, float64[n, C]."""
        found = np.full(channels.shape, NOTHING)
        for number in range(STAGES):
            rows = np.flatnonzero(stage == number)
            counts = np.flatnonzero(_SPENT[number])
            above = channels[np.ix_(rows, counts)] - self.pivots[number, counts]
            found[np.ix_(rows, counts)] = np.maximum(above - np.log(RARE), NOTHING)
        return found

    def parts(self, channels: Floats, stage: npt.NDArray[np.int64]) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Evidence of each part, float64[n, P] by PARTS, and the look that each tree part's is of, int64[n, 2]."""
        found = self.of(channels, stage)
        forest, trees = found[:, _FOREST], found[:, _TREES]
        look = np.column_stack([forest.argmax(axis=1), trees.argmax(axis=1)])
        parts = [found[:, 0], found[:, 1], forest.max(axis=1), found[:, 2], trees.max(axis=1)]
        return np.column_stack(parts), look
