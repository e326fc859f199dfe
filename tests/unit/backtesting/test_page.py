"""The page: whatever strangers call themselves, it opens anywhere and runs nothing."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipeline.backtesting import plots
from pipeline.backtesting.metrics import Share, steps
from pipeline.backtesting.page import page

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&</style></svg>"
SHARE = Share(1, 2).as_json()
AT: dict[str, Any] = {
    "attack": SHARE,
    "benign": SHARE,
    "by_variant": {EVIL: SHARE},
    "by_family": {EVIL: SHARE},
    "by_population": {EVIL: SHARE},
}
RULES = AT | {
    "precision": SHARE,
    "exchanges_before_first_alert": {"all": {"accounts": 1, "median": 9.0, "p90": 9.0}},
    "benign_accounts_alerted_per_48_h": 1.0,
}
ALERTS = {
    "count": 1,
    "alerts": [
        {
            "rule": EVIL,
            "state": "live",
            "entity_id": EVIL,
            "raised_at": "2026-03-01T10:00:00+00:00",
            "events_before": 9,
            "risk": None,
        }
    ],
}
REPORT: dict[str, Any] = {
    "format": 1,
    "made_by": {"stillwatch": "1", "versions": {EVIL: EVIL}},
    "input": {"events": [EVIL], "files": [{"name": EVIL, "sha256": "0" * 64}], "records": 10, "rejected": 1, "rejects": {EVIL: 1}, "partitions": 1},
    "log": {"events": 9, "accounts": 2, "begins": "2026-03-01T10:00:00+00:00", "ends": "2026-03-01T12:00:00+00:00", "hours": 2},
    "scores": {"rows": 9, "with_a_risk": 9, "accounts_scored": 2, "accounts_never_scored": 0, "quantiles": {"0.5": 0.5, "0.99": 0.9}, "histogram": [2]},
    "alerts": {
        "live": 1, "shadow": 0, "accounts_alerted": 1, "accounts_in_shadow_only": 0,
        "by_rule": [{"rule": EVIL, "rule_version": 1, "state": "live", "severity": "high", "alerts": 1, "entities": 1}], "by_day": [],
    },
    "rules": [
        {"rule": EVIL, "rule_version": 1, "state": "live", "severity": "high", "alerts": 1, "accounts": 1, "added": 1, "suppressed": 2,
         "exchanges_before_first_alert": {"median": 9.0, "p90": None},
         "told": {EVIL: dict.fromkeys(("attack", "benign", "precision", "added_attack", "added_benign"), SHARE) | {"unknown": 0}}},
    ],
    "detection": {
        "accounts": {"attack": 2, "benign": 2, "attack_never_scored": 0, "benign_never_scored": 0},
        "auc": 0.75, "average_precision": 0.5, "thresholds": [AT | {"benign_share": 0.01, "threshold": 0.5}], "live_rules": RULES, "shadow_rules": RULES,
    },
    "features": [{"feature": EVIL, "contribution": 0.5, "null_share": 0.0, "median_first_half": 1.0, "median_second_half": 2.0, "shift": 1.0}],
    "top_accounts": [
        {
            "account_id": EVIL, "risk": 0.9, "risk_at": "2026-03-01T10:00:00+00:00", "exchanges_then": 9, "events": 9, "alerts": 1,
            "exchanges_before_alert": None, "label": "attack", "population": EVIL, "family": EVIL, "variant": EVIL,
            "reasons": [{"feature": EVIL, "value": None, "contribution": -0.5, "words": EVIL}],
        },
        {
            "account_id": "a" * 10_000 + "\u202e\x07", "risk": 0.8, "risk_at": "2026-03-01T10:00:00+00:00", "exchanges_then": 9, "events": 9, "alerts": 0,
            "exchanges_before_alert": 9, "reasons": [],
        },
    ],
    "comparison": {
        "same_log": False, "figures": [{"figure": EVIL, "before": None, "after": 1.0, "change": None}], "unchanged": 3,
        "only_before": ALERTS, "only_after": {"count": 0, "alerts": []}, "accounts_in_both": 2, "accounts_moved": 1,
        "moved": [{"account_id": EVIL, "before": 0.1, "after": 0.9, "change": 0.8}],
    },
    "warnings": [EVIL],
}  # fmt: skip


class Seen(HTMLParser):
    """What a browser would make of the page: its tags, their attributes, its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def drawn() -> dict[str, str]:
    """Every plot, with names that mean harm."""
    swept = steps(np.array([0.9, 0.8, 0.2, 0.1]), np.array([True, False, True, False]))
    hours = pl.DataFrame({"hour": [100, 101], "events": [5, 4]})
    return {
        "roc": plots.roc(swept, 1.0, []),
        "roc_low": plots.roc(swept, 0.5, [(EVIL, 0.1, 0.5)]),
        "precision_recall": plots.precision_recall(swept),
        "variants": plots.shares([("at 1%", {EVIL: SHARE}), ("live rules", {EVIL: SHARE})], "variants"),
        "families": plots.shares([("at 1%", {"$\\frac{1}": SHARE})], "families"),
        "histograms": plots.histograms({EVIL: [3, 0, 1], "attack: x": [0, 0, 0]}, 0.5),
        "over_time": plots.over_time(hours, pl.DataFrame({"hour": [100], "rule": [EVIL], "alerts": [2]}), (100, 101)),
        "exchanges": plots.exchanges({"all": [8, 9, 100], EVIL: [8], "none": []}),
        "importance": plots.importance(REPORT["features"]),
    }


@pytest.fixture(scope="module")
def seen() -> Seen:
    return Seen(page(REPORT, drawn()).decode())


def test_names_of_strangers_are_text_and_nothing_else(seen: Seen) -> None:
    assert not {"script", "img", "iframe", "object", "embed", "link", "form"} & set(seen.tags)
    assert not [name for name, _ in seen.attributes if name.startswith("on")]
    assert seen.text.count(EVIL[:25]) > 10


def test_the_page_asks_for_nothing_from_elsewhere(seen: Seen) -> None:
    links = [value or "" for name, value in seen.attributes if name in ("href", "src", "xlink:href", "action")]
    assert links
    assert all(link.startswith("#") for link in links)
    styles = " ".join(value or "" for name, value in seen.attributes if name == "style") + seen.text
    assert not re.search(r"url\((?!#)|@import", styles)
    policies = [value for name, value in seen.attributes if name == "content" and "default-src" in (value or "")]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_links_within_the_page_lead_somewhere(seen: Seen) -> None:
    names = [value for name, value in seen.attributes if name == "id"]
    anchors = [str(value)[1:] for name, value in seen.attributes if name == "href" and str(value).startswith("#")]
    assert {anchor for anchor in anchors if anchor.isalpha()} <= set(names)


def test_a_name_of_any_length_or_direction_is_shown_short_and_in_order(seen: Seen) -> None:
    assert "a" * 80 + "… (10,002 characters)" in seen.text
    assert not {"\u202e", "\x07"} & set(seen.text)


def test_what_is_observed_is_told_from_what_is_inferred(seen: Seen) -> None:
    assert "is inferred" in seen.text
    assert "no proof" in seen.text


def test_the_same_report_gives_the_same_bytes() -> None:
    assert page(REPORT, drawn()) == page(copy.deepcopy(REPORT), drawn())


def test_without_labels_alerts_and_comparison_the_page_has_no_holes() -> None:
    report = REPORT | {"detection": None, "comparison": None, "features": [], "top_accounts": [], "warnings": []}
    report["alerts"] = REPORT["alerts"] | {"by_rule": []}
    text = Seen(page(report, {"histograms": plots.histograms({"all": [1, 2]}, None)}).decode()).text
    assert "No rule would have raised an alert." in text
    assert "None" not in text
    assert "How well risk separates" not in text


def test_plots_hold_text_and_no_outside_names() -> None:
    for name, svg in drawn().items():
        assert svg.startswith("<svg"), name
        assert "<text" in svg, name
        assert "<metadata" not in svg, name
        assert 'id="axes_' not in svg, name
