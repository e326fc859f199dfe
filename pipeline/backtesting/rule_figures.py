"""What each rule adds to the others, and what it costs in false alerts: for whoever would turn one on, or off.

*Added* are accounts that the rule alerts and no other live rule does: of a shadow rule what would come with it, of a
live one what would go with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import polars as pl

from pipeline.backtesting.metrics import Share, quantile_of_counts
from pipeline.backtesting.tables import ENTITY_ACCOUNT, LIVE
from pipeline.rules import Rule

Json = dict[str, Any]

_NAMING: Final = ("rule", "rule_version", "state", "severity")


def rule_figures(
    rules: Sequence[Rule],
    alerts: pl.DataFrame,
    suppressed: Mapping[str, int],
    told: Mapping[str, pl.DataFrame],
) -> list[Json]:
    """Every rule's alerts, what they add to those of the other live rules, and what is known of whom they name.

    Args:
        rules: that ran, silent ones too.
        alerts: `alerts.parquet`.
        suppressed: rows that met a rule while it was silent for their account, by the rule's name.
        told: what is known of accounts of the log, by who says so (`labels`, `verdicts`): `account_id` String, one
            row each, and `attack` Boolean.

    Returns:
        A rule each, live ones first: `alerts`, `accounts`, `added`, `suppressed`, `exchanges_before_first_alert` over
        its accounts, and `told`, by who says so; see `_told`.
    """
    about = alerts.filter(pl.col("entity_type") == ENTITY_ACCOUNT)
    found = []
    for row in _ran(rules, alerts).to_dicts():
        mine = about.filter(*(pl.col(name) == row[name] for name in _NAMING))
        first = mine.group_by("entity_id").agg(pl.col("events_before").min())
        of_others = about.filter((pl.col("state") == LIVE) & (pl.col("rule") != row["rule"]))["entity_id"]
        accounts = first["entity_id"]
        added = accounts.filter(~accounts.is_in(of_others.unique().implode()))
        before = first["events_before"].cast(pl.Float64).to_numpy()
        found.append(
            {
                **row,
                "alerts": len(mine),
                "accounts": len(accounts),
                "added": len(added),
                "suppressed": suppressed.get(row["rule"], 0),
                "exchanges_before_first_alert": {
                    "median": quantile_of_counts(before, 0.5),
                    "p90": quantile_of_counts(before, 0.9),
                },
                "told": {who: _told(known, accounts, added) for who, known in told.items()},
            }
        )
    return found


def _ran(rules: Sequence[Rule], alerts: pl.DataFrame) -> pl.DataFrame:
    """The rules that ran, in their order, and those that alerts tell of; live ones first."""
    rows = [(rule.name, rule.version, rule.state, rule.severity) for rule in rules]
    schema = {name: alerts.schema[name] for name in _NAMING}
    configured = pl.DataFrame(rows, schema=schema, orient="row")
    others = alerts.select(_NAMING).unique().sort(_NAMING)
    return (
        pl.concat([configured, others])
        .unique(maintain_order=True, keep="first")
        .sort(pl.col("state") != LIVE, maintain_order=True)
    )


def _told(known: pl.DataFrame, accounts: pl.Series, added: pl.Series) -> Json:
    """What is known of the accounts that a rule alerts.

    Returns:
        `attack`, `benign`: accounts of either kind that it alerts, each as a share of all of that kind; `precision`;
        `unknown`, of whom nothing is told; and of those that it adds likewise `added_attack` and `added_benign`.
    """
    attacks, benign = known.filter("attack")["account_id"], known.filter(~pl.col("attack"))["account_id"]

    def share(of: pl.Series, alerted: pl.Series) -> Share:
        return Share(int(of.is_in(alerted.implode()).sum()), len(of))

    right, wrong = share(attacks, accounts), share(benign, accounts)
    return {
        "attack": right.as_json(),
        "benign": wrong.as_json(),
        "precision": Share(right.count, right.count + wrong.count).as_json(),
        "unknown": len(accounts) - right.count - wrong.count,
        "added_attack": share(attacks, added).as_json(),
        "added_benign": share(benign, added).as_json(),
    }
