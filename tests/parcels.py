"""Parcels for tests: an ordinary alert, one that strangers have named, a digest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from pipeline.alerts import Alert
from pipeline.delivery.parcels import AlertParcel, DigestParcel, RuleWords

NOW_US: Final = 1_780_000_000_000_000
HOSTILE: Final = "<!channel> *b* `c` & <https://evil.example|ok> \x1b[31m\u202e\n</script>\ud800\x00" + "é" * 10_000
WORDS: Final = RuleWords("The risk is high", ("AML.T0024.002", "AML.T0040"), "trust-and-safety", "Look. Then judge.")


def alert(number: int = 1, **changed: Any) -> Alert:
    made = Alert(
        alert_id=f"{number:032x}", rule="risk_high", rule_version=2, state="live", severity="high",
        entity_type="account", entity_id=f"acct_{number}", window_start_us=NOW_US, raised_at_us=NOW_US,
        first_seen_us=NOW_US - 3_600_000_000, topic="llm-access", partition=3, offset=1234, exchanges=64,
        output_tokens=41_203, risk=0.953, reasons=("The risk is high: risk >= 0.9", "what to do: Look."),
        features={"single_turn_share_7d": 0.98, "longest_gap_7d": None, "odd": float("nan")}, versions={"models": "m1"},
    )  # fmt: skip
    return replace(made, **changed)


def parcel(number: int = 1, **changed: Any) -> AlertParcel:
    return AlertParcel(alert(number, **changed), WORDS, "https://triage.example/alerts/1")


def digest(account: str = "acct_1") -> DigestParcel:
    return DigestParcel(
        "d" * 32, 100_000, NOW_US, NOW_US + 60_000_000, {"critical": 1, "high": 99_999},
        [(f"rule_{number}", 10_000) for number in range(10)], 12, [(account, 9), ("acct_2", 8)], 70_000,
        tuple(alert(number, entity_id=account) for number in range(5)),
    )  # fmt: skip


HOSTILE_PARCELS: Final = (
    parcel(entity_id=HOSTILE, rule=HOSTILE[:200], reasons=(HOSTILE,) * 8),
    AlertParcel(alert(entity_id=HOSTILE, risk=float("inf"))),
    digest(HOSTILE),
)
