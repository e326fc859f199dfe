"""The rows of files as a log, for the stream that lands Kafka's: partition by account as a producer would have it.

What it gives is a function of the files and their places: the partition of a row is that of its account by Kafka's own
partitioner, its offset is its file's first offset and its number there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.backfilling.slices import Slice
from pipeline.backfilling.stated_times import stated_times
from pipeline.backtesting.partitioning import Partitioner
from pipeline.batch import Partition, Records
from pipeline.counted import counted
from pipeline.decode import Decoder
from pipeline.errors import ConfigError
from pipeline.io.ndjson import spoken
from pipeline.io.replay import key_of
from pipeline.io.row_files import open_rows
from pipeline.io.still_source import NO_TIMESTAMP, StillSource
from pipeline.sources import FeedFile
from pipeline.text_views import taken


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


class FileFeed(StillSource):
    """A `pipeline.ports.FiniteSource` over files."""

    def __init__(self, feed: Feed, check: Callable[[], None] = lambda: None) -> None:
        """Begin before the first row.

        Args:
            feed: what to read.
            check: called when all partitions are opened and before anything is read: whether the places still hold.
        """
        super().__init__([Partition(feed.topic, number) for number in feed.numbers])
        self._feed, self._check = feed, check
        self._partitioner = Partitioner(feed.topic, feed.partitions)
        self._decoder = Decoder()

    @property
    def address(self) -> str:
        """What is read, for people."""
        return self._feed.topic

    def read(self) -> Iterator[list[Records]]:
        """The rows of one file after the other."""
        self._check()
        self.passed = 0
        for file in self._feed.files:
            place = file.place
            if min(self.positions.values()) < place.next_offset:
                yield from self._read_file(file)
            self.passed += place.rows
            yield self._move_to(place.next_offset)

    def _read_file(self, file: Planned) -> Iterator[list[Records]]:
        before, row, part = self.passed, 0, file.place.of.part
        with open_rows(file.path) as chunks:
            for lines in chunks:
                first, row = file.place.first_offset + row, row + len(lines)
                if row > file.place.rows:
                    break
                found = self._records(lines, first, part)
                self.passed = before + row
                yield found
        self.passed = before
        if row != file.place.rows:
            raise ConfigError(
                f"{file.path}: it had {counted(file.place.rows, 'row')} when this backfill began and has "
                "others now: what was "
                "landed of it stays; let files be written to their end before they are backfilled; in a feed --give-up "
                "lets the next files be landed"
            )

    def _records(self, lines: Sequence[bytes], first: int, part: Slice) -> list[Records]:
        """What of some lines is to be landed, by partition; blank ones and those beyond their slice are passed over."""
        following = first + len(lines)
        if min(self.positions.values()) >= following:
            return []
        said, offsets = spoken(lines, first)
        values = pa.array(said, pa.binary()).cast(pa.binary_view())
        numbers = self._numbers(said)
        if not part.is_whole:
            numbers[~part.holds(*stated_times(self._decoder, said))] = -1
        found = []
        for partition in self.partitions:
            stands = self.positions[partition]
            rows = np.flatnonzero((numbers == partition.number) & (offsets >= stands))
            whole = len(rows) == len(said)
            some = values if whole else taken(values, rows)
            stamps = np.full(len(rows), NO_TIMESTAMP, dtype=np.int64)
            if stands < following:
                self.positions[partition] = following
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
        self.positions = {partition: max(stands, offset) for partition, stands in self.positions.items()}
        return []
