"""What may be withheld from the models: a log without the accounts feed and network fields, or without text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.features.feature import Feature
from pipeline.scoring.scaling import Values

WITHHELD: Final[Mapping[str, tuple[str, ...]]] = {
    "everything": (),
    "without accounts and network": ("account", "identity"),
    "without text": ("template", "content", "elicitation"),
}
"""Each view by the families of features that it lacks."""

Columns = npt.NDArray[np.bool_]


def views_of(features: Iterable[Feature]) -> dict[str, Columns]:
    """For each view which columns it has, bool[F]."""
    families = [feature.family for feature in features]
    return {view: np.array([family not in lacks for family in families]) for view, lacks in WITHHELD.items()}


def seen_through(values: Values, view: Columns) -> Values:
    """The values float32[n, F] with NaN in the columns that the view lacks."""
    return np.where(view, values, np.float32(np.nan))
