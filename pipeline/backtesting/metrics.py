"""Measures of how well a number separates two groups, and of how sure a share is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_Z_95: Final = 1.959963984540054
"""The 97.5th percentile of the normal distribution: two-sided 95 %."""


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a whole, and how far chance alone may have moved it.

    Attributes:
        count: of the part.
        of: of the whole.
    """

    count: int
    of: int

    @property
    def value(self) -> float | None:
        """The share in [0, 1]; None of nothing."""
        return self.count / self.of if self.of else None

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval; None of nothing.

        Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
        """
        if not self.of:
            return None
        share, z2 = self.count / self.of, _Z_95**2
        middle = share + z2 / (2 * self.of)
        spread = _Z_95 * math.sqrt(share * (1 - share) / self.of + z2 / (4 * self.of**2))
        scale = 1 + z2 / self.of
        low = (middle - spread) / scale if self.count else 0.0  # what rounding leaves of a zero is none
        return low, (middle + spread) / scale if self.count < self.of else 1.0

    def as_json(self) -> dict[str, float | int | None]:
        """Count, whole, share and bounds; null where there is nothing to take a share of."""
        low, high = self.bounds or (None, None)
        return {"count": self.count, "of": self.of, "share": self.value, "low": low, "high": high}


def share_of(mask: Mask) -> Share:
    """The share of true values."""
    return Share(int(np.count_nonzero(mask)), len(mask))


@dataclass(frozen=True, slots=True)
class Steps:
    """What is found and what is wrongly flagged at every threshold that changes anything, from the highest down.

    Attributes:
        threshold: float64[k], falling strictly; "flagged" means a score of at least this.
        found: int64[k], positives flagged.
        wrong: int64[k], negatives flagged.
        positives: in all.
        negatives: in all.
    """

    threshold: Floats
    found: npt.NDArray[np.int64]
    wrong: npt.NDArray[np.int64]
    positives: int
    negatives: int

    @property
    def auc(self) -> float | None:
        """Area under the ROC curve: the chance that a positive scores above a negative, ties counting half.

        None without positives or without negatives.  Source: T. Fawcett, "An introduction to ROC analysis", Pattern
        Recognition Letters 27 (2006); equal to the Mann-Whitney statistic.
        """
        if not self.positives or not self.negatives:
            return None
        found, wrong = np.append(0, self.found), np.append(0, self.wrong)
        area = np.sum(np.diff(wrong) * (found[1:] + found[:-1])) / 2
        return float(area / (self.positives * self.negatives))

    @property
    def average_precision(self) -> float | None:
        """Mean precision over the positives, each at the threshold that just finds it; ties are flagged together.

        None without positives.  Source: M. Zhu, "Recall, precision and average precision" (2004); no interpolation.
        """
        if not self.positives:
            return None
        newly_found = np.diff(np.append(0, self.found))
        return float(np.sum(newly_found * self.found / (self.found + self.wrong)) / self.positives)


def steps(scores: Floats, positive: Mask) -> Steps:
    """Sweep a threshold over scores.

    Args:
        scores: float64[n], finite.
        positive: bool[n].
    """
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order], positive[order]
    last_of_tie = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)) if len(ordered) else np.array([], int)
    found = np.cumsum(hits)[last_of_tie].astype(np.int64)
    return Steps(
        threshold=ordered[last_of_tie],
        found=found,
        wrong=last_of_tie.astype(np.int64) + 1 - found,
        positives=int(np.count_nonzero(positive)),
        negatives=int(np.count_nonzero(~positive)),
    )


def threshold_exceeded_by(scores: Floats, share: float) -> float:
    """The lowest threshold that no more than a share of the scores exceed; "exceed" means strictly greater.

    Args:
        scores: float64[n], n > 0, finite.
        share: in [0, 1).

    Returns:
        The (k + 1)-th largest score, k = floor(share × n).  With few scores k may be 0: the largest score itself.
    """
    allowed = math.floor(share * len(scores) + 1e-9)  # 0.01 × 300 must be 3
    return float(np.sort(scores)[::-1][allowed])


def quantile_of_counts(values: Floats, share: float) -> float | None:
    """A quantile of counts that is itself one of the counts (the lower of two neighbours); None of nothing."""
    return float(np.quantile(values, share, method="inverted_cdf")) if len(values) else None


def short_percent(share: float) -> str:
    """A round share in words: 0.1%, 1%."""
    return f"{100 * share:g}%"
