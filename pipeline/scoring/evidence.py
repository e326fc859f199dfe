"""How rare a score is among honest accounts at the same stage: what makes scores of different models comparable.

For each stage and channel (a look of the trees, or another part) the table holds the highest scores that honest
accounts reached there, as quantiles.  The evidence of a score is -ln of the share of all honest accounts that ever
reach as much at that stage, divided by the channel's part in the false alerts that may be spent: the same unit for all,
and an account's maximum over its rows is not carried by the one stage or kind at which everybody looks odd.

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
    EARLY: {"any": 0.02}, FEW: {"any": 0.06}, QUIET: {"any": 0.2}, GROWN: {"open": 0.3, "hidden": 0.42},
}  # fmt: skip
"""Of the false alerts that may be spent, the part of each look at each stage.  Hidden harvests get most: they are the
hardest to tell, from resellers that do a bit of everything for honest reasons."""

POINTS: Final = 24
"""Quantiles kept of a stage and channel."""

_COMMON: Final = 0.98
"""Scores that more than this share of honest accounts reach are all worth the same."""

_FITTED: Final = (0.05, 0.002)
_STRAIGHT: Final = 0.03
"""Shares of honest accounts between which a straight line is fitted to -ln of the share, and from where on it counts in
place of the quantiles: a handful of accounts are no measure of how rare something is.  Log-odds fall off
exponentially, as the tail of a generalised Pareto distribution of shape 0 does (Pickands, 1975)."""

_FLATTEST: Final = 0.05
"""Evidence for each unit of score, at least, on the line."""

_STEEPEST: Final = 3.0
"""The same beyond all that honest accounts reached, at most: where few are known their highest scores may be alike."""

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
            quantiles = np.maximum.accumulate(np.where(np.isfinite(picked), picked, lowest), axis=0).T
            scores[number] = [_straightened(points, tails) for points in quantiles]
        return cls(scores, tails)

    def of(self, channels: Floats, stage: npt.NDArray[np.int64]) -> Floats:
        """Evidence of scores float64[n, C] at their stages, float64[n, C]."""
        found = np.full(channels.shape, NOTHING)
        surprise = -np.log(self.tails)
        for number in range(STAGES):
            rows = np.flatnonzero(stage == number)
            if not len(rows):
                continue
            for channel in np.flatnonzero(_SPENT[number] > 0):
                points = self.scores[number, channel] + np.arange(POINTS) * 1e-9  # interp wants them apart
                score = channels[rows, channel]
                slope = min((surprise[-1] - surprise[-2]) / (points[-1] - points[-2]), _STEEPEST)
                beyond = np.maximum(score - points[-1], 0.0) * slope
                found[rows, channel] = np.interp(score, points, surprise) + beyond + np.log(_SPENT[number, channel])
        return found

    def parts(self, channels: Floats, stage: npt.NDArray[np.int64]) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Evidence of each part, float64[n, P] by PARTS, and the look that each tree part's is of, int64[n, 2]."""
        found = self.of(channels, stage)
        forest, trees = found[:, _FOREST], found[:, _TREES]
        look = np.column_stack([forest.argmax(axis=1), trees.argmax(axis=1)])
        parts = [found[:, 0], found[:, 1], forest.max(axis=1), found[:, 2], trees.max(axis=1)]
        return np.column_stack(parts), look


def _straightened(points: Floats, tails: Floats) -> Floats:
    """Quantiles float64[POINTS] with those of rare scores on the line that fits them best."""
    surprise = -np.log(tails)
    fitted = (tails <= _FITTED[0]) & (tails >= _FITTED[1])
    if not fitted.any() or np.ptp(points[fitted]) <= 0:
        return points
    slope = max(float(np.polyfit(points[fitted], surprise[fitted], 1)[0]), _FLATTEST)
    common = tails > _STRAIGHT
    joint = np.interp(-np.log(_STRAIGHT), surprise, points)
    line = joint + (surprise + np.log(_STRAIGHT)) / slope
    straight: Floats = np.where(common, points, line)
    return straight
