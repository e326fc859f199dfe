"""Connections to the catalog's database: which URLs there are, and how long each kind may keep a worker waiting."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from pipeline.errors import ConfigError

LOCK_WAIT_S: Final = 5.0
"""How long one statement waits for a locked database before the caller is told to try again."""

IDLE_S_MAX: Final = 20.0
"""PostgreSQL ends a transaction whose worker says nothing for this long.  SQLite cannot: there a frozen worker must be
killed or woken."""


def url_without_password(url: str) -> str:
    """The URL as it may be shown."""
    try:
        return sa.make_url(url).render_as_string(hide_password=True)
    except sa.exc.ArgumentError:
        return "(not a database URL)"


def sqlite_url(path: Path) -> str:
    """URL of the embedded catalog in a file."""
    return sa.URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)


def engine_of(url: str) -> sa.Engine:
    """Prepare connections to a database; none is made yet.

    Raises:
        ConfigError: the URL is unusable, or names a database that is not supported.
    """
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


def is_missing_file(url: sa.URL) -> bool:
    """Whether SQLite would make the file, even for somebody who only reads."""
    return url.get_backend_name() == "sqlite" and not Path(str(url.database)).is_file()


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
