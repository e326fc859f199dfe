"""The alert: its id, and that it comes back as it was from the lake's form and from the catalog's."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from pipeline.alerts import ALERT_SCHEMA, Alert, alert_id_of, alert_of_row, alert_row, alerts_of, alerts_table
from pipeline.batch import Partition

ALERT = Alert(
    alert_id=alert_id_of("harvest", 2, "account", "ácct\n1", 7),
    rule="harvest",
    rule_version=2,
    state="live",
    severity="high",
    entity_type="account",
    entity_id="ácct\n1",
    window_start_us=7,
    raised_at_us=1_780_000_000_000_123,
    first_seen_us=-5,
    topic="access",
    partition=3,
    offset=2**62,
    exchanges=40,
    output_tokens=2**40,
    risk=0.1 + 0.2,
    reasons=("risk 0.30", "12 of 14 requests are single-turn"),
    features={"one_shot_24h": 0.857, "rate_1h": None},
    versions={"features": "abc", "models": "2026.1"},
)
BARE = dataclasses.replace(ALERT, risk=None, reasons=(), features={}, versions={}, state="shadow")


@pytest.mark.parametrize("alerts", ([], [ALERT], [BARE, ALERT, BARE]))
def test_alerts_come_back_from_the_lakes_form(alerts: list[Alert]) -> None:
    table = alerts_table(alerts)
    assert table.schema.equals(ALERT_SCHEMA)
    assert alerts_of(table) == alerts


@pytest.mark.parametrize("alert", (ALERT, BARE))
def test_an_alert_comes_back_from_the_catalogs_form(alert: Alert) -> None:
    row = alert_row(alert)
    assert all(isinstance(value, str | int | float | None) for value in row.values())
    assert alert_of_row(row) == alert


@pytest.mark.parametrize(
    "other", (("harvest", 3, "account", "a", 7), ("harvest", 2, "account", "b", 7), ("harvest", 2, "account", "a", 8))
)
def test_an_id_tells_rules_versions_entities_and_windows_apart(other: Any) -> None:
    mine = alert_id_of("harvest", 2, "account", "a", 7)
    assert mine == alert_id_of("harvest", 2, "account", "a", 7)
    assert len(mine) == 32
    assert alert_id_of(*other) != mine


def test_an_alert_knows_its_partition() -> None:
    assert ALERT.where == Partition("access", 3)
