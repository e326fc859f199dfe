"""From the parts' evidence to a risk: a logistic regression on it, calibrated to a stated share of harvesters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.scoring.scaling import Floats

PARTS: Final = ("zscore", "half_space_trees", "mondrian_forest", "logistic_regression", "extra_trees")
"""The last are all trees that ship grown: extremely randomised ones and, for grown accounts, boosted ones, too."""

_CERTAIN: Final = 1e-3
_ALIKE: Final = 1e-9
_ITERATIONS_MAX: Final = 100
_CONVERGED: Final = 1e-9


def log_odds_of(probability: Floats) -> Floats:
    """Log-odds of probabilities, which are kept from 0 and 1 so that a single tree cannot move them far."""
    kept = np.clip(probability, _CERTAIN, 1.0 - _CERTAIN)
    return np.log(kept) - np.log(1.0 - kept)


def probability_of(log_odds: Floats) -> Floats:
    """The logistic function."""
    probability: Floats = 1.0 / (1.0 + np.exp(-np.clip(log_odds, -60.0, 60.0)))
    return probability


@dataclass(frozen=True, slots=True)
class Combination:
    """risk = logistic(intercept + weight of each part times the part).

    Attributes:
        weights: one a part, in the order of PARTS, none of them negative: more of any part never lowers the risk.
        intercept: at the stated prior.
        prior: the share of harvesters for which the risk is a probability.
        exceeded: share of honest accounts → the risk that so many of them exceeded, by models that had not learned
            them: thresholds to choose from.
    """

    weights: tuple[float, ...]
    intercept: float
    prior: float
    exceeded: Mapping[float, float] = field(default_factory=dict)

    def log_odds(self, parts: Floats) -> Floats:
        """Log-odds of harvesting, float64[n], of parts float64[n, P] in the order of PARTS; unknown ones count 0."""
        weighted: Floats = np.where(np.isnan(parts), 0.0, parts) * np.array(self.weights)
        log_odds: Floats = weighted.sum(axis=1) + self.intercept
        return log_odds

    def risk(self, parts: Floats) -> Floats:
        """Probability of harvesting at the stated prior, float64[n]."""
        return probability_of(self.log_odds(parts))


def fit_combination(
    parts: Floats, harvesting: npt.NDArray[np.bool_], weights: Floats, prior: float, l2: float = 1.0
) -> Combination:
    """Learn the combination from predictions for families that the parts had not seen.

    Both classes are weighted so that harvesters make up `prior` of the whole (Platt: Probabilistic outputs for support
    vector machines, 1999, with the weights of King and Zeng: Logistic regression in rare events data, 2001).  A part
    that would count against harvesting is left out: stacking with non-negative weights (Breiman: Stacked regressions,
    1996).

    Args:
        parts: float64[n, P].
        harvesting: bool[n].
        weights: float64[n]: how much each row counts within its class.
        prior: share of harvesters, in (0, 1).
        l2: penalty on the weights of standardised parts, in rows.
    """
    known = np.where(np.isnan(parts), 0.0, parts)
    # As if the sample had half harvesters, which is where the slopes are learned best; the prior moves the intercept.
    halves = np.where(harvesting, 0.5 / weights[harvesting].sum(), 0.5 / weights[~harvesting].sum())
    scale = halves * weights * len(weights)
    spread = known.std(axis=0)
    used = spread > _ALIKE  # a part that says the same of all rows says nothing
    fitted = np.zeros(known.shape[1])
    intercept = 0.0
    while used.any():
        solution = newton_logistic(known[:, used] / spread[used], harvesting, scale, l2)
        fitted[:] = 0.0
        fitted[used], intercept = solution[:-1] / spread[used], float(solution[-1])
        if (fitted >= 0).all():
            break
        used &= fitted > 0
    return Combination(tuple(fitted.tolist()), intercept + float(np.log(prior / (1.0 - prior))), prior)


def calibrated(
    combination: Combination, parts: Floats, harvesting: npt.NDArray[np.bool_], account: npt.NDArray[np.int64]
) -> Combination:
    """The combination, rescaled so that the *highest* risk that an account gets is a probability.

    That is what alerts and people go by, and the highest of many is higher than any one (Platt, 1999, on maxima).

    Args:
        combination: fitted on rows.
        parts: float64[n, P], of rows.
        harvesting: bool[n].
        account: int64[n]: number of each row's account.
    """
    accounts = int(account.max()) + 1
    highest = np.full(accounts, -np.inf)
    np.maximum.at(highest, account, combination.log_odds(parts))
    labels = np.zeros(accounts, np.bool_)
    labels[account] = harvesting
    fitted = fit_combination(highest[:, np.newaxis], labels, np.ones(accounts), combination.prior)
    scale = max(fitted.weights[0], 1e-6)
    weights = tuple(weight * scale for weight in combination.weights)
    return Combination(weights, combination.intercept * scale + fitted.intercept, combination.prior)


def newton_logistic(values: Floats, harvesting: npt.NDArray[np.bool_], weights: Floats, l2: float) -> Floats:
    """Weighted logistic regression with an L2 penalty by Newton's method; float64[F + 1], the intercept last."""
    design = np.column_stack([values, np.ones(len(values))])
    penalty = np.diag([*np.full(values.shape[1], l2), 1e-6])
    solution = np.zeros(design.shape[1])
    for _ in range(_ITERATIONS_MAX):
        expected = probability_of(design @ solution)
        gradient = design.T @ (weights * (harvesting - expected)) - penalty @ solution
        curvature = (design * (weights * expected * (1.0 - expected) + 1e-9)[:, np.newaxis]).T @ design + penalty
        step = np.linalg.solve(curvature, gradient)
        solution += step
        if np.abs(step).max() < _CONVERGED:
            break
    return solution
