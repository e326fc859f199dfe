"""What a backfill reads: files whose rows become a log, and past ranges of Kafka's logs.

A *feed* is a log that Stillwatch makes of files: their rows one after the other, numbered through, so that a row's
place is a topic, a partition and an offset as any record's is.  No Kafka topic can be called like one: `file:…`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.batch import Partition

FEED: Final = "file:"
"""How the topics of feeds begin."""

PAST: Final = "past:"
"""How the topics of past ranges begin: `past:<number of the range>:<topic>`."""

_ID_SHOWN: Final = 32
"""Hex digits of a file's hash in the name of its own feed; half of them all, and still nobody finds two alike."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file as it is found.

    Attributes:
        path: where.
        sha256: of its bytes, in hex: by this it is known again, whatever it is called and wherever it lies.
        bytes: its size.
        rows: lines, or rows of Parquet.
    """

    path: Path
    sha256: str
    bytes: int
    rows: int


@dataclass(frozen=True, slots=True)
class FeedFile:
    """A file's place in a feed.

    Attributes:
        sha256: of its bytes, in hex.
        name: what it was called when it was first named.
        topic: the feed's.
        first_offset: of its first row.
        rows: how many it has: their offsets are `first_offset` and the next ones.
        began_at_us: wall clock, for the record.
    """

    sha256: str
    name: str
    topic: str
    first_offset: int
    rows: int
    began_at_us: int

    @property
    def next_offset(self) -> int:
        """The offset after its last row."""
        return self.first_offset + self.rows


@dataclass(frozen=True, slots=True)
class PastRange:
    """Offsets of a partition that a backfill reads, apart from those that `stillwatch run` does.

    Attributes:
        topic: of Kafka.
        partition: of it.
        first_offset: the first of them.
        next_offset: the first that is none of them.
        landed_as: the topic of its rows: `past:…`.
    """

    topic: str
    partition: int
    first_offset: int
    next_offset: int
    landed_as: str

    @property
    def chain(self) -> Partition:
        """By what the catalog knows how far it is landed."""
        return Partition(self.landed_as, self.partition)


def own_feed(sha256: str) -> str:
    """The feed of one file alone, where no scores ask for an order among files: its offsets are row numbers."""
    return f"{FEED}{sha256[:_ID_SHOWN]}"
