"""The plots of a backtest's page: static SVG, drawn by matplotlib, that needs no script and no network."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from pipeline.backtesting.metrics import Steps
from pipeline.svg import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, STYLE, WIDE_IN, drawn, panels

Json = dict[str, Any]

_CYCLE: Final = (BLUE, ORANGE, GREEN, PURPLE, SKY, "#E69F00", "#000000", GREY)
_SMALL: Final = (3.5, 2.9)
_HALF_IN: Final = 5.4
"""With `WIDE_IN`: three, two and one side by side on the page, so that all letters have one size there."""

_NAME_CHARS_MAX: Final = 28
_GROUPS_MAX: Final = 40
"""Groups that a plot shows; the tables of the page have all."""

LOW_SHARE: Final = 0.05
"""Up to where the close view of the ROC curve goes: beyond it nobody would run such a rule."""


def _short(name: str) -> str:
    return name if len(name) <= _NAME_CHARS_MAX else name[: _NAME_CHARS_MAX - 1] + "…"


@mpl.rc_context(STYLE)
def roc(swept: Steps, share_max: float, marks: Sequence[tuple[str, float, float]]) -> str:
    """The ROC curve.

    Args:
        swept: with positives and negatives.
        share_max: up to which share of benign accounts it is shown.
        marks: names and points (share of benign, share of attack accounts) to mark.
    """
    figure, (axes,) = panels(_SMALL)
    wrong = np.append(0, swept.wrong) / swept.negatives
    found = np.append(0, swept.found) / swept.positives
    axes.plot(wrong, found, color=BLUE, linewidth=1.8)
    axes.fill_between(wrong, found, color=BLUE, alpha=0.08, linewidth=0)
    if share_max >= 1:
        axes.plot((0, 1), (0, 1), color=GREY, linewidth=0.8, linestyle=":")
    for (name, x, y), color in zip(marks, itertools.cycle((ORANGE, GREEN, PURPLE)), strict=False):
        if x <= share_max:
            axes.plot(
                (x,), (y,), "o", color=color, markersize=5, label=f"{_short(name)}: {y:.1%} at {x:.2%}", clip_on=False
            )
    axes.set(xlim=(0, share_max), ylim=(0, 1.005), xlabel="benign accounts flagged", ylabel="attack accounts flagged")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    if marks:
        axes.legend(loc="best")
    return drawn(figure, f"roc-{share_max}")


@mpl.rc_context(STYLE)
def precision_recall(swept: Steps) -> str:
    """Precision over recall."""
    figure, (axes,) = panels(_SMALL)
    recall, precision = swept.found / swept.positives, swept.found / (swept.found + swept.wrong)
    axes.plot(recall, precision, color=BLUE, linewidth=1.8, drawstyle="steps-pre")
    share = swept.positives / (swept.positives + swept.negatives)
    axes.axhline(share, color=GREY, linewidth=0.8, linestyle=":")
    axes.annotate(f"chance: {share:.0%}", (0.02, share), (0, 3), textcoords="offset points", fontsize=8, color=GREY)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="attack accounts flagged (recall)", ylabel="of those flagged, attacks")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    return drawn(figure, "precision-recall")


@mpl.rc_context(STYLE)
def histograms(counts: Mapping[str, Sequence[int]], threshold: float | None) -> str:
    """Accounts by risk, a panel a group; the counts' axis is logarithmic, so that a single account is seen.

    Args:
        counts: for each group accounts in equal bins over [0, 1]; names that begin with `attack` in their own colour.
        threshold: marked in each panel.
    """
    shown = list(counts.items())[:_GROUPS_MAX]
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    figure, all_axes = panels((WIDE_IN, 0.7 + 1.35 * rows), rows, columns, sharex=True)
    for axes, (name, bins) in zip(all_axes, shown, strict=False):
        edges = np.linspace(0, 1, len(bins) + 1)
        color = ORANGE if name.startswith("attack") else BLUE
        axes.bar(edges[:-1], bins, width=1 / len(bins), align="edge", color=color, edgecolor="white", linewidth=0.4)
        axes.set_yscale("symlog", linthresh=1, linscale=0.5)
        axes.set_ylim(0, max(10, 1.3 * max(bins)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set_xlim(0, 1)
        axes.set_title(f"{_short(name)} ({sum(bins):,})")
        if threshold is not None:
            axes.axvline(threshold, color="#333333", linewidth=0.9, linestyle="--")
    for axes in all_axes[len(shown) :]:
        axes.set_visible(False)
    for axes in all_axes[max(0, len(shown) - columns) : len(shown)]:
        axes.set_xlabel("highest risk")
        axes.tick_params(labelbottom=True)
    return drawn(figure, "histograms")


@mpl.rc_context(STYLE)
def shares(series: Sequence[tuple[str, Mapping[str, Json]]], name: str) -> str:
    """Shares of accounts by group as horizontal bars, with 95 % intervals.

    Args:
        series: a name, and for each group a share as `metrics.Share.as_json` has it; all of the same groups.
        name: of the plot.
    """
    groups = list(series[0][1])[:_GROUPS_MAX]
    figure, (axes,) = panels((_HALF_IN, 1.3 + 0.2 * len(groups) * len(series)))
    height = 0.8 / len(series)
    for index, ((label, of_groups), color) in enumerate(zip(series, itertools.cycle(_CYCLE), strict=False)):
        at = np.arange(len(groups)) + (index - (len(series) - 1) / 2) * height
        values = np.array([of_groups[group]["share"] or 0.0 for group in groups])
        low = np.array([of_groups[group]["low"] or 0.0 for group in groups])
        high = np.array([of_groups[group]["high"] or 0.0 for group in groups])
        axes.barh(at, values, height=height * 0.9, color=color, label=label)
        axes.hlines(at, low, high, color="#333333", linewidth=0.9)
    axes.set_yticks(range(len(groups)), [f"{_short(group)} ({series[0][1][group]['of']})" for group in groups])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=len(series))
    return drawn(figure, name)


@mpl.rc_context(STYLE)
def over_time(events: pl.DataFrame, alerts: pl.DataFrame, span: tuple[int, int]) -> str:
    """Events and alerts, hour by hour or, in a long log, day by day.

    Args:
        events: see `pipeline.backtesting.activity.Activity.hours`.
        alerts: see `pipeline.backtesting.figures.alerts_by_hour`.
        span: first and last hour.
    """
    first, last = span
    unit = 1 if last - first < 24 * 8 else 24
    edges = np.arange(first, last + 1 + unit, unit)
    at = [datetime.fromtimestamp(int(edge) * 3600, UTC).replace(tzinfo=None) for edge in edges]
    figure, (above, below) = panels((WIDE_IN, 3.6), 2, 1, sharex=True, height_ratios=(1, 2))
    counted, _ = np.histogram(events["hour"], bins=edges, weights=events["events"])
    above.stairs(counted, at, fill=True, color="#c9ced6")  # type: ignore[arg-type]  # times are edges, too
    above.set_ylabel("exchanges")
    base = np.zeros(len(edges) - 1)
    order = alerts.group_by("rule").agg(pl.col("alerts").sum()).sort("alerts", "rule", descending=[True, False])["rule"]
    for rule, color in zip(order, itertools.cycle(_CYCLE), strict=False):
        own = alerts.filter(pl.col("rule") == rule)
        counts, _ = np.histogram(own["hour"], bins=edges, weights=own["alerts"])
        below.stairs(base + counts, at, baseline=base, fill=True, color=color, label=_short(str(rule)))  # type: ignore[arg-type]
        base = base + counts
    below.set_ylabel(f"alerts per {'hour' if unit == 1 else 'day'}")
    for axes in (above, below):
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set_ylim(bottom=0)
    below.set_xlabel("event time, UTC")
    if len(order):
        below.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return drawn(figure, "over-time")


@mpl.rc_context(STYLE)
def exchanges(groups: Mapping[str, Sequence[int]]) -> str:
    """How many exchanges accounts had made before their first alert: the share that was alerted by then.

    Args:
        groups: for each group the counts of its alerted accounts; at least one count in all.
    """
    figure, (axes,) = panels((_HALF_IN, 3.6))
    shown = [(name, np.sort(np.maximum(values, 1))) for name, values in groups.items() if len(values)]
    largest = max(values[-1] for _, values in shown)
    for (name, values), color in zip(shown, itertools.cycle(("#000000", *_CYCLE[:6])), strict=False):
        share = np.arange(1, len(values) + 1) / len(values)
        steps_at, steps_to = np.append(values, max(largest, 2)), np.append(share, 1.0)
        axes.step(np.append(values[0], steps_at), np.append(0, steps_to), where="post", color=color,
                  linewidth=2 if name == "all" else 1.2, label=f"{_short(name)} ({len(values)})")  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set(ylim=(0, 1.01), xlabel="exchanges before the first alert", ylabel="of the alerted attack accounts")
    axes.legend(loc="lower right")
    return drawn(figure, "exchanges")


@mpl.rc_context(STYLE)
def importance(features: Sequence[Json], count: int = 20) -> str:
    """The features that scores leaned on most: their mean absolute contribution."""
    shown = [figure for figure in features if figure["contribution"] > 0][:count]
    figure, (axes,) = panels((WIDE_IN, 1.1 + 0.21 * len(shown)))
    axes.barh(range(len(shown)), [found["contribution"] for found in shown], color=BLUE, height=0.7)
    axes.set_yticks(range(len(shown)), [_short(found["feature"]) for found in shown])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("mean contribution to the log-odds of the risk, sign aside")
    return drawn(figure, "importance")
