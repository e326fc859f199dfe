"""A family of features: what it keeps, what an event contributes to that, and what numbers are made of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.features.events import Events
from pipeline.features.feature import Feature
from pipeline.features.fields import Field
from pipeline.features.folding import Views
from pipeline.features.integers import Floats
from pipeline.features.panes import Panes


@dataclass(frozen=True, slots=True)
class Family:
    """One file of this package.

    Attributes:
        name: as in its features.
        features: the numbers it makes.
        fields: what it keeps of every account.
        contribute: puts what the events of a slice contribute into the records of their panes.
        compute: feature name → float64[n], of the views of n accounts; NaN where inputs are absent.
    """

    name: str
    features: tuple[Feature, ...]
    fields: tuple[Field, ...]
    contribute: Callable[[Events, Panes], None]
    compute: Callable[[Views], dict[str, Floats]]
