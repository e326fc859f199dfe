"""Which files and past ranges backfills have read, and where in the lake their rows are: tables of the catalog.

A file is known by the hash of its bytes and has one place in one feed, for ever: that is why its rows are landed once,
however often and under whatever name it is given.  Where a range of it was asked for, that slice has the place, and no
other place of the file holds any row of it.  How far it is landed is not here: the offsets of its feed say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Final, Protocol

import sqlalchemy as sa

from pipeline.batch import Partition
from pipeline.errors import ConfigError
from pipeline.io import catalog_tables as tables
from pipeline.sources import AGAIN, FEED, PAST, FeedFile, PastRange, SourceFile, Span

feeds: Final = sa.Table(
    "backfill_feeds",
    tables.META,
    sa.Column("topic", sa.String, primary_key=True),
    sa.Column("partitions", sa.Integer, nullable=False),
)
files: Final = sa.Table(
    "backfill_files",
    tables.META,
    sa.Column("sha256", sa.String, primary_key=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("topic", sa.String, nullable=False),
    sa.Column("first_offset", sa.BigInteger, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("began_at_us", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("topic", "first_offset", name="backfill_files_do_not_overlap"),
    sa.CheckConstraint("rows > 0", name="backfill_files_have_rows"),
)
ranges: Final = sa.Table(
    "backfill_ranges",
    tables.META,
    sa.Column("landed_as", sa.String, primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True),
    sa.Column("topic", sa.String, nullable=False),
    sa.Column("first_offset", sa.BigInteger, nullable=False),
    sa.Column("next_offset", sa.BigInteger, nullable=False),
    sa.Column("topic_id", sa.String, nullable=False),
)

replays: Final = sa.Table(
    "backfill_replays",
    tables.META,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("done_at_us", sa.BigInteger),
)


class _Transaction(Protocol):
    def __call__(self, *, write: bool = False) -> AbstractContextManager[sa.Connection]: ...


class SourceBook:
    """The tables above.  `Catalog.sources` gives it."""

    def __init__(self, transaction: _Transaction) -> None:
        self._transaction = transaction

    def feed_of(self, topic: str) -> int | None:
        """Number of a feed's partitions; None where there is no such feed."""
        with self._transaction() as tx:
            return tx.execute(sa.select(feeds.c.partitions).where(feeds.c.topic == topic)).scalar_one_or_none()

    def known(self, hashes: Iterable[str]) -> dict[str, list[FeedFile]]:
        """Places that these files, or slices of them, have already, by the files' hashes."""
        wanted = set(hashes)
        with self._transaction() as tx:
            return {sha256: places for sha256, places in _by_hash(_all_files(tx)).items() if sha256 in wanted}

    def files_of(self, topic: str) -> list[FeedFile]:
        """The files of a feed, in its order."""
        with self._transaction() as tx:
            return _all_files(tx, topic)

    def all_files(self) -> list[FeedFile]:
        """Every file that has a place, by feed and offset."""
        with self._transaction() as tx:
            return _all_files(tx)

    def all_feeds(self) -> dict[str, int]:
        """Number of partitions of each feed."""
        with self._transaction() as tx:
            return {row.topic: row.partitions for row in tx.execute(sa.select(feeds).order_by(feeds.c.topic))}

    def place(self, topic: str, partitions: int, wanted: Sequence[SourceFile], now_us: int) -> list[FeedFile]:
        """Give files their places at the end of a feed; those of it that nobody has begun to land lose theirs.

        Its partitions must have been taken over before, so that no other backfill lands what loses its place.

        Args:
            topic: the feed's; made where there is none.
            partitions: how many it has.
            wanted: files that are not begun, in order; each once.
            now_us: wall clock, for the record.

        Returns:
            Where they are now, in order.

        Raises:
            ConfigError: another backfill gave one of the files a place.
        """
        with self._transaction(write=True) as tx:
            one_at_a_time(tx)
            tx.execute(
                tables.insert(tx.engine, feeds).values(topic=topic, partitions=partitions).on_conflict_do_nothing()
            )
            begun = files.c.first_offset < landed_to(tables.all_offsets(tx), topic)
            tx.execute(sa.delete(files).where(files.c.topic == topic, sa.not_(begun)))
            kept = _all_files(tx, topic)
            at = kept[-1].next_offset if kept else 0
            taken = _by_hash(_all_files(tx))
            placed = []
            for file in wanted:
                for there in taken.get(file.sha256, ()):
                    if file.part.meets(there.of.part):
                        raise ConfigError(_taken(file, there))
                placed.append(FeedFile(file.identity, str(file.path), topic, at, file.rows, now_us))
                at = placed[-1].next_offset
            if placed:
                tx.execute(sa.insert(files), [asdict(file) for file in placed])
            return placed

    def drop_unbegun(self, topics: Iterable[str]) -> None:
        """Take the places of feeds away that nobody has begun to land, whoever is about to.

        In one step their partitions are taken over, so that who holds them can commit no more; and who takes them
        later finds the places gone.
        """
        with self._transaction(write=True) as tx:
            for topic in topics:
                offsets = tables.offsets
                tx.execute(sa.update(offsets).where(offsets.c.topic == topic).values(epoch=offsets.c.epoch + 1))
                begun = files.c.first_offset < landed_to(tables.all_offsets(tx), topic)
                tx.execute(sa.delete(files).where(files.c.topic == topic, sa.not_(begun)))

    def check_placed(self, places: Iterable[FeedFile]) -> None:
        """See that files still have their places; called after their feed was taken over, they keep them.

        Raises:
            ConfigError: another backfill of the feed has taken them away.
        """
        with self._transaction() as tx:
            stand = {(file.sha256, file.topic, file.first_offset) for file in _all_files(tx)}
        for place in places:
            if (place.sha256, place.topic, place.first_offset) not in stand:
                raise ConfigError(
                    f"{place.name}: another backfill has begun in the same feed meanwhile; run again when it is done"
                )

    def ranges_of(self, topic: str) -> list[PastRange]:
        """Every range of a topic that a backfill has read or begun to, by partition and offset."""
        with self._transaction() as tx:
            return _ranges(tx, topic)

    def add_ranges(self, topic: str, topic_id: str, wanted: Sequence[Span]) -> list[PastRange]:
        """Note ranges that are to be read; of several backfills that want the same offsets, one gets them.

        Args:
            topic: of Kafka.
            topic_id: Kafka's id of it; empty: not known.
            wanted: at most one a partition.

        Raises:
            ConfigError: another backfill has begun to read some of them meanwhile.
        """
        with self._transaction(write=True) as tx:
            number = len(set(tx.execute(sa.select(ranges.c.landed_as)).scalars())) + 1
            made = [PastRange(topic, *span, f"{PAST}{number}:{topic}", topic_id) for span in wanted]
            for there in _ranges(tx, topic):
                for new in made:
                    if new.partition == there.partition and new.overlaps(there):
                        raise ConfigError(
                            f"another backfill has just begun to read offsets {there.first_offset} to "
                            f"{there.next_offset - 1} of {topic}-{there.partition}: run again when it is done"
                        )
            if made:
                tx.execute(sa.insert(ranges), [asdict(past) for past in made])
            return made

    def begin_replay(self) -> int:
        """Number of the replay of rejects under way, or that was when it was killed; else a new one."""
        with self._transaction(write=True) as tx:
            query = sa.select(replays.c.number).where(replays.c.done_at_us.is_(None))
            number = tx.execute(query).scalar_one_or_none()
            if number is None:
                # a rebuilt catalog has forgotten the replays, but not what they landed
                known = [int(at.topic.split(":")[1]) for at in tables.all_offsets(tx) if at.topic.startswith(AGAIN)]
                number = max([tx.execute(sa.select(sa.func.max(replays.c.number))).scalar_one() or 0, *known]) + 1
                tx.execute(sa.insert(replays).values(number=number))
            return number

    def end_replay(self, number: int, now_us: int) -> None:
        """Note that a replay has landed all that it can."""
        with self._transaction(write=True) as tx:
            tx.execute(sa.update(replays).where(replays.c.number == number).values(done_at_us=now_us))

    def live_spans(self, topic: str) -> dict[int, Span]:
        """Of each partition that `stillwatch run` has ever read: from where on it did, and where it goes on."""
        first = sa.select(tables.commits.c.partition, sa.func.min(tables.commits.c.first_offset))
        first = first.where(tables.commits.c.topic == topic).group_by(tables.commits.c.partition)
        with self._transaction() as tx:
            began = {row[0]: row[1] for row in tx.execute(first)}
            stands = {at.number: offset for at, offset in tables.all_offsets(tx).items() if at.topic == topic}
        return {number: Span(number, began.get(number, offset), offset) for number, offset in stands.items()}

    def fill(self, partitions: Mapping[str, int], found: Sequence[FeedFile], past: Sequence[PastRange]) -> None:
        """Put back what a lost catalog knew; what is there already stays."""
        with self._transaction(write=True) as tx:
            fill(tx, partitions, found, past)


def fill(
    tx: sa.Connection, partitions: Mapping[str, int], found: Sequence[FeedFile], past: Sequence[PastRange]
) -> None:
    """List feeds, files and ranges, inside somebody's transaction; what is there already stays."""
    rows = (
        (feeds, [{"topic": topic, "partitions": count} for topic, count in partitions.items()]),
        (files, [asdict(file) for file in found]),
        (ranges, [asdict(one) for one in past]),
    )
    for table, values in rows:
        if values:
            tx.execute(tables.insert(tx.engine, table).on_conflict_do_nothing(), values)


def places_in(tx: sa.Connection) -> list[FeedFile]:
    """Every file that has a place, inside somebody's transaction."""
    return _all_files(tx)


def one_at_a_time(tx: sa.Connection) -> None:
    """Let no other transaction give places meanwhile: two slices of a file must not overlap, which no key forbids."""
    tx.execute(sa.select(tables.meta.c.value).where(tables.meta.c.key == "schema_version").with_for_update())


def _by_hash(found: Iterable[FeedFile]) -> dict[str, list[FeedFile]]:
    by_hash: dict[str, list[FeedFile]] = {}
    for file in found:
        by_hash.setdefault(file.of.sha256, []).append(file)
    return by_hash


def landed_to(offsets: Mapping[Partition, int], topic: str) -> int:
    """The greatest offset that any partition of a feed has reached: files that begin there or later are not begun."""
    return max((offset for partition, offset in offsets.items() if partition.topic == topic), default=0)


def _all_files(tx: sa.Connection, topic: str | None = None) -> list[FeedFile]:
    query = sa.select(files).order_by(files.c.topic, files.c.first_offset)
    if topic is not None:
        query = query.where(files.c.topic == topic)
    return [FeedFile(**row) for row in tx.execute(query).mappings()]


def _ranges(tx: sa.Connection, topic: str) -> list[PastRange]:
    query = sa.select(ranges).where(ranges.c.topic == topic).order_by(ranges.c.partition, ranges.c.first_offset)
    return [PastRange(**row) for row in tx.execute(query).mappings()]


def _taken(file: SourceFile, there: FeedFile) -> str:
    return (
        f"{file.path}: it has its place in the feed {there.topic.removeprefix(FEED)} already, by another backfill: let "
        "that one finish, or run it again"
    )
