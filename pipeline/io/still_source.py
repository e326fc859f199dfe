"""What sources have in common that lie still: files, or rows of the lake.  All their partitions are this reader's."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from pipeline.batch import Partition, Records
from pipeline.ports import Assigned, LogState, Polled

NO_TIMESTAMP: Final = -1
"""Stands for the Kafka timestamp of a record that has none."""

_FAR: Final = 1 << 62
"""Where such a log ends: its source alone knows."""


class Endless:
    """Says of a log without an end of its own what a broker would, at once.

    Args:
        first: the first offset that it holds.
    """

    def __init__(self, first: int = 0) -> None:
        self._first = first

    def result(self) -> LogState:
        """What it holds."""
        return LogState(self._first, _FAR)


class StillSource(ABC):
    """A `pipeline.ports.FiniteSource` that waits for nobody.

    Attributes:
        positions: of each partition that is opened, the offset of its next record.
        exhausted: whether all of it was polled.
        passed: records that are behind, those among them that were landed before.
    """

    def __init__(self, partitions: Sequence[Partition]) -> None:
        self.partitions = partitions
        self.positions: dict[Partition, int] = {}
        self.exhausted = not partitions
        self.passed = 0
        self._paused: set[Partition] = set()
        self._announced = False
        self._chunks: Iterator[list[Records]] | None = None

    @property
    @abstractmethod
    def address(self) -> str:
        """What is read, for people."""

    @abstractmethod
    def read(self) -> Iterator[list[Records]]:
        """Give everything that stands at `positions` or after; called when all partitions are opened."""

    @property
    def silent_s(self) -> float:
        """It always answers."""
        return 0.0

    def poll(self, timeout_s: float) -> Polled:
        """The next records, once every partition is opened; none while one is paused."""
        if not self._announced:
            self._announced = True
            return Polled([Assigned(self.partitions)], [])
        if self._paused or len(self.positions) < len(self.partitions):
            time.sleep(timeout_s)
            return Polled([], [])
        if self._chunks is None:
            self._chunks = self.read()
        chunk = next(self._chunks, None)
        self.exhausted = chunk is None
        return Polled([], chunk or [])

    def first_offset(self, partition: Partition) -> int:
        """Where a partition begins."""
        del partition
        return 0

    def survey(self, partition: Partition, leader_epoch: int) -> Endless:
        """What the log holds: everything, from offset 0 on."""
        del partition, leader_epoch
        return Endless()

    def read_from(self, partition: Partition, offset: int, leader_epoch: int) -> bool:
        """Give of a partition only what stands at an offset or after it."""
        del leader_epoch
        self.positions[partition] = offset
        self._paused.discard(partition)
        self._chunks = None
        return True

    def position(self, partition: Partition) -> int | None:
        """Offset of the next record; of a partition that is not opened, 0."""
        return self.positions.get(partition, 0)

    def leader_epoch(self, partition: Partition, offset: int) -> int:
        """There is none."""
        del partition, offset
        return -1

    def pause(self, partitions: Iterable[Partition]) -> None:
        """Give nothing at all meanwhile: all partitions are read together."""
        self._paused.update(partitions)

    def resume(self, partitions: Iterable[Partition]) -> None:
        """Go on."""
        self._paused.difference_update(partitions)

    def hint(self, offsets: Mapping[Partition, int]) -> None:
        """Nobody wants to know."""
        del offsets

    def lag(self, partitions: Iterable[Partition]) -> int | None:
        """Not known by partition."""
        del partitions
        return None
