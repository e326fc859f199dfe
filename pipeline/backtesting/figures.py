"""The figures of a run that need no labels: what was scored, what was alerted, and what the scores lean on."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import polars as pl

from pipeline.backtesting.tables import LIVE

Json = dict[str, Any]

QUANTILES: Final = (0.5, 0.9, 0.99, 0.999)
TOP_ACCOUNTS: Final = 50
BINS: Final = 20
"""Of a histogram of risks, over [0, 1]."""

_HOUR_S: Final = 3_600


def log_figures(span: tuple[int, int] | None, activity: pl.DataFrame) -> Json:
    """What the log was.

    Args:
        span: its first and last hour since the epoch; see `pipeline.backtesting.activity.span`.
        activity: see `Activity.accounts`.
    """
    first, last = span or (0, -1)
    return {
        "events": int(activity["events"].sum()),
        "accounts": len(activity),
        "begins": datetime.fromtimestamp(first * _HOUR_S, UTC).isoformat() if span else None,
        "ends": datetime.fromtimestamp((last + 1) * _HOUR_S, UTC).isoformat() if span else None,
        "hours": last - first + 1,
    }


def score_figures(accounts: pl.DataFrame, rows: int) -> Json:
    """How risks are distributed over accounts; an account's risk is the highest it was given.

    Args:
        accounts: see `pipeline.backtesting.tables.account_rows`.
        rows: of `scores.parquet`, those without a risk included.
    """
    risks = accounts["risk"].drop_nulls().cast(pl.Float64)
    return {
        "rows": rows,
        "with_a_risk": int(accounts["scores"].sum()),
        "accounts_scored": len(risks),
        "accounts_never_scored": len(accounts) - len(risks),
        "quantiles": {f"{share:g}": risks.quantile(share, "lower") for share in QUANTILES},
        "histogram": histogram(accounts),
    }


def histogram(accounts: pl.DataFrame) -> list[int]:
    """Accounts by their risk in BINS equal bins over [0, 1], the last one closed; never scored counts as 0."""
    risks = accounts["risk"].fill_null(0.0).cast(pl.Float64).to_numpy()
    return [int(count) for count in np.histogram(np.clip(risks, 0.0, 1.0), bins=BINS, range=(0.0, 1.0))[0]]


def alert_figures(alerts: pl.DataFrame, accounts: pl.DataFrame) -> Json:
    """Alerts in all, by rule, and by rule and day of event time.

    Args:
        alerts: `alerts.parquet`.
        accounts: see `pipeline.backtesting.tables.account_rows`.
    """
    by_rule = (
        alerts.group_by("rule", "rule_version", "state", "severity")
        .agg(pl.len().alias("alerts"), pl.col("entity_id").n_unique().alias("entities"))
        .sort("state", "alerts", "rule", descending=[False, True, False])
    )
    by_day = (
        alerts.group_by("rule", pl.col("raised_at").dt.date().cast(pl.String).alias("day"))
        .agg(pl.len().alias("alerts"))
        .sort("day", "rule")
    )
    return {
        "live": int((alerts["state"] == LIVE).sum()),
        "shadow": int((alerts["state"] != LIVE).sum()),
        "accounts_alerted": int((accounts["alerts"] > 0).sum()),
        "accounts_in_shadow_only": int(((accounts["alerts"] == 0) & (accounts["alerts_shadow"] > 0)).sum()),
        "by_rule": by_rule.to_dicts(),
        "by_day": by_day.to_dicts(),
    }


def alerts_by_hour(alerts: pl.DataFrame) -> pl.DataFrame:
    """`hour` Int64 since the epoch, `rule`, `alerts`; only hours that have some."""
    hour = (pl.col("raised_at").dt.epoch("s") // _HOUR_S).alias("hour")
    return alerts.group_by(hour, "rule").agg(pl.len().alias("alerts")).sort("hour", "rule")


def top_accounts(accounts: pl.DataFrame, count: int = TOP_ACCOUNTS) -> list[Json]:
    """The accounts of highest risk, with the reasons of that score in words and numbers."""
    columns = [name for name in ("population", "family", "variant") if name in accounts.columns]
    top = accounts.filter(pl.col("risk").is_not_null()).sort("risk", "account_id", descending=[True, False]).head(count)
    return [
        {
            "account_id": row["account_id"],
            "risk": row["risk"],
            "risk_at": row["risk_at"].isoformat(),
            "exchanges_then": row["exchanges_then"],
            "events": row["events"],
            "alerts": row["alerts"],
            "exchanges_before_alert": row["exchanges_before_alert"],
            **({"label": "attack" if row["attack"] else "benign"} if row.get("attack") is not None else {}),
            **{name: row[name] for name in columns},
            "reasons": row["reasons"] or [],
        }
        for row in top.to_dicts()
    ]


def feature_figures(scores: pl.LazyFrame, span: tuple[int, int] | None) -> list[Json]:
    """What each feature did.

    Args:
        scores: `scores.parquet`.
        span: first and last hour of the log.

    Returns:
        For each feature, those that mattered most first: `contribution`, the mean over all scores of what it adds to
        the log-odds, sign aside (a feature that was not among a score's reasons counts as 0 there); `null_share`, of
        scores for which it could not be computed; its medians over the first and the second half of the log; and
        `shift`, their difference in interquartile ranges: drift, of the traffic or of the population that is scored.
    """
    given = scores.collect_schema()["features"]
    names = [field.name for field in given.fields] if isinstance(given, pl.Struct) else []
    rows = scores.select(pl.len()).collect().item()
    if not rows or not names:
        return []
    of_reasons = (
        scores.filter(pl.col("risk").is_not_null() & pl.col("risk").is_not_nan())
        .select(pl.col("reasons").explode(empty_as_null=False, keep_nulls=False))
        .unnest("reasons")
        .group_by("feature")
        .agg(pl.col("contribution").cast(pl.Float64).abs().sum())
        .collect(engine="streaming")
    )
    scored = int(scores.select((pl.col("risk").is_not_null() & pl.col("risk").is_not_nan()).sum()).collect().item())
    contribution = dict(zip(of_reasons["feature"], of_reasons["contribution"], strict=True))
    found = [
        {
            "feature": name,
            "contribution": contribution.get(name, 0.0) / scored if scored else 0.0,
            **_distribution(scores, name, span, rows),
        }
        for name in names
    ]
    return sorted(found, key=lambda figure: (-figure["contribution"], figure["feature"]))


def _distribution(scores: pl.LazyFrame, name: str, span: tuple[int, int] | None, rows: int) -> Json:
    """One feature at a time: a column fits memory where a hundred of them would not."""
    middle = sum(span) // 2 + 1 if span else 0
    value = pl.col("features").struct.field(name).fill_nan(None)
    early = pl.col("scored_at").dt.epoch("s") // _HOUR_S < middle
    figures = (
        scores.select(value.alias("value"), early.alias("early"))
        .filter(pl.col("value").is_not_null())
        .select(
            pl.len().alias("known"),
            pl.col("value").filter(pl.col("early")).median().alias("median_first_half"),
            pl.col("value").filter(~pl.col("early")).median().alias("median_second_half"),
            (pl.col("value").quantile(0.75, "linear") - pl.col("value").quantile(0.25, "linear")).alias("range"),
        )
        .collect()
        .row(0, named=True)
    )
    first, second, middle_range = figures["median_first_half"], figures["median_second_half"], figures["range"]
    comparable = first is not None and second is not None and middle_range
    return {
        "null_share": 1 - figures["known"] / rows,
        "median_first_half": first,
        "median_second_half": second,
        "shift": abs(second - first) / middle_range if comparable else None,
    }
