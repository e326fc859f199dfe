"""Feature rows: what the account states of one partition emit, and all that scoring sees of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

TICK: Final = 0
"""Kind of a row emitted because event time passed a boundary."""

COUNT: Final = 1
"""Kind of a row emitted because the account reached a number of events."""


@dataclass(frozen=True, slots=True)
class FeatureRows:
    """Rows in the order of their emission.

    Attributes:
        offset: int64[n], the record that triggered the row.
        kind: uint8[n], `TICK` or `COUNT`.
        account_id: n texts.
        key: uint64[n], XXH3-64 of `account_id`.
        scored_at: int64[n], the account's clock, microseconds of event time since the epoch, to the millisecond.
        first_seen: int64[n], when the account's present life began, microseconds since the epoch.
        exchanges: int64[n], events of the account's present life so far.
        output_tokens: int64[n], tokens it was answered in its present life so far.
        values: float32[n, len(FEATURES)]; NaN where a feature's inputs are absent.
    """

    offset: npt.NDArray[np.int64]
    kind: npt.NDArray[np.uint8]
    account_id: list[str]
    key: npt.NDArray[np.uint64]
    scored_at: npt.NDArray[np.int64]
    first_seen: npt.NDArray[np.int64]
    exchanges: npt.NDArray[np.int64]
    output_tokens: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.offset)

    def slice(self, start: int, stop: int) -> FeatureRows:
        """Rows `start` to `stop`, without a copy of their numbers."""
        return FeatureRows(*(getattr(self, field.name)[start:stop] for field in fields(self)))

    @classmethod
    def empty(cls, width: int) -> FeatureRows:
        """No rows, of `width` features."""
        no = np.zeros(0, np.int64)
        key, values = np.zeros(0, np.uint64), np.zeros((0, width), np.float32)
        return cls(no, np.zeros(0, np.uint8), [], key, no, no, no, no, values)

    @classmethod
    def concat(cls, parts: Sequence[FeatureRows]) -> FeatureRows:
        """One of several, in their order; at least one must be given."""
        if len(parts) == 1:
            return parts[0]
        columns: list[Any] = []
        for field in fields(cls):
            pieces = [getattr(part, field.name) for part in parts]
            joined = [name for piece in pieces for name in piece] if field.name == "account_id" else None
            columns.append(np.concatenate(pieces) if joined is None else joined)
        return cls(*columns)
