"""docs/features.md says what the code does, and every feature says what it is."""

from __future__ import annotations

from pathlib import Path

from pipeline.features import FAMILIES, FEATURES, FEATURES_HASH, NAMES
from pipeline.features.page import markdown

PAGE = Path(__file__).parents[3] / "docs" / "features.md"


def test_the_page_is_as_made_from_the_families() -> None:
    """Renew it: python -m pipeline.features.page > docs/features.md."""
    assert PAGE.read_text(encoding="utf-8") == markdown()


def test_every_feature_says_what_it_is() -> None:
    assert len(set(NAMES)) == len(NAMES)
    for feature in FEATURES:
        for text in (feature.name, feature.unit, feature.definition, feature.source, feature.words):
            assert text.strip() == text
            assert text
            assert "\n" not in text
        assert feature.name.replace("_", "").isalnum()
        assert feature.name == feature.name.lower()
    for family in FAMILIES:
        assert {feature.family for feature in family.features} == {family.name}


def test_the_hash_is_of_what_the_features_are() -> None:
    assert len(FEATURES_HASH) == 64
