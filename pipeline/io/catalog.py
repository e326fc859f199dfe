"""The catalog: which offsets are done, which files hold their rows, and which ranges Kafka lost.

A relational database through SQLAlchemy Core: SQLite on one host, PostgreSQL for many, one code path.  Its one law: an
offset moves by compare-and-swap, in the same transaction that lists the files of the records before it.  What is
compared is the offset and the owner's epoch: taking a partition over raises the epoch, so from then on whatever its
former owner still holds is worthless, and its staged files may go.

A file is `pending` from that transaction until it stands at its final path, and then `live`; all files of a commit
become live together.  Readers see live files only.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Final

import sqlalchemy as sa

from pipeline.alerts import Alert
from pipeline.batch import Partition
from pipeline.commits import (
    LOST,
    REPLACED,
    UNKNOWN_LOG,
    Claim,
    Commit,
    FileEntry,
    Hole,
    LogMark,
    Manifest,
    PlacedFile,
    SnapshotEntry,
)
from pipeline.decisions import Verdict
from pipeline.errors import ConfigError, FencedError, SchemaError
from pipeline.io import catalog_alerts as stored
from pipeline.io import catalog_files, catalog_making, source_book
from pipeline.io import catalog_tables as tables
from pipeline.io.catalog_alerts import AlertFilter
from pipeline.io.catalog_engine import engine_of, is_missing_file, sqlite_url, url_without_password
from pipeline.io.catalog_errors import in_words
from pipeline.io.desk import Desk, verdict_book
from pipeline.io.read_only import cannot_write, read_only_engine
from pipeline.io.rewriting import ledger_rows
from pipeline.io.rewriting.ledger_rows import InGrace, Output

__all__ = ["AlertFilter", "Catalog", "sqlite_url", "url_without_password"]

VERDICTS_AT_ONCE: Final = 1_000
ALL_ALERTS: Final = AlertFilter()
NOTHING: Final[Mapping[str, Sequence[Alert]]] = {}
NO_MARKS: Final[Mapping[str, str]] = {}


class Catalog:
    """Connection to the catalog.  Safe to use from several threads and processes at once."""

    def __init__(self, engine: sa.Engine, *, read_only: bool = False) -> None:
        self._engine = engine
        self.read_only = read_only  # this process may not write it
        self._groups: dict[str, str] = {}
        self.sources = source_book.SourceBook(self.transaction)
        """Files and past ranges that backfills have read."""

        self.desk = Desk(self.transaction)
        """What people decide, and who did what."""

        self.alerts_are = stored.NEW
        """State of the outbox for alerts of commits to come: `PAST` in a backfill."""

    @classmethod
    def open(cls, url: str, *, create: bool) -> Catalog:
        """Open the catalog at an SQLAlchemy URL.

        Args:
            url: `sqlite:////path/to/catalog.db` or `postgresql+psycopg://user@host/database`.
            create: make its tables where there are none.

        Raises:
            ConfigError: the URL is unusable, or there is no catalog and `create` is false.
            RetryableError: the database does not answer.
            SchemaError: a newer Stillwatch made it.
        """
        read_only = not create and cannot_write(url)
        engine = read_only_engine(url) if read_only else engine_of(url)
        if not create and is_missing_file(engine.url):
            raise ConfigError(f"there is no catalog at {url_without_password(url)}: has `stillwatch run` written here?")
        catalog = cls(engine, read_only=read_only)
        try:
            version = catalog._version()
            if create and (version is None or version in tables.MIGRATIONS):
                catalog._make()
                version = catalog._version()
        except BaseException:
            engine.dispose()
            raise
        if version is None:
            engine.dispose()
            raise ConfigError(f"{url_without_password(url)} holds no catalog: has `stillwatch run` written here?")
        if version in tables.MIGRATIONS:
            engine.dispose()
            raise SchemaError(
                f"the catalog has version {version}, this Stillwatch knows version {tables.SCHEMA_VERSION}: the next "
                "`stillwatch run` brings it up to date"
            )
        if version != tables.SCHEMA_VERSION:
            engine.dispose()
            raise SchemaError(
                f"the catalog has version {version}, this Stillwatch knows version {tables.SCHEMA_VERSION}: upgrade it"
            )
        return catalog

    @classmethod
    def open_if_made(cls, url: str) -> Catalog | None:
        """Open the catalog at a URL if there is one; makes nothing.

        Raises:
            As `open`.
        """
        engine = read_only_engine(url) if cannot_write(url) else engine_of(url)
        catalog = cls(engine)
        try:
            is_made = not is_missing_file(engine.url) and catalog._version() is not None
        finally:
            catalog.close()
        return cls.open(url, create=False) if is_made else None

    @classmethod
    def check_empty(cls, url: str) -> None:
        """Check that there is no catalog at a URL yet, or one without content; makes nothing.

        Raises:
            ConfigError: the URL is unusable, or there is a catalog that holds something.
            RetryableError: the database does not answer.
        """
        engine = engine_of(url)
        catalog = cls(engine)
        try:
            if not is_missing_file(engine.url) and catalog._version() is not None:
                with catalog.transaction() as tx:
                    catalog_making.check_empty(tx)
        finally:
            catalog.close()

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _version(self) -> int | None:
        """Version of the tables, or None where there are none."""
        with self.transaction() as tx:
            return catalog_making.version_in(tx)

    def _make(self) -> None:
        """Make the tables, or bring older ones up to date; of several workers that start at once, one."""
        with self.transaction(write=True) as tx:
            catalog_making.make(tx)

    def join(self, topic: str, group: str, now_us: int, *, change: bool = False) -> None:
        """Work for a consumer group from now on; a topic has one, and its first one keeps it.

        Kafka deals partitions out within a group only: workers of two groups would each hold all of them, and fence
        each other without end.

        Args:
            topic: to be read.
            group: the worker's.
            now_us: wall clock, for the record.
            change: make it the topic's group if another one is; that one's workers end when they next take a
                partition.

        Raises:
            ConfigError: the topic has another group.
        """
        row = {"topic": topic, "consumer_group": group, "since_us": now_us}
        with self.transaction(write=True) as tx:
            tx.execute(tables.insert(self._engine, tables.topics).values(row).on_conflict_do_nothing())
            if change:
                tx.execute(
                    sa.update(tables.topics)
                    .where(tables.topics.c.topic == topic, tables.topics.c.consumer_group != group)
                    .values(consumer_group=group, since_us=now_us)
                )
            _check_group(tx, topic, group)
        self._groups[topic] = group

    def take(self, partition: Partition) -> Claim | None:
        """Take a partition over: from now on no former owner can commit.

        Returns:
            Where reading goes on, or None if the partition was never read: then see `start_at`.

        Raises:
            ConfigError: the topic has got another group since `join`.
        """
        with self.transaction(write=True) as tx:
            self._check_joined(tx, partition.topic)
            tx.execute(
                sa.update(tables.offsets)
                .where(*tables.of(tables.offsets, partition))
                .values(epoch=tables.offsets.c.epoch + 1)
            )
            row = tx.execute(sa.select(tables.offsets).where(*tables.of(tables.offsets, partition))).one_or_none()
            if row is None:
                return None
            return Claim(partition, row.next_offset, row.epoch, LogMark(row.topic_id, row.leader_epoch))

    def start_at(self, partition: Partition, offset: int, mark: LogMark = UNKNOWN_LOG) -> Claim:
        """Take over a partition that was never read; if another worker set its first offset meanwhile, that holds."""
        with self.transaction(write=True) as tx:
            self._check_joined(tx, partition.topic)
            row = {**tables.key_of(partition), "next_offset": offset, "epoch": 0, **asdict(mark)}
            tx.execute(tables.insert(self._engine, tables.offsets).values(row).on_conflict_do_nothing())
        claim = self.take(partition)
        if claim is None:
            raise SchemaError(f"{partition}: its offset vanished from the catalog")
        return claim

    def commit(  # noqa: PLR0913  # all that happens at once, or not at all
        self,
        commit: Commit,
        epoch: int,
        files: Sequence[FileEntry],
        mark: LogMark = UNKNOWN_LOG,
        *,
        alerts: Sequence[Alert] = (),
        orgs: Mapping[str, str] = NO_MARKS,
        snapshot: SnapshotEntry | None = None,
        verdict_seq: int | None = None,
    ) -> None:
        """Move a partition's offset and keep all that came of the records it passes, or do nothing.

        Doing it again after an unclear failure is safe: the commit's id tells that it was done.

        Args:
            commit: from where to where.
            epoch: of this worker's claim.
            files: staged, on disk for good.
            mark: of the log up to where the commit moves the offset.
            alerts: raised by these records; one that is known already is not added again, nor sent again.
            orgs: organisation of the accounts that they are about, as far as it is known, by account.
            snapshot: taken where the commit moves the offset; older ones than the one before it are forgotten.
            verdict_seq: up to which verdict the partition's models have learned there; None: up to the same as before.

        Raises:
            FencedError: another worker has taken the partition over.
            RetryableError: the database does not answer; nothing was done, or all of it.
        """
        with self.transaction(write=True) as tx:
            moved = tx.execute(
                sa.update(tables.offsets)
                .where(*tables.of(tables.offsets, commit.partition))
                .where(tables.offsets.c.next_offset == commit.first_offset, tables.offsets.c.epoch == epoch)
                .values(next_offset=commit.next_offset, **asdict(mark))
            )
            if moved.rowcount != 1:
                if tx.execute(
                    sa.select(tables.commits.c.commit_id).where(tables.commits.c.commit_id == commit.commit_id)
                ).first():
                    return
                raise FencedError(
                    f"{commit.partition}: taken over by another worker at or after offset {commit.first_offset}"
                )
            row = {key: value for key, value in asdict(commit).items() if key != "partition"}
            tx.execute(sa.insert(tables.commits).values(**row, **tables.key_of(commit.partition)))
            if files:
                tx.execute(
                    sa.insert(tables.files),
                    [{**asdict(file), "commit_id": commit.commit_id, "state": "pending"} for file in files],
                )
            if alerts:
                place = stored.Placing(commit.commit_id, commit.committed_at_us, self.alerts_are, orgs)
                stored.add_alerts(tx, alerts, place)
            if verdict_seq is not None:
                verdict_book.mark(tx, commit.partition, commit.next_offset, verdict_seq)
            if snapshot is not None:
                stored.add_snapshot(tx, snapshot)

    def publish(self, commit_id: str) -> None:
        """Show all files of a commit to readers at once; they stand at their final paths."""
        with self.transaction(write=True) as tx:
            tx.execute(
                sa.update(tables.files)
                .where(tables.files.c.commit_id == commit_id, tables.files.c.state == "pending")
                .values(state="live")
            )
            stored.publish_snapshot(tx, commit_id)

    def pending(self, partition: Partition | None = None) -> dict[Commit, list[PlacedFile]]:
        """Commits that were made but whose files are not shown yet, in offset order; a snapshot is the last of each."""
        where = [tables.files.c.state == "pending"] + (
            [] if partition is None else tables.of(tables.commits, partition)
        )
        query = (
            sa.select(tables.commits, *(column for column in tables.files.c if column.name != "commit_id"))
            .join(tables.files, tables.files.c.commit_id == tables.commits.c.commit_id)
            .where(*where)
        )
        query = query.order_by(tables.commits.c.first_offset, tables.files.c.path)
        found: dict[Commit, list[PlacedFile]] = {}
        with self.transaction(snapshot=True) as tx:
            for row in tx.execute(query).mappings():
                found.setdefault(tables.commit_of(row), []).append(tables.file_of(row))
            for snapshot in stored.all_snapshots(tx, partition, "pending"):
                commit = tables.commit_with_id(tx, snapshot.commit_id)
                found.setdefault(commit, []).append(snapshot)
        return dict(sorted(found.items(), key=lambda item: item[0].first_offset))

    def live_files(
        self, table: str | None = None, time_us: tuple[int | None, int | None] = (None, None)
    ) -> list[FileEntry]:
        """Files that readers see, of one moment.

        Args:
            table: only this table's.
            time_us: only files that may hold event times from the first to the second (inclusive, microseconds);
                None leaves that side open.  Files of rows without event time are always included.
        """
        with self.transaction() as tx:
            return catalog_files.live_files(tx, table, time_us)

    def offsets(self) -> dict[Partition, int]:
        """Where reading goes on, for every partition ever read."""
        with self.transaction() as tx:
            return tables.all_offsets(tx)

    def commits(self) -> list[Commit]:
        """Every commit, by partition and offset."""
        with self.transaction() as tx:
            return tables.all_commits(tx)

    def commits_since(self, partition: Partition, offset: int) -> list[Commit]:
        """A partition's commits that pass an offset or later ones, in offset order."""
        query = sa.select(tables.commits).where(*tables.of(tables.commits, partition))
        query = query.where(tables.commits.c.next_offset > offset).order_by(tables.commits.c.first_offset)
        with self.transaction() as tx:
            return [tables.commit_of(row) for row in tx.execute(query).mappings()]

    def files_of(self, commits: Sequence[Commit]) -> list[FileEntry]:
        """Files that hold rows of some commits of one partition, one after the other, and maybe rows of others."""
        with self.transaction() as tx:
            return catalog_files.files_of(tx, commits)

    def snapshots(self, partition: Partition) -> list[SnapshotEntry]:
        """A partition's snapshots, the newest first."""
        with self.transaction() as tx:
            return stored.all_snapshots(tx, partition)

    def verdicts_after(self, seq: int) -> list[Verdict]:
        """The verdicts after a place, in their order: as many as models take in at once."""
        return self.desk.verdicts.after(seq, VERDICTS_AT_ONCE)

    def verdict_marks(self, partition: Partition) -> list[tuple[int, int]]:
        """At which offsets a partition's models took verdicts in, and up to which one, in offset order."""
        return self.desk.verdicts.marks(partition)

    def alerts(self, wanted: AlertFilter = ALL_ALERTS) -> list[Alert]:
        """Alerts, the latest first."""
        with self.transaction() as tx:
            return stored.find_alerts(tx, wanted)

    def alert(self, alert_id: str) -> Alert | None:
        """One alert by its id; None if there is none."""
        with self.transaction() as tx:
            return stored.find_alert(tx, alert_id)

    def outbox(self) -> dict[str, str]:
        """State of each alert that is to be sent or was, by its id."""
        with self.transaction() as tx:
            return stored.outbox_states(tx)

    def manifest(self) -> Manifest:
        """Everything of one moment, while workers go on writing."""
        with self.transaction(snapshot=True) as tx:
            return catalog_files.manifest(tx)

    def note_hole(
        self, partition: Partition, first_offset: int, next_offset: int, now_us: int, kind: str = LOST
    ) -> Hole:
        """Record a hole; recording the same again changes nothing."""
        hole = Hole(partition, first_offset, next_offset, accepted=False, kind=kind)
        row = {**tables.span_of(hole), "noticed_at_us": now_us}
        with self.transaction(write=True) as tx:
            tx.execute(tables.insert(self._engine, tables.holes).values(row).on_conflict_do_nothing())
        return hole

    def accept_hole(self, hole: Hole, now_us: int) -> None:
        """Go on without a hole's offsets, by an operator's decision: the log as it is now counts from here on.

        Raises:
            FencedError: the offset does not stand where the hole begins, or at the end of one that was landed once.
        """
        stands = hole.next_offset if hole.kind == REPLACED else hole.first_offset
        with self.transaction(write=True) as tx:
            moved = tx.execute(
                sa.update(tables.offsets)
                .where(*tables.of(tables.offsets, hole.partition), tables.offsets.c.next_offset == stands)
                .values(next_offset=hole.next_offset, **asdict(UNKNOWN_LOG))
            )
            if moved.rowcount != 1:
                raise FencedError(f"{hole.partition}: the catalog's offset is no longer {stands}")
            where = [tables.holes.c[name] == value for name, value in tables.span_of(hole).items()]
            tx.execute(sa.update(tables.holes).where(*where).values(accepted_at_us=now_us))

    def holes(self) -> list[Hole]:
        """Every hole that was ever noticed."""
        with self.transaction() as tx:
            return tables.all_holes(tx)

    def replace_all(  # noqa: PLR0913  # all that files can tell
        self,
        offsets: dict[Partition, int],
        commits: Iterable[tuple[Commit, Sequence[FileEntry]]],
        now_us: int,
        *,
        alerts: Mapping[str, Sequence[Alert]] = NOTHING,
        snapshots: Iterable[SnapshotEntry] = (),
        rewritten: Iterable[Output] = (),
        marks: Mapping[str, str] = NO_MARKS,
        in_grace: InGrace | None = None,
    ) -> None:
        """Fill an empty catalog, files live, in one transaction.

        Args:
            offsets: where reading goes on.
            commits: each with its files.
            now_us: wall clock, for the record.
            alerts: by commit; whether the live ones were sent is not known, and the outbox says so.
            snapshots: that stand at their final paths.
            rewritten: files made of others, at their final paths, or of rewrites that are `in_grace`.
            marks: retention marks by table.
            in_grace: rewrites that are to be settled.

        Raises:
            ConfigError: it is not empty.
        """
        with self.transaction(write=True) as tx:
            catalog_making.check_empty(tx)
            for partition, offset in offsets.items():
                tx.execute(sa.insert(tables.offsets).values(**tables.key_of(partition), next_offset=offset, epoch=0))
            for commit, files in commits:
                row = {key: value for key, value in asdict(commit).items() if key != "partition"}
                tx.execute(sa.insert(tables.commits).values(**row, **tables.key_of(commit.partition)))
                if files:
                    rows = [{**asdict(file), "commit_id": commit.commit_id, "state": "live"} for file in files]
                    tx.execute(sa.insert(tables.files), rows)
                place = stored.Placing(commit.commit_id, now_us, stored.UNCLEAR)
                stored.add_alerts(tx, alerts.get(commit.commit_id, ()), place)
            stored.add_found_snapshots(tx, snapshots)
            ledger_rows.add_found(tx, rewritten, marks, in_grace or InGrace(), now_us)

    def _check_joined(self, tx: sa.Connection, topic: str) -> None:
        """Who never joined, such as a tool, is not asked for a group."""
        if topic in self._groups:
            _check_group(tx, topic, self._groups[topic])

    @contextlib.contextmanager
    def transaction(self, *, write: bool = False, snapshot: bool = False) -> Iterator[sa.Connection]:
        """One transaction; a database that does not answer, is locked or full becomes a RetryableError.

        Args:
            write: it will write.
            snapshot: all its queries see one moment, and not each its own.

        Raises:
            NoRightError: the database role may not do what is asked.
            RetryableError: as said above.
            SchemaError: the catalog is damaged.
        """
        try:
            with self._engine.connect().execution_options(stillwatch_write=write) as connection:
                if snapshot and self._engine.dialect.name == "postgresql":  # SQLite's transactions are so anyway
                    connection.execution_options(isolation_level="REPEATABLE READ")
                with connection.begin():
                    yield connection
        except sa.exc.SQLAlchemyError as error:
            told = in_words(error, self._engine.url)
            if told is None:
                raise
            raise told from error


def _check_group(tx: sa.Connection, topic: str, group: str) -> None:
    found = tx.execute(sa.select(tables.topics).where(tables.topics.c.topic == topic)).one()
    if found.consumer_group != group:
        since = dt.datetime.fromtimestamp(found.since_us / 1e6, dt.UTC).isoformat(timespec="seconds")
        raise ConfigError(
            f"the catalog {tx.engine.url.render_as_string(hide_password=True)} has topic {topic} read by the consumer "
            f"group {found.consumer_group} since {since}, and workers of the group {group} would take its partitions "
            f"away from it again and again: start with --group {found.consumer_group}. If the group is to be {group} "
            f"from now on, stop the workers of {found.consumer_group} and start one with --change-group"
        )
