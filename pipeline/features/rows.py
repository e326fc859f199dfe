"""Rows of features: what the models score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class FeatureRows:
    """Rows in the order in which they were emitted.

    Attributes:
        offset: int64[n]: the record that triggered the row.
        kind: uint8[n]: 0 at a boundary of event time, 1 at a count.
        account_id: n texts.
        key: uint64[n]: XXH3-64 of the account id.
        scored_at: int64[n]: the account's clock, microseconds since the epoch.
        first_seen: int64[n]: when the account's present life began, microseconds.
        exchanges: int64[n]: events of the present life so far.
        output_tokens: int64[n]: of the present life so far.
        values: float32[n, F], in the order of FEATURES; NaN where the inputs are absent.
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

    def slice(self, start: int, stop: int) -> Self:
        """The rows from `start` up to `stop`."""
        return type(self)(*(getattr(self, name)[start:stop] for name in self.__slots__))

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """All rows of `parts`, of which there is at least one."""
        columns = [[getattr(part, name) for part in parts] for name in cls.__slots__]
        return cls(*(sum(c, []) if isinstance(c[0], list) else np.concatenate(c) for c in columns))
