"""The running population, and how far from it an account is: the baseline, and the words of explanations.

The population is the last rows that taught it, a fixed number.  It begins with rows that ship with the models and is
replaced one by one by the partition's own; its quantiles are taken anew when the half-space trees have learned a
window, so that all of a window is learned under the same ranks.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from pipeline.scoring.scaling import Floats, Scaling, Values

Z_MAX: Final = 4.0
"""Robust z-scores are cut here: beyond it a feature says no more than "far away"."""


class Population:
    """The last rows that taught what is normal, and their quantiles.

    Args:
        rows: float32[R, F]: the rows held; R never changes.
        next_row: the one that is replaced next.
        scaling: quantiles as last taken.
    """

    def __init__(self, rows: Values, next_row: int = 0, scaling: Scaling | None = None) -> None:
        self.rows = rows.copy()
        self.next_row = next_row
        self.scaling = scaling or Scaling.fit(rows)

    def learn(self, values: Values) -> None:
        """Put rows float32[n, F] in the places of the oldest; the quantiles stay until `refresh`."""
        slots = (self.next_row + np.arange(len(values))) % len(self.rows)
        self.rows[slots] = values
        self.next_row = int(self.next_row + len(values)) % len(self.rows)

    def refresh(self) -> None:
        """Take the quantiles of the rows held."""
        self.scaling = Scaling.fit(self.rows)

    def ranks(self, values: Values) -> Floats:
        """Each value's place in the population, float64[n, F] in [0, 1]; an unknown one has the median's."""
        return self.scaling.ranks(values)

    def zscores(self, values: Values) -> Floats:
        """Robust z-scores, float64[n, F] in [-Z_MAX, Z_MAX]; NaN where the value or the population is unknown.

        (value - median) / (interquartile range / 1.349): Iglewicz and Hoaglin, How to detect and handle outliers, 1993.
        Where the population knows one value only, any other is as far away as can be.
        """
        away = values.astype(np.float64) - self.scaling.median
        spread = self.scaling.spread
        scaled = np.divide(away, spread, out=np.sign(away) * Z_MAX, where=spread > 0)
        return np.clip(scaled, -Z_MAX, Z_MAX)


def zscore_contributions(zscores: Floats, directions: Floats) -> Floats:
    """What each feature adds to the mean z-score in the direction of harvesting, float64[n, F]; the sum is the mean.

    Args:
        zscores: float64[n, F] with NaN for unknown.
        directions: float64[F]: +1 if harvesters have more of the feature, -1 if less, 0 if it does not count.

    Returns:
        The z-scores times their directions over the number of features that count and are known; 0 for the others.
    """
    unknown = np.isnan(zscores)
    counts = ((directions != 0) & ~unknown).sum(axis=1)
    added: Floats = np.where(unknown, 0.0, zscores * directions) / np.maximum(counts, 1)[:, np.newaxis]
    return added
