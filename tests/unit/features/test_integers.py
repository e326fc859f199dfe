"""Numbers made of integers are near what they estimate, and exact where they must be."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from pipeline.features.fields import Field, Layout, Merge, View, counter, merge_into
from pipeline.features.hashing import hashes, mixed
from pipeline.features.integers import (
    cells_taken,
    distinct_registers,
    entropy,
    log2,
    log2_q,
    mean_spread,
    ratio,
    register_of,
)


@given(st.integers(1, 1 << 41))
def test_log2_is_near(x: int) -> None:
    assert log2(np.array([x]))[0] == pytest.approx(np.log2(x), abs=3e-5)
    assert log2_q(np.array([x]))[0] / 64 == pytest.approx(np.log2(x), abs=0.11)


def test_what_has_no_logarithm_or_no_divisor_is_null() -> None:
    assert np.isnan(log2(np.array([0, -1, np.nan]))).all()
    assert np.isnan(ratio(np.array([1.0, 1.0]), np.array([0.0, np.nan]))).all()
    assert np.isnan(entropy(np.zeros((1, 4), np.uint16))).all()
    assert np.isnan(mean_spread(np.array([0]), np.array([0]), np.array([0]))).all()


def test_entropy_is_that_of_shannon() -> None:
    assert entropy(np.array([[5, 5, 0, 0], [9, 0, 0, 0], [1, 1, 1, 1]], np.uint16)) == pytest.approx(
        [1, 0, 2], abs=1e-3
    )


@pytest.mark.parametrize("count", (16, 32, 64))
@pytest.mark.parametrize("distinct", (1, 5, 60, 1000, 20_000))
def test_registers_estimate_the_number_of_distinct_values(count: int, distinct: int) -> None:
    """On average over many sets of values within a tenth; each has about the error that the paper says."""
    sets = 60
    registers = np.zeros((sets, count), np.uint8)
    for number in range(sets):
        values = np.arange(distinct, dtype=np.uint64) + np.uint64(number << 40)
        register, rank = register_of(mixed(values), count)
        np.maximum.at(registers[number], register, rank)
    found = distinct_registers(registers)
    assert found.mean() == pytest.approx(distinct, rel=0.1)
    assert (np.abs(found - distinct) <= 1).all() or found.std() < 1.6 * 1.04 / np.sqrt(count) * distinct


def test_few_values_are_counted_whole() -> None:
    assert cells_taken(np.array([0, 1, 2, 3]), 64).tolist()[1:] == [1, 2, 3]
    assert np.isnan(cells_taken(np.array([0]), 64)[0])


def test_hashes_are_the_published_xxh3() -> None:
    """Of other lengths than one: the algorithm has several ways."""
    texts = ["", "a", "é中文", "x" * 16, "y" * 17, "z" * 129, "w" * 241, "v" * 5000, None]
    expected = [0 if text is None else xxhash.xxh3_64_intdigest(text.encode()) for text in texts]
    assert hashes(pl.Series(texts)).tolist() == expected
    assert hashes(pl.Series(texts).cast(pl.Binary)).tolist() == expected


BYTES = st.lists(st.integers(0, 255), min_size=3, max_size=3)


@given(BYTES, BYTES, BYTES, st.sampled_from([Merge.SATURATE, Merge.MAX, Merge.OR]))
def test_merging_is_associative_and_commutative(a: list[int], b: list[int], c: list[int], merge: Merge) -> None:
    def merged(*parts: list[int]) -> list[int]:
        into = np.array([parts[0]], np.uint8)
        for part in parts[1:]:
            merge_into(into, np.array([part], np.uint8), merge)
        return [int(x) for x in into[0]]

    assert merged(merged(a, b), c) == merged(a, merged(b, c)) == merged(c, b, a)


def test_saturating_stops_at_the_largest() -> None:
    into = np.array([[250, 255, 0]], np.uint8)
    merge_into(into, np.array([[10, 1, 7]], np.uint8), Merge.SATURATE)
    assert into.tolist() == [[255, 255, 7]]


def test_a_layout_refuses_two_fields_of_one_name() -> None:
    with pytest.raises(ValueError, match="same name"):
        Layout([counter("n"), Field("n", "u8", Merge.OR)])


def test_a_field_is_only_in_its_views() -> None:
    layout = Layout([counter("n")])
    with pytest.raises(KeyError, match="24h"):
        layout.part(np.zeros((1, layout.line_bytes[View.WEEK]), np.uint8), View.DAY, "n")
