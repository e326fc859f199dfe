"""A parcel as a Detection Finding of OCSF 1.8.0, class 2004: https://schema.ocsf.io/1.8.0/classes/detection_finding."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pipeline.alerts import Alert, Severity
from pipeline.delivery.native import finite, whole
from pipeline.delivery.parcels import AlertParcel, DigestParcel, Parcel, RuleWords, see_all

VERSION: Final = "1.8.0"
CLASS_UID: Final = 2004
_CREATE: Final = 1
_US_PER_MS: Final = 1_000
_SEVERITIES: Final[Mapping[Severity, tuple[int, str]]] = {
    "informational": (1, "Informational"), "low": (2, "Low"), "medium": (3, "Medium"), "high": (4, "High"),
    "critical": (5, "Critical"),
}  # fmt: skip
_RULE_TYPE_ID: Final = 1


def as_finding(parcel: Parcel, now_us: int) -> dict[str, Any]:
    """The finding.

    Args:
        parcel: to be sent.
        now_us: wall clock: when it is sent.
    """
    return _digest(parcel, now_us) if isinstance(parcel, DigestParcel) else _alert(parcel, now_us)


def _alert(parcel: AlertParcel, now_us: int) -> dict[str, Any]:
    alert, rule = parcel.alert, parcel.rule
    finding: dict[str, Any] = {
        **_base(alert.severity, alert.raised_at_us, now_us),
        "is_alert": not parcel.test,
        "message": parcel.title,
        "finding_info": {
            "uid": alert.alert_id,
            "title": parcel.title,
            "desc": "\n".join(alert.reasons),
            "created_time": alert.raised_at_us // _US_PER_MS,
            "first_seen_time": alert.first_seen_us // _US_PER_MS,
            "last_seen_time": alert.raised_at_us // _US_PER_MS,
            "analytic": _analytic(alert),
            **({"src_url": parcel.link} if parcel.link else {}),
            **_attacks(rule),
        },
        "evidences": [_evidence(alert)],
        "resources": [{"type": alert.entity_type, "uid": alert.entity_id}],
        "unmapped": _rest(whole(alert)),
    }
    risk = finite(alert.risk)
    if risk is not None:
        percent = round(100 * risk)
        finding |= {"confidence_score": percent, "risk_score": percent}
    if rule is not None and rule.runbook:
        finding["remediation"] = {"desc": rule.runbook}
    return finding


def _digest(digest: DigestParcel, now_us: int) -> dict[str, Any]:
    said = {"rules": dict(digest.rules), "severities": dict(digest.severities), "command": see_all(digest)}
    return {
        **_base(digest.severity, digest.last_raised_us, now_us),
        "is_alert": True,
        "message": digest.title,
        "count": digest.count,
        "start_time": digest.first_raised_us // _US_PER_MS,
        "end_time": digest.last_raised_us // _US_PER_MS,
        "finding_info": {
            "uid": digest.digest_id,
            "title": digest.title,
            "desc": f"All of them: {see_all(digest)}",
            "created_time": now_us // _US_PER_MS,
            "first_seen_time": digest.first_raised_us // _US_PER_MS,
            "last_seen_time": digest.last_raised_us // _US_PER_MS,
            "related_events": [{"uid": alert.alert_id, "title": alert.rule} for alert in digest.worst],
        },
        "resources": [{"type": "account", "uid": account} for account, _ in digest.accounts],
        "unmapped": {**said, "accounts_in_all": digest.accounts_count, "rules_in_all": digest.rules_count},
    }


def _base(severity: Severity, time_us: int, now_us: int) -> dict[str, Any]:
    severity_id, name = _SEVERITIES[severity]
    return {
        "activity_id": _CREATE,
        "activity_name": "Create",
        "category_uid": 2,
        "category_name": "Findings",
        "class_uid": CLASS_UID,
        "class_name": "Detection Finding",
        "type_uid": CLASS_UID * 100 + _CREATE,
        "type_name": "Detection Finding: Create",
        "severity_id": severity_id,
        "severity": name,
        "status_id": 1,
        "status": "New",
        "time": time_us // _US_PER_MS,
        "metadata": {
            "version": VERSION,
            "logged_time": now_us // _US_PER_MS,
            "product": {
                "name": "Stillwatch",
                "vendor_name": "The Stillwatch contributors",
                "version": importlib.metadata.version("stillwatch"),
            },
        },
    }


def _analytic(alert: Alert) -> dict[str, Any]:
    return {"type_id": _RULE_TYPE_ID, "type": "Rule", "name": alert.rule, "version": str(alert.rule_version)}


def _attacks(rule: RuleWords | None) -> dict[str, Any]:
    if rule is None or not rule.atlas:
        return {}
    return {"attacks": [_attack(atlas) for atlas in rule.atlas]}


def _attack(atlas: str) -> dict[str, Any]:
    """A technique, or a sub-technique beside its technique: `AML.T0024.002` is below `AML.T0024`."""
    technique, _, below = atlas.removeprefix("AML.").partition(".")
    uid = f"AML.{technique}"
    said: dict[str, Any] = {"technique": {"uid": uid, "src_url": _atlas_url(uid)}}
    if below:
        said["sub_technique"] = {"uid": atlas, "src_url": _atlas_url(atlas)}
    return said


def _atlas_url(uid: str) -> str:
    return f"https://atlas.mitre.org/techniques/{uid}"


def _evidence(alert: Alert) -> dict[str, Any]:
    """What counts, and where the records are."""
    where = {"topic": alert.topic, "partition": alert.partition, "up_to_offset": alert.offset}
    taken = {"exchanges": alert.exchanges, "output_tokens": alert.output_tokens}
    features = {name: finite(value) for name, value in alert.features.items()}
    return {
        "uid": alert.alert_id,
        "name": "The account's requests, and the numbers made of them",
        "actor": {"user": {"uid": alert.entity_id, "type_id": 1, "type": "User"}},
        "data": json.dumps({**where, **taken, "features": features}),
    }


def _rest(
    said: Mapping[str, Any], names: Sequence[str] = ("rule", "exchanges", "output_tokens", "window_start", "versions")
) -> dict[str, Any]:
    return {name: said[name] for name in names}
