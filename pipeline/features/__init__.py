"""Features of accounts."""

from __future__ import annotations

from typing import Final

from pipeline.features.feature import Feature

FEATURES: Final[tuple[Feature, ...]] = ()
NAMES: Final = tuple(feature.name for feature in FEATURES)
FEATURES_HASH: Final = ""
