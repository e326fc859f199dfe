"""What is kept of the accounts of one partition: columns by row number, and which account has which row.

Memory is bounded by accounts, whatever their events say: a row has `bytes_per_account` bytes, an id is kept once, and
`check` holds the number of rows, and the length of all ids, below limits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import SchemaError
from pipeline.features.clock import DAY, HORIZON, NEVER
from pipeline.features.fields import Layout, View
from pipeline.features.folding import Columns
from pipeline.features.ids import AccountIds

Ints = npt.NDArray[np.int64]

ID_CHARS: Final = 128
"""Characters of account ids that are kept, per account allowed: ids may be of any length, but not all of them long."""

BYTES_PER_ACCOUNT_MAX: Final = 3000
"""What all families' columns may take of each account: a million active accounts fit in 4 GB with their ids."""

_ROWS_MIN: Final = 1024
_BATCH_ROWS: Final = 4096
_OWN: Final = {
    "key": "u8",  # XXH3-64 of the id
    "phase": "i8",  # what shifts its hours and days, milliseconds
    "clock": "i8",  # milliseconds since the epoch; -NEVER: no event yet
    "born": "i8",  # when its present life began
    "due": "i8",  # when its next row is due by time; NEVER: not
    "seq": "i8",  # events of its present life
    "tokens": "i8",  # output tokens of its present life
    "fresh": "i8",  # events since its last row
}


class AccountColumns:
    """The rows of one partition's accounts.

    Args:
        layout: of all families' fields.
        carried: what families keep of an account's last event: name → NumPy type.
    """

    def __init__(self, layout: Layout, carried: Mapping[str, str]) -> None:
        self._layout = layout
        self._spec = {
            name: (1, 0, kind) for name, kind in (_OWN | {f"last_{k}": v for k, v in carried.items()}).items()
        }
        """Column → (lines a row, values a line or 0 for one, type)."""
        self._spec |= {view.name: (2, layout.line_bytes[view], "u1") for view in View}
        self._ids = AccountIds()
        self.columns: Final[Columns] = {}
        for name, (lines, width, kind) in self._spec.items():
            shape = (_ROWS_MIN * lines, width) if width else _ROWS_MIN * lines
            self.columns[name] = np.zeros(shape, kind)
        self._forget(np.arange(_ROWS_MIN))

    def __len__(self) -> int:
        """Accounts that have a row."""
        return len(self._ids)

    @property
    def rows_used(self) -> int:
        """Rows below this number may be an account's."""
        return self._ids.rows_used

    @property
    def bytes_per_account(self) -> int:
        """Bytes of columns that each account takes; its id and its place in the map come to about 140 more."""
        return sum(lines * max(width, 1) * np.dtype(kind).itemsize for lines, width, kind in self._spec.values())

    def id_of(self, row: int) -> str:
        """The account of a row.

        Raises:
            KeyError: nobody's.
        """
        name = self._ids.name(row)
        if name is None:
            raise KeyError(row)
        return name

    def ids_of(self, rows: Ints) -> list[str]:
        """The accounts of rows that are somebody's."""
        return self._ids.names(rows)

    def rows(self, ids: pa.LargeStringArray) -> Ints:
        """Rows of accounts, made where they are new.

        Args:
            ids: no two alike, none null.
        """
        found, new, hashed = self._ids.rows(ids)
        if len(new):
            self._grow(self.rows_used)
            key = hashed[new]
            self.columns["key"][found[new]] = key
            self.columns["phase"][found[new]] = (key % np.uint64(DAY)).astype(np.int64)
        return found

    def _grow(self, rows: int) -> None:
        have = len(self.columns["key"])
        if rows <= have:
            return
        size = max(rows, have * 9 // 8)
        for name, (lines, width, _) in self._spec.items():
            # In place, so that there is never a second copy of a large array; new memory is zero.
            self.columns[name].resize((size * lines, width) if width else size * lines, refcheck=False)
        self._forget(np.arange(have, size))

    def _forget(self, rows: Ints) -> None:
        self.columns["clock"][rows] = -NEVER
        self.columns["due"][rows] = NEVER

    def check(self, late: int, accounts_max: int) -> int:
        """Drop whoever has been silent past the horizon, and if need be whoever has been silent for longest.

        To be called at fixed places of the partition only, for the second kind of dropping can be noticed: an account
        that was dropped for room begins a new life with its next event, and what it was due to emit is not emitted.

        Args:
            late: the time that no later event can be older than, milliseconds.
            accounts_max: accounts to keep.

        Returns:
            How many were dropped for room.
        """
        self.drop_silent(late)
        over = len(self) - accounts_max
        chars_over = self._ids.chars - accounts_max * ID_CHARS
        if over <= 0 and chars_over <= 0:
            return 0
        rows = np.flatnonzero(self.columns["clock"][: self.rows_used] > -NEVER)
        by_age = rows[np.lexsort((self.columns["key"][rows], self.columns["clock"][rows]))]
        if chars_over > 0:
            sizes = np.cumsum([len(self.id_of(row)) for row in by_age.tolist()])
            over = max(over, int(np.searchsorted(sizes, chars_over)) + 1)
        self._drop(by_age[:over])
        return over

    def drop_silent(self, late: int) -> None:
        """Drop whoever has been silent past the horizon, which nobody can notice; `late` as in `check`."""
        clock = self.columns["clock"][: self.rows_used]
        self._drop(np.flatnonzero((clock > -NEVER) & (clock + HORIZON <= late)))

    def has_room(self, more: int, chars: int, accounts_max: int) -> bool:
        """Whether `check` would drop nobody for room, were there so many more accounts with ids of so many bytes."""
        return len(self) + more <= accounts_max and self._ids.chars + chars <= accounts_max * ID_CHARS

    def _drop(self, rows: Ints) -> None:
        self._ids.drop(rows)
        for name, (lines, _, _) in self._spec.items():
            for line in range(lines):
                self.columns[name][rows * lines + line] = 0
        self._forget(rows)

    def batches(self) -> pa.RecordBatchReader:
        """All accounts: `account_id`, and a column of bytes for each column of the state.

        Made batch by batch as they are read, so that there is never a second copy of all; to be read before the state
        changes.
        """
        rows = self._ids.taken()
        starts = range(0, len(rows), _BATCH_ROWS)
        return pa.RecordBatchReader.from_batches(
            self._schema, (self._batch(rows[start : start + _BATCH_ROWS]) for start in starts)
        )

    @property
    def _schema(self) -> pa.Schema:
        sizes = {
            name: max(width, 1) * lines * np.dtype(kind).itemsize for name, (lines, width, kind) in self._spec.items()
        }
        columns = [pa.field(name, pa.binary(size)) for name, size in sizes.items()]
        return pa.schema([pa.field("account_id", pa.large_string()), *columns])

    def _batch(self, rows: Ints) -> pa.RecordBatch:
        columns = [pa.array(self.ids_of(rows), pa.large_string())]
        for name, (lines, width, _) in self._spec.items():
            values = self.columns[name].reshape(-1, lines * max(width, 1))[rows]
            size = values.shape[1] * values.dtype.itemsize
            columns.append(pa.Array.from_buffers(pa.binary(size), len(rows), [None, pa.py_buffer(values)]))
        return pa.record_batch(columns, schema=self._schema)

    def fill(self, batches: pa.RecordBatchReader) -> None:
        """Take accounts from what `batches` made; what was here before is kept beside them.

        Raises:
            SchemaError: it has other columns, or of other sizes.
        """
        if not batches.schema.equals(self._schema):
            raise SchemaError(
                "the snapshot's account columns are not those of this version: replay from an older offset"
            )
        for batch in _readable(batches):
            rows = self.rows(batch["account_id"])
            for name, (lines, width, kind) in self._spec.items():
                column, size = batch[name], lines * max(width, 1)
                data = np.frombuffer(column.buffers()[1], kind)[column.offset * size :][: len(rows) * size]
                self.columns[name].reshape(-1, size)[rows] = data.reshape(len(rows), size)


def _readable(batches: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    try:
        yield from batches
    except (pa.ArrowInvalid, OSError) as error:
        raise SchemaError(f"the snapshot's accounts cannot be read: {' '.join(str(error).split())}") from error
