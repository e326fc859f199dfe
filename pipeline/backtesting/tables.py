"""The tables that a backtest writes, beside the windows that the live job writes, too.

`scores.parquet` has the columns of the lake's table `account_windows`: one row a score, with its contributions and its
feature vector.  The others are here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl
import pyarrow as pa

from pipeline.alerts import ALERT_SCHEMA, Alert, alerts_table

_EVENTS_BEFORE: Final = {"exchanges": "events_before"}

ALERTS_SCHEMA: Final = pa.schema(
    [field.with_name(_EVENTS_BEFORE.get(field.name, field.name)) for field in ALERT_SCHEMA]
)
"""`alerts.parquet`: the lake's table `alerts`, with `exchanges` called `events_before`: those that the entity
had made when the alert was raised."""

ENTITY_ACCOUNT: Final = "account"
LIVE: Final = "live"


def alert_rows(alerts: Sequence[Alert]) -> pa.Table:
    """Alerts as rows of ALERTS_SCHEMA."""
    return alerts_table(alerts).rename_columns(ALERTS_SCHEMA.names)


def account_rows(activity: pl.DataFrame, scores: pl.LazyFrame, alerts: pl.LazyFrame) -> pl.DataFrame:
    """`accounts.parquet`: all that the backtest found on each account of the log.

    Args:
        activity: see `pipeline.backtesting.activity.Activity.accounts`.
        scores: `scores.parquet`.
        alerts: `alerts.parquet`.

    Returns:
        One row an account, by its id: the columns of `activity`; `scores`, how many risks it was given; `risk`, the
        highest of them (null: none), with `risk_at` and `exchanges_then`, the moment and the exchanges it had made, and
        `reasons`; for rules that are live `alerts`, `first_alert_at`, `exchanges_before_alert`; and `alerts_shadow`,
        `exchanges_before_shadow` for those that are not.
    """
    known = scores.with_columns(pl.col("risk").fill_nan(None)).filter(pl.col("risk").is_not_null())
    riskiest = pl.col("risk").arg_max()
    of_scores = known.group_by("account_id").agg(
        pl.len().cast(pl.Int64).alias("scores"),
        pl.col("risk").max(),
        pl.col("scored_at").get(riskiest).alias("risk_at"),
        pl.col("exchanges").get(riskiest).alias("exchanges_then"),
        pl.col("reasons").get(riskiest),
    )
    live, accounts = pl.col("state") == LIVE, alerts.filter(pl.col("entity_type") == ENTITY_ACCOUNT)
    of_alerts = accounts.group_by(pl.col("entity_id").alias("account_id")).agg(
        live.sum().cast(pl.Int64).alias("alerts"),
        pl.col("raised_at").filter(live).min().alias("first_alert_at"),
        pl.col("events_before").filter(live).min().alias("exchanges_before_alert"),
        (~live).sum().cast(pl.Int64).alias("alerts_shadow"),
        pl.col("events_before").filter(~live).min().alias("exchanges_before_shadow"),
    )
    return (
        activity.lazy()
        .join(of_scores, on="account_id", how="left")
        .join(of_alerts, on="account_id", how="left")
        .with_columns(pl.col("scores", "alerts", "alerts_shadow").fill_null(0))
        .sort("account_id")
        .collect(engine="streaming")
    )
