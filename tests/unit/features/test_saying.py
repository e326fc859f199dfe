"""Values of features are said as people say them."""

from __future__ import annotations

import math

import pytest

from pipeline.features import FEATURES
from pipeline.features.saying import value_in_words


@pytest.mark.parametrize(
    ("value", "unit", "words", "said"),
    (
        (0.875, "share", "", "87.5 %"),
        (0.9996, "share", "", "100 %"),
        (math.log2(1 + 4_194_304), "log2(1 + ms)", "", "70 min"),
        (math.log2(1 + 250), "log2(1 + ms)", "", "250 ms"),
        (math.log2(1 + 30), "log2(1 + s)", "", "30 s"),
        (math.log2(1 + 5), "log2(1 + hours)", "", "5 h"),
        (math.log2(1 + 400), "log2(1 + days)", "age", "400 days"),
        (math.log2(1 + 16), "log2(1 + accounts)", "other accounts with the same prompts", "16"),
        (math.log2(1 + 1234), "log2(1 + tokens)", "mean length of answers", "1,234 tokens"),
        (math.log2(10), "log2 of accounts", "accounts that pay by the same means", "10"),
        (0.0, "log2(1 + requests)", "", "0 requests"),
        (3.94, "log2", "answer tokens per request token", "× 15"),
        (-8.35, "log2", "follow-ups per first turn", "× 0.0031"),
        (0.647, "log2", "spread of the time between two requests", "× 1.6"),
        (9.32, "log2", "mean length of answers to one-shots", "638"),
        (4.5, "log2", "mean length of answers against one-shots", "× 23"),
        (2.5, "bits", "", "2.5"),
        (1e30, "log2(1 + ms)", "", "1e+30"),
    ),
)
def test_said(value: float, unit: str, words: str, said: str) -> None:
    assert value_in_words(value, unit, words) == said


@pytest.mark.parametrize("value", (-1.0, 0.0, 0.5, 900.0, 3e38))
def test_every_feature_can_be_said(value: float) -> None:
    for feature in FEATURES:
        assert value_in_words(value, feature.unit, feature.words)
