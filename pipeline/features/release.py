"""Release: how much of an account's use is of models in the first day that the partition saw them.

Half of one harvester's traffic moved to a new model within a day of its release.  Customers who compare models do so
too.  Null until the partition has been watched for a day: before that, every model would look new.
"""

# ruff: noqa: E501  # a feature a line: its definition is a sentence
from __future__ import annotations

from typing import Final

import numpy as np

from pipeline.features.events import Events
from pipeline.features.family import Family
from pipeline.features.feature import Feature
from pipeline.features.fields import DAY_UP, counter
from pipeline.features.folding import Views
from pipeline.features.integers import Floats, ratio
from pipeline.features.launches import FRESH, MODELS_MAX, WATCHED
from pipeline.features.panes import Panes

_HOUR: Final = 3_600_000
_ERRORS: Final = 400
_SOURCE: Final = "Anthropic, February 2026: half of one actor's traffic moved to a new model within 24 h; NSA/CISA/FBI AA26-251A, September 2026"

_FEATURES: Final = tuple(
    Feature(
        f"new_model_share_{span}", "release", "share",
        f"requests on a model within {FRESH // _HOUR} h of its first answer in the partition / requests, of those without an error and after "
        f"the partition was watched for {WATCHED // _HOUR} h, {span} view; models from the {MODELS_MAX + 1}th on count as old",
        (13,), _SOURCE, f"share of requests on a model in its first day, last {words}",
    )
    for span, words in (("24h", "day"), ("7d", "week"))
)  # fmt: skip

_FIELDS: Final = (counter("models_told", DAY_UP), counter("models_new", DAY_UP))


def _contribute(events: Events, panes: Panes) -> None:
    answered = np.where(events.integers("status") < _ERRORS, events.hashed("model"), np.uint64(0))
    watched, new = events.launched(answered)
    panes.tally("models_told", watched)
    panes.tally("models_new", new)


def _compute(views: Views) -> dict[str, Floats]:
    return {
        "new_model_share_24h": ratio(views.day("models_new"), views.day("models_told")),
        "new_model_share_7d": ratio(views.week("models_new"), views.week("models_told")),
    }


FAMILY: Final = Family("release", _FEATURES, _FIELDS, _contribute, _compute)
