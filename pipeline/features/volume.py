"""Volume: how much an account asks for and how much it is answered, and how its requests follow each other."""

from __future__ import annotations

from typing import Final

import numpy as np

from pipeline.features.clock import HOUR, SECOND
from pipeline.features.events import Events
from pipeline.features.family import Family
from pipeline.features.feature import Feature
from pipeline.features.fields import DAY_UP, HOUR_UP, counter, total
from pipeline.features.folding import Views
from pipeline.features.integers import Floats, Q, log2, log2_q, mean_spread, ratio
from pipeline.features.panes import Panes

FAST: Final = 2 * SECOND
"""A person has not read an answer and asked again within this time (milliseconds)."""

_NSA: Final = "NSA/CISA/FBI AA26-251A, September 2026: anomalous usage for the plan"
_POISSON: Final = "Goh, Barabasi, Burstiness and memory in complex systems, EPL 81, 2008"


def _feature(
    name: str, unit: str, definition: str, words: str, signals: tuple[int, ...] = (), source: str = _NSA
) -> Feature:
    return Feature(name, "volume", unit, definition, signals, source, words)


_FEATURES: Final = (
    _feature("requests_1h", "log2(1 + requests)", "requests in the 1 h view", "requests in the last hour", (4, 5)),
    _feature("requests_24h", "log2(1 + requests)", "requests in the 24 h view", "requests in the last day", (4, 5)),
    _feature("requests_7d", "log2(1 + requests)", "requests in the 7 d view", "requests in the last week", (4, 5, 16)),
    _feature(
        "output_tokens_1h", "log2(1 + tokens)", "output tokens in the 1 h view; null unless some were logged in the 24 h view",
        "answer tokens in the last hour", (4, 5),
    ),
    _feature(
        "output_tokens_24h", "log2(1 + tokens)", "output tokens in the 24 h view; null unless logged",
        "answer tokens in the last day", (4, 5),
    ),
    _feature(
        "output_tokens_7d", "log2(1 + tokens)", "output tokens in the 7 d view; null unless logged",
        "answer tokens in the last week", (4, 5, 16),
    ),
    _feature(
        "life_hours", "log2(1 + hours)", "time from the start of the account's present life to now",
        "how long it has been active", (4,), "accounts of a pool live for hours, customers for months",
    ),
    _feature(
        "requests_hour_in_day", "share", "requests in the 1 h view / requests in the 24 h view",
        "share of the day's requests made in the last hour", (4, 10),
    ),
    _feature(
        "gap_mean_7d", "log2(1 + ms)", "mean of log2 of (1 + milliseconds between two requests), 7 d view",
        "usual time between two requests", (12,), "domain practice: the time between requests tells a loop from a person",
    ),
    _feature(
        "gap_spread_7d", "log2", "standard deviation of what gap_mean_7d is the mean of",
        "spread of the time between two requests", (12,), "machines keep a rhythm, or the rhythm of a retry loop",
    ),
    _feature(
        "gap_fast_24h", "share", "gaps under 2 s / gaps, 24 h view", "share of requests within two seconds of the one before",
        (12,), "no person reads an answer and writes a prompt in 2 s",
    ),
    _feature(
        "gap_fast_7d", "share", "gaps under 2 s / gaps, 7 d view", "share of requests within two seconds of the one before",
        (12,), "no person reads an answer and writes a prompt in 2 s",
    ),
    _feature(
        "burstiness_7d", "-1 to 1", "(s - m) / (s + m) of the gaps' mean m and standard deviation s, 7 d view, 4 gaps or more",
        "burstiness of requests", (12,), _POISSON,
    ),
)  # fmt: skip

_BURSTY_MIN: Final = 4

_FIELDS: Final = (
    counter("requests", HOUR_UP),
    counter("answered", DAY_UP),  # events with output_tokens
    total("output_tokens", HOUR_UP),
    counter("gaps", DAY_UP),
    counter("gaps_fast", DAY_UP),
    total("gap_q"),
    total("gap_qq"),
    total("gap_ms"),
    total("gap_ms_squared"),  # below 2^63: gaps of a week's view add up to at most two weeks
)


def _contribute(events: Events, panes: Panes) -> None:
    panes.tally("requests", np.ones(len(events), np.bool_))
    tokens = events.integers("output_tokens")
    panes.tally("answered", tokens >= 0)
    panes.add("output_tokens", np.maximum(tokens, 0))
    present = events.gap >= 0
    gap = np.maximum(events.gap, 0)
    q = log2_q(gap + 1)
    panes.tally("gaps", present)
    panes.tally("gaps_fast", present & (gap < FAST))
    panes.add("gap_q", q)
    panes.add("gap_qq", q * q)
    panes.add("gap_ms", gap)
    panes.add("gap_ms_squared", gap * gap)


def _compute(views: Views) -> dict[str, Floats]:
    found: dict[str, Floats] = {"life_hours": log2(1 + ratio(views.clock - views.born, np.full(len(views), HOUR)))}
    logged = {"1h": views.day("answered"), "24h": views.day("answered"), "7d": views.week("answered")}
    for span, of in (("1h", views.hour), ("24h", views.day), ("7d", views.week)):
        found[f"requests_{span}"] = log2(of("requests").astype(np.float64) + 1)
        tokens = log2(of("output_tokens").astype(np.float64) + 1)
        found[f"output_tokens_{span}"] = np.where(logged[span] > 0, tokens, np.nan)
    found["requests_hour_in_day"] = ratio(views.hour("requests"), views.day("requests"))
    count = views.week("gaps")
    mean, spread = mean_spread(count, views.week("gap_q"), views.week("gap_qq"))
    found["gap_mean_7d"], found["gap_spread_7d"] = mean / Q, spread / Q
    found["gap_fast_24h"] = ratio(views.day("gaps_fast"), views.day("gaps"))
    found["gap_fast_7d"] = ratio(views.week("gaps_fast"), count)
    mean, spread = mean_spread(count, views.week("gap_ms"), views.week("gap_ms_squared"))
    found["burstiness_7d"] = np.where(count >= _BURSTY_MIN, ratio(spread - mean, spread + mean), np.nan)
    return found


FAMILY: Final = Family("volume", _FEATURES, _FIELDS, _contribute, _compute)
