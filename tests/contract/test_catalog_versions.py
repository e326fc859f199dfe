"""Catalogs of other versions, and addresses that are none; on SQLite and on PostgreSQL."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from pipeline.commits import UNKNOWN_LOG, Claim, Hole, LogMark
from pipeline.errors import ConfigError, RetryableError, SchemaError
from pipeline.io.catalog import Catalog, sqlite_url, url_without_password
from pipeline.io.catalog_tables import SCHEMA_VERSION
from pipeline.io.desk import copies
from tests.contract.catalog_commits import (
    P0,
    alert_of,
    commit_of,
    execute,
    files_of,
    open_at_once,
    snapshot_of,
)

SECRET = "hunter2"


def test_a_newer_catalog_is_refused(url: str, catalog: Catalog) -> None:
    newer = SCHEMA_VERSION + 1
    execute(url, f"UPDATE meta SET value = '{newer}' WHERE key = 'schema_version'")
    for create in (True, False):
        with pytest.raises(SchemaError, match=f"version {newer}"):
            Catalog.open(url, create=create)


VERSION_1 = (
    "CREATE TABLE meta (key VARCHAR PRIMARY KEY, value VARCHAR NOT NULL)",
    "INSERT INTO meta VALUES ('schema_version', '1')",
    (
        "CREATE TABLE offsets (topic VARCHAR, partition INTEGER, next_offset BIGINT NOT NULL, epoch BIGINT NOT NULL, "
        "PRIMARY KEY (topic, partition))"
    ),
    "INSERT INTO offsets VALUES ('access', 0, 10, 7)",
    (
        "CREATE TABLE holes (topic VARCHAR, partition INTEGER, first_offset BIGINT, next_offset BIGINT, "
        "noticed_at_us BIGINT NOT NULL, accepted_at_us BIGINT, PRIMARY KEY (topic, partition, first_offset, next_offset))"
    ),
    "INSERT INTO holes VALUES ('access', 0, 3, 5, 1, 2)",
)
"""What the first version made, as far as the second changes it."""


def test_an_older_catalog_is_brought_up_to_date_by_a_worker_and_by_nobody_else(url: str) -> None:
    for statement in VERSION_1:
        execute(url, statement)
    with pytest.raises(SchemaError, match="the next `stillwatch run` brings it up to date"):
        Catalog.open(url, create=False)
    open_at_once(url)
    with contextlib.closing(Catalog.open(url, create=False)) as catalog:
        assert catalog.holes() == [Hole(P0, 3, 5, accepted=True)]
        claim = catalog.take(P0)
        assert claim == Claim(P0, 10, 8, UNKNOWN_LOG)
        commit = commit_of(P0, 10, 20)
        catalog.commit(commit, claim.epoch, files_of(commit), LogMark("topic", 1))
        assert catalog.commits() == [commit]


def test_a_catalog_of_version_2_keeps_all_and_gets_the_new_tables(url: str, catalog: Catalog) -> None:
    claim = catalog.start_at(P0, 0)
    commit = commit_of(P0, 0, 10)
    catalog.commit(commit, claim.epoch, files_of(commit))
    for statement in ("DROP TABLE outbox", "DROP TABLE alerts", "DROP TABLE snapshots"):
        execute(url, statement)
    execute(url, "UPDATE meta SET value = '2' WHERE key = 'schema_version'")
    with pytest.raises(SchemaError, match=f"has version 2, this Stillwatch knows version {SCHEMA_VERSION}: the next"):
        Catalog.open(url, create=False)
    with contextlib.closing(Catalog.open(url, create=True)) as migrated:
        assert migrated.commits() == [commit]
        other = commit_of(P0, 10, 20)
        migrated.commit(other, claim.epoch, [], alerts=[alert_of(1)], snapshot=snapshot_of(other))
        assert migrated.alerts() == [alert_of(1)]
        assert migrated.snapshots(P0) == [snapshot_of(other)]


def test_a_catalog_of_version_6_keeps_its_marks_and_they_are_copied(url: str, catalog: Catalog, tmp_path: Path) -> None:
    claim = catalog.start_at(P0, 0)
    catalog.commit(commit_of(P0, 0, 10), claim.epoch, [], verdict_seq=3)
    for statement in (
        "DROP INDEX verdict_marks_to_copy",
        "ALTER TABLE verdict_marks DROP COLUMN copied",
        "UPDATE meta SET value = '6' WHERE key = 'schema_version'",
    ):
        execute(url, statement)
    with contextlib.closing(Catalog.open(url, create=True)) as migrated:
        migrated.commit(commit_of(P0, 10, 20), claim.epoch, [], verdict_seq=4)
        assert migrated.verdict_marks(P0) == [(10, 3), (20, 4)]
        copies.copy(tmp_path / "lake", migrated)
        assert [row["verdict_seq"] for row in copies.read(tmp_path / "lake").rows["marks"]] == [3, 4]


def test_a_reader_does_not_make_a_catalog(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="catalog"):
        Catalog.open(url, create=False)
    assert list(tmp_path.iterdir()) == []


def test_check_empty_makes_nothing_and_refuses_what_holds_something(url: str, tmp_path: Path) -> None:
    Catalog.check_empty(url)
    assert list(tmp_path.iterdir()) == []
    with contextlib.closing(Catalog.open(url, create=True)) as catalog:
        Catalog.check_empty(url)
        catalog.start_at(P0, 0)
        with pytest.raises(ConfigError, match="not empty"):
            Catalog.check_empty(url)
        with pytest.raises(ConfigError, match="not empty"):
            catalog.replace_all({P0: 1}, [], now_us=1)


@pytest.mark.parametrize(
    "url",
    (
        f"postgresql+psycopg://me:{SECRET}@127.0.0.1:1/nowhere",
        f"postgresql+psycopg://me:{SECRET}@127.0.0.1:1/nowhere?connect_timeout=2",
        f"mysql://me:{SECRET}@127.0.0.1/nowhere",
        f"postgresql+nodriver://me:{SECRET}@127.0.0.1/nowhere",
        f"://me:{SECRET}@host",
        f"me:{SECRET}@host",
    ),
)
def test_a_password_is_never_shown(url: str) -> None:
    for create in (True, False):
        with pytest.raises((ConfigError, RetryableError)) as caught:
            Catalog.open(url, create=create)
        assert SECRET not in str(caught.value)
    assert SECRET not in url_without_password(url)


@pytest.mark.parametrize(
    "url", ("sqlite://", "sqlite:///:memory:", "sqlite+aiosqlite:///x.db", "sqlite:////no/such/folder/c.db")
)
def test_a_useless_sqlite_address_is_a_clear_error(url: str) -> None:
    with pytest.raises((ConfigError, RetryableError), match="catalog"):
        Catalog.open(url, create=True)


def test_a_file_that_is_no_database_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    path.write_bytes(b"this is no database at all" * 100)
    with pytest.raises((ConfigError, SchemaError), match=r"catalog\.db"):
        Catalog.open(sqlite_url(path), create=False)
