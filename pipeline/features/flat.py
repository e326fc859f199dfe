"""Columns of text as one run of bytes, for work that NumPy does on all texts at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import text_views

if TYPE_CHECKING:
    import polars as pl
else:
    from pipeline.late import polars as pl

Bytes = npt.NDArray[np.uint8]
Ends = npt.NDArray[np.int64]


def flat(texts: pl.Series) -> tuple[Bytes, Ends]:
    """All bytes of some texts, and where each text begins.

    Args:
        texts: String or Binary, n of them; a null has no bytes.

    Returns:
        The bytes one text after the other, and n + 1 places in them: text i is from place i to place i + 1.
    """
    array: pa.LargeBinaryArray = texts.cast(pl.Binary).to_arrow().cast(pa.large_binary())
    ends = np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(array.buffers()[2] or b"", np.uint8)[int(ends[0]) : int(ends[-1])]
    return data, ends - ends[0]


def series(data: Bytes, ends: Ends) -> pl.Series:
    """Such bytes as a column of Binary again."""
    parts = [None, pa.py_buffer(np.ascontiguousarray(ends, np.int64)), pa.py_buffer(np.ascontiguousarray(data))]
    return pl.Series(pl.from_arrow(pa.Array.from_buffers(pa.large_binary(), len(ends) - 1, parts)))


def heads(texts: pl.Series, size: int) -> pl.Series:
    """The first bytes of each text (String or Binary), as Binary; `size` is more than 12.  No byte is moved."""
    return _of_views(text_views.heads(_views(texts), size))


def tails(texts: pl.Series, size: int) -> pl.Series:
    """The last bytes of each text (String or Binary), as Binary; `size` is more than 12.  No byte is moved."""
    return _of_views(text_views.tails(_views(texts), size))


def _views(texts: pl.Series) -> pa.Array:
    return texts.cast(pl.Binary).to_arrow(compat_level=pl.CompatLevel.newest())


def _of_views(array: pa.Array) -> pl.Series:
    return pl.Series(pl.from_arrow(array))
