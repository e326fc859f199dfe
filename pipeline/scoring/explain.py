"""Why a score is what it is, in words and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.features.saying import value_in_words
from pipeline.scoring.scaling import Floats, Scaling, Values
from pipeline.scoring.scores import TOP

_SHARE_MOST: Final = 99.0
"""No value is above or below all accounts: one of them has it."""
_SMALLEST_TOLD: Final = 1e-3
"""Log-odds: a contribution below it says nothing."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One feature's part in a score.

    Attributes:
        feature: its name.
        value: as scored; NaN if it is unknown.
        contribution: what it adds to the log-odds of the risk.
        words: the same as a sentence.
    """

    feature: str
    value: float
    contribution: float
    words: str


def no_contributions(rows: int) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float32]]:
    """What `top_contributions` says of rows of which there is nothing to tell."""
    return np.full((rows, TOP), -1, dtype=np.int16), np.zeros((rows, TOP), dtype=np.float32)


def top_contributions(contributions: Floats) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float32]]:
    """The features that contribute most either way, the largest first.

    Args:
        contributions: float64[n, F].

    Returns:
        Their columns int16[n, TOP], -1 for none worth telling, and their contributions float32[n, TOP].
    """
    size = np.abs(contributions)
    kept = min(TOP, contributions.shape[1])
    largest = np.argpartition(-size, kept - 1, axis=1)[:, :kept]
    order = np.argsort(-np.take_along_axis(size, largest, axis=1), axis=1, kind="stable")
    largest = np.take_along_axis(largest, order, axis=1)
    amount = np.take_along_axis(contributions, largest, axis=1)
    tells = np.abs(amount) >= _SMALLEST_TOLD
    top, out = no_contributions(len(contributions))
    top[:, :kept], out[:, :kept] = np.where(tells, largest, -1), np.where(tells, amount, 0.0)
    return top, out


class Explainer:
    """Turns contributions into sentences.

    Args:
        names: of the features.
        words: what each feature is, such as "share of requests that are single-turn".
        population: quantiles to compare with.
        units: of each feature, in which its values are said; empty: values are said as they are.
    """

    def __init__(
        self, names: Sequence[str], words: Sequence[str], population: Scaling, units: Sequence[str] = ()
    ) -> None:
        self._names, self._words, self._population = tuple(names), tuple(words), population
        self._units = tuple(units) or ("",) * len(self._names)

    def reasons(
        self, values: Values, top: npt.NDArray[np.int16], contribution: npt.NDArray[np.float32]
    ) -> tuple[Reason, ...]:
        """The reasons for one row's score, the largest contribution first.

        Args:
            values: float32[F].
            top: int16[TOP]: columns, -1 for none.
            contribution: float32[TOP].
        """
        told = [(int(column), float(amount)) for column, amount in zip(top, contribution, strict=True) if column >= 0]
        return tuple(
            Reason(self._names[column], float(values[column]), amount, self._sentence(column, values, amount))
            for column, amount in told
        )

    def _sentence(self, column: int, values: Values, amount: float) -> str:
        effect = "raises the risk" if amount > 0 else "lowers the risk"
        words = self._words[column]
        if np.isnan(values[column]):
            return f"{words} is unknown, which {effect}"
        median = self._population.median[column]
        if np.isnan(median):
            return f"{words}: {self._said(column, values[column])} {effect}"
        above = self._population.rank(column, float(values[column])) * 100.0
        side, share = ("above", above) if above >= 50 else ("below", 100.0 - above)  # noqa: PLR2004
        place = f"{side} {min(share, _SHARE_MOST):.0f} % of accounts"
        said, usual = self._said(column, values[column]), self._said(column, median)
        if said == usual:
            return f"{words}: {said} (as usual) {effect}"
        return f"{words}: {said} (median {usual}; {place}) {effect}"

    def _said(self, column: int, value: np.floating[Any] | float) -> str:
        return value_in_words(float(value), self._units[column], self._words[column])
