"""The linear reference: River's logistic regression on ranks, taught by the same rows as the forest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from river import linear_model, optim

from pipeline.scoring.scaling import Floats

LEARNING_RATE: Final = 0.02
L2: Final = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class LinearWeights:
    """What a logistic regression has learned: `weights` float64[F] of centred ranks, and the intercept."""

    weights: Floats
    intercept: float

    @classmethod
    def none(cls, features: int) -> LinearWeights:
        """Nothing learned yet."""
        return cls(np.zeros(features), 0.0)


class LogisticRegression:
    """`river.linear_model.LogisticRegression` with stochastic gradient descent, scored many rows at once.

    Args:
        start: weights to begin with.
    """

    def __init__(self, start: LinearWeights) -> None:
        self._river: Any = linear_model.LogisticRegression(
            optim.SGD(LEARNING_RATE), l2=L2, intercept_init=start.intercept, intercept_lr=LEARNING_RATE
        )
        self._river._weights.update(dict(enumerate(start.weights.tolist())))  # noqa: SLF001 - has no public setter
        self.learned = start

    def contributions(self, ranks: Floats) -> Floats:
        """What each feature adds to each row's log-odds, float64[n, F], of ranks float64[n, F]."""
        added: Floats = (ranks - 0.5) * self.learned.weights
        return added

    def log_odds(self, ranks: Floats) -> Floats:
        """Log-odds of harvesting in the starting rows' mix, float64[n]."""
        # A sum and no matrix product: BLAS adds in another order when there are more rows.
        log_odds: Floats = self.contributions(ranks).sum(axis=1) + self.learned.intercept
        return log_odds

    def learn(self, ranks: Floats, harvesting: npt.NDArray[np.bool_], weights: Floats | None = None) -> None:
        """Learn labelled rows in order; `weights` float64[n] scale each row's gradient."""
        scales = np.ones(len(ranks)) if weights is None else weights
        for row, label, scale in zip((ranks - 0.5).tolist(), harvesting.tolist(), scales.tolist(), strict=True):
            self._river.learn_one(dict(enumerate(row)), label, scale)
        self.learned = _weights_of(self._river, len(self.learned.weights))


def _weights_of(river: Any, features: int) -> LinearWeights:
    learned = river.weights
    return LinearWeights(np.array([learned[feature] for feature in range(features)]), float(river.intercept))
