"""Matrices as Arrow tables and back, for snapshots: plain data, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import SchemaError


def table_of(**matrices: npt.NDArray[Any]) -> pa.Table:
    """A column for each array [n] or [n, F]; a matrix becomes lists of fixed size."""
    return pa.table({name: _column_of(matrix) for name, matrix in matrices.items()})


def matrix_of(table: pa.Table, name: str, dtype: Any, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """The array in column `name`; -1 in `shape` stands for any length.

    Raises:
        SchemaError: there is no such column, or it is of another shape.
    """
    if name not in table.column_names:
        raise SchemaError(f"a snapshot of the models lacks the column {name}")
    column = table[name].combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # empty columns have no chunk to combine
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], type=column.type)
    values = column.flatten() if pa.types.is_fixed_size_list(column.type) else column
    flat = values.to_numpy(zero_copy_only=False).astype(dtype, copy=True)
    size = int(np.prod(shape[1:])) if len(shape) > 1 else 1
    rows = len(flat) // size if size else len(column)
    if rows * size != len(flat) or shape[0] not in {-1, rows}:
        raise SchemaError(f"a snapshot of the models holds {len(flat)} numbers as {name}: not of the shape {shape}")
    matrix: npt.NDArray[Any] = flat.reshape((rows, *shape[1:]))
    return matrix


def _column_of(matrix: npt.NDArray[Any]) -> pa.Array:
    if matrix.ndim == 1:
        return pa.array(matrix)
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])
