"""Features as ranks: each value's place among the values that a population has, from 0 to 1.

Trees and linear models then see features of any unit and any tail on one scale, and a value beyond all that was seen
counts as the most extreme one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Final, Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Values = npt.NDArray[np.float32]

KNOTS: Final = 65
"""Quantiles kept of each feature: every 64th part."""


@dataclass(frozen=True, eq=False)
class Scaling:
    """Quantiles of each feature in a population, and the ranks of values among them.

    Attributes:
        knots: float64[K, F]: quantiles 0, 1/(K-1), … 1 of each feature; all NaN where no value was known.
    """

    knots: Floats

    @classmethod
    def fit(cls, values: Values | Floats) -> Self:
        """Quantiles of the known values in float[n, F], n > 0."""
        ordered = np.sort(np.asarray(values, dtype=np.float64), axis=0)  # NaN last
        known = (~np.isnan(ordered)).sum(axis=0)
        at = np.linspace(0.0, 1.0, KNOTS)[:, np.newaxis] * np.maximum(known - 1, 0)
        low = at.astype(np.int64)
        high = np.minimum(low + 1, np.maximum(known - 1, 0))
        below, above = np.take_along_axis(ordered, low, axis=0), np.take_along_axis(ordered, high, axis=0)
        return cls(np.where(below == above, below, below + (above - below) * (at - low)))

    @cached_property
    def median(self) -> Floats:
        """float64[F]; NaN where no value was known."""
        median: Floats = self.knots[KNOTS // 2]
        return median

    @cached_property
    def spread(self) -> Floats:
        """float64[F]: the distance between the quartiles as standard deviations of a normal distribution.

        Where half of the population has one and the same value, the tenths and then the ends stand in, with their own
        factors; 0 where all values are the same.
        """
        spread = np.zeros(self.knots.shape[1])
        for low, factor in ((0, 4.9), (6, 2.64), (16, 1.349)):  # widths of those ranges, in standard deviations
            width = (self.knots[KNOTS - 1 - low] - self.knots[low]) / factor
            spread = np.where(width > 0, width, spread)
        return spread

    @cached_property
    def missing(self) -> Floats:
        """float64[F]: the rank that stands for an unknown value: that of the median, which is a knot."""
        steps = zip(self._steps, self.median.tolist(), strict=True)
        return np.array([0.5 if np.isnan(at) else levels[np.searchsorted(knots, at)] for (knots, levels), at in steps])

    @cached_property
    def _steps(self) -> list[tuple[Floats, Floats]]:
        """For each feature its distinct knots and their ranks; equal knots share the mean of theirs."""
        count, levels = len(self.knots), np.linspace(0.0, 1.0, len(self.knots))
        ordered = np.ascontiguousarray(self.knots.T)
        is_first = np.ones(ordered.shape, dtype=np.bool_)
        np.not_equal(ordered[:, 1:], ordered[:, :-1], out=is_first[:, 1:])
        first = np.flatnonzero(is_first)
        last = np.append(first[1:], ordered.size) - 1
        distinct, ranks = ordered.ravel()[first], (levels[first % count] + levels[last % count]) / 2
        ends = [0, *np.cumsum(is_first.sum(axis=1)).tolist()]
        return [(distinct[start:stop], ranks[start:stop]) for start, stop in pairwise(ends)]

    def filled(self, values: Values | Floats) -> Floats:
        """The values themselves, float64[n, F], with the median where one is unknown."""
        return np.where(np.isnan(values), np.nan_to_num(self.median), np.asarray(values, np.float64))

    def ranks(self, values: Values | Floats) -> Floats:
        """Ranks in [0, 1], float64[n, F], of float[n, F]; an unknown value has the median's."""
        return np.where(np.isnan(values), self.missing, self._known_ranks(values))

    def rank(self, column: int, value: float) -> float:
        """The rank of one known value of a feature, as `ranks` gives it."""
        knots, levels = self._steps[column]
        return 0.5 if np.isnan(knots[0]) else float(np.interp(value, knots, levels))

    def _known_ranks(self, values: Values | Floats) -> Floats:
        ranks = np.full(values.shape, 0.5)
        is_known: list[bool] = np.asarray((~np.isnan(values)).any(axis=0)).tolist()
        for column, (knots, levels) in enumerate(self._steps):
            if is_known[column] and not np.isnan(knots[0]):
                ranks[:, column] = np.interp(values[:, column], knots, levels)
        return ranks
