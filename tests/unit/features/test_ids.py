"""Accounts keep their rows, whatever their ids look like and however many of them have one hash."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.features import ids as module
from pipeline.features.hashing import Hashes, hashes
from pipeline.features.ids import AccountIds

LONG = "y" * 63
NAMES = ["", "a", "b", "ab", "ab\0", "éa", "12345678", "123456789", LONG, LONG + "z", LONG + "zz1", LONG + "zz2"]
STEPS = st.lists(
    st.tuples(st.booleans(), st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True)), max_size=12
)


def few(texts: pl.Series) -> Hashes:
    """Hashes of which three at most differ."""
    return np.asarray(hashes(texts) % np.uint64(3), np.uint64)


@pytest.mark.parametrize("hashed", (hashes, few))
@settings(deadline=None, max_examples=200)
@given(steps=STEPS)
def test_rows_are_those_of_a_dictionary(hashed: object, steps: list[tuple[bool, list[str]]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "hashes", hashed)
        known: dict[str, int] = {}
        ids = AccountIds()
        for drops, names in steps:
            if drops:
                gone = [known.pop(name) for name in names if name in known]
                ids.drop(np.array(gone, np.int64))
            else:
                rows, new, _ = ids.rows(pa.array(names, pa.large_string()))
                assert [names[at] for at in new.tolist()] == [name for name in names if name not in known]
                taken = set(known.values())
                for name, row in zip(names, rows.tolist(), strict=True):
                    assert known.setdefault(name, row) == row
                assert not taken & set(rows[new].tolist())
            assert len(ids) == len(known)
            assert ids.taken().tolist() == sorted(known.values())
            assert ids.names(ids.taken()) == sorted(known, key=known.__getitem__)
            assert ids.chars == sum(map(len, known))


def test_the_rows_of_those_who_left_are_given_to_others() -> None:
    ids = AccountIds()
    for number in range(100):
        rows, _, _ = ids.rows(pa.array([f"{number}-{i}" for i in range(10)], pa.large_string()))
        ids.drop(rows)
    assert ids.rows_used == 10
