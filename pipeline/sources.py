"""What a backfill reads: files whose rows become a log, and past ranges of Kafka's logs.

A *feed* is a log that Stillwatch makes of files: their rows one after the other, numbered through, so that a row's
place is a topic, a partition and an offset as any record's is.  No Kafka topic can be called like one: `file:…`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from pipeline.backfilling.slices import WHOLE, FilePart, Slice
from pipeline.batch import Partition

FEED: Final = "file:"
"""How the topics of feeds begin."""

PAST: Final = "past:"
"""How the topics of past ranges begin: `past:<number of the range>:<topic>`."""

AGAIN: Final = "again:"
"""How the topics of rejects begin that became events: `again:<number of the replay>:<topic>`."""

_PART_SHOWN: Final = 8
"""Hex digits that tell slices of one file apart."""

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
        asked: how many of them are in the range that was asked for; None: all.
        part: those that are to be landed.
        edition: of the replacement that lands them; empty otherwise.
        blank: lines that say nothing; they are numbered as all rows are, and never landed.
    """

    path: Path
    sha256: str
    bytes: int
    rows: int
    asked: int | None = None
    part: Slice = WHOLE
    edition: str = ""
    blank: int = 0

    @property
    def rows_asked(self) -> int:
        """Rows in the range that was asked for."""
        return self.rows - self.blank if self.asked is None else self.asked

    @property
    def rows_beyond(self) -> int:
        """Rows out of that range."""
        return self.rows - self.blank - self.rows_asked

    @property
    def identity(self) -> str:
        """By what these rows of it are known again."""
        return str(FilePart(self.sha256, self.part, self.edition))


@dataclass(frozen=True, slots=True)
class FeedFile:
    """The place of a file, or of a slice of it, in a feed.

    Attributes:
        sha256: of its bytes, in hex; of a slice, its `FilePart` in full.
        name: what it was called when it was first named.
        topic: the feed's.
        first_offset: of its first row.
        rows: how many the file has: their offsets are `first_offset` and the next ones, whether they are landed or not.
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

    @property
    def of(self) -> FilePart:
        """Which rows of which file."""
        return FilePart.parse(self.sha256)

    @property
    def is_alone(self) -> bool:
        """Whether it is a feed of its own."""
        return self.topic == own_feed(self.sha256)


class Span(NamedTuple):
    """Some offsets of a partition: from the first up to the next, which is none of them."""

    partition: int
    first_offset: int
    next_offset: int


@dataclass(frozen=True, slots=True)
class PastRange:
    """Offsets of a partition that a backfill reads, apart from those that `stillwatch run` does.

    Attributes:
        topic: of Kafka.
        partition: of it.
        first_offset: the first of them.
        next_offset: the first that is none of them.
        landed_as: the topic of its rows: `past:…`.
        topic_id: Kafka's id of the topic, which is another when it was made anew; empty: not known.
    """

    topic: str
    partition: int
    first_offset: int
    next_offset: int
    landed_as: str
    topic_id: str

    def overlaps(self, other: PastRange) -> bool:
        """Whether both, of one partition, hold the same record of the same log."""
        if self.topic_id and other.topic_id and self.topic_id != other.topic_id:
            return False
        return self.first_offset < other.next_offset and other.first_offset < self.next_offset

    @property
    def chain(self) -> Partition:
        """By what the catalog knows how far it is landed."""
        return Partition(self.landed_as, self.partition)


def is_past(topic: str) -> bool:
    """Whether a topic is one of backfills, which Kafka cannot have."""
    return topic.startswith((FEED, PAST, AGAIN))


def origin(topic: str) -> str:
    """The topic whose records are landed under this one: ranges of its past, and rejects that became events."""
    return re.sub(f"^(?:(?:{PAST}|{AGAIN})[0-9]+:)+", "", topic)


def again(number: int, topic: str) -> str:
    """The topic of events that were rejects of a topic, in one replay of rejects."""
    return f"{AGAIN}{number}:{topic}"


def own_feed(identity: str) -> str:
    """The feed of one file alone, where no scores ask for an order among files: its offsets are row numbers.

    Args:
        identity: the file's hash, or its `FilePart` in full; then a part of that one's hash tells the slice.
    """
    sha256 = identity.partition("@")[0]
    which = "" if sha256 == identity else f".{hashlib.sha256(identity.encode()).hexdigest()[:_PART_SHOWN]}"
    return f"{FEED}{sha256[:_ID_SHOWN]}{which}"
