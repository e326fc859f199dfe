"""How much a text says does not hang on how many bytes its alphabet takes."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from pipeline.features.events import length_of

TEXTS = {
    "": 0, "answer": 6, "ответь": 6, "απαντώ": 6, "أجب": 3, "请回答": 9, "답하다": 9, "😀": 3, "name: имя": 9, "第2题": 7,
}  # fmt: skip


def test_alphabets_count_alike_and_a_character_of_chinese_as_three_letters() -> None:
    assert length_of(pl.Series([*TEXTS, None])).tolist() == [*TEXTS.values(), -1]


@given(st.lists(st.none() | st.text(), max_size=20))
def test_it_is_the_sum_over_the_characters(texts: list[str | None]) -> None:
    expected = [-1 if text is None else sum(3 if ord(character) > 0x7FF else 1 for character in text) for text in texts]
    assert length_of(pl.Series(texts, dtype=pl.String)).tolist() == expected
