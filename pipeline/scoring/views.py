"""What may be withheld from the models: a log without the accounts feed and network fields, or without text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.features.feature import Feature
from pipeline.scoring.scaling import Values

WITHHELD: Final[Mapping[str, tuple[str, ...]]] = {
    "everything": (),
    "without accounts and network": ("account", "identity"),
    "without text": ("template", "elicitation", "spread"),
}
"""Each view by the families of features that it lacks."""

UNUSED: Final = ("template", "elicitation", "rhythm", "release", "identity")
"""Families of features that serve rules and people: with them the models tell families that they have not seen less
well, or no better."""

UNUSED_NAMES: Final = (
    "requests_7d", "requests_hour_in_day", "output_tokens_7d", "life_hours", "gap_mean_7d", "gap_spread_7d",
    "burstiness_7d", "oneshots_7d", "oneshot_gap_mean_7d", "oneshot_gap_spread_7d", "requests_per_day_of_age",
    "tokens_per_day_of_age", "plan_tokens_ratio", "outline_accounts_7d", "outline_shared_7d",
    "latency_mean_7d", "latency_spread_7d",
)  # fmt: skip
"""How much an account asks, and when, differs more between one source of traffic and the next than between honest use
and harvest: models look at how it asks.  The outlines of prompts are alike where one grammar wrote them all, as in
simulated traffic: who shares none with anybody looked honest by that alone.  How long an answer took says what its
length says, and is missing from some gateways' logs: an account with long answers and the median's time for them looked
like nobody."""


def unused_columns(features: Sequence[Feature]) -> tuple[int, ...]:
    """The columns that models do not look at: of families in UNUSED, and of the shorter views."""
    return tuple(
        column
        for column, feature in enumerate(features)
        if feature.family in UNUSED or feature.name.endswith(("_1h", "_24h")) or feature.name in UNUSED_NAMES
    )


Columns = npt.NDArray[np.bool_]


def views_of(features: Iterable[Feature]) -> dict[str, Columns]:
    """For each view which columns it has, bool[F]."""
    families = [feature.family for feature in features]
    return {view: np.array([family not in lacks for family in families]) for view, lacks in WITHHELD.items()}


def seen_through(values: Values, view: Columns) -> Values:
    """The values float32[n, F] with NaN in the columns that the view lacks."""
    return np.where(view, values, np.float32(np.nan))
