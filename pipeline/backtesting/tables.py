"""The tables that a backtest writes, beside the windows that the live job writes, too.

`scores.parquet` has the columns of the lake's table `account_windows`: one row a score, with its contributions and its
feature vector.  The others are here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import polars as pl
import pyarrow as pa

from pipeline.events import LINEAGE, TIME

ALERTS_SCHEMA: Final = pa.schema(
    [
        pa.field("alert_id", pa.string(), nullable=False),
        pa.field("rule", pa.string(), nullable=False),
        pa.field("rule_version", pa.string(), nullable=False),
        pa.field("state", pa.string(), nullable=False),
        pa.field("severity", pa.string(), nullable=False),
        pa.field("entity_type", pa.string(), nullable=False),
        pa.field("entity_id", pa.string(), nullable=False),
        pa.field("raised_at", TIME, nullable=False),
        pa.field("window_start", TIME, nullable=False),
        pa.field("first_seen", TIME),
        pa.field("events_before", pa.int64(), nullable=False),
        pa.field("output_tokens", pa.int64()),
        pa.field("risk", pa.float32()),
        pa.field("reasons", pa.list_(pa.string())),
        pa.field("features", pa.list_(pa.struct([("feature", pa.string()), ("value", pa.float64())]))),
        pa.field("versions", pa.string()),
        *LINEAGE[:3],
    ]
)
"""`alerts.parquet`, one row an alert.  `raised_at` is event time; `events_before` counts the exchanges of the entity by
then; `risk` is null where it was not known; `versions` is a JSON object."""

ENTITY_ACCOUNT: Final = "account"
LIVE: Final = "live"


class Alert(Protocol):
    """What an alert has; `pipeline.alerting` makes them."""

    @property
    def alert_id(self) -> str: ...  # noqa: D102  # the names say it, and ALERTS_SCHEMA
    @property
    def rule(self) -> str: ...  # noqa: D102
    @property
    def rule_version(self) -> Any: ...  # noqa: D102
    @property
    def state(self) -> str: ...  # noqa: D102
    @property
    def severity(self) -> str: ...  # noqa: D102
    @property
    def entity_type(self) -> str: ...  # noqa: D102
    @property
    def entity_id(self) -> str: ...  # noqa: D102
    @property
    def window_start_us(self) -> int: ...  # noqa: D102
    @property
    def raised_at_us(self) -> int: ...  # noqa: D102
    @property
    def first_seen_us(self) -> int: ...  # noqa: D102
    @property
    def topic(self) -> str: ...  # noqa: D102
    @property
    def partition(self) -> int: ...  # noqa: D102
    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def exchanges(self) -> int: ...  # noqa: D102
    @property
    def output_tokens(self) -> int: ...  # noqa: D102
    @property
    def risk(self) -> float | None: ...  # noqa: D102
    @property
    def reasons(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def features(self) -> Mapping[str, float | None]: ...  # noqa: D102
    @property
    def versions(self) -> Mapping[str, Any]: ...  # noqa: D102


def alert_rows(alerts: Sequence[Alert]) -> pa.Table:
    """Alerts as rows of ALERTS_SCHEMA."""
    rows = [
        {
            "alert_id": alert.alert_id,
            "rule": alert.rule,
            "rule_version": str(alert.rule_version),
            "state": alert.state,
            "severity": alert.severity,
            "entity_type": alert.entity_type,
            "entity_id": alert.entity_id,
            "raised_at": alert.raised_at_us,
            "window_start": alert.window_start_us,
            "first_seen": alert.first_seen_us,
            "events_before": alert.exchanges,
            "output_tokens": alert.output_tokens,
            "risk": alert.risk,
            "reasons": list(alert.reasons),
            "features": [{"feature": name, "value": value} for name, value in alert.features.items()],
            "versions": json.dumps(dict(alert.versions), sort_keys=True),
            "topic": alert.topic,
            "partition": alert.partition,
            "offset": alert.offset,
        }
        for alert in alerts
    ]
    return pa.Table.from_pylist(rows, schema=ALERTS_SCHEMA)


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
