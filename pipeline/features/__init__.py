"""Features: what is known of each account of a partition, in event time, and the numbers made of it.

`engine.AccountStates.step` takes decoded events and returns the rows that scoring sees.  To add a family: write its
file with a `FAMILY`, put it in the tuple below, and renew docs/features.md (`python -m pipeline.features.page`).
"""

from __future__ import annotations

import hashlib
from typing import Final

from pipeline.errors import SchemaError
from pipeline.features import (
    account,
    elicitation,
    identity,
    oneshot,
    parameters,
    release,
    rhythm,
    shape,
    spread,
    template,
    volume,
    watermark,
)
from pipeline.features.family import Family
from pipeline.features.feature import Feature

FAMILIES: Final[tuple[Family, ...]] = (
    volume.FAMILY,
    rhythm.FAMILY,
    shape.FAMILY,
    parameters.FAMILY,
    template.FAMILY,
    oneshot.FAMILY,  # after parameters
    spread.FAMILY,  # after template
    elicitation.FAMILY,
    release.FAMILY,
    identity.FAMILY,
    account.FAMILY,
)

FEATURES: Final[tuple[Feature, ...]] = tuple(feature for family in FAMILIES for feature in family.features)
"""The columns of `FeatureRows.values`, in order."""

NAMES: Final[tuple[str, ...]] = tuple(feature.name for feature in FEATURES)

if len(set(NAMES)) < len(NAMES):  # a second one would take the first one's place wherever they go by name
    twice = sorted({name for name in NAMES if NAMES.count(name) > 1})
    raise SchemaError(f"features of one name: {', '.join(twice)}")


def _features_hash() -> str:
    text = "\n".join(f"{feature.name}\t{feature.unit}\t{feature.definition}" for feature in FEATURES)
    text += f"\nwatermark\t{watermark.DEFINITION}"
    return hashlib.sha256(text.encode()).hexdigest()


FEATURES_HASH: Final = _features_hash()
"""SHA-256 over names, units, definitions and what time is: a snapshot or trained model fits if made with the same."""
