"""The figures, from small tables by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from pipeline.backtesting.comparison import compared
from pipeline.backtesting.detection import detection_figures, judged
from pipeline.backtesting.figures import alert_figures, feature_figures, histogram, score_figures, top_accounts
from pipeline.backtesting.labels import Labels
from pipeline.backtesting.tables import account_rows

START = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = int(START.timestamp()) // 3600
REASON = {"feature": "f", "value": 2.0, "contribution": 0.5, "words": "what f is"}


def activity(*accounts: str) -> pl.DataFrame:
    return pl.DataFrame(
        {"account_id": list(accounts), "events": [10] * len(accounts), "output_tokens": [5] * len(accounts)}
    ).with_columns(first_event=pl.lit(START), last_event=pl.lit(START))


def scores(*rows: tuple[str, int, float | None]) -> pl.LazyFrame:
    """Account, exchanges and risk; a row an hour, its feature `f` worth the exchanges."""
    given = [
        {"account_id": name, "scored_at": START + timedelta(hours=at), "exchanges": exchanges, "risk": risk,
         "reasons": [REASON | {"value": float(exchanges)}], "features": {"f": float(exchanges), "g": None}, "versions": '{"models":"1"}'}
        for at, (name, exchanges, risk) in enumerate(rows)
    ]  # fmt: skip
    schema = {
        "account_id": pl.String, "scored_at": pl.Datetime("us", "UTC"), "exchanges": pl.Int64, "risk": pl.Float32,
        "reasons": pl.List(pl.Struct({"feature": pl.String, "value": pl.Float32, "contribution": pl.Float32, "words": pl.String})),
        "features": pl.Struct({"f": pl.Float32, "g": pl.Float32}), "versions": pl.String,
    }  # fmt: skip
    return pl.LazyFrame(given, schema=schema)


def alerts(*rows: tuple[str, str, str, int]) -> pl.DataFrame:
    """Rule, state, account and exchanges before."""
    given = [
        {"rule": rule, "rule_version": 1, "state": state, "severity": "high", "entity_type": "account", "entity_id": name,
         "raised_at": START + timedelta(hours=at), "events_before": before, "risk": 0.9}
        for at, (rule, state, name, before) in enumerate(rows)
    ]  # fmt: skip
    schema = {
        "rule": pl.String, "rule_version": pl.Int32, "state": pl.String, "severity": pl.String, "entity_type": pl.String,
        "entity_id": pl.String, "raised_at": pl.Datetime("us", "UTC"), "events_before": pl.Int64, "risk": pl.Float64,
    }  # fmt: skip
    return pl.DataFrame(given, schema=schema)


SCORES = scores(("a", 8, 0.2), ("a", 9, 0.9), ("a", 10, 0.4), ("b", 8, 0.5), ("c", 8, None), ("c", 9, float("nan")))
ALERTS = alerts(
    ("r", "live", "a", 20),
    ("r", "live", "a", 9),
    ("s", "shadow", "a", 8),
    ("s", "shadow", "b", 8),
    ("r", "live", "b", 30),
)


def accounts() -> pl.DataFrame:
    return account_rows(activity("a", "b", "c", "d"), SCORES, ALERTS.lazy())


def test_an_accounts_risk_is_its_highest_with_that_moments_reasons() -> None:
    rows = {row["account_id"]: row for row in accounts().to_dicts()}
    assert rows["a"]["risk"] == pytest.approx(0.9)
    assert (rows["a"]["scores"], rows["a"]["exchanges_then"], rows["a"]["risk_at"]) == (
        3,
        9,
        START + timedelta(hours=1),
    )
    assert rows["a"]["reasons"] == [REASON | {"value": 9.0}]
    assert (rows["a"]["alerts"], rows["a"]["exchanges_before_alert"], rows["a"]["alerts_shadow"]) == (2, 9, 1)
    assert rows["a"]["first_alert_at"] == START
    for unknown in ("c", "d"):  # NaN and null are no risk
        assert (rows[unknown]["risk"], rows[unknown]["scores"], rows[unknown]["alerts"]) == (None, 0, 0)


def test_risks_and_alerts_are_counted() -> None:
    found = score_figures(accounts(), 6)
    assert (found["rows"], found["with_a_risk"], found["accounts_scored"], found["accounts_never_scored"]) == (
        6,
        4,
        2,
        2,
    )
    assert sum(found["histogram"]) == 4
    assert found["histogram"][0] == 2  # never scored counts as 0
    of_alerts = alert_figures(ALERTS, accounts())
    assert (
        of_alerts["live"],
        of_alerts["shadow"],
        of_alerts["accounts_alerted"],
        of_alerts["accounts_in_shadow_only"],
    ) == (3, 2, 2, 0)
    assert [(rule["rule"], rule["alerts"], rule["entities"]) for rule in of_alerts["by_rule"]] == [
        ("r", 3, 2),
        ("s", 2, 2),
    ]
    assert of_alerts["by_day"] == [
        {"rule": "r", "day": "2026-03-01", "alerts": 3},
        {"rule": "s", "day": "2026-03-01", "alerts": 2},
    ]


def test_the_riskiest_come_first_and_those_without_a_risk_not_at_all() -> None:
    assert [(row["account_id"], row["exchanges_before_alert"]) for row in top_accounts(accounts())] == [
        ("a", 9),
        ("b", 30),
    ]
    assert len(top_accounts(accounts(), 1)) == 1


def test_features_are_said_to_matter_to_drift_and_to_be_missing() -> None:
    values = scores(*((name, exchanges, 0.5) for exchanges, name in enumerate("abcdefgh")))
    f, g = feature_figures(values, (HOUR, HOUR + 7))
    assert (f["feature"], g["feature"]) == ("f", "g")
    assert (f["contribution"], f["null_share"]) == (0.5, 0.0)
    assert (f["median_first_half"], f["median_second_half"]) == (1.5, 5.5)
    assert f["shift"] == pytest.approx(4 / 3.5)
    assert g == {
        "feature": "g",
        "contribution": 0.0,
        "null_share": 1.0,
        "median_first_half": None,
        "median_second_half": None,
        "shift": None,
    }


def test_nothing_scored_gives_no_features_and_no_error() -> None:
    assert feature_figures(scores(), None) == []
    empty = account_rows(activity("a"), scores(), alerts().lazy())
    assert score_figures(empty, 0)["quantiles"]["0.5"] is None
    assert histogram(empty)[0] == 1
    assert top_accounts(empty) == []


def labels(**populations: tuple[bool, str, str, str]) -> Labels:
    rows = [(name, *told) for name, told in populations.items()]
    return Labels(
        pl.DataFrame(rows, schema=["account_id", "attack", "population", "family", "variant"], orient="row"),
        ("gone",),
        (),
    )


LABELS = labels(
    a=(True, "attack", "poems", "loud"),
    b=(False, "people", "(none)", "(none)"),
    c=(True, "attack", "maths", "drip"),
    d=(False, "etl", "(none)", "(none)"),
)


def test_labels_tell_how_good_risks_and_rules_are() -> None:
    found = detection_figures(judged(accounts(), LABELS), LABELS, hours=24)
    assert found["accounts"] == {
        "attack": 2, "benign": 2, "attack_never_scored": 1, "benign_never_scored": 1,
        "labelled_but_not_in_the_log": 1, "in_the_log_but_unlabelled": 0,
    }  # fmt: skip
    assert found["auc"] == pytest.approx((1 + 1 + 0 + 0.5) / 4)  # a over b and d, c under b and level with d
    strict = found["thresholds"][0]
    assert strict["threshold"] == pytest.approx(0.5)
    assert {name: share["share"] for name, share in strict["by_variant"].items()} == {"loud": 1.0, "drip": 0.0}
    assert {name: share["share"] for name, share in strict["by_family"].items()} == {"poems": 1.0, "maths": 0.0}
    live = found["live_rules"]
    assert (live["precision"]["share"], live["attack"]["share"]) == (0.5, 0.5)
    assert {name: share["share"] for name, share in live["by_population"].items()} == {"people": 1.0, "etl": 0.0}
    assert live["exchanges_before_first_alert"]["all"] == {"accounts": 1, "median": 9.0, "p90": 9.0}
    assert live["benign_accounts_alerted_per_48_h"] == 2.0  # one in 24 hours
    assert found["shadow_rules"]["exchanges_before_first_alert"]["loud"]["median"] == 8.0


def test_labels_of_one_kind_alone_give_what_they_can() -> None:
    attacks = Labels(LABELS.rows.filter("attack"), (), ())
    found = detection_figures(judged(accounts(), attacks), attacks, hours=24)
    assert (found["auc"], found["thresholds"]) == (None, [])
    assert found["live_rules"]["benign"]["share"] is None


def test_a_comparison_names_what_differs_and_nothing_else() -> None:
    before, after = (
        accounts(),
        account_rows(
            activity("a", "b", "c", "d"),
            scores(("a", 8, 0.9), ("b", 8, 0.8), ("c", 8, 0.1)),
            alerts(("r", "live", "c", 8)).lazy(),
        ),
    )
    reports = [
        {"log": {"events": 40}, "scores": score_figures(rows, 6), "alerts": alert_figures(raised, rows),
         "detection": detection_figures(judged(rows, LABELS), LABELS, 24)}
        for rows, raised in ((before, ALERTS), (after, alerts(("r", "live", "c", 8))))
    ]  # fmt: skip
    found = compared(reports[0], reports[1], (before, after), (ALERTS, alerts(("r", "live", "c", 8))))
    figures = {row["figure"]: (row["before"], row["after"], row["change"]) for row in found["figures"]}
    assert found["same_log"]
    assert figures["scores / accounts_scored"] == (2, 3, 1)
    assert figures["alerts / by_rule / r (live) / alerts"] == (3, 1, -2)
    assert figures["alerts / by_rule / s (shadow) / alerts"] == (2, None, None)
    assert figures["detection / live_rules / by_variant / drip / share"] == (0.0, 1.0, 1.0)
    assert not any(name.endswith(("/ count", "/ low")) for name in figures)
    assert [(row["rule"], row["entity_id"], row["events_before"]) for row in found["only_before"]["alerts"]] == [
        ("r", "a", 9),
        ("r", "b", 30),
        ("s", "a", 8),
        ("s", "b", 8),
    ]
    assert (found["only_after"]["count"], found["only_after"]["alerts"][0]["entity_id"]) == (1, "c")
    assert [row["account_id"] for row in found["moved"]] == ["b", "c"]
    assert found["accounts_moved"] == 2


def test_a_run_compared_with_itself_shows_no_difference() -> None:
    report = {
        "log": {"events": 40},
        "scores": score_figures(accounts(), 6),
        "alerts": alert_figures(ALERTS, accounts()),
        "detection": None,
    }
    found = compared(report, report, (accounts(), accounts()), (ALERTS, ALERTS))
    assert (found["figures"], found["moved"], found["only_before"]["count"], found["only_after"]["count"]) == (
        [],
        [],
        0,
        0,
    )
