"""Compiled code gives what NumPy gives, to the bit, and is used only where it fits."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import compiled
from pipeline.compiled import LOOPS, NODE, VERSION, Loops
from pipeline.decoding.pieces import NULL
from pipeline.events import ACCESS_FIELDS
from pipeline.scoring import mondrian_trees
from pipeline.scoring.mondrian_trees import MondrianTrees

SOURCES = Path(compiled.__file__).parent
needs_loops = pytest.mark.skipif(LOOPS is None, reason="no compiled code is installed here")


def test_it_is_installed_wherever_there_is_a_compiler() -> None:
    """Else a missing build step would only be seen as a job that is slow."""
    assert LOOPS is not None or shutil.which("cc") is None


def test_the_library_and_the_sources_are_of_one_version() -> None:
    assert re.findall(r"#define LOOPS_VERSION (\d+)", (SOURCES / "loops.h").read_text()) == [str(VERSION)]


def test_the_version_is_raised_with_the_sources() -> None:
    """A library that was left from before must not be taken for one of these: raise LOOPS_VERSION, VERSION and this."""
    sources = b"".join(file.read_bytes() for file in sorted(SOURCES.glob("*.[ch]")))
    assert (VERSION, hashlib.sha256(sources).hexdigest()[:16]) == (3, "5166b9f91fa331e6")


def test_the_fields_of_an_event_fit() -> None:
    """`compiled/events.c` keeps a bit a field, compares names by 24 bytes, and counts a text's bytes for its letters."""
    assert len(ACCESS_FIELDS) < 64
    assert all(len(field.name) < 24 and field.name.isascii() and field.length_min <= 1 for field in ACCESS_FIELDS)
    assert len(NULL) >= 24


@pytest.mark.parametrize("content", (b"", b"no library at all"))
def test_a_library_that_cannot_be_loaded_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "_loops.abi3.so").write_bytes(content)
    assert Loops.found(tmp_path) is None


def test_where_none_was_built_there_is_none(tmp_path: Path) -> None:
    assert Loops.found(tmp_path) is None


@needs_loops
def test_a_library_of_another_version_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "VERSION", VERSION + 1)
    assert Loops.found() is None


@needs_loops
def test_arrays_of_another_type_or_layout_are_refused() -> None:
    assert LOOPS is not None
    nodes, roots = np.zeros(1, NODE), np.zeros(1, np.int64)
    LOOPS.leaves(nodes, roots, np.zeros((3, 2)))
    for values in (np.zeros((3, 2), np.float32), np.zeros((2, 3)).T):
        with pytest.raises(Exception, match=r"argument 4.*array must"):
            LOOPS.leaves(nodes, roots, values)


# ---- trees

FEATURES = 5


def tree(draw: np.random.Generator, kinds: int, splits: int) -> MondrianTrees:
    """A tree that was split so often at leaves drawn by lot, with thresholds that rows may lie on."""
    left, right, leaves = [-1], [-1], [0]
    for _ in range(splits):
        node = leaves.pop(int(draw.integers(len(leaves))))
        left[node], right[node] = len(left), len(left) + 1
        leaves += [left[node], right[node]]
        left += [-1, -1]
        right += [-1, -1]
    count = len(left)
    return MondrianTrees.of_tree(
        np.array(left),
        np.array(right),
        draw.integers(0, FEATURES, count),
        draw.integers(-4, 5, count) / 4,
        draw.random((count, kinds)),
    )


@needs_loops
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    splits=st.lists(st.integers(0, 80), min_size=1, max_size=12),
    kinds=st.integers(1, 4),
    rows=st.sampled_from([0, 1, 2, 15, 16, 17, 40]),
)
def test_trees_are_descended_as_by_numpy(seed: int, splits: list[int], kinds: int, rows: int) -> None:
    draw = np.random.default_rng(seed)
    trees = MondrianTrees.joined([tree(draw, kinds, count) for count in splits])
    values = draw.integers(-5, 6, (rows, FEATURES)) / 4
    kind = draw.integers(0, kinds, rows)
    compiled_way = _all_of(trees, values, kind)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mondrian_trees, "LOOPS", None)
        numpy_way = _all_of(trees, values, kind)
    for found, expected in zip(compiled_way, numpy_way, strict=True):
        assert found.dtype == expected.dtype
        assert found.tobytes() == expected.tobytes()
        assert found.shape == expected.shape


def _all_of(trees: MondrianTrees, values: Any, kind: Any) -> list[Any]:
    leaves = trees.leaves(values)
    return [leaves, trees.proba_at(leaves), trees.predict_proba(values), trees.contributions(values, kind)]


def test_a_kind_that_trees_do_not_know_is_refused() -> None:
    for kind in (-1, 2):
        with pytest.raises(IndexError, match="kind"):
            tree(np.random.default_rng(1), 2, 9).contributions(np.zeros((1, FEATURES)), np.array([kind]))


@pytest.mark.parametrize(
    "spoiled",
    (
        lambda t: {
            "left": np.where(t.left > np.arange(len(t.left)), 0, t.left) + (np.arange(len(t.left)) == 0)
        },  # in circles
        lambda t: {"left": np.where(t.left == 1, len(t.left), t.left)},
        lambda t: {"feature": t.feature - 1},
        lambda t: {"roots": t.roots + len(t.left)},
        lambda t: {"roots": t.roots[:0]},
        lambda t: {"threshold": np.zeros(len(t.left))},  # a leaf that is left
        lambda t: {"left": np.where(t.left == 1, 2**31 - 1, t.left).astype(np.int32)},
        lambda t: {"probability": t.probability[:1]},
    ),
)
def test_nodes_that_lead_astray_are_refused(spoiled: Callable[[MondrianTrees], dict[str, Any]]) -> None:
    """Compiled code goes where nodes point."""
    whole = tree(np.random.default_rng(1), 1, 9)
    parts = {name: getattr(whole, name) for name in ("roots", "feature", "threshold", "left", "probability")}
    with pytest.raises(ValueError, match=r"trees"):
        MondrianTrees(**{**parts, **spoiled(whole)}).leaves(np.zeros((1, FEATURES)))
