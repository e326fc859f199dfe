"""A parcel as an event of PagerDuty's Events API v2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pipeline.alerts import Severity
from pipeline.delivery.native import as_native
from pipeline.delivery.parcels import AlertParcel, DigestParcel, Parcel
from pipeline.delivery.words import cut, shown
from pipeline.moments import rfc3339

SEVERITIES: Final[Mapping[Severity, str]] = {
    "critical": "critical", "high": "error", "medium": "warning", "low": "info", "informational": "info",
}  # fmt: skip

_SUMMARY_MAX: Final = 1024
_FIELD_MAX: Final = 1_000
"""An event may have 512 KB; a character may take twelve bytes of them, and names are as long as strangers like."""


def as_event(parcel: Parcel, routing_key: str) -> dict[str, Any]:
    """The event; the same parcel again is the same incident, by its `dedup_key`."""
    if isinstance(parcel, DigestParcel):
        summary, severity, component = parcel.title, parcel.severity, "digest"
        at_us, group = parcel.last_raised_us, "digest"
    else:
        alert = parcel.alert
        summary = f"{parcel.title}: {alert.entity_type} {shown(alert.entity_id)}"
        severity, component, at_us, group = alert.severity, alert.rule, alert.raised_at_us, alert.rule
    event: dict[str, Any] = {
        "routing_key": routing_key,
        "event_action": "trigger",
        "dedup_key": parcel.key,
        "client": "Stillwatch",
        "payload": {
            "summary": cut(summary, _SUMMARY_MAX),
            "source": "stillwatch",
            "severity": SEVERITIES[severity],
            "timestamp": rfc3339(at_us),
            "component": component,
            "group": group,
            "class": "distillation",
            "custom_details": _cut_all(as_native(parcel)),
        },
    }
    if isinstance(parcel, AlertParcel) and parcel.link:
        event["client_url"] = parcel.link
        event["links"] = [{"href": parcel.link, "text": "The alert in Stillwatch"}]
    return event


def _cut_all(value: Any) -> Any:
    if isinstance(value, str):
        return cut(value, _FIELD_MAX)
    if isinstance(value, Mapping):
        return {name: _cut_all(one) for name, one in value.items()}
    return [_cut_all(one) for one in value] if isinstance(value, list | tuple) else value
