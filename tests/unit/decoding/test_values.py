"""Numbers and booleans read from bytes are those that a JSON reader gives, or are left to it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.decoding.values import Floats, Values, booleans, integers
from pipeline.text_views import words_of

DIGITS = st.text("0123456789", min_size=1, max_size=22)
TOKENS = (
    st.integers(-(2**64), 2**64).map(str)
    | st.integers(-200, 2000).map(str)
    | st.floats(allow_nan=False, allow_infinity=False).map(repr)
    | DIGITS
    | DIGITS.map(lambda digits: "-" + digits)
    | st.sampled_from(["null", "true", "false", "nul", "nulls", "True", "-", "", "1e400", "1e5", "-0", "0", "00", "0.5", "+1", "NaN", "1 ", " 1", "1_0", "/0", "0:", "12345678", "123456789"])
    | st.text("0123456789-+.eEnultrfas:/", max_size=12)
)  # fmt: skip


def read(tokens: Sequence[str], function: object) -> Values:
    """The tokens, with other digits behind and before each, as in the bytes of a log."""
    data = b"".join(b"7" + token.encode() + b"7" for token in tokens) + bytes(16)
    length = np.array([len(token) for token in tokens], dtype=np.int64)
    start = np.cumsum(length + 2) - length - 1
    return function(words_of(np.frombuffer(data, dtype=np.uint8)), start, length)  # type: ignore[operator]


def found_in(values: Values) -> list[object]:
    """Values as Python has them: None for null, and `...` for what it is not sure of."""
    valid = np.ones(len(values.values), np.bool_) if values.valid is None else values.valid
    sure = np.ones(len(values.values), np.bool_) if values.sure is None else values.sure
    return [
        (value if is_valid else None) if is_sure else ...
        for value, is_valid, is_sure in zip(values.values.tolist(), valid, sure, strict=True)
    ]


def as_json(token: str) -> object:
    try:
        return orjson.loads(token)
    except orjson.JSONDecodeError:
        return ...


@given(st.lists(TOKENS, max_size=20))
def test_integers(tokens: list[str]) -> None:
    for token, found in zip(tokens, found_in(read(tokens, integers)), strict=True):
        if found is not ...:
            assert (found, type(found)) == (as_json(token), type(as_json(token)))
        elif token.isascii() and token.isdigit() and len(token) <= 18:
            assert token[0] == "0", "what is common is read here"


@given(st.lists(TOKENS, max_size=20))
def test_floats(tokens: list[str]) -> None:
    for token, found in zip(tokens, found_in(read(tokens, Floats().read)), strict=True):
        expected = as_json(token)
        if found is not ...:
            assert found == (None if expected is None else float(expected))
            assert not isinstance(expected, bool)
        elif len(token) <= 8 and isinstance(expected, int | float) and not isinstance(expected, bool):
            assert not math.isfinite(expected), "what is common is read here"


@given(st.lists(TOKENS, max_size=20))
def test_booleans(tokens: list[str]) -> None:
    expected = [{"true": True, "false": False, "null": None}.get(token, ...) for token in tokens]
    assert found_in(read(tokens, booleans)) == expected


def test_many_different_floats_are_read_and_not_kept_for_ever() -> None:
    floats = Floats()
    for begin in range(0, 20_000, 1_000):
        tokens = [f"0.{number:05}" for number in range(begin, begin + 1_000)]
        assert found_in(read(tokens, floats.read)) == [float(token) for token in tokens]
        assert len(floats._tokens) <= 4_096 + 1_000


@pytest.mark.parametrize("function", (integers, booleans, Floats().read))
def test_nothing_gives_nothing(function: object) -> None:
    assert found_in(read([], function)) == []
