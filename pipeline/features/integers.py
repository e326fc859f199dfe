"""Numbers from integers, the same on every machine: tables and IEEE `+ - * / sqrt` only.

A mathematics library may round the last bit of a logarithm either way, and a vectorised one may round it otherwise at
the end of an array than in its middle.  Table entries are rounded coarser than that.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

Q: Final = 64
"""Steps of `log2_q` to a doubling."""

_MANTISSA: Final = 52
_BIAS: Final = 1023
_TABLE_BITS: Final = 16
_TABLE: Final = 1 << _TABLE_BITS
_DOUBTFUL: Final = 2**-8
"""Of a table's steps: many times what logarithms of doubles can be off by."""
_ALPHA: Final = {16: 0.673, 32: 0.697, 64: 0.709}
_RANK_MAX: Final = 40
_WEIGHT: Final = np.int64(1) << (_RANK_MAX - np.minimum(np.arange(256), _RANK_MAX))


@cache
def _log2_table() -> Floats:
    return _rounded(1 + np.arange(_TABLE) / _TABLE, 2.0**40) / 2**40


@cache
def _x_log2_x_table() -> Ints:
    numbers = np.arange(1, 1 << 16).astype(np.float64)
    return np.append(np.int64(0), _rounded(numbers, numbers * 1024).astype(np.int64))


def _rounded(x: Floats, times: Floats | float) -> Floats:
    """`round(times * log2(x))`; where a last bit could round it otherwise, as the machine's scalar logarithm has it."""
    times = np.broadcast_to(times, x.shape)
    exactly: Floats = np.log2(x) * times
    rounded: Floats = np.rint(exactly)
    for at in np.flatnonzero(np.abs(np.abs(exactly - rounded) - 0.5) < _DOUBTFUL).tolist():
        rounded[at] = round(math.log2(x[at]) * float(times[at]))
    return rounded


def log2_q(x: Ints) -> Ints:
    """About `Q * log2(x)`: Mitchell's line between powers of two, from a float's own bits; exact and monotone.

    Args:
        x: at least 1.

    Source: J. N. Mitchell, Computer multiplication and division using binary logarithms, 1962.
    """
    return (x.astype(np.float64).view(np.int64) >> (_MANTISSA - 6)) - (_BIAS << 6)


def log2(x: npt.NDArray[Any]) -> Floats:
    """log2 of positive numbers to four digits, from the exponent and a table; NaN where `x` is not positive."""
    bits = np.asarray(x).astype(np.float64).view(np.int64)
    found = (bits >> _MANTISSA) - _BIAS + _log2_table()[(bits >> (_MANTISSA - _TABLE_BITS)) & (_TABLE - 1)]
    return np.where(np.asarray(x) > 0, found, np.nan)


def ratio(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> Floats:
    """`a / b`; NaN where `b` is not positive."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    found = np.full(np.broadcast_shapes(a.shape, b.shape), np.nan)
    np.divide(a, b, out=found, where=b > 0)
    return found


def mean_spread(count: npt.NDArray[Any], total: npt.NDArray[Any], squares: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    """Mean and standard deviation from sums; NaN where nothing was counted."""
    mean = ratio(total, count)
    return mean, np.sqrt(np.maximum(ratio(squares, count) - mean * mean, 0))


def _by_cell(cells: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[n, cells] as [cells, n], in memory too: NumPy adds up a few long rows many times as fast as many short ones."""
    return np.ascontiguousarray(cells.T)


def entropy(counts: npt.NDArray[Any]) -> Floats:
    """Shannon entropy of counts up to 65,535, in bits.

    Args:
        counts: [n, cells].

    Returns:
        float64[n]; NaN where all are zero.
    """
    cells = _by_cell(counts)
    total = cells.sum(0, dtype=np.int64)
    return np.maximum(log2(total) - ratio(_x_log2_x_table().take(cells).sum(0), total * 1024), 0)


def top_share(counts: npt.NDArray[Any]) -> Floats:
    """The largest of the counts in the sum of them, [n, cells] → float64[n]; NaN where all are zero."""
    cells = _by_cell(counts)
    return ratio(cells.max(0), cells.sum(0, dtype=np.int64))


def cells_filled(counts: npt.NDArray[Any]) -> Ints:
    """How many of the cells are not zero, [n, up to 255 cells] → int64[n]."""
    filled: Ints = _by_cell(counts != 0).view(np.uint8).sum(0, dtype=np.uint8).astype(np.int64)
    return filled


def _linear_table(cells: int) -> Floats:
    return np.array([float(round(-cells * math.log(max(empty, 0.5) / cells))) for empty in range(cells + 1)])


_LINEAR: Final = {cells: _linear_table(cells) for cells in (8, 16, 32, 64, 128, 192, 256)}


def cells_taken(taken: npt.NDArray[Any], cells: int) -> Floats:
    """Whole number of distinct values by how many of the cells they hashed to are taken; NaN where none is.

    Source: Whang, Vander-Zanden, Taylor, A linear-time probabilistic counting algorithm, 1990.
    """
    return np.where(taken > 0, _LINEAR[cells][cells - taken.astype(np.int64)], np.nan)


def bits_set(words: Hashes) -> Ints:
    """How many bits are set in each row of words, [n, words] → int64[n]."""
    return np.asarray(_by_cell(np.bitwise_count(words)).sum(0, dtype=np.int64))


def distinct_bits(words: Hashes) -> Floats:
    """Distinct values of a bitmap [n, words] by linear counting; NaN where it is empty."""
    return cells_taken(bits_set(words), 64 * words.shape[1])


def distinct_registers(registers: npt.NDArray[np.uint8]) -> Floats:
    """Distinct values by HyperLogLog, [n, 16, 32 or 64] → float64[n]; linear counting while they are few.

    The standard error is 1.04 / sqrt(registers): 13 % of 64.  Empty registers give NaN.

    Source: Flajolet, Fusy, Gandouet, Meunier, HyperLogLog, 2007.
    """
    count = registers.shape[1]
    total = _WEIGHT.take(_by_cell(registers)).sum(0)
    raw = _ALPHA[count] * count * count * float(1 << _RANK_MAX) / total
    empty = count - cells_filled(registers)
    few = (raw <= 2.5 * count) & (empty > 0)
    return np.where(empty == count, np.nan, np.where(few, _LINEAR[count][empty], raw))


def register_of(hashes: Hashes, count: int) -> tuple[Ints, npt.NDArray[np.uint8]]:
    """HyperLogLog register and rank of each hash; rank 0, which changes nothing, where the hash is 0 (absent).

    Args:
        hashes: uint64[n].
        count: registers, a power of two up to 64.
    """
    above = (hashes >> np.uint64(6)) | np.uint64(1 << 57)
    rank = np.bitwise_count(above ^ (above - np.uint64(1)))  # the lowest bit that is set and all below it
    rank *= hashes != 0
    return (hashes & np.uint64(count - 1)).astype(np.int64), rank
