"""What a run comes to: the figures of `report.json`, and the plots of `report.html`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from pipeline.backtesting import plots
from pipeline.backtesting.activity import span
from pipeline.backtesting.detection import detection_figures, groups, judged, risk_steps
from pipeline.backtesting.figures import (
    alert_figures,
    alerts_by_hour,
    feature_figures,
    log_figures,
    score_figures,
    top_accounts,
)
from pipeline.backtesting.labels import Labels
from pipeline.backtesting.metrics import short_percent
from pipeline.backtesting.replaying import Replayed
from pipeline.backtesting.rule_figures import rule_figures
from pipeline.counted import counted
from pipeline.rules import Rule

Json = dict[str, Any]

FORMAT: Final = 1
"""Of `report.json`; it grows, and a number means the same in all versions of one format."""

_NAMED_MAX: Final = 3


@dataclass(frozen=True, slots=True)
class Found:
    """The results of a run.

    Attributes:
        replayed: what went through.
        scores: `scores.parquet`.
        alerts: `alerts.parquet`.
        accounts: `accounts.parquet`.
        labels: matched with the log; None: there are none.
        rules: that ran.
        decided: what verdicts say of accounts of the log, see `pipeline.backtesting.labels.decided`.
    """

    replayed: Replayed
    scores: pl.LazyFrame
    alerts: pl.DataFrame
    accounts: pl.DataFrame
    labels: Labels | None
    rules: tuple[Rule, ...] = ()
    decided: pl.DataFrame | None = None


def report_of(found: Found, given: Json, version: str) -> Json:
    """The figures of a run; the same for the same events and configuration, whenever and wherever it runs.

    Args:
        found: the results.
        given: what was read: `events`, names of what holds them; `files`, name and SHA-256 of each file read;
            `learned`, names of those that the models were trained on.
        version: of Stillwatch.
    """
    replayed, hours = found.replayed, found.replayed.activity.hours()
    log = log_figures(span(hours), replayed.activity.accounts())
    labelled = None if found.labels is None else judged(found.accounts, found.labels)
    named = found.accounts if labelled is None else _with_labels(found.accounts, labelled)
    report: Json = {
        "format": FORMAT,
        "made_by": {"stillwatch": version, "versions": _versions(found.scores)},
        "input": {
            **given,
            "records": replayed.records,
            "rejected": replayed.rejected,
            "rejects": dict(sorted(replayed.rejects.items(), key=lambda item: (-item[1], item[0]))),
            "partitions": len(replayed.partitions),
        },
        "log": log,
        "scores": score_figures(found.accounts, replayed.scores),
        "alerts": alert_figures(found.alerts, found.accounts),
        "rules": rule_figures(found.rules, found.alerts, replayed.suppressed, _told(found)),
        "detection": None
        if labelled is None or found.labels is None
        else detection_figures(labelled, found.labels, log["hours"]),
        "features": feature_figures(found.scores, span(hours)),
        "top_accounts": top_accounts(named),
        "comparison": None,
    }
    report["warnings"] = _warnings(report, found)
    return report


def _told(found: Found) -> dict[str, pl.DataFrame]:
    """Who says what of which accounts."""
    labels = None if found.labels is None else found.labels.rows.select("account_id", "attack")
    return {who: known for who, known in (("labels", labels), ("verdicts", found.decided)) if known is not None}


def _with_labels(accounts: pl.DataFrame, labelled: pl.DataFrame) -> pl.DataFrame:
    columns = ["account_id", "attack", "population", "family", "variant"]
    return accounts.join(labelled.select(columns), on="account_id", how="left")


def _versions(scores: pl.LazyFrame) -> dict[str, str]:
    """Of features, models and configuration, as the scores themselves say."""
    told: dict[str, set[str]] = {}
    for text in scores.select("versions").unique().collect(engine="streaming")["versions"]:
        for name, version in json.loads(text or "{}").items():
            told.setdefault(name, set()).add(str(version))
    return {name: ", ".join(sorted(versions)) for name, versions in sorted(told.items())}


def _warnings(report: Json, found: Found) -> list[str]:
    """What a reader must know before believing a figure."""
    said = []
    given, labels, detection = report["input"], found.labels, report["detection"]
    if given["rejected"]:
        said.append(
            f"Of {counted(given['records'], 'record')} "
            f"{counted(given['rejected'], 'is no event and was', 'are no events and were')} not scored."
        )
    if given["learned"]:
        said.append(
            f"The models learned {', '.join(given['learned'])}: what they say of it they remember, and would not say "
            "as well of traffic that they never saw."
        )
    if not report["scores"]["accounts_scored"]:
        said.append("No account was given a risk: too few exchanges, or models that are not trained.")
    if labels is not None and labels.unknown:
        said.append(
            f"{counted(len(labels.unknown), 'labelled account is', 'labelled accounts are')} "
            f"not in the log, and left out: {_some(labels.unknown)}."
        )
    if labels is not None and labels.unlabelled:
        said.append(
            f"{counted(len(labels.unlabelled), 'account')} of the log without a label, left out of what labels tell."
        )
    if found.decided is not None:
        said.append(
            f"What verdicts tell of each rule rests on {counted(len(found.decided), 'account')}, and people judge "
            "mostly whom a rule has alerted: of those that no rule alerts they tell little."
        )
    if detection is not None:
        benign = detection["accounts"]["benign"]
        said.extend(
            f"Of {counted(benign, 'benign account')} only {int(at['benign_share'] * benign)} may exceed the "
            "threshold for "
            f"{short_percent(at['benign_share'])}: take what is said of it as a hint."
            for at in detection["thresholds"]
            if at["benign_share"] * benign < _NAMED_MAX
        )
        if not benign or not detection["accounts"]["attack"]:
            said.append(
                "Of the accounts in the log the labels know only one kind, or none: nothing can be said of how well "
                "they are told apart."
            )
    return said


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_NAMED_MAX]) + (", …" if len(names) > _NAMED_MAX else "")


def plots_of(found: Found, report: Json) -> dict[str, str]:
    """SVG elements for `page`, by name; without those that there is nothing to draw for."""
    drawn: dict[str, str] = {}
    hours = found.replayed.activity.hours()
    detection, whole = report["detection"], span(hours)
    if detection is not None and found.labels is not None:
        drawn |= _detection_plots(judged(found.accounts, found.labels), detection)
    else:
        drawn["histograms"] = plots.histograms({"all accounts": report["scores"]["histogram"]}, None)
    if whole is not None:
        drawn["over_time"] = plots.over_time(hours, alerts_by_hour(found.alerts), whole)
    if any(feature["contribution"] > 0 for feature in report["features"]):
        drawn["importance"] = plots.importance(report["features"])
    return drawn


def _detection_plots(labelled: pl.DataFrame, detection: Json) -> dict[str, str]:
    drawn = {}
    swept, live, thresholds = risk_steps(labelled), detection["live_rules"], detection["thresholds"]
    if swept.positives and swept.negatives:
        marks = [
            (f"for {short_percent(at['benign_share'])}", at["benign"]["share"], at["attack"]["share"])
            for at in thresholds
        ] + [("live rules", live["benign"]["share"], live["attack"]["share"])]
        drawn["roc"] = plots.roc(swept, 1.0, [])
        widest = max(plots.LOW_SHARE, *(min(1.0, 1.2 * (at or 0.0)) for _, at, _ in marks))
        drawn["roc_low"] = plots.roc(swept, widest, marks)
        drawn["precision_recall"] = plots.precision_recall(swept)
        for name, group in (("variants", "by_variant"), ("families", "by_family")):
            series = [(f"at {short_percent(at['benign_share'])} of benign", at[group]) for at in thresholds]
            drawn[name] = plots.shares([*series, ("live rules", live[group])], name)
    if detection["histograms"]:
        drawn["histograms"] = plots.histograms(
            detection["histograms"], thresholds[-1]["threshold"] if thresholds else None
        )
    alerted = labelled.filter(pl.col("attack") & pl.col("exchanges_before_alert").is_not_null())
    if len(alerted):
        counts = {"all": alerted["exchanges_before_alert"].to_list()} | {
            name: alerted.filter(pl.col("variant") == name)["exchanges_before_alert"].to_list()
            for name in groups(alerted, "variant")
        }
        drawn["exchanges"] = plots.exchanges(counts)
    return drawn
