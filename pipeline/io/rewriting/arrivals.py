"""Commits that come into a catalog from another one, in the transaction that makes their rows visible."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import sqlalchemy as sa

from pipeline.batch import Partition
from pipeline.commits import Commit
from pipeline.errors import ConfigError, FencedError
from pipeline.io import catalog_tables, source_book
from pipeline.io.catalog import Catalog
from pipeline.io.rewriting.ledger_rows import insert
from pipeline.sources import FeedFile


@dataclass(frozen=True, slots=True)
class Arrivals:
    """What a backfill has landed in a catalog of its own.

    Attributes:
        offsets: where each of its partitions ends.
        commits: all of them.
        feeds: its topics, with their partitions.
        files: their places.
        since_us: wall clock, when it was decided which rows come.
    """

    offsets: Mapping[Partition, int]
    commits: Sequence[Commit]
    feeds: Mapping[str, int]
    files: Sequence[FeedFile]
    since_us: int

    @classmethod
    def of(cls, catalog: Catalog, since_us: int) -> Arrivals:
        """Everything that a catalog holds."""
        book = catalog.sources
        return cls(catalog.offsets(), catalog.commits(), book.all_feeds(), book.all_files(), since_us)

    def are_in(self, catalog: Catalog) -> bool:
        """Whether another catalog has them already."""
        there = catalog.offsets()
        return any(partition in there for partition in self.offsets)

    def insert(self, tx: sa.Connection, goes: Callable[[Partition, int, int], bool]) -> None:
        """List them.

        Args:
            tx: in which rows that go are hidden, too.
            goes: whether rows of a partition, from an offset to another, are among them.

        Raises:
            FencedError: somebody has listed them.
            ConfigError: another backfill has landed some of the same rows meanwhile.
        """
        there = catalog_tables.all_offsets(tx)
        if any(partition in there for partition in self.offsets):
            raise FencedError("these rows are in the lake already; nothing was changed")
        source_book.one_at_a_time(tx)
        mine = {file.sha256 for file in self.files}  # a rebuilt catalog knows them from notes
        for place in source_book.places_in(tx):
            if place.sha256 in mine:
                continue
            stands = {at: offset for at, offset in there.items() if at.topic == place.topic}
            landed = {
                at: min(offset, place.next_offset) for at, offset in stands.items() if offset > place.first_offset
            }
            stays = any(not goes(at, place.first_offset, offset) for at, offset in landed.items())
            if stays or (not landed and place.began_at_us >= self.since_us):
                self._check_apart(place)
        offsets = [
            {**catalog_tables.key_of(partition), "next_offset": offset, "epoch": 0}
            for partition, offset in self.offsets.items()
        ]
        insert(tx, catalog_tables.offsets, offsets)
        insert(tx, catalog_tables.commits, [_commit_row(commit) for commit in self.commits])
        source_book.fill(tx, self.feeds, self.files, ())

    def _check_apart(self, there: FeedFile) -> None:
        for file in self.files:
            if file.of.sha256 == there.of.sha256 and file.of.part.meets(there.of.part):
                raise ConfigError(
                    f"{file.name}: another backfill has landed rows of it meanwhile, or is about to: nothing was "
                    "changed. Let that one end, and run the same command again"
                )


def _commit_row(commit: Commit) -> dict[str, object]:
    row = {key: value for key, value in asdict(commit).items() if key != "partition"}
    return {**row, **catalog_tables.key_of(commit.partition)}
