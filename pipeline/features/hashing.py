"""XXH3-64 of columns of text, the only form in which text enters the state.

Polars' own hash changes from release to release, so a snapshot made with one would mean nothing to the next.  XXH3 is
published and fixed: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

if TYPE_CHECKING:
    import polars as pl
    import polars_hash as plh
else:
    from pipeline.late import polars as pl
    from pipeline.late import polars_hash as plh

Hashes = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

_MULTIPLIER: Final = np.uint64(0x9E3779B97F4A7C15)
_SHIFT: Final = np.uint64(32)
_TEXT: Final = "text"


@cache
def _xxh3() -> pl.Expr:
    return plh.col(_TEXT).nchash.xxh3_64()


def hashes(texts: pl.Series) -> Hashes:
    """XXH3-64 of each text (or of each run of bytes); 0 where there is none.

    Args:
        texts: String or Binary.
    """
    found = pl.DataFrame({_TEXT: texts.cast(pl.Binary)}).select(_xxh3()).to_series()
    return np.asarray((found.fill_null(0) if found.null_count() else found).to_numpy(), np.uint64)


def keys(ids: Sequence[str]) -> Hashes:
    """XXH3-64 of account ids."""
    return np.fromiter((xxhash.xxh3_64_intdigest(name.encode()) for name in ids), np.uint64, len(ids))


def mixed(numbers: npt.NDArray[np.uint64]) -> Hashes:
    """Numbers spread over 64 bits: the finaliser of SplitMix64, a permutation, so distinct numbers stay distinct.

    Source: Steele, Lea, Flood, Fast splittable pseudorandom number generators, 2014 (constants of Stafford's Mix13).
    """
    x = numbers + _MULTIPLIER
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def grouped(hashes: Hashes) -> tuple[Ints, Ints]:
    """The different ones among some hashes: where the first of each is, and the number of each hash's group.

    `numpy.unique` sorts stably to say the same, which takes several times as long.
    """
    order = np.argsort(hashes)
    ascending = hashes[order]
    is_head = np.ones(len(hashes), np.bool_)
    np.not_equal(ascending[1:], ascending[:-1], out=is_head[1:])
    group = np.empty(len(hashes), np.int64)
    group[order] = np.cumsum(is_head) - 1
    heads = np.flatnonzero(is_head)
    return np.minimum.reduceat(order, heads) if len(heads) else heads, group


def neighbours(hashes: Hashes) -> Ints:
    """An order in which equal hashes are neighbours, and those that are equal stay in the order in which they came.

    Sorted by 32 of their bits, in two passes of 16, of which NumPy sorts ten times as fast as of 64.
    """
    order = np.argsort(hashes.astype(np.uint16), kind="stable")
    high = (hashes >> np.uint64(16)).astype(np.uint16).take(order)
    order = order.take(np.argsort(high, kind="stable"))
    ascending = hashes.take(order)
    alike = ascending.astype(np.uint32)
    if ((alike[1:] == alike[:-1]) & (ascending[1:] != ascending[:-1])).any():  # the 32 bits do not tell them apart
        return np.argsort(hashes, kind="stable")
    return order


def numbered(hashes: Hashes) -> tuple[Ints, Ints]:
    """What `grouped` says, quicker where few are different: numbers are given in the order in which hashes come."""
    group = pa.array(hashes).dictionary_encode().indices.to_numpy().astype(np.int64)
    latest = np.maximum.accumulate(group)
    return np.flatnonzero(np.diff(latest, prepend=-1)), group


def joined(first: Hashes, second: Hashes) -> Hashes:
    """One hash of two, in which their order counts."""
    return mixed(first * _MULTIPLIER ^ (second ^ second >> _SHIFT))
