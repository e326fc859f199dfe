"""The plots of a dossier: requests, tokens and risk over time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from pipeline.dossier.dossier import Bucket, Dossier, RaisedAlert, ScoredMoment
from pipeline.dossier.words import datetime_of
from pipeline.svg import BLUE, GREY, ORANGE, STYLE, WIDE_IN, drawn, panels

POINTS_MAX: Final = 600
"""Scores drawn: of more, the highest of each stretch."""

Span = tuple[int, int]


def span_of(dossier: Dossier) -> Span | None:
    """From when to when both plots go, so that they stand one over the other; None: there is nothing to draw."""
    times = [bucket.start_us for bucket in dossier.seen.timeline]
    times += [bucket.start_us + dossier.seen.bucket_us for bucket in dossier.seen.timeline]
    times += [moment.scored_at_us for moment in dossier.inferred.history]
    times += [raised.alert.raised_at_us for raised in dossier.inferred.alerts]
    return (min(times), max(times)) if times else None


@mpl.rc_context(STYLE)
def requests(timeline: Sequence[Bucket], bucket_us: int, span: Span) -> str:
    """Requests, those that failed in a colour of their own, and tokens, by hour or day."""
    unit = "hour" if bucket_us < 24 * 3_600_000_000 else "day"
    figure, (above, below) = panels((WIDE_IN, 3.0), 2, 1, sharex=True, height_ratios=(3, 2))
    at = [datetime_of(bucket.start_us) for bucket in timeline]
    width = 0.94 * bucket_us / 86_400e6
    errors = np.array([bucket.errors for bucket in timeline])
    right = np.array([bucket.requests for bucket in timeline]) - errors
    above.bar(at, right, width=width, align="edge", color=BLUE, label="answered", linewidth=0)  # type: ignore[arg-type]  # times are places, too
    if errors.any():
        above.bar(at, errors, width=width, bottom=right, align="edge", color=ORANGE, label="status 400 and above")  # type: ignore[arg-type]
        above.legend(loc="upper right", ncols=2, bbox_to_anchor=(1.0, 1.22))
    above.set_ylabel(f"requests per {unit}")
    tokens = [bucket.output_tokens for bucket in timeline]
    below.bar(at, tokens, width=width, align="edge", color=GREY, linewidth=0)  # type: ignore[arg-type]
    below.set_ylabel("tokens out")
    for axes in (above, below):
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set_ylim(bottom=0)
    _dates(below, span)
    return drawn(figure, "requests")


@mpl.rc_context(STYLE)
def risk(history: Sequence[ScoredMoment], alerts: Sequence[RaisedAlert], span: Span) -> str:
    """The risk, score by score, and when alerts were raised."""
    figure, (axes,) = panels((WIDE_IN, 2.3))
    shown = thinned(history)
    at = [datetime_of(moment.scored_at_us) for moment in shown]
    axes.step(at, [np.nan if moment.risk is None else moment.risk for moment in shown], where="post", color=BLUE)  # type: ignore[arg-type]
    axes.plot(at, [np.nan if moment.risk is None else moment.risk for moment in shown], ".", color=BLUE, markersize=4)  # type: ignore[arg-type]
    unknown = [datetime_of(moment.scored_at_us) for moment in shown if moment.risk is None]
    if unknown:
        axes.plot(unknown, [0.0] * len(unknown), "|", color=GREY, markersize=6, label="scored, risk unknown")  # type: ignore[arg-type]
    for state, color in (("live", ORANGE), ("shadow", GREY)):
        raised = [datetime_of(one.alert.raised_at_us) for one in alerts if one.alert.state == state]
        if raised:
            said = f"alert, {state} rule"
            axes.plot(raised, [1.04] * len(raised), "v", color=color, markersize=6, label=said, clip_on=False)  # type: ignore[arg-type]
    axes.set(ylim=(-0.02, 1.08), ylabel="risk")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_yticks((0, 0.25, 0.5, 0.75, 1))
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="upper left", bbox_to_anchor=(0.0, 1.2), ncols=3)
    _dates(axes, span)
    return drawn(figure, "risk")


def thinned(history: Sequence[ScoredMoment]) -> list[ScoredMoment]:
    """Not more scores than can be told apart: of each stretch the highest, and always the last."""
    if len(history) <= POINTS_MAX:
        return list(history)
    edges = np.linspace(0, len(history), POINTS_MAX, dtype=int).tolist()
    stretches = (history[low:high] for low, high in itertools.pairwise(edges))
    highest = [max(part, key=lambda moment: -1.0 if moment.risk is None else moment.risk) for part in stretches]
    return highest if highest[-1] is history[-1] else [*highest, history[-1]]


def _dates(axes: Axes, span: Span) -> None:
    first, last = (datetime_of(moment) for moment in span)
    margin = (last - first) * 0.01 or timedelta(minutes=1)
    axes.set_xlim(first - margin, last + margin)  # type: ignore[arg-type]
    locator = AutoDateLocator(minticks=3, maxticks=9)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.set_xlabel("event time, UTC")
