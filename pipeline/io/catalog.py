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
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from pipeline.batch import Partition
from pipeline.commits import Claim, Commit, FileEntry, Hole, Manifest
from pipeline.errors import ConfigError, FencedError, RetryableError, SchemaError
from pipeline.io.read_only import cannot_write, read_only_engine

SCHEMA_VERSION: Final = 1
"""Version of the tables below.  A newer Stillwatch migrates; an older one refuses."""

LOCK_WAIT_S: Final = 5.0
"""How long one statement waits for a locked database before the caller is told to try again."""

IDLE_S_MAX: Final = 20.0
"""PostgreSQL ends a transaction whose worker says nothing for this long.  SQLite cannot: there a frozen worker must be
killed or woken."""

_CREATION_LOCK: Final = 0x5711
"""PostgreSQL's CREATE TABLE IF NOT EXISTS fails where two run at once; any number will do, as long as all use it."""

_WORTH_ANOTHER_TRY: Final = ("25P03", "25P04", "25006")
"""PostgreSQL ended a silent or long transaction, or has just become a standby: SQLSTATE, class 25."""

_META = sa.MetaData()
_meta = sa.Table(
    "meta", _META, sa.Column("key", sa.String, primary_key=True), sa.Column("value", sa.String, nullable=False)
)
_offsets = sa.Table(
    "offsets",
    _META,
    sa.Column("topic", sa.String, primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True),
    sa.Column("next_offset", sa.BigInteger, nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
)
_commits = sa.Table(
    "commits",
    _META,
    sa.Column("commit_id", sa.String, primary_key=True),
    sa.Column("topic", sa.String, nullable=False),
    sa.Column("partition", sa.Integer, nullable=False),
    sa.Column("first_offset", sa.BigInteger, nullable=False),
    sa.Column("next_offset", sa.BigInteger, nullable=False),
    sa.Column("events", sa.BigInteger, nullable=False),
    sa.Column("rejects", sa.BigInteger, nullable=False),
    sa.Column("committed_at_us", sa.BigInteger, nullable=False),
    sa.Column("worker", sa.String, nullable=False),
    sa.UniqueConstraint("topic", "partition", "first_offset", name="commits_do_not_overlap"),
    sa.CheckConstraint("next_offset > first_offset", name="commits_move_forward"),
)
_files = sa.Table(
    "files",
    _META,
    sa.Column("path", sa.String, primary_key=True),
    sa.Column("commit_id", sa.String, sa.ForeignKey("commits.commit_id"), nullable=False, index=True),
    sa.Column("table_name", sa.String, nullable=False),
    sa.Column("dt", sa.String, nullable=False),
    sa.Column("hour", sa.Integer, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String, nullable=False),
    sa.Column("time_min_us", sa.BigInteger),
    sa.Column("time_max_us", sa.BigInteger),
    sa.Column("state", sa.String, nullable=False),
    sa.Index("files_by_hour", "table_name", "state", "dt", "hour"),
)
_holes = sa.Table(
    "holes",
    _META,
    sa.Column("topic", sa.String, primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True),
    sa.Column("first_offset", sa.BigInteger, primary_key=True),
    sa.Column("next_offset", sa.BigInteger, primary_key=True),
    sa.Column("noticed_at_us", sa.BigInteger, nullable=False),
    sa.Column("accepted_at_us", sa.BigInteger),
)


class Catalog:
    """Connection to the catalog.  Safe to use from several threads and processes at once."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

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
        engine = read_only_engine(url) if not create and cannot_write(url) else _engine(url)
        if not create and _is_missing_file(engine.url):
            raise ConfigError(f"there is no catalog at {url_without_password(url)}: has `stillwatch run` written here?")
        catalog = cls(engine)
        try:
            version = catalog._version()
            if version is None and create:
                catalog._create()
                version = catalog._version()
        except BaseException:
            engine.dispose()
            raise
        if version is None:
            engine.dispose()
            raise ConfigError(f"{url_without_password(url)} holds no catalog: has `stillwatch run` written here?")
        if version != SCHEMA_VERSION:
            engine.dispose()
            raise SchemaError(
                f"the catalog has version {version}, this Stillwatch knows version {SCHEMA_VERSION}: upgrade it"
            )
        return catalog

    @classmethod
    def check_empty(cls, url: str) -> None:
        """Check that there is no catalog at a URL yet, or one without content; makes nothing.

        Raises:
            ConfigError: the URL is unusable, or there is a catalog that holds something.
            RetryableError: the database does not answer.
        """
        engine = _engine(url)
        catalog = cls(engine)
        try:
            if not _is_missing_file(engine.url) and catalog._version() is not None:
                with catalog._transaction() as tx:
                    _check_empty(tx)
        finally:
            catalog.close()

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _version(self) -> int | None:
        """Version of the tables, or None where there are none."""
        with self._transaction() as tx:
            if not sa.inspect(tx).has_table(_meta.name):
                return None
            found = tx.execute(sa.select(_meta.c.value).where(_meta.c.key == "schema_version")).scalar_one_or_none()
            return None if found is None else int(found)

    def _create(self) -> None:
        """Make the tables; of several workers that start at once, one."""
        with self._transaction(write=True) as tx:
            if tx.dialect.name == "postgresql":
                tx.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATION_LOCK)))
            _META.create_all(tx)
            row = {"key": "schema_version", "value": str(SCHEMA_VERSION)}
            tx.execute(_insert(self._engine, _meta).values(row).on_conflict_do_nothing())

    def take(self, partition: Partition) -> Claim | None:
        """Take a partition over: from now on no former owner can commit.

        Returns:
            Where reading goes on, or None if the partition was never read: then see `start_at`.
        """
        with self._transaction(write=True) as tx:
            tx.execute(sa.update(_offsets).where(*_of(_offsets, partition)).values(epoch=_offsets.c.epoch + 1))
            row = tx.execute(sa.select(_offsets).where(*_of(_offsets, partition))).one_or_none()
            return None if row is None else Claim(partition, row.next_offset, row.epoch)

    def start_at(self, partition: Partition, offset: int) -> Claim:
        """Take over a partition that was never read; if another worker set its first offset meanwhile, that holds."""
        with self._transaction(write=True) as tx:
            row = {**_key(partition), "next_offset": offset, "epoch": 0}
            tx.execute(_insert(self._engine, _offsets).values(row).on_conflict_do_nothing())
        claim = self.take(partition)
        if claim is None:
            raise SchemaError(f"{partition}: its offset vanished from the catalog")
        return claim

    def commit(self, commit: Commit, epoch: int, files: Sequence[FileEntry]) -> None:
        """Move a partition's offset and list the files of the records it passes, or do neither.

        Doing it again after an unclear failure is safe: the commit's id tells that it was done.

        Args:
            commit: from where to where.
            epoch: of this worker's claim.
            files: staged, on disk for good.

        Raises:
            FencedError: another worker has taken the partition over.
            RetryableError: the database does not answer; nothing was done, or all of it.
        """
        with self._transaction(write=True) as tx:
            moved = tx.execute(
                sa.update(_offsets)
                .where(*_of(_offsets, commit.partition))
                .where(_offsets.c.next_offset == commit.first_offset, _offsets.c.epoch == epoch)
                .values(next_offset=commit.next_offset)
            )
            if moved.rowcount != 1:
                if tx.execute(sa.select(_commits.c.commit_id).where(_commits.c.commit_id == commit.commit_id)).first():
                    return
                raise FencedError(
                    f"{commit.partition}: taken over by another worker at or after offset {commit.first_offset}"
                )
            row = {key: value for key, value in asdict(commit).items() if key != "partition"}
            tx.execute(sa.insert(_commits).values(**row, **_key(commit.partition)))
            if files:
                tx.execute(
                    sa.insert(_files),
                    [{**asdict(file), "commit_id": commit.commit_id, "state": "pending"} for file in files],
                )

    def publish(self, commit_id: str) -> None:
        """Show all files of a commit to readers at once; they stand at their final paths."""
        with self._transaction(write=True) as tx:
            tx.execute(
                sa.update(_files)
                .where(_files.c.commit_id == commit_id, _files.c.state == "pending")
                .values(state="live")
            )

    def pending(self, partition: Partition | None = None) -> dict[Commit, list[FileEntry]]:
        """Commits that were made but whose files are not shown yet, in offset order."""
        where = [_files.c.state == "pending"] + ([] if partition is None else _of(_commits, partition))
        query = (
            sa.select(_commits, *(column for column in _files.c if column.name != "commit_id"))
            .join(_files, _files.c.commit_id == _commits.c.commit_id)
            .where(*where)
        )
        query = query.order_by(_commits.c.first_offset, _files.c.path)
        found: dict[Commit, list[FileEntry]] = {}
        with self._transaction() as tx:
            for row in tx.execute(query).mappings():
                found.setdefault(_commit(row), []).append(_file(row))
        return found

    def live_files(
        self, table: str | None = None, time_us: tuple[int | None, int | None] = (None, None)
    ) -> list[FileEntry]:
        """Files that readers see, of one moment.

        Args:
            table: only this table's.
            time_us: only files that may hold event times from the first to the second (inclusive, microseconds);
                None leaves that side open.  Files of rows without event time are always included.
        """
        query = sa.select(_files).where(_files.c.state == "live").order_by(_files.c.dt, _files.c.hour, _files.c.path)
        if table is not None:
            query = query.where(_files.c.table_name == table)
        low, high = time_us
        if low is not None:
            query = query.where(sa.or_(_files.c.time_max_us.is_(None), _files.c.time_max_us >= low))
        if high is not None:
            query = query.where(sa.or_(_files.c.time_min_us.is_(None), _files.c.time_min_us <= high))
        with self._transaction() as tx:
            return [_file(row) for row in tx.execute(query).mappings()]

    def offsets(self) -> dict[Partition, int]:
        """Where reading goes on, for every partition ever read."""
        with self._transaction() as tx:
            return _all_offsets(tx)

    def commits(self) -> list[Commit]:
        """Every commit, by partition and offset."""
        with self._transaction() as tx:
            return _all_commits(tx)

    def manifest(self) -> Manifest:
        """Everything of one moment, while workers go on writing."""
        files: dict[str, dict[str, list[FileEntry]]] = {"live": {}, "pending": {}}
        with self._transaction(snapshot=True) as tx:
            for row in tx.execute(sa.select(_files).order_by(_files.c.path)).mappings():
                files[row["state"]].setdefault(row["commit_id"], []).append(_file(row))
            return Manifest(_all_offsets(tx), _all_commits(tx), files["live"], files["pending"], _all_holes(tx))

    def note_hole(self, partition: Partition, first_offset: int, next_offset: int, now_us: int) -> Hole:
        """Record that offsets are gone from Kafka; recording the same again changes nothing."""
        row = {**_key(partition), "first_offset": first_offset, "next_offset": next_offset, "noticed_at_us": now_us}
        with self._transaction(write=True) as tx:
            tx.execute(_insert(self._engine, _holes).values(row).on_conflict_do_nothing())
        return Hole(partition, first_offset, next_offset, accepted=False)

    def accept_hole(self, hole: Hole, now_us: int) -> None:
        """Move a partition's offset past a hole, by an operator's decision.

        Raises:
            FencedError: the offset does not stand at the hole's beginning.
        """
        with self._transaction(write=True) as tx:
            moved = tx.execute(
                sa.update(_offsets)
                .where(*_of(_offsets, hole.partition), _offsets.c.next_offset == hole.first_offset)
                .values(next_offset=hole.next_offset)
            )
            if moved.rowcount != 1:
                raise FencedError(f"{hole.partition}: the catalog's offset is no longer {hole.first_offset}")
            where = (
                *_of(_holes, hole.partition),
                _holes.c.first_offset == hole.first_offset,
                _holes.c.next_offset == hole.next_offset,
            )
            tx.execute(sa.update(_holes).where(*where).values(accepted_at_us=now_us))

    def holes(self) -> list[Hole]:
        """Every hole that was ever noticed."""
        with self._transaction() as tx:
            return _all_holes(tx)

    def replace_all(
        self,
        offsets: dict[Partition, int],
        commits: Iterable[tuple[Commit, Sequence[FileEntry]]],
        holes: Iterable[Hole],
        now_us: int,
    ) -> None:
        """Fill an empty catalog, files live, in one transaction.

        Raises:
            ConfigError: it is not empty.
        """
        with self._transaction(write=True) as tx:
            _check_empty(tx)
            for partition, offset in offsets.items():
                tx.execute(sa.insert(_offsets).values(**_key(partition), next_offset=offset, epoch=0))
            for commit, files in commits:
                row = {key: value for key, value in asdict(commit).items() if key != "partition"}
                tx.execute(sa.insert(_commits).values(**row, **_key(commit.partition)))
                if files:
                    rows = [{**asdict(file), "commit_id": commit.commit_id, "state": "live"} for file in files]
                    tx.execute(sa.insert(_files), rows)
            for hole in holes:
                span = {"first_offset": hole.first_offset, "next_offset": hole.next_offset, "noticed_at_us": now_us}
                tx.execute(sa.insert(_holes).values(**_key(hole.partition), **span, accepted_at_us=now_us))

    @contextlib.contextmanager
    def _transaction(self, *, write: bool = False, snapshot: bool = False) -> Iterator[sa.Connection]:
        """One transaction; a database that does not answer, is locked or full becomes a RetryableError.

        Args:
            write: it will write.
            snapshot: all its queries see one moment, and not each its own.
        """
        try:
            with self._engine.connect().execution_options(stillwatch_write=write) as connection:
                if snapshot and self._engine.dialect.name == "postgresql":  # SQLite's transactions are so anyway
                    connection.execution_options(isolation_level="REPEATABLE READ")
                with connection.begin():
                    yield connection
        except sa.exc.IntegrityError:
            raise
        except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError) as error:
            said = " ".join(str(getattr(error, "orig", None) or error).split())
            raise RetryableError(f"catalog {self._engine.url.render_as_string(hide_password=True)}: {said}") from error
        except sa.exc.InternalError as error:
            if getattr(error.orig, "sqlstate", None) not in _WORTH_ANOTHER_TRY:
                raise
            raise RetryableError(f"catalog {url_without_password(str(self._engine.url))}: {error.orig}") from error
        except sa.exc.DatabaseError as error:
            if type(error) is not sa.exc.DatabaseError:  # its other kinds are bugs
                raise
            name = self._engine.url.render_as_string(hide_password=True)
            raise SchemaError(f"catalog {name}: {error.orig}; `maintain rebuild-catalog` makes a new one") from error


def url_without_password(url: str) -> str:
    """The URL as it may be shown."""
    try:
        return sa.make_url(url).render_as_string(hide_password=True)
    except sa.exc.ArgumentError:
        return "(not a database URL)"


def sqlite_url(path: Path) -> str:
    """URL of the embedded catalog in a file."""
    return sa.URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)


def _engine(url: str) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise ConfigError(
            "--catalog: not a database URL; for example sqlite:////var/lib/stillwatch/catalog.db "
            "or postgresql+psycopg://user@host/database"
        ) from None
    makers = {
        "sqlite": _sqlite_engine,
        "sqlite+pysqlite": _sqlite_engine,
        "postgresql": _postgres_engine,
        "postgresql+psycopg": _postgres_engine,
    }
    make = makers.get(parsed.drivername)
    if make is None:
        raise ConfigError(f"--catalog: {parsed.drivername} is not supported; use sqlite or postgresql+psycopg")
    try:
        return make(parsed)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"--catalog: the driver {error.name} is not installed; install stillwatch[postgres]"
        ) from None


def _postgres_engine(url: sa.URL) -> sa.Engine:
    # A worker that freezes inside a transaction (a suspended machine) must not hold its locks for ever.
    timeouts = (
        f"-c lock_timeout={int(LOCK_WAIT_S * 1000)} -c idle_in_transaction_session_timeout={int(IDLE_S_MAX * 1000)}"
    )
    arguments = {"connect_timeout": int(LOCK_WAIT_S), "options": timeouts}
    return sa.create_engine(url, pool_pre_ping=True, pool_recycle=3600, connect_args=arguments)


def _is_missing_file(url: sa.URL) -> bool:
    """Whether SQLite would make the file, even for somebody who only reads."""
    return url.get_backend_name() == "sqlite" and not Path(str(url.database)).is_file()


def _check_empty(tx: sa.Connection) -> None:
    for table in (_offsets, _commits):
        if tx.execute(sa.select(sa.func.count()).select_from(table)).scalar_one():
            raise ConfigError("the catalog is not empty: move it away, or name a new one with --catalog")


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL.  While another connection does, SQLite says at once that it is locked, and does not wait."""
    until_s = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until_s:
                raise
            time.sleep(0.01)
        else:
            return


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    if not url.database or url.database == ":memory:":
        raise ConfigError("--catalog: SQLite needs a file, for example sqlite:////var/lib/stillwatch/catalog.db")
    engine = sa.create_engine(url, connect_args={"timeout": LOCK_WAIT_S})

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # transactions begin where `_begin` says so, not where the driver thinks
        _use_wal(connection)
        # FULL: a commit that a power cut takes back would leave its files behind as duplicates
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # One that reads first and then writes would fail where another wrote between; so take the lock at once.
        write = connection.get_execution_options().get("stillwatch_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _insert(engine: sa.Engine, table: sa.Table) -> Any:
    """INSERT in the dialect that knows ON CONFLICT; both spell it the same way."""
    return sqlite.insert(table) if engine.dialect.name == "sqlite" else postgresql.insert(table)


def _key(partition: Partition) -> dict[str, Any]:
    return {"topic": partition.topic, "partition": partition.number}


def _all_offsets(tx: sa.Connection) -> dict[Partition, int]:
    rows = tx.execute(sa.select(_offsets).order_by(_offsets.c.topic, _offsets.c.partition))
    return {Partition(row.topic, row.partition): row.next_offset for row in rows}


def _all_commits(tx: sa.Connection) -> list[Commit]:
    query = sa.select(_commits).order_by(_commits.c.topic, _commits.c.partition, _commits.c.first_offset)
    return [_commit(row) for row in tx.execute(query).mappings()]


def _all_holes(tx: sa.Connection) -> list[Hole]:
    rows = tx.execute(sa.select(_holes).order_by(_holes.c.topic, _holes.c.partition, _holes.c.first_offset))
    return [
        Hole(Partition(row.topic, row.partition), row.first_offset, row.next_offset, row.accepted_at_us is not None)
        for row in rows
    ]


def _of(table: sa.Table, partition: Partition) -> list[sa.ColumnElement[bool]]:
    return [table.c.topic == partition.topic, table.c.partition == partition.number]


def _file(row: Any) -> FileEntry:
    return FileEntry(**{name: row[name] for name in FileEntry.__slots__})


def _commit(row: Any) -> Commit:
    names = [name for name in Commit.__slots__ if name != "partition"]
    return Commit(partition=Partition(row["topic"], row["partition"]), **{name: row[name] for name in names})
