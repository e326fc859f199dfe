"""The figures of a run that labels give: how well it tells harvesting from use, and what its alerts were worth.

All rates are per account, and those of benign accounts stand for themselves: labelled logs hold far more attacks than
any real one, so precision in such a log says little about precision elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import polars as pl

from pipeline.backtesting.figures import histogram
from pipeline.backtesting.labels import Labels
from pipeline.backtesting.metrics import Floats, Mask, Share, Steps, quantile_of_counts, steps, threshold_exceeded_by

Json = dict[str, Any]

BENIGN_SHARES: Final = (0.001, 0.01)
"""Shares of benign accounts that may exceed the thresholds at which attacks are counted."""

RATE_HOURS: Final = 48
"""Rates of alerted benign accounts are given for so many hours."""


def judged(accounts: pl.DataFrame, labels: Labels) -> pl.DataFrame:
    """The labelled accounts of the log, with `risk` 0 for those that were never scored.

    Args:
        accounts: see `pipeline.backtesting.tables.account_rows`.
        labels: matched with the log.
    """
    return (
        accounts.join(labels.rows, on="account_id", how="inner")
        .with_columns(never_scored=pl.col("risk").is_null(), risk=pl.col("risk").fill_null(0.0).cast(pl.Float64))
        .sort("account_id")
    )


def risk_steps(accounts: pl.DataFrame) -> Steps:
    """The sweep of a threshold over the accounts' risks; `accounts` from `judged`."""
    return steps(_risks(accounts), _attacks(accounts))


def detection_figures(accounts: pl.DataFrame, labels: Labels, hours: int) -> Json:
    """Everything that labels tell.

    Args:
        accounts: from `judged`.
        labels: matched with the log.
        hours: that the log spans.
    """
    swept, attack = risk_steps(accounts), _attacks(accounts)
    return {
        "accounts": {
            "attack": int(attack.sum()),
            "benign": int((~attack).sum()),
            "attack_never_scored": int((accounts["never_scored"].to_numpy() & attack).sum()),
            "benign_never_scored": int((accounts["never_scored"].to_numpy() & ~attack).sum()),
            "labelled_but_not_in_the_log": len(labels.unknown),
            "in_the_log_but_unlabelled": len(labels.unlabelled),
        },
        "auc": swept.auc,
        "average_precision": swept.average_precision,
        "thresholds": [_at_threshold(accounts, share) for share in BENIGN_SHARES] if (~attack).any() else [],
        "live_rules": _at_rules(accounts, "alerts", "exchanges_before_alert", hours),
        "shadow_rules": _at_rules(accounts, "alerts_shadow", "exchanges_before_shadow", hours),
        "histograms": {
            group: histogram(accounts.filter(~pl.col("attack") & (pl.col("population") == group)))
            for group in groups(accounts.filter(~pl.col("attack")), "population")
        }
        | {
            f"attack: {group}": histogram(accounts.filter(pl.col("attack") & (pl.col("variant") == group)))
            for group in groups(accounts.filter("attack"), "variant")
        },
    }


def groups(accounts: pl.DataFrame, column: str) -> list[str]:
    """The groups that a column makes, the largest first."""
    counted = accounts.group_by(column).len().sort("len", column, descending=[True, False])
    return [str(name) for name in counted[column]]


def _risks(accounts: pl.DataFrame) -> Floats:
    return accounts["risk"].to_numpy()


def _attacks(accounts: pl.DataFrame) -> Mask:
    return accounts["attack"].to_numpy()


def _at_threshold(accounts: pl.DataFrame, share: float) -> Json:
    risks, attack = _risks(accounts), _attacks(accounts)
    threshold = threshold_exceeded_by(risks[~attack], share)
    return {
        "benign_share": share,
        "threshold": threshold,
        **_by_groups(accounts, lambda part: _risks(part) > threshold),
    }


def _by_groups(accounts: pl.DataFrame, flagged: Callable[[pl.DataFrame], Mask]) -> Json:
    """Shares of accounts that something flags: of attacks by variant and by family, of benign ones by population."""
    attacks, benign = accounts.filter("attack"), accounts.filter(~pl.col("attack"))

    def share(part: pl.DataFrame) -> Json:
        return Share(int(np.count_nonzero(flagged(part))), len(part)).as_json()

    def shares(part: pl.DataFrame, column: str) -> dict[str, Json]:
        return {group: share(part.filter(pl.col(column) == group)) for group in groups(part, column)}

    return {
        "attack": share(attacks),
        "benign": share(benign),
        "by_variant": shares(attacks, "variant"),
        "by_family": shares(attacks, "family"),
        "by_population": shares(benign, "population"),
    }


def _at_rules(accounts: pl.DataFrame, alerts: str, exchanges: str, hours: int) -> Json:
    """What the alerts of some rules were worth."""
    alerted = accounts.filter(pl.col(alerts) > 0)
    found = alerted.filter("attack")
    benign = len(alerted) - len(found)
    return {
        "precision": Share(len(found), len(alerted)).as_json(),
        **_by_groups(accounts, lambda part: (part[alerts] > 0).to_numpy()),
        "exchanges_before_first_alert": {"all": _exchanges(found, exchanges)}
        | {
            group: _exchanges(found.filter(pl.col("variant") == group), exchanges) for group in groups(found, "variant")
        },
        f"benign_accounts_alerted_per_{RATE_HOURS}_h": benign * RATE_HOURS / hours if hours > 0 else None,
    }


def _exchanges(accounts: pl.DataFrame, column: str) -> Json:
    values = accounts[column].drop_nulls().cast(pl.Float64).to_numpy()
    return {
        "accounts": len(values),
        "median": quantile_of_counts(values, 0.5),
        "p90": quantile_of_counts(values, 0.9),
    }
