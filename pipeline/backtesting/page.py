"""`report.html`: one file that opens anywhere, without a network and without scripts, for an analyst and for counsel.

What an account is called, and what it wrote, was chosen by strangers: Jinja escapes every value, and the page's own
Content-Security-Policy forbids scripts and requests, should a value ever slip through.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from importlib import resources
from typing import Any, Final

import jinja2

from pipeline.backtesting.metrics import short_percent
from pipeline.counted import counted

Json = dict[str, Any]

DRIFT_MAX: Final = 15
_ID_CHARS_MAX: Final = 80
_NOTHING: Final = "–"
_UNPRINTABLE: Final = "�"


def page(report: Json, plots: Mapping[str, str]) -> bytes:
    """Write the page.

    Args:
        report: what `report.json` holds.
        plots: SVG elements by name; those that there is nothing to draw for are left out.
    """
    folder = resources.files("pipeline.backtesting")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(_FILTERS)
    template = environment.from_string(folder.joinpath("page.html").read_text(encoding="utf-8"))
    detection, comparison = report["detection"], report["comparison"]
    text = template.render(
        css=folder.joinpath("page.css").read_text(encoding="utf-8"),
        report=report,
        detection=detection,
        comparison=comparison,
        plots={name: plots.get(name, "") for name in PLOTS},
        summary=_summary(report),
        cards=_cards(report),
        contents=[(anchor, title) for anchor, title, shown in _contents(report) if shown],
        drift=_drift(report["features"]),
        made=_made(report),
        **{f"{group}_sets": _sets(detection, f"by_{group}") for group in ("variant", "family", "population")},
    )
    return text.encode("utf-8", errors="replace")  # a lone surrogate has no bytes


PLOTS: Final = (
    "roc", "roc_low", "precision_recall", "variants", "families", "exchanges", "histograms", "over_time", "importance",
)  # fmt: skip
"""The plots that the page has places for."""


def _contents(report: Json) -> list[tuple[str, str, bool]]:
    labelled = report["detection"] is not None
    return [
        ("separation", "Separation", labelled),
        ("rules", "Live rules", labelled),
        ("risks", "Risks", True),
        ("alerts", "Alerts", True),
        ("features", "Features", bool(report["features"])),
        ("accounts", "Accounts", True),
        ("comparison", "Beside the earlier run", report["comparison"] is not None),
        ("made", "Made of", True),
    ]


def _summary(report: Json) -> str:
    log, alerts = report["log"], report["alerts"]
    times = f" between {_moment(log['begins'])} and {_moment(log['ends'])} UTC" if log["begins"] else ""
    seen = (
        f"{counted(log['events'], 'exchange')} of {counted(log['accounts'], 'account')} "
        f"in {counted(log['hours'], 'hour')}"
    )
    alerted = f"{counted(alerts['accounts_alerted'], 'account')}, {counted(alerts['live'], 'time')}"
    return (
        f"{seen}{times}, replayed through the configuration that is named at the end. "
        f"Its live rules would have alerted {alerted}."
    )


def _cards(report: Json) -> list[tuple[str, str]]:
    log, scores, alerts, detection = report["log"], report["scores"], report["alerts"], report["detection"]
    cards = [
        (_whole(log["accounts"]), "accounts in the log"),
        (_whole(scores["accounts_scored"]), "accounts scored"),
        (_whole(alerts["accounts_alerted"]), "accounts alerted by live rules"),
    ]
    if detection is None:
        return [*cards, (_number(scores["quantiles"]["0.99"]), "risk that 1% of scored accounts exceed")]
    live = detection["live_rules"]
    before = live["exchanges_before_first_alert"]["all"]
    if detection["auc"] is not None:
        cards.append((_number(detection["auc"]), "AUC over accounts"))
    cards.extend(
        (
            _percent(at["attack"]["share"]),
            f"of attack accounts above the threshold that {short_percent(at['benign_share'])} of benign ones exceed",
        )
        for at in detection["thresholds"]
    )
    return [
        *cards,
        (_percent(live["precision"]["share"]), "of alerted accounts are attacks"),
        (_percent(live["benign"]["share"]), "of benign accounts alerted"),
        (_whole(before["median"]), "exchanges before the first alert, median"),
    ]


def _sets(detection: Json | None, group: str) -> list[tuple[str, Json]]:
    """Shares by group: at each threshold, and by the live rules."""
    if detection is None:
        return []
    at = [(f"at {short_percent(found['benign_share'])} of benign", found[group]) for found in detection["thresholds"]]
    return [*at, ("live rules", detection["live_rules"][group])]


def _drift(features: list[Json]) -> list[Json]:
    moved = [found for found in features if found["shift"]]
    return sorted(moved, key=lambda found: (-found["shift"], found["feature"]))[:DRIFT_MAX]


def _made(report: Json) -> list[tuple[str, str]]:
    made, given = report["made_by"], report["input"]
    files = [(f"sha-256 of {file['name']}", file["sha256"]) for file in given["files"]]
    return [
        ("Stillwatch", made["stillwatch"]),
        *((str(name), str(value)) for name, value in made["versions"].items()),
        ("events", ", ".join(given["events"])),
        ("records", f"{_whole(given['records'])}, {_whole(given['rejected'])} of them no events"),
        ("partitions", _whole(given["partitions"])),
        *files,
    ]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _whole(value: Any) -> str:
    return f"{value:,.0f}" if _is_number(value) else _NOTHING


def _percent(value: Any) -> str:
    if not _is_number(value):
        return _NOTHING
    return f"{value:.1%}" if value in (0, 1) or 0.001 <= value <= 0.999 else f"{value:.2%}"  # noqa: PLR2004  # one more digit at the ends


def _number(value: Any) -> str:
    if not _is_number(value):
        return _NOTHING
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 10 else f"{value:,.4g}"  # noqa: PLR2004  # counts


def _risk(value: Any) -> str:
    return f"{value:.3f}" if _is_number(value) else _NOTHING


def _added(value: Any) -> str:
    return f"{value:+.2f}".replace("-", "−") if _is_number(value) else _NOTHING  # noqa: RUF001  # a minus sign


def _signed(value: Any) -> str:
    if not _is_number(value):
        return _NOTHING
    return f"{'+' if value > 0 else '−' if value < 0 else ''}{_number(abs(value))}"  # noqa: RUF001  # a minus sign


def _moment(value: Any) -> str:
    return f"{datetime.fromisoformat(value):%Y-%m-%d %H:%M}" if value else _NOTHING


def _shortened(value: Any) -> str:
    """A name for reading: of bounded length, and without characters that hide or turn others around."""
    text = "".join(letter if letter.isprintable() else _UNPRINTABLE for letter in str(value)[: _ID_CHARS_MAX + 1])
    return text if len(text) <= _ID_CHARS_MAX else f"{text[:_ID_CHARS_MAX]}… ({len(str(value)):,} characters)"


_FILTERS: Final = {
    "counted": counted,
    "whole": _whole,
    "percent": _percent,
    "short_percent": short_percent,
    "number": _number,
    "risk": _risk,
    "added": _added,
    "signed": _signed,
    "moment": _moment,
    "shortened": _shortened,
}
