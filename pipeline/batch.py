"""What travels through the pipeline: raw records of one partition, then the rows decoded from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa


class Partition(NamedTuple):
    """One partition of one Kafka topic."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.number}"


@dataclass(frozen=True, slots=True)
class Records:
    """Consecutive records of one partition as they came from Kafka, not yet decoded.

    Attributes:
        partition: where they come from.
        values: `binary_view`, one value a record; null where the record had none (a tombstone).
        offsets: int64, strictly increasing; gaps are normal (compaction, transaction markers, aborted records).
        timestamps: int64, the record's Kafka timestamp in milliseconds since the epoch; -1 where it has none.
        next_offset: where reading goes on: greater than the last offset, and past whatever was skipped after it.
    """

    partition: Partition
    values: pa.Array
    offsets: npt.NDArray[np.int64]
    timestamps: npt.NDArray[np.int64]
    next_offset: int

    def __len__(self) -> int:
        return len(self.offsets)

    @classmethod
    def joined(cls, parts: Sequence[Records]) -> Records:
        """Make one of consecutive records of one partition: whatever is done once a batch is then done less often."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            partition=parts[0].partition,
            values=pa.concat_arrays([part.values for part in parts]),
            offsets=np.concatenate([part.offsets for part in parts]),
            timestamps=np.concatenate([part.timestamps for part in parts]),
            next_offset=parts[-1].next_offset,
        )


@dataclass(frozen=True, slots=True)
class Decoded:
    """The rows of one `Records`, each record in exactly one of the two tables.

    Attributes:
        events: `pipeline.events.DECODED_SCHEMA`, in offset order.
        rejects: `pipeline.events.REJECT_SCHEMA`, in offset order.
    """

    events: pa.Table
    rejects: pa.Table

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the rows take; columns that nobody fills take none."""
        columns = [*self.events.columns, *self.rejects.columns]
        return sum(column.nbytes for column in columns if column.null_count < len(column))
