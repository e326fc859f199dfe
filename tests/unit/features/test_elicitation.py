"""Phrases that ask for reasoning, grades or rewriting: all languages have some, and words are not found inside others."""

from __future__ import annotations

import tomllib
from importlib.resources import files

import polars as pl
import pytest

from pipeline.features import FAMILIES, NAMES
from pipeline.features.elicitation import TAIL_CHARS, WHOLE_BYTES, asked, lexicon
from pipeline.features.engine import AccountStates
from tests.unit.features.logs import log

LEXICONS = {
    file.name: tomllib.loads(file.read_text(encoding="utf-8"))
    for file in files("pipeline.features").joinpath("lexicons").iterdir()
}
KINDS = ["reasoning", "grading", "rewriting"]


def kinds_of(text: str) -> list[str]:
    return [kind for kind, mask in asked(pl.Series([text])).items() if mask[0]]


@pytest.mark.parametrize("language", sorted(LEXICONS))
def test_each_lexicon_has_three_lists_of_phrases(language: str) -> None:
    lists = LEXICONS[language]
    assert list(lists) == KINDS
    for phrases in lists.values():
        assert len(phrases) >= 10
        assert len(set(phrases)) == len(phrases)
        for phrase in phrases:
            assert phrase == phrase.strip().lower()
            assert len(phrase) >= 2


@pytest.mark.parametrize("kind", KINDS)
def test_every_phrase_is_found_wherever_it_stands(kind: str) -> None:
    phrases = pl.Series(lexicon()[kind])
    for texts in (phrases, "A: " + phrases + ".", "(" + phrases.str.to_uppercase() + ")", "x" * 900 + "\n" + phrases):
        missed = phrases.filter(pl.Series(~asked(texts)[kind])).to_list()
        assert missed == []


@pytest.mark.parametrize(
    ("text", "kinds"),
    (
        ("Generate the report and narrate the events.", []),
        ("What is the capital of France?", []),
        ("", []),
        ("Rate the two essays and show your reasoning", ["reasoning", "grading"]),
        ("Reescribe esto con un tono neutral", ["rewriting"]),
        ("請給出推理過程", ["reasoning"]),
        ("Bewerte die Antwort auf einer Skala", ["grading"]),
    ),
)
def test_what_texts_ask_for(text: str, kinds: list[str]) -> None:
    assert kinds_of(text) == kinds


def test_of_long_texts_the_ends_are_looked_at() -> None:
    filling = "x" * WHOLE_BYTES
    assert kinds_of("step by step " + filling) == ["reasoning"]
    assert kinds_of(filling + " step by step") == ["reasoning"]
    assert kinds_of(filling + " step by step " + "x" * TAIL_CHARS) == []


def test_no_texts_ask_for_nothing() -> None:
    assert {kind: mask.tolist() for kind, mask in asked(pl.Series([], dtype=pl.String)).items()} == {
        kind: [] for kind in KINDS
    }


def test_what_the_system_prompt_asks_for_counts() -> None:
    systems = ["Score the essays.", None, "Be brief.", "Score the essays."] * 2
    row = AccountStates(FAMILIES).step(log(8, prompt="An essay", system_prompt=systems)).values[-1]
    assert row[NAMES.index("grading_asked_share_7d")] == 0.5
    assert row[NAMES.index("reasoning_asked_share_7d")] == 0
