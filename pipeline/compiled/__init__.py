"""Loops in C, where a machine has a C compiler: the same results to the bit, in less time.

The C files here are built when the package is installed, into a library beside this file.  Where there is none (no
compiler when it was installed), `LOOPS` is None and callers make NumPy's passes instead.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Nodes = npt.NDArray[np.void]

VERSION: Final = 3
"""Of the library's functions: LOOPS_VERSION of loops.h."""

NODE: Final = np.dtype([("left", "i4"), ("column", "i4"), ("threshold", "f8")])
"""A node of a tree, as `node_t` of trees.c has it."""

KINDS: Final = ("text", "integer", "boolean", "number", "time")
"""Kinds of fields, in the order of their numbers in events.c."""

FIELD: Final = np.dtype(
    [
        ("name", "u8", 3), ("mask", "u8", 3), ("minimum", "i8"), ("maximum", "i8"),
        ("name_bytes", "i4"), ("kind", "i4"), ("slot", "i4"), ("required", "i4"),
    ]
)  # fmt: skip
"""A field of an event, as `field_t` of events.c has it."""


def _array(dtype: npt.DTypeLike, dimensions: int) -> Any:
    """The type of an argument: another dtype, shape or layout in memory is a TypeError, not a wrong read."""
    return np.ctypeslib.ndpointer(dtype, dimensions, flags="C_CONTIGUOUS")


_NODES, _FLOATS_1D, _FLOATS_2D = _array(NODE, 1), _array(np.float64, 1), _array(np.float64, 2)
_INTS_1D, _INTS_2D, _SMALL_INTS = _array(np.int64, 1), _array(np.int64, 2), _array(np.int32, 1)
_SIZE, _ADDRESSES = ctypes.c_int64, ctypes.POINTER(ctypes.c_void_p)

_ARGUMENTS: Final = {
    "events": (
        ctypes.c_void_p, _INTS_1D, _SIZE, _array(FIELD, 1), _SIZE, _array(np.bool_, 2), _array(np.uint64, 3), _INTS_2D,
        _array(np.bool_, 2), _array(np.int64, 3), _array(np.uint8, 1), _INTS_1D, _array(np.bool_, 1),
    ),
    "leaves": (_NODES, _INTS_1D, _SIZE, _FLOATS_2D, _SIZE, _SIZE, _INTS_2D),
    "told_at": (_INTS_2D, _SIZE, _SIZE, _FLOATS_2D, _SIZE, _FLOATS_2D),
    "moved_by": (
        _NODES, _INTS_1D, _SIZE, _FLOATS_2D, _SIZE, _SIZE, _FLOATS_2D, _SIZE, _INTS_1D, _SMALL_INTS, _FLOATS_1D,
        _FLOATS_2D,
    ),
}  # fmt: skip


class EventColumns:
    """Room for the values of a piece of payloads, used again for each: new memory is not in the cache.

    Args:
        fields: how many there are of each of `KINDS`, times among the integers.

    Attributes:
        views: uint64[texts, n, 2].
        integers: int64[integers and times, n].
        booleans: bool[booleans, n].
        numbers: int64[numbers, 2, n]: where each begins, and its bytes.
        unescaped: uint8: texts that had escapes.
    """

    def __init__(self, fields: Mapping[str, int]) -> None:
        self._fields = fields
        self._rows_max = 0
        self._room: dict[str, npt.NDArray[Any]] = {}
        self.unescaped = np.empty(0, np.uint8)
        self.resize(0, 0)

    def resize(self, rows: int, size: int) -> None:
        """Make room for so many rows of payloads of so many bytes; nothing that was there need be."""
        if size > len(self.unescaped):
            self.unescaped = np.empty(size, np.uint8)
        if rows >= self._rows_max:
            self._rows_max = rows + rows // 4 + 1
            shapes = {
                "text": (2, np.uint64),
                "integer": (1, np.int64),
                "boolean": (1, np.bool_),
                "number": (2, np.int64),
            }
            self._room = {
                kind: np.empty(self._fields[kind] * self._rows_max * width, dtype)
                for kind, (width, dtype) in shapes.items()
            }
        self.views = self._first("text", rows, 2)
        self.integers = self._first("integer", rows)
        self.booleans = self._first("boolean", rows)
        self.numbers = self._first("number", 2, rows)

    def _first(self, kind: str, *shape: int) -> npt.NDArray[Any]:
        shape = (self._fields[kind], *shape)
        return self._room[kind][: math.prod(shape)].reshape(shape)


class Events(NamedTuple):
    """What payloads said.

    Attributes:
        valid: bool[fields, n]: which values are not null; of no meaning for fields that no payload has.
        counts: int64[fields]: how many are not null.
        proven: bool[n]: of other payloads all values are null.
    """

    valid: npt.NDArray[np.bool_]
    counts: Ints
    proven: Mask


class Loops:
    """What the C files do, on arrays.

    Args:
        library: with their functions.

    Nodes and leaves are places in the arrays that they belong to; nothing here looks whether they are.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        for name, types in _ARGUMENTS.items():
            function = getattr(library, name)
            function.argtypes, function.restype = types, None
        library.record_positions.argtypes = (ctypes.c_char_p, _SIZE, _INTS_1D, _INTS_1D, _SIZE, _INTS_1D)
        library.record_positions.restype = _SIZE
        library.move.argtypes = (_array(np.uint64, 2), _SIZE, _ADDRESSES, ctypes.c_void_p)
        library.move.restype = _SIZE
        self._library = library

    @classmethod
    def found(cls, folder: Path = Path(__file__).parent) -> Self | None:
        """The library in a folder; None where there is none of these sources and this machine."""
        for suffix in EXTENSION_SUFFIXES:
            file = folder / f"_loops{suffix}"
            if file.is_file():
                try:
                    library = ctypes.CDLL(str(file))
                    library.loops_version.restype = _SIZE
                    return cls(library) if library.loops_version() == VERSION else None
                except (OSError, AttributeError):  # cut short, of another machine, or of other sources
                    return None
        return None

    def events(self, payloads: pa.Buffer, starts: Ints, fields: npt.NDArray[np.void], columns: EventColumns) -> Events:
        """Read payloads into columns, whose values are of the fields that `counts` has.

        Args:
            payloads: UTF-8, with 32 bytes behind the last one, a `null` first.
            starts: int64[n + 1], where each begins, and where the last one ends.
            fields: `FIELD`, at most 63.
            columns: where values are put.
        """
        rows = len(starts) - 1
        columns.resize(rows, payloads.size)
        found = Events(
            np.empty((len(fields), rows), np.bool_), np.empty(len(fields), np.int64), np.empty(rows, np.bool_)
        )
        self._library.events(
            payloads.address, starts, rows, fields, len(fields), found.valid, columns.views, columns.integers,
            columns.booleans, columns.numbers, columns.unescaped, found.counts, found.proven,
        )  # fmt: skip
        return found

    def record_positions(self, buffer: bytes, ends: Sequence[int], counts: Sequence[int]) -> Ints | None:
        """Where each record begins: see `pipeline.io.record_walk`; None where a batch does not end as it should.

        Args:
            buffer: the records of batches, one behind the other, and padding.
            ends: where each batch ends.
            counts: how many records it has.
        """
        positions = np.empty(sum(counts), np.int64)
        ends_of, counts_of = np.array(ends, np.int64), np.array(counts, np.int64)
        done = self._library.record_positions(buffer, len(buffer), ends_of, counts_of, len(ends), positions)
        return positions if done else None

    def moved(
        self, views: npt.NDArray[np.uint64], buffers: Sequence[pa.Buffer]
    ) -> tuple[npt.NDArray[np.uint64], pa.Buffer]:
        """Texts behind each other in a buffer of their own: views of them, uint64[n, 2], and the buffer.

        Args:
            views: of 16 bytes, uint64[n, 2]; zeros for a null.
            buffers: that they point into.
        """
        made, addresses = views.copy(), (ctypes.c_void_p * len(buffers))(*(buffer.address for buffer in buffers))
        heap = np.empty(self._library.move(made, len(made), addresses, None), np.uint8)
        self._library.move(made, len(made), addresses, heap.ctypes.data)
        return made, pa.py_buffer(heap)

    def leaves(self, nodes: Nodes, roots: Ints, values: Floats) -> Ints:
        """The leaf of each row in each tree, int64[T, n]: see `MondrianTrees.leaves`.

        Args:
            nodes: `NODE`[N].
            roots: int64[T].
            values: float64[n, columns] without NaN.
        """
        leaves = np.empty((len(roots), len(values)), np.int64)
        self._library.leaves(nodes, roots, len(roots), values, *values.shape, leaves)
        return leaves

    def told_at(self, leaves: Ints, told: Floats) -> Floats:
        """The sum of what each row's leaves say, float64[n, K], tree by tree.

        Args:
            leaves: int64[T, n].
            told: float64[N, K].
        """
        sums = np.empty((leaves.shape[1], told.shape[1]))
        self._library.told_at(leaves, *leaves.shape, told, told.shape[1], sums)
        return sums

    def moved_by(self, nodes: Nodes, roots: Ints, values: Floats, told: Floats, kind: Ints) -> Floats:
        """How much splits on each column moved each row, summed over all trees, float64[n, columns].

        Args:
            nodes: `NODE`[N].
            roots: int64[T].
            values: float64[n, columns] without NaN.
            told: float64[N, K].
            kind: int64[n], a column of `told` for each row.
        """
        moved = np.zeros(values.shape)
        room = np.empty(len(roots), np.int32), np.empty(values.shape[1])
        self._library.moved_by(nodes, roots, len(roots), values, *values.shape, told, told.shape[1], kind, *room, moved)
        return moved


LOOPS: Final = Loops.found()
"""The loops that this installation has; None where it was installed without a C compiler."""
