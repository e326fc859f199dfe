"""The alert: what a rule says of an account, as the commit, the catalog and the lake's table `alerts` keep it.

Pure: rows and tables in, rows and tables out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import pyarrow as pa

from pipeline.batch import Partition
from pipeline.events import LINEAGE, TIME

ID_CHARS: Final = 32
"""Hex digits of an alert's id: 128 bits."""

AlertState = Literal["shadow", "live"]
Severity = Literal["informational", "low", "medium", "high", "critical"]
"""Names of the OCSF attribute `severity_id`, https://schema.ocsf.io/1.8.0/classes/detection_finding."""

ALERT_SCHEMA: Final = pa.schema(
    [
        pa.field("alert_id", pa.string(), nullable=False),
        pa.field("rule", pa.string(), nullable=False),
        pa.field("rule_version", pa.int32(), nullable=False),
        pa.field("state", pa.string(), nullable=False),
        pa.field("severity", pa.string(), nullable=False),
        pa.field("entity_type", pa.string(), nullable=False),
        pa.field("entity_id", pa.string(), nullable=False),
        pa.field("window_start", TIME, nullable=False),
        pa.field("raised_at", TIME, nullable=False),
        pa.field("first_seen", TIME, nullable=False),
        pa.field("exchanges", pa.int64(), nullable=False),
        pa.field("output_tokens", pa.int64(), nullable=False),
        pa.field("risk", pa.float64()),
        pa.field("reasons", pa.list_(pa.string()), nullable=False),
        pa.field("features", pa.map_(pa.string(), pa.float64()), nullable=False),
        pa.field("versions", pa.map_(pa.string(), pa.string()), nullable=False),
        *LINEAGE[:3],
    ]
)
"""The lake's table `alerts`: shadow alerts, too."""


@dataclass(frozen=True, slots=True)
class Alert:
    """A rule holds for an account.

    Attributes:
        alert_id: `alert_id_of` rule, version, entity and window: a replay raises the same alert again.
        rule: name of the rule.
        rule_version: of the rule.
        state: of the rule: `live` alerts are delivered, `shadow` ones only kept.
        severity: of the rule.
        entity_type: `account`.
        entity_id: the account's id.
        window_start_us: what the alert is about begins here, microseconds of event time since the epoch.
        raised_at_us: event time of the row that raised it.
        first_seen_us: when the account's present life began.
        topic: Kafka topic of the record that triggered the row.
        partition: its partition.
        offset: its offset.
        exchanges: events of the account's present life until then.
        output_tokens: tokens it was answered in its present life until then.
        risk: 0 to 1; None: unknown.
        reasons: why, in words, the weightiest first.
        features: numbers behind the reasons and the rule's condition, by name; None where one was not computable.
        versions: of features, models and configuration, by name.
    """

    alert_id: str
    rule: str
    rule_version: int
    state: AlertState
    severity: Severity
    entity_type: str
    entity_id: str
    window_start_us: int
    raised_at_us: int
    first_seen_us: int
    topic: str
    partition: int
    offset: int
    exchanges: int
    output_tokens: int
    risk: float | None
    reasons: tuple[str, ...]
    features: Mapping[str, float | None]
    versions: Mapping[str, str]

    @property
    def where(self) -> Partition:
        """The partition that the account's events come by."""
        return Partition(self.topic, self.partition)


def alert_id_of(rule: str, version: int, entity_type: str, entity_id: str, window_start_us: int) -> str:
    """Name an alert by what it is about, so that a replay cannot raise it twice: 32 hex digits of a SHA-256."""
    said = json.dumps([rule, version, entity_type, entity_id, window_start_us], separators=(",", ":"))
    return hashlib.sha256(said.encode()).hexdigest()[:ID_CHARS]


def alerts_table(alerts: Sequence[Alert]) -> pa.Table:
    """Alerts as rows of `ALERT_SCHEMA`, in their order."""
    times = {"window_start", "raised_at", "first_seen"}
    columns = []
    for field in ALERT_SCHEMA:
        if field.name in times:
            values: list[Any] = [getattr(alert, f"{field.name}_us") for alert in alerts]
            columns.append(pa.array(values, pa.int64()).cast(TIME))
        elif pa.types.is_map(field.type):
            columns.append(pa.array([list(getattr(alert, field.name).items()) for alert in alerts], field.type))
        else:
            columns.append(pa.array([getattr(alert, field.name) for alert in alerts], field.type))
    return pa.table(columns, schema=ALERT_SCHEMA)


def alerts_of(table: pa.Table) -> list[Alert]:
    """Rows of `ALERT_SCHEMA` as alerts, in their order."""
    columns = {}
    for field in ALERT_SCHEMA:
        column = table[field.name]
        if field.type == TIME:
            columns[f"{field.name}_us"] = column.cast(pa.int64()).to_pylist()
        else:
            columns[field.name] = column.to_pylist()
    columns["reasons"] = [tuple(reasons) for reasons in columns["reasons"]]
    for name in ("features", "versions"):
        columns[name] = [dict(pairs) for pairs in columns[name]]
    names = list(columns)
    return [Alert(**dict(zip(names, row, strict=True))) for row in zip(*columns.values(), strict=True)]


NUL_SHOWN: Final = "\u2400"
"""PostgreSQL's texts hold no NUL; who sends one in an account's name must not stop the job.  The lake keeps it."""

_AS_JSON: Final = ("reasons", "features", "versions")


def alert_row(alert: Alert) -> dict[str, Any]:
    """An alert as a row of the catalog: what has parts is JSON."""
    row = {name: getattr(alert, name) for name in Alert.__slots__}
    for name, value in row.items():
        if name in _AS_JSON:
            row[name] = json.dumps(dict(value) if isinstance(value, Mapping) else value, ensure_ascii=False)
    row["entity_id"] = without_nul(alert.entity_id)
    return row


def without_nul(entity_id: str) -> str:
    """An id as the catalog keeps it, and as people read and type it: no command line holds a NUL."""
    return entity_id.replace("\0", NUL_SHOWN)


def spelled(name: str) -> str:
    """An id as it is shown, to be typed again: NULs as the catalog has them, and quotes around one of blanks alone."""
    return f"'{name}'" if name.isspace() else without_nul(name)


def spellings(entity_id: str) -> tuple[str, ...]:
    """An id that the catalog keeps or somebody typed, as the lake may have it: as it stands, and with NULs."""
    return tuple(dict.fromkeys((entity_id, entity_id.replace(NUL_SHOWN, "\0"))))


def alert_of_row(row: Any) -> Alert:
    """A row of the catalog as an alert."""
    values = {name: json.loads(row[name]) if name in _AS_JSON else row[name] for name in Alert.__slots__}
    return Alert(**{**values, "reasons": tuple(values["reasons"])})
