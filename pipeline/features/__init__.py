"""Features of accounts: what is computed of their events, and under which names."""

from __future__ import annotations

import hashlib
from typing import Final

from pipeline.features.feature import Feature

# Stands for the families until they are there.
FEATURES: Final[tuple[Feature, ...]] = tuple(
    Feature(name, "plain", unit, name, (), "-", words)
    for name, unit, words in (
        ("requests", "requests", "requests so far"),
        ("letters", "characters", "characters of prompts so far"),
    )
)
NAMES: Final = tuple(feature.name for feature in FEATURES)
FEATURES_HASH: Final = hashlib.sha256("\n".join(f"{f.name}: {f.definition}" for f in FEATURES).encode()).hexdigest()
