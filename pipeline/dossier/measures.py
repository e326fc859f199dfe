"""An account's features beside the population's."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pipeline.dossier.dossier import Measure
from pipeline.features import FEATURES
from pipeline.features.feature import Feature
from pipeline.features.saying import value_in_words
from pipeline.scoring.scaling import KNOTS, Scaling

_LOW, _MEDIAN, _HIGH = round(0.05 * (KNOTS - 1)), (KNOTS - 1) // 2, round(0.95 * (KNOTS - 1))
"""Knots nearest to 5 %, 50 % and 95 %."""


def measures_of(values: Mapping[str, float | None], population: Scaling) -> tuple[Measure, ...]:
    """Every feature beside a population, those furthest out first, unknown ones last.

    Args:
        values: by name; None where one was not computable.
        population: quantiles of `pipeline.features.FEATURES`.
    """
    found = [_measure(place, feature, values.get(feature.name), population) for place, feature in enumerate(FEATURES)]
    return tuple(sorted(found, key=lambda one: -1.0 if one.place is None else abs(one.place - 0.5), reverse=True))


def _measure(column: int, feature: Feature, value: float | None, population: Scaling) -> Measure:
    knots = population.knots[:, column]
    low, median, high = float(knots[_LOW]), float(knots[_MEDIAN]), float(knots[_HIGH])
    nobody_known = math.isnan(median)
    place = None if value is None or nobody_known else population.rank(column, value)
    return Measure(
        name=feature.name,
        family=feature.family,
        words=feature.words,
        value=value,
        said="" if value is None else _said(value, feature),
        median="" if nobody_known else _said(median, feature),
        usual=("", "") if nobody_known else (_said(low, feature), _said(high, feature)),
        place=place,
        band=None if value is None or nobody_known else _band(value, (low, median, high)),
    )


def _said(value: float, feature: Feature) -> str:
    return value_in_words(value, feature.unit, feature.words)


def _band(value: float, usual: tuple[float, float, float]) -> tuple[float, float, float, float]:
    """Value, 5 %, median and 95 % on one scale from 0 to 1 that holds all of them."""
    least, most = min(value, usual[0]), max(value, usual[2])
    width = most - least
    low, median, high = ((one - least) / width if width else 0.5 for one in usual)
    return ((value - least) / width if width else 0.5, low, median, high)
