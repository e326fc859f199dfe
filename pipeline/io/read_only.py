"""The embedded catalog in a folder that this process cannot write: a read-only mount, somebody else's lake, a backup.

SQLite in WAL mode shares two files beside the database (`-wal`, `-shm`) among its readers and writers, and makes them
where they are missing.  Where it cannot, it opens nothing, even to read, unless told that nobody writes.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

import sqlalchemy as sa

from pipeline.errors import ConfigError
from pipeline.io.catalog_engine import LOCK_WAIT_S


def cannot_write(url: str) -> bool:
    """Whether a URL names an SQLite catalog whose folder, or which itself, is closed to writing by this process."""
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        return False
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return False
    file = Path(parsed.database)
    return file.is_file() and not (os.access(file, os.W_OK) and os.access(file.absolute().parent, os.W_OK))


def read_only_engine(url: str) -> sa.Engine:
    """An engine for such a catalog.

    It keeps no connection: whether somebody writes, where that can be done, is asked anew for every transaction.
    """
    parsed = sa.make_url(url)
    file = Path(str(parsed.database)).absolute()
    engine = sa.create_engine(url, creator=lambda: _connect(file), poolclass=sa.NullPool)

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(
            "BEGIN"
        )  # the driver would begin one only to write: each query would see its own moment

    return engine


def _connect(file: Path) -> sqlite3.Connection:
    """Connect beside a writer, by the files that it shares; without one, to the database file alone.

    Raises:
        ConfigError: there are commits that only a process that may write can read.
    """
    try:
        return _open(file, "mode=ro")
    except sqlite3.OperationalError as error:
        # The folder cannot be written (CANTOPEN), or it could but for its owner's permissions (READONLY_DIRECTORY).
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            raise
    wal = file.with_name(f"{file.name}-wal")
    with contextlib.suppress(FileNotFoundError):
        if wal.stat().st_size:
            raise ConfigError(
                f"{file} cannot be read where it is: {wal.name} holds commits, and SQLite needs a folder that it may "
                "write to bring both together. Copy both files to one, and name the copy with --catalog"
            )
    return _open(file, "immutable=1")


def _open(file: Path, how: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{file.as_uri()}?{how}", uri=True, timeout=LOCK_WAIT_S, check_same_thread=False)
    try:
        connection.execute(
            "PRAGMA schema_version"
        ).fetchone()  # SQLite opens its files when it is first asked something
    except BaseException:
        connection.close()
        raise
    return connection
