"""The rows of files as a log, for the stream that lands Kafka's: partition by account as a producer would have it.

What it gives is a function of the files and their places: the partition of a row is that of its account by Kafka's own
partitioner, its offset is its file's first offset and its number there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.backtesting.partitioning import Partitioner
from pipeline.batch import Partition, Records
from pipeline.errors import ConfigError
from pipeline.io.replay import key_of
from pipeline.io.row_files import open_rows
from pipeline.ports import Assigned, LogState, Polled
from pipeline.sources import FeedFile
from pipeline.text_views import taken

_NO_TIMESTAMP: Final = -1
_FAR: Final = 1 << 62
"""Where the log of a feed ends: files can always be added."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A file that is to be read, and its place."""

    path: Path
    place: FeedFile


@dataclass(frozen=True, slots=True)
class Feed:
    """What is to be read.

    Attributes:
        topic: the feed's.
        partitions: how many it has.
        numbers: those that are read here.
        files: in the order of the feed.
    """

    topic: str
    partitions: int
    numbers: Sequence[int]
    files: Sequence[Planned] = field(repr=False)


class _Endless:
    """Says of a feed's log what a broker would."""

    def result(self) -> LogState:
        return LogState(0, _FAR)


class FileFeed:
    """A `pipeline.ports.Source` over files.  Its partitions are always this reader's."""

    def __init__(self, feed: Feed, check: Callable[[], None] = lambda: None) -> None:
        """Begin before the first row.

        Args:
            feed: what to read.
            check: called when all partitions are opened and before anything is read: whether the places still hold.
        """
        self._feed = feed
        self._check: Callable[[], None] | None = check
        self._partitions = [Partition(feed.topic, number) for number in feed.numbers]
        self._partitioner = Partitioner(feed.topic, feed.partitions)
        self._positions: dict[Partition, int] = {}
        self._paused: set[Partition] = set()
        self._announced = False
        self._chunks = self._read()
        self.exhausted = False
        self.passed = 0
        """Rows of the files that are behind, whether they were read here or landed before."""

    @property
    def address(self) -> str:
        """What is read, for people."""
        return self._feed.topic

    @property
    def silent_s(self) -> float:
        """A file always answers."""
        return 0.0

    def poll(self, timeout_s: float) -> Polled:
        """The next rows, once every partition is opened; none while one is paused."""
        if not self._announced:
            self._announced = True
            return Polled([Assigned(self._partitions)], [])
        if self._paused or len(self._positions) < len(self._partitions):
            time.sleep(timeout_s)
            return Polled([], [])
        if self._check is not None:
            self._check()
            self._check = None
        chunk = next(self._chunks, None)
        self.exhausted = chunk is None
        return Polled([], chunk or [])

    def first_offset(self, partition: Partition) -> int:
        """A feed begins at 0."""
        del partition
        return 0

    def survey(self, partition: Partition, leader_epoch: int) -> _Endless:
        """What the log holds: everything, from offset 0 on."""
        del partition, leader_epoch
        return _Endless()

    def read_from(self, partition: Partition, offset: int, leader_epoch: int) -> bool:
        """Give of a partition only what stands at an offset or after it."""
        del leader_epoch
        self._positions[partition] = offset
        self._paused.discard(partition)
        self._chunks = self._read()
        return True

    def position(self, partition: Partition) -> int | None:
        """Offset of the next row; of a partition that is not opened, 0."""
        return self._positions.get(partition, 0)

    def leader_epoch(self, partition: Partition, offset: int) -> int:
        """Files know none."""
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

    def lag(self, partitions: Iterable[Partition]) -> int | None:
        """Not known by partition."""
        del partitions
        return None

    def _read(self) -> Iterator[list[Records]]:
        self.passed = 0
        for file in self._feed.files:
            place = file.place
            if min(self._positions.values()) < place.next_offset:
                yield from self._read_file(file)
            self.passed += place.rows
            yield self._move_to(place.next_offset)

    def _read_file(self, file: Planned) -> Iterator[list[Records]]:
        before, row = self.passed, 0
        with open_rows(file.path) as chunks:
            for lines in chunks:
                first, row = file.place.first_offset + row, row + len(lines)
                if row > file.place.rows:
                    break
                found = self._records(lines, first)
                self.passed = before + row
                yield found
        self.passed = before
        if row != file.place.rows:
            raise ConfigError(
                f"{file.path}: it had {file.place.rows} rows when this backfill began and has others now: what was "
                "landed of it stays; let files be written to their end before they are backfilled"
            )

    def _records(self, lines: Sequence[bytes], first: int) -> list[Records]:
        """What of some lines is to be landed, by partition."""
        following = first + len(lines)
        if min(self._positions.values()) >= following:
            return []
        values = pa.array(lines, pa.binary()).cast(pa.binary_view())
        numbers = self._numbers(lines)
        offsets = np.arange(first, following)
        found = []
        for partition in self._partitions:
            stands = self._positions[partition]
            rows = np.flatnonzero((numbers == partition.number) & (offsets >= stands))
            whole = len(rows) == len(lines)
            some = values if whole else taken(values, rows)
            stamps = np.full(len(rows), _NO_TIMESTAMP, dtype=np.int64)
            if stands < following:
                self._positions[partition] = following
                found.append(Records(partition, some, offsets[rows], stamps, following))
        return found

    def _numbers(self, lines: Sequence[bytes]) -> npt.NDArray[np.int64]:
        if self._feed.partitions == 1:
            return np.zeros(len(lines), dtype=np.int64)
        keys = map(key_of, lines)  # a row without an account goes where Kafka would choose at random
        of = self._partitioner.number_of
        return np.array([0 if key is None else of(key.decode()) for key in keys], dtype=np.int64)

    def _move_to(self, offset: int) -> list[Records]:
        """Partitions without rows at a file's end have passed it, too."""
        self._positions = {partition: max(stands, offset) for partition, stands in self._positions.items()}
        return []
