"""Rhythm: whether somebody sleeps.  Hours and days are those of UTC, of the account's own clock."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.features.clock import DAY, HALF, HOUR, SECOND
from pipeline.features.events import Events
from pipeline.features.family import Family
from pipeline.features.feature import Feature
from pipeline.features.fields import DAY_UP, Field, Merge, View, bitmap, mix
from pipeline.features.folding import GENERATION, Views
from pipeline.features.integers import Floats, bits_set, cells_filled, entropy, log2, ratio
from pipeline.features.panes import Panes

_AGENCIES: Final = "NSA/CISA/FBI AA26-251A, September 2026: use around the clock without idle time"
_HOURS: Final = 24
_DAYS: Final = 7
_EPOCH_WEEKDAY: Final = 3  # 1970-01-01 was a Thursday; Monday is 0
_HOUR_BITS: Final = 192  # more than the 168 hours that a view spans


def _feature(name: str, unit: str, definition: str, words: str) -> Feature:
    return Feature(name, "rhythm", unit, definition, (12,), _AGENCIES, words)


_FEATURES: Final = (
    _feature("hours_of_day_24h", "hours of 24", "distinct hours of the day with a request, 24 h view", "hours of the last day with requests"),
    _feature("hours_of_day_7d", "hours of 24", "distinct hours of the day with a request, 7 d view", "hours of the day in which it is active"),
    _feature(
        "active_hours_7d", "share", "distinct hours with a request / hours from the start of the 7 d view or of the account's life to now",
        "share of all hours with requests",
    ),
    _feature("quiet_run_7d", "hours of 24", "longest run of hours of the day without a request, around midnight too, 7 d view", "longest run of hours of the day in which it rests"),
    _feature("longest_gap_7d", "log2(1 + s)", "longest time between two requests, 7 d view; null before the second request", "longest pause"),
    _feature("longest_gap_share_7d", "share", "longest time between two requests / time from the start of the 7 d view or of the account's life to now, at most 1", "longest pause as a share of the time watched"),
    _feature("hour_entropy_7d", "bits", "Shannon entropy of requests over 24 hours of the day, 7 d view; at most log2 24", "evenness over the hours of the day"),
    _feature("weekday_entropy_7d", "bits", "Shannon entropy of requests over 7 days of the week, 7 d view; at most log2 7", "evenness over the days of the week"),
    _feature("hourly_evenness_24h", "share", "Shannon entropy of requests over the hours of the 24 h view / log2 of the active hours; null under 2 active hours", "evenness of the hourly number of requests"),
)  # fmt: skip

_FIELDS: Final = (
    mix("by_hour", _HOURS, DAY_UP),
    mix("by_weekday", _DAYS),
    bitmap("hours", _HOUR_BITS // 64),
    Field("gap_max", "u4", Merge.MAX),  # milliseconds; below the horizon of a week
)


def _contribute(events: Events, panes: Panes) -> None:
    hour = events.clock // HOUR
    everyone = np.ones(len(events), np.bool_)
    panes.count("by_hour", hour % _HOURS, everyone)
    panes.count("by_weekday", (events.clock // DAY + _EPOCH_WEEKDAY) % _DAYS, everyone)
    panes.members("hours", (hour % _HOUR_BITS).astype(np.uint64), everyone)
    panes.largest("gap_max", np.maximum(events.gap, 0).astype(np.uint32))


def _longest_run(empty: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Longest run of true values in each row, [n, 24], as on a clock face."""
    run = np.zeros(len(empty), np.int64)
    longest = run
    for hour in range(2 * _HOURS):
        run = np.where(empty[:, hour % _HOURS], run + 1, 0)
        longest = np.maximum(longest, run)
    return np.minimum(longest, _HOURS)


def _watched(views: Views) -> npt.NDArray[np.int64]:
    """Milliseconds from the start of the 7 d view, or of the account's life if that is later, to its clock."""
    length = GENERATION[View.WEEK] * HALF
    shifted = views.clock + views.phase
    start = shifted - shifted % length - length - views.phase
    return views.clock - np.maximum(start, views.born)


def _compute(views: Views) -> dict[str, Floats]:
    week: npt.NDArray[Any] = views.cells(View.WEEK, "by_hour")
    day: npt.NDArray[Any] = views.cells(View.DAY, "by_hour")
    watched = _watched(views)
    gap = views.week("gap_max").astype(np.int64)
    again = views.week("gaps") > 0
    active = cells_filled(day)
    # From the hour of the start to the hour of the clock there may be one more than hours have passed.
    hours = watched // HOUR + 2
    return {
        "hours_of_day_24h": active.astype(np.float64),
        "hours_of_day_7d": cells_filled(week).astype(np.float64),
        "active_hours_7d": np.minimum(ratio(bits_set(views.cells(View.WEEK, "hours")), hours), 1),
        "quiet_run_7d": _longest_run(week == 0).astype(np.float64),
        "longest_gap_7d": np.where(again, log2(1 + gap / SECOND), np.nan),
        "longest_gap_share_7d": np.where(again, np.minimum(ratio(gap, watched), 1), np.nan),
        "hour_entropy_7d": entropy(week),
        "weekday_entropy_7d": entropy(views.cells(View.WEEK, "by_weekday")),
        "hourly_evenness_24h": np.where(active > 1, ratio(entropy(day), log2(active)), np.nan),
    }


FAMILY: Final = Family("rhythm", _FEATURES, _FIELDS, _contribute, _compute)
