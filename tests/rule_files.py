"""Makes rule files for tests."""

from __future__ import annotations

import json
from typing import Any

KNOWN = ("one_shot_share", "frame_share", "rate_1h")

FIELDS: dict[str, Any] = {
    "name": "one_shot",
    "version": 1,
    "title": "Nearly all requests are single-turn",
    "state": "shadow",
    "severity": "low",
    "condition": "one_shot_share > 0.95",
    "suppress_hours": 24,
    "atlas": ["AML.T0024.002"],
    "owner": "detection",
    "runbook": "Look at its prompts.",
    "blind_spots": "Single-turn products look the same.",
}


def rule_text(*, leave_out: str = "", **changes: Any) -> str:
    """One rule in TOML; Python and JSON write texts, numbers and lists as TOML does."""
    fields = {**FIELDS, **changes}
    lines = [f"{name} = {_toml(value)}" for name, value in fields.items() if name != leave_out]
    return "\n".join(["[[rule]]", *lines, ""])


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if not isinstance(value, str) or value.isprintable() else json.dumps(value)
