"""Features: what is known of each account of a partition, in event time, and the numbers made of it.

`engine.AccountStates.step` takes decoded events and returns the rows that scoring sees.  To add a family: write its
file with a `FAMILY`, put it in the tuple below, and renew docs/features.md (`python -m pipeline.features.page`).
"""

from __future__ import annotations

import hashlib
from typing import Final

from pipeline.features import account, identity, parameters, rhythm, shape, template, volume
from pipeline.features.family import Family
from pipeline.features.feature import Feature

FAMILIES: Final[tuple[Family, ...]] = (
    volume.FAMILY,
    rhythm.FAMILY,
    shape.FAMILY,
    parameters.FAMILY,
    template.FAMILY,
    identity.FAMILY,
    account.FAMILY,
)

FEATURES: Final[tuple[Feature, ...]] = tuple(feature for family in FAMILIES for feature in family.features)
"""The columns of `FeatureRows.values`, in order."""

NAMES: Final[tuple[str, ...]] = tuple(feature.name for feature in FEATURES)


def _features_hash() -> str:
    text = "\n".join(f"{feature.name}\t{feature.unit}\t{feature.definition}" for feature in FEATURES)
    return hashlib.sha256(text.encode()).hexdigest()


FEATURES_HASH: Final = _features_hash()
"""SHA-256 over names, units and definitions: a snapshot or a trained model fits if it was made with the same."""
