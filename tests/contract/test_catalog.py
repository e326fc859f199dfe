"""The catalog's promises, kept alike by SQLite and by PostgreSQL."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from pipeline.batch import Partition
from pipeline.commits import Claim, Commit, FileEntry
from pipeline.errors import ConfigError, FencedError, RetryableError, SchemaError
from pipeline.io.catalog import Catalog, sqlite_url, url_without_password

LOGS = Partition("logs", 0)


@pytest.fixture(params=("sqlite", "postgresql"))
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "catalog.db")
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def catalog(url: str) -> Iterator[Catalog]:
    """A catalog without a word in it."""
    with contextlib.closing(Catalog.open(url, create=True)) as opened:
        yield opened


def step(claim: Claim, records: int) -> Commit:
    """A commit of so many records from a claim's offset."""
    return Commit(
        commit_id=uuid.uuid4().hex,
        partition=claim.partition,
        first_offset=claim.next_offset,
        next_offset=claim.next_offset + records,
        events=records,
        rejects=0,
        committed_at_us=1,
        worker="test",
    )


def file_of(commit: Commit, table: str = "access", times: tuple[int, int] = (10, 20)) -> FileEntry:
    """A file that a commit lists."""
    path = f"{table}/dt=2026-11-20/hour=08/{commit.commit_id}.parquet"
    return FileEntry(path, table, "2026-11-20", 8, commit.events, 100, "00", *times)


def test_a_commit_moves_the_offset_and_lists_its_files(catalog: Catalog) -> None:
    """Pending at first, live all at once."""
    assert catalog.take(LOGS) is None
    claim = catalog.start_at(LOGS, 5)
    commit = step(claim, 10)
    files = [file_of(commit), file_of(commit, "content")]
    catalog.commit(commit, claim.epoch, files)
    assert catalog.offsets() == {LOGS: 15}
    assert catalog.commits() == [commit]
    assert catalog.live_files() == []
    assert catalog.pending(LOGS) == {commit: files}
    assert catalog.pending(Partition("logs", 1)) == {}
    catalog.publish(commit.commit_id)
    assert catalog.live_files() == files
    assert catalog.pending() == {}


def test_a_commit_done_again_changes_nothing(catalog: Catalog) -> None:
    """After an unclear failure the worker tries again; its id tells that it was done."""
    claim = catalog.start_at(LOGS, 0)
    commit = step(claim, 10)
    for _ in range(2):
        catalog.commit(commit, claim.epoch, [file_of(commit)])
    assert catalog.offsets() == {LOGS: 10}
    assert len(catalog.commits()) == 1


def test_a_former_owner_is_fenced(catalog: Catalog) -> None:
    """From the moment of the take-over, even before the new owner has committed anything."""
    former = catalog.start_at(LOGS, 0)
    owner = catalog.take(LOGS)
    assert owner is not None
    assert owner.epoch > former.epoch
    assert owner.next_offset == former.next_offset
    late = step(former, 10)
    with pytest.raises(FencedError):
        catalog.commit(late, former.epoch, [file_of(late)])
    assert catalog.offsets() == {LOGS: 0}
    assert catalog.pending() == {}
    good = step(owner, 3)
    catalog.commit(good, owner.epoch, [])
    with pytest.raises(FencedError):  # the owner itself, from an offset that it has passed
        catalog.commit(step(owner, 3), owner.epoch, [])
    assert catalog.offsets() == {LOGS: 3}


def test_the_first_to_set_an_offset_sets_it(catalog: Catalog) -> None:
    """Two workers that both find a new partition agree on where it starts."""
    assert catalog.start_at(LOGS, 7).next_offset == 7
    assert catalog.start_at(LOGS, 99).next_offset == 7


def test_workers_that_fight_over_a_partition_move_it_without_overlap(url: str, catalog: Catalog) -> None:
    """Four threads take over and commit as fast as they can: what is committed is one chain."""
    catalog.start_at(LOGS, 0)
    start = threading.Barrier(4)
    errors: list[BaseException] = []

    def fight() -> None:
        try:
            with contextlib.closing(Catalog.open(url, create=False)) as mine:
                start.wait()
                for _ in range(15):
                    claim = mine.take(LOGS)
                    assert claim is not None
                    with contextlib.suppress(FencedError):
                        commit = step(claim, 1)
                        mine.commit(commit, claim.epoch, [file_of(commit)])
        except BaseException as error:  # noqa: BLE001  # handed to the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=fight) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    commits = catalog.commits()
    assert [commit.first_offset for commit in commits] == list(range(len(commits)))
    assert catalog.offsets() == {LOGS: len(commits)}
    assert commits


def test_files_are_found_by_table_and_time(catalog: Catalog) -> None:
    """Bounds include their ends; a file without times is always found."""
    claim = catalog.start_at(LOGS, 0)
    commit = step(claim, 1)
    early, late = file_of(commit, "access", (10, 20)), file_of(commit, "content", (30, 40))
    timeless = FileEntry("rejects/x.parquet", "rejects", "1970-01-01", 0, 1, 1, "00", None, None)
    catalog.commit(commit, claim.epoch, [early, late, timeless])
    catalog.publish(commit.commit_id)
    assert catalog.live_files("content") == [late]
    assert set(catalog.live_files(time_us=(20, 25))) == {early, timeless}
    assert set(catalog.live_files(time_us=(21, 29))) == {timeless}
    assert set(catalog.live_files(time_us=(None, 30))) == {early, late, timeless}


def test_a_hole_is_on_record_and_is_stepped_over_once(catalog: Catalog) -> None:
    """Noted as often as it is met, accepted once, and only where the offset stands before it."""
    catalog.start_at(LOGS, 100)
    hole = catalog.note_hole(LOGS, 100, 250, now_us=1)
    catalog.note_hole(LOGS, 100, 250, now_us=2)
    assert str(hole) == "logs:0:100-249"
    assert [known.accepted for known in catalog.holes()] == [False]
    catalog.accept_hole(hole, now_us=3)
    assert catalog.offsets() == {LOGS: 250}
    assert [known.accepted for known in catalog.holes()] == [True]
    with pytest.raises(FencedError):
        catalog.accept_hole(hole, now_us=4)


def test_there_is_no_catalog_until_somebody_makes_one(url: str) -> None:
    """A reader says so and makes nothing."""
    for _ in range(2):
        with pytest.raises(ConfigError, match="no catalog"):
            Catalog.open(url, create=False)


def test_a_catalog_of_another_version_is_refused(url: str, catalog: Catalog) -> None:
    """An older Stillwatch must not write into a newer one's tables."""
    del catalog
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE meta SET value = '99' WHERE key = 'schema_version'"))
    engine.dispose()
    with pytest.raises(SchemaError, match="version 99"):
        Catalog.open(url, create=True)


def test_workers_that_start_at_once_make_one_catalog(url: str) -> None:
    """Tables are made once, whoever is first."""
    start = threading.Barrier(4)
    errors: list[BaseException] = []

    def begin() -> None:
        try:
            start.wait()
            Catalog.open(url, create=True).close()
        except BaseException as error:  # noqa: BLE001  # handed to the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_locked_sqlite_is_worth_another_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says that it is locked."""
    monkeypatch.setattr("pipeline.io.catalog.LOCK_WAIT_S", 0.1)
    file = tmp_path / "catalog.db"
    with contextlib.closing(Catalog.open(sqlite_url(file), create=True)) as catalog:
        claim = catalog.start_at(LOGS, 0)
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(RetryableError, match="database is locked"):
                catalog.commit(step(claim, 1), claim.epoch, [])
            assert catalog.live_files() == []  # reading goes on
            other.execute("ROLLBACK")
        catalog.commit(step(claim, 1), claim.epoch, [])


@pytest.mark.parametrize("url", ("mysql://host/db", "sqlite://", "nonsense", "sqlite:///:memory:"))
def test_a_url_that_cannot_be_is_refused(url: str) -> None:
    """With words for the one who typed it."""
    with pytest.raises(ConfigError, match="--catalog"):
        Catalog.open(url, create=True)


def test_a_password_is_not_shown() -> None:
    """Neither in what is logged nor in an error."""
    url = "postgresql+psycopg://user:secret@127.0.0.1:1/db"
    assert "secret" not in url_without_password(url)
    with pytest.raises(RetryableError) as caught:
        Catalog.open(url, create=True)
    assert "secret" not in str(caught.value)
