"""Views made and moved with NumPy hold what Arrow's own functions would put there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline.text_views import PADDING, ViewsBuilder, heads, kept, moved, nulls, reordered, tails, taken

TEXTS = st.lists(st.none() | st.text(max_size=30), max_size=20)


def buffer_of(texts: list[str | None]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All texts behind each other, with padding; where each begins, and its length."""
    encoded = [(text or "").encode() for text in texts]
    length = np.array([len(text) for text in encoded], dtype=np.int64)
    data = np.frombuffer(b"".join(encoded) + b"\xff" * PADDING, dtype=np.uint8)
    return data, np.cumsum(length) - length, length


def built(texts: list[str | None]) -> pa.Array:
    data, start, length = buffer_of(texts)
    builder = ViewsBuilder(len(texts))
    builder.put(data, start, length)
    return builder.array(np.array([text is not None for text in texts], dtype=np.bool_))


@given(TEXTS)
def test_built_views_are_the_texts(texts: list[str | None]) -> None:
    array = built(texts)
    array.validate(full=True)
    assert array.type == pa.string_view()
    assert array.to_pylist() == texts
    assert array.null_count == texts.count(None)


@given(TEXTS, st.data())
def test_some_texts_may_lie_in_another_buffer(texts: list[str | None], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.sampled_from(range(len(texts))), unique=True) if texts else st.just([]))
    others = data.draw(st.lists(st.text(max_size=30), min_size=len(rows), max_size=len(rows)))
    builder = ViewsBuilder(len(texts))
    builder.put(*buffer_of(texts))
    builder.put(*buffer_of(list(others)), np.array(rows, dtype=np.int64))
    array = builder.array()
    array.validate(full=True)
    expected = [text or "" for text in texts]
    for row, other in zip(rows, others, strict=True):
        expected[row] = other
    assert array.to_pylist() == expected


@given(TEXTS, TEXTS, st.data())
def test_taken_is_what_take_gives(one: list[str | None], two: list[str | None], data: st.DataObject) -> None:
    """Also of an array that was joined from others and sliced."""
    joined = pa.concat_arrays([built(one), built(two)])
    skip = data.draw(st.integers(0, len(joined)))
    array, expected = joined.slice(skip), (one + two)[skip:]
    order = data.draw(st.lists(st.sampled_from(range(len(expected))), max_size=30) if expected else st.just([]))
    found = taken(array, np.array(order, dtype=np.int64))
    found.validate(full=True)
    assert found.to_pylist() == [expected[place] for place in order]


@given(TEXTS)
def test_moved_texts_are_the_same_in_their_own_memory(texts: list[str | None]) -> None:
    padded = [*texts, "x" * 1000]
    array = built(padded).slice(0, len(texts))
    found = moved(array)
    found.validate(full=True)
    assert found.type == pa.string_view()
    assert found.to_pylist() == texts
    assert found.nbytes <= sum(16 + 4 * len(text or "") for text in texts) + 16


@given(
    st.lists(st.tuples(st.none() | st.text(max_size=20), st.none() | st.integers(0, 9)), min_size=1, max_size=20),
    st.data(),
)
def test_rows_are_reordered_together(rows: list[tuple[Any, Any]], data: st.DataObject) -> None:
    table = pa.table(
        {
            "text": pa.chunked_array([pa.array([text], pa.string_view()) for text, _ in rows]),
            "number": pa.chunked_array([pa.array([number], pa.int64()) for _, number in rows]),
            "nothing": pa.nulls(len(rows), pa.string_view()),
        }
    )
    expected = [{"text": text, "number": number, "nothing": None} for text, number in rows]
    order = data.draw(st.permutations(range(len(rows))))
    assert reordered(table, np.array(order)).to_pylist() == [expected[place] for place in order]
    some = np.array([place % 2 == 0 for place in range(len(rows))])
    assert kept(table, some).to_pylist() == expected[::2]


def test_nulls_of_any_number_share_their_memory() -> None:
    few, many = nulls(3, pa.string_view()), nulls(70_000, pa.string_view())
    assert (len(few), few.null_count, len(many), many.null_count) == (3, 3, 70_000, 70_000)
    assert nulls(5, pa.string_view()).buffers()[1].address == nulls(60_000, pa.string_view()).buffers()[1].address


@given(TEXTS, st.integers(13, 40), st.integers(0, 5))
def test_heads_and_tails_are_slices_of_bytes(texts: list[str | None], size: int, start: int) -> None:
    array = pa.chunked_array([built(texts), built(["other, and long enough", None])]).combine_chunks().slice(start)
    raw = [None if text is None else text.encode() for text in array.to_pylist()]
    for made, expected in (
        (heads(array, size), [None if text is None else text[:size] for text in raw]),
        (tails(array, size), [None if text is None else text[-size:] for text in raw]),
    ):
        made.validate(full=True)
        assert made.type == pa.binary_view()
        assert made.to_pylist() == expected
