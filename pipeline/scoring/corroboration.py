"""Corroboration: what accounts have in common, which speaks for a harvest and never against one.

A long frame that many accounts fill anew is hardly ever an honest one's, but most harvests have none that can be seen:
each data set has its own, or none at all, or asks in one account.  Trees that look at it take those who share nothing
for honest, and lose as many harvesters as they find.  So they do not see it; it adds to what they say.

The sum of log-odds is the posterior of evidence that is independent given the class (Good: Probability and the weighing
of evidence, 1950); it is bounded, for no honest population is sure to share nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.features.feature import Feature
from pipeline.scoring.scaling import Floats

FEATURE: Final = "frame_sharded_7d"

SLOPE: Final = 8.0
"""Log-odds that a share of 1 would add, were they not bounded."""

MOST: Final = 3.0
"""Log-odds at most, reached where three in eight first turns fill such a frame, for a harvest may hide among others.
With 2.5 less is found; with more, honest customers who have a frame in common would cost more."""


@dataclass(frozen=True, slots=True)
class Corroboration:
    """What adds to the log-odds that a row is any harvest.

    Attributes:
        column: of the feature; trees are grown without it.
        slope: log-odds for each unit of it.
        most: log-odds at most.
    """

    column: int
    slope: float = SLOPE
    most: float = MOST

    def added(self, values: Floats) -> Floats:
        """Log-odds, float64[n], none of them negative, of rows float64[n, F] without NaN."""
        return np.clip(values[:, self.column] * self.slope, 0.0, self.most)


def corroboration_of(features: Sequence[Feature]) -> Corroboration | None:
    """By the feature that is told so; None where there is none of that name."""
    return next((Corroboration(column) for column, one in enumerate(features) if one.name == FEATURE), None)
