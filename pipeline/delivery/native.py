"""A parcel in Stillwatch's own form: an object of ASCII JSON, `type` first."""

from __future__ import annotations

import json
import math
from typing import Any

from pipeline.alert_json import as_object
from pipeline.alerts import Alert
from pipeline.delivery.parcels import AlertParcel, DigestParcel, Parcel, see_all, see_one
from pipeline.moments import rfc3339


def as_native(parcel: Parcel) -> dict[str, Any]:
    """All of it; times in RFC 3339."""
    return _digest(parcel) if isinstance(parcel, DigestParcel) else _alert(parcel)


def _alert(parcel: AlertParcel) -> dict[str, Any]:
    rule = parcel.rule
    said = {"title": parcel.title, "atlas": list(rule.atlas), "owner": rule.owner} if rule else {"title": parcel.title}
    link = {"link": parcel.link} if parcel.link else {}
    return {
        "type": "alert", "test": parcel.test, **whole(parcel.alert), **said, **link,
        "command": see_one(parcel.alert.alert_id),
    }  # fmt: skip


def _digest(digest: DigestParcel) -> dict[str, Any]:
    return {
        "type": "digest",
        "digest_id": digest.digest_id,
        "title": digest.title,
        "severity": digest.severity,
        "alerts": digest.count,
        "first_raised_at": rfc3339(digest.first_raised_us),
        "last_raised_at": rfc3339(digest.last_raised_us),
        "severities": dict(digest.severities),
        "rules": dict(digest.rules),
        "rules_in_all": digest.rules_count,
        "accounts": [{"entity_id": account, "alerts": count} for account, count in digest.accounts],
        "accounts_in_all": digest.accounts_count,
        "worst": [whole(alert) for alert in digest.worst],
        "command": see_all(digest),
    }


def whole(alert: Alert) -> dict[str, Any]:
    """An alert as an object; a number that JSON does not have is null."""
    said = as_object(alert)
    said["features"] = {name: finite(value) for name, value in alert.features.items()}
    return {**said, "risk": finite(alert.risk)}


def finite(number: float | None) -> float | None:
    """The number, if JSON has it."""
    return number if number is not None and math.isfinite(number) else None


def to_json(message: dict[str, Any]) -> bytes:
    """As bytes; everything but ASCII is written out, so that half a character in a name breaks no reader."""
    return json.dumps(message, separators=(",", ":"), allow_nan=False).encode("ascii")
