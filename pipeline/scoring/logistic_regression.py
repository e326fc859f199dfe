"""The linear reference: River's logistic regression on ranks, taught by the same rows as the forest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from river import linear_model, optim

from pipeline.scoring.mondrian_forest import LabelledValues
from pipeline.scoring.scaling import Floats, Scaling, Values

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
        scaling: quantiles that turn values into ranks.
        start: weights to begin with.
    """

    def __init__(self, scaling: Scaling, start: LinearWeights) -> None:
        self.scaling = scaling
        self._river = linear_model.LogisticRegression(
            optim.SGD(LEARNING_RATE), l2=L2, intercept_init=start.intercept, intercept_lr=LEARNING_RATE
        )
        self._river._weights.update(dict(enumerate(start.weights.tolist())))  # noqa: SLF001 - has no public setter
        self.learned = start

    def centred(self, values: Values) -> Floats:
        """Ranks from -0.5 to 0.5, float64[n, F]; an unknown value is 0 and weighs nothing."""
        return np.where(np.isnan(values), 0.0, self.scaling.ranks(values) - 0.5)

    def contributions(self, values: Values) -> Floats:
        """What each feature adds to each row's log-odds, float64[n, F]."""
        return self.centred(values) * self.learned.weights

    def log_odds(self, values: Values) -> Floats:
        """Log-odds of harvesting in the starting rows' mix, float64[n]."""
        # A sum and no matrix product: BLAS adds in another order when there are more rows.
        return self.contributions(values).sum(axis=1) + self.learned.intercept

    def learn(self, rows: LabelledValues, weights: Floats | None = None) -> None:
        """Learn labelled rows in order; `weights` float64[n] scale each row's gradient."""
        scales = np.ones(len(rows)) if weights is None else weights
        labelled = zip(self.centred(rows.values).tolist(), rows.harvesting.tolist(), scales.tolist(), strict=True)
        for row, harvesting, scale in labelled:
            self._river.learn_one(dict(enumerate(row)), harvesting, scale)
        self.learned = _weights_of(self._river, len(self.learned.weights))


def _weights_of(river: Any, features: int) -> LinearWeights:
    learned = river.weights
    return LinearWeights(np.array([learned[feature] for feature in range(features)]), float(river.intercept))
