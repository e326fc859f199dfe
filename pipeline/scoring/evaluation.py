"""How well risks tell harvesting accounts from honest ones.

An account's risk is the highest that any of its rows got; one that was never warm has none, and ranks below all others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.backtesting import metrics
from pipeline.scoring.labelled import LabelledRows, Texts
from pipeline.scoring.scaling import Floats

HONEST_SHARES: Final = (0.001, 0.01)
"""Thresholds are named by the share of honest accounts that exceeds them."""

_UNKNOWN: Final = -1.0


@dataclass(frozen=True, slots=True, eq=False)
class AccountRisks:
    """One entry an account.

    Attributes:
        account: str[n].
        risk: float64[n]: the highest that it got; -1 if it got none.
        harvesting: bool[n].
        population: str[n]: kind of honest account; "" for a harvester.
        family: str[n]: "" for an honest account.
        variant: str[n]: "" for an honest account.
    """

    account: Texts
    risk: Floats
    harvesting: npt.NDArray[np.bool_]
    population: Texts
    family: Texts
    variant: Texts

    def __len__(self) -> int:
        return len(self.account)

    def take(self, chosen: npt.NDArray[np.bool_]) -> AccountRisks:
        """Some of the accounts."""
        return AccountRisks(*(getattr(self, column.name)[chosen] for column in fields(self)))

    @staticmethod
    def concat(parts: Sequence[AccountRisks]) -> AccountRisks:
        """The accounts of all of `parts`, at least one."""
        columns = (np.concatenate([getattr(part, column.name) for part in parts]) for column in fields(AccountRisks))
        return AccountRisks(*columns)

    @staticmethod
    def of(rows: LabelledRows, risk: Floats) -> AccountRisks:
        """Each account's highest risk, of rows in which an account's follow one another and their risks float[n]."""
        starts = rows.account_starts()
        known = np.where(np.isnan(risk), _UNKNOWN, risk).astype(np.float64)
        highest = np.maximum.reduceat(known, starts) if len(rows) else known
        return AccountRisks(
            rows.account[starts],
            highest,
            rows.harvesting[starts],
            rows.population[starts],
            rows.family[starts],
            rows.variant[starts],
        )


def roc_auc(risk: Floats, harvesting: npt.NDArray[np.bool_]) -> float:
    """Probability that a harvester ranks above an honest account, equals counting half; NaN if a class is empty."""
    area = metrics.steps(risk, harvesting).auc
    return float("nan") if area is None else area


def average_precision(risk: Floats, harvesting: npt.NDArray[np.bool_]) -> float:
    """Mean over harvesters of the precision at their risk; equal risks are one threshold; NaN without harvesters."""
    precision = metrics.steps(risk, harvesting).average_precision
    return float("nan") if precision is None else precision


def threshold_exceeded_by(honest: Floats, share: float) -> float:
    """The lowest of the honest accounts' risks that at most `share` of them exceed; infinite if there are none."""
    return metrics.threshold_exceeded_by(honest, share) if len(honest) else float("inf")


def share_above(risk: Floats, threshold: float, groups: Texts) -> dict[str, float]:
    """For each group the share of its accounts above the threshold."""
    return {str(group): float((risk[groups == group] > threshold).mean()) for group in np.unique(groups)}


def report(accounts: AccountRisks, shares: Iterable[float] = HONEST_SHARES) -> dict[str, Any]:
    """AUC, average precision, and for each share of honest accounts who is above the threshold that it exceeds."""
    honest, attack = accounts.take(~accounts.harvesting), accounts.take(accounts.harvesting)
    out: dict[str, Any] = {
        "accounts": {"honest": len(honest), "harvesting": len(attack)},
        "auc": roc_auc(accounts.risk, accounts.harvesting),
        "average_precision": average_precision(accounts.risk, accounts.harvesting),
        "thresholds": {},
    }
    for share in shares:
        threshold = threshold_exceeded_by(honest.risk, share)
        out["thresholds"][f"{share:g}"] = at_threshold(accounts, threshold)
    return out


def at_threshold(accounts: AccountRisks, threshold: float) -> dict[str, Any]:
    """Who is above a threshold: recall, by variant and family; honest accounts, by population; precision."""
    honest, attack = accounts.take(~accounts.harvesting), accounts.take(accounts.harvesting)
    above = int((accounts.risk > threshold).sum())
    found = int((attack.risk > threshold).sum())
    return {
        "threshold": threshold,
        "recall": found / max(len(attack), 1),
        "precision": found / above if above else None,
        "by_variant": share_above(attack.risk, threshold, attack.variant),
        "by_family": share_above(attack.risk, threshold, attack.family),
        "false_positives": (above - found) / max(len(honest), 1),
        "false_positives_by_population": share_above(honest.risk, threshold, honest.population),
    }


def exchanges_before_crossing(rows: LabelledRows, risk: Floats, threshold: float) -> dict[str, dict[str, float]]:
    """How many exchanges harvesters had made when they were first above the threshold, by variant.

    Returns:
        For each variant `crossed` (accounts), `median` and `p90` of their exchanges; NaN where none crossed.
    """
    crossing = np.flatnonzero(rows.harvesting & (risk > threshold))
    _, first = np.unique(rows.account[crossing], return_index=True)
    crossing = crossing[first]
    out = {}
    for variant in np.unique(rows.variant[rows.harvesting]).tolist():
        exchanges = rows.exchanges[crossing][rows.variant[crossing] == variant]
        median, p90 = np.quantile(exchanges, (0.5, 0.9)) if len(exchanges) else (np.nan, np.nan)
        out[variant] = {"crossed": float(len(exchanges)), "median": float(median), "p90": float(p90)}
    return out
