"""A small analysis for tests of the backtest: the scores of a formula instead of models, one alert an account."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field

import pyarrow as pa

from pipeline.alerts import Alert, alert_id_of
from pipeline.batch import Partition
from pipeline.events import LINEAGE, TIME

FEATURES = ("single_turn_share", "mean_output_tokens", "never_there")
WORDS = {
    "single_turn_share": "share of requests that are single-turn",
    "mean_output_tokens": "tokens answered a request",
}
SCORED_FROM = 8

_REASON = pa.struct(
    [("feature", pa.string()), ("value", pa.float32()), ("contribution", pa.float32()), ("words", pa.string())]
)
WINDOWS = pa.schema(
    [
        ("account_id", pa.string()), ("scored_at", TIME), ("kind", pa.string()), ("exchanges", pa.int64()),
        ("output_tokens", pa.int64()), ("first_seen", TIME), ("risk", pa.float32()), ("zscore", pa.float32()),
        ("reasons", pa.list_(_REASON)), ("features", pa.struct([(name, pa.float32()) for name in FEATURES])),
        ("versions", pa.string()), *LINEAGE[:3],
    ]
)  # fmt: skip


@dataclass
class Account:
    first_us: int
    events: int = 0
    single: int = 0
    tokens: int = 0


@dataclass
class Analysed:
    windows: pa.Table
    alerts: list[Alert]
    suppressed: dict[str, int] = field(default_factory=dict)


@dataclass
class StandIn:
    """Scores every event of an account from its eighth on.

    The risk is the share of single-turn requests, weighted by the length of the answers; an account alerts once, where
    its risk first exceeds `threshold`, by a live rule, and in shadow from half of it on.
    """

    partition: Partition
    threshold: float = 0.5
    accounts: dict[str, Account] = field(default_factory=dict)
    alerted: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def step(self, events: pa.Table) -> Analysed:
        rows, alerts = [], []
        columns = ("account_id", "message_count", "output_tokens", "offset")
        times = events["event_time"].cast(pa.int64()).to_pylist()
        for account_id, messages, tokens, offset, now_us in zip(
            *(events[name].to_pylist() for name in columns), times, strict=True
        ):
            account = self.accounts.setdefault(account_id, Account(now_us))
            account.events += 1
            account.single += messages in (None, 1)
            account.tokens += tokens or 0
            if account.events >= SCORED_FROM:
                row = self._row(account_id, account, now_us, offset)
                rows.append(row)
                alerts.extend(self._alerts(row, account))
        return Analysed(pa.Table.from_pylist(rows, schema=WINDOWS), alerts)

    def _row(self, account_id: str, account: Account, now_us: int, offset: int) -> dict[str, object]:
        single, tokens = account.single / account.events, account.tokens / account.events
        risk = single * tokens / (tokens + 500)
        values = dict(zip(FEATURES, (single, tokens, None), strict=True))
        return {
            "account_id": account_id, "scored_at": now_us, "kind": "count", "exchanges": account.events,
            "output_tokens": account.tokens, "first_seen": account.first_us, "risk": risk, "zscore": None,
            "reasons": [
                {"feature": name, "value": values[name], "contribution": part, "words": words}
                for (name, words), part in zip(WORDS.items(), (2 * single - 1, risk), strict=True)
            ],
            "features": values, "versions": json.dumps({"models": "stand-in 1"}),
            "topic": self.partition.topic, "partition": self.partition.number, "offset": offset,
        }  # fmt: skip

    def _alerts(self, row: dict[str, object], account: Account) -> list[Alert]:
        account_id = str(row["account_id"])
        found = []
        for rule, state, threshold in (
            ("risk_high", "live", self.threshold),
            ("risk_some", "shadow", self.threshold / 2),
        ):
            if float(row["risk"]) >= threshold and rule not in self.alerted[account_id]:  # type: ignore[arg-type]
                self.alerted[account_id].add(rule)
                found.append(
                    Alert(
                        alert_id=alert_id_of(rule, 1, "account", account_id, account.first_us),
                        rule=rule, rule_version=1, state=state, severity="high",  # type: ignore[arg-type]
                        entity_type="account", entity_id=account_id, window_start_us=account.first_us,
                        raised_at_us=int(row["scored_at"]), first_seen_us=account.first_us,  # type: ignore[call-overload]
                        topic=self.partition.topic, partition=self.partition.number, offset=int(row["offset"]),  # type: ignore[call-overload]
                        exchanges=account.events, output_tokens=account.tokens, risk=float(row["risk"]),  # type: ignore[arg-type]
                        reasons=tuple(WORDS.values()), features=dict(row["features"]), versions={"models": "stand-in 1"},  # type: ignore[call-overload]
                    )
                )  # fmt: skip
        return found
