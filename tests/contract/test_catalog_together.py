"""Several that use one catalog at once, and one that is locked; on SQLite and on PostgreSQL."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import random
import threading
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from pipeline.batch import Partition
from pipeline.commits import Claim, Commit
from pipeline.errors import FencedError, RetryableError
from pipeline.io import catalog_engine
from pipeline.io.catalog import Catalog
from tests.contract.catalog_commits import (
    P0,
    STEPS,
    THREADS,
    commit_of,
    files_of,
    insist,
    live,
    open_at_once,
)

PROCESSES = 2


# ---- several at once


def _fight(url: str, seed: int, partition: Partition, wins: Callable[[Commit], None]) -> None:
    """Take the partition over and commit, again and again, until it is at its end; what others hold is lost to them."""
    rng = random.Random(seed)
    with contextlib.closing(Catalog.open(url, create=True)) as catalog:
        claim = catalog.start_at(partition, 0)
        while claim.next_offset < STEPS:
            commit = commit_of(partition, claim.next_offset, claim.next_offset + 1)
            try:
                insist(catalog.commit, commit, claim.epoch, files_of(commit))
            except FencedError:
                claim = insist(catalog.take, partition)
                continue
            insist(catalog.publish, commit.commit_id)
            wins(commit)
            claim = dataclasses.replace(claim, next_offset=commit.next_offset)
            if rng.random() < 0.2:
                claim = insist(catalog.take, partition)


def _fight_in_process(url: str, seed: int) -> None:
    _fight(url, seed, P0, lambda _commit: None)


def _check_fight(catalog: Catalog) -> None:
    commits = catalog.commits()
    assert [commit.first_offset for commit in commits] == list(range(STEPS)), "each step exactly once"
    assert live(catalog) == {file.path for commit in commits for file in files_of(commit)}
    assert catalog.offsets() == {P0: STEPS}


def test_of_threads_that_fight_over_a_partition_exactly_one_wins_each_step(url: str) -> None:
    won: list[Commit] = []
    threads = [threading.Thread(target=_fight, args=(url, seed, P0, won.append)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with contextlib.closing(Catalog.open(url, create=False)) as catalog:
        _check_fight(catalog)
        assert sorted(won, key=lambda commit: commit.first_offset) == catalog.commits()


def test_of_processes_that_fight_over_a_partition_exactly_one_wins_each_step(url: str) -> None:
    """They begin with making the catalog, all at once."""
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_fight_in_process, args=(url, seed)) for seed in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    with contextlib.closing(Catalog.open(url, create=False)) as catalog:
        _check_fight(catalog)


def test_workers_that_start_at_once_make_one_catalog(url: str) -> None:
    open_at_once(url)
    Catalog.open(url, create=False).close()


def test_two_owners_of_a_new_partition_agree_on_its_first_offset(url: str, catalog: Catalog) -> None:
    start = threading.Barrier(THREADS)
    claims: list[Claim] = []

    def begin(offset: int) -> None:
        with contextlib.closing(Catalog.open(url, create=True)) as mine:
            start.wait()
            claims.append(mine.start_at(P0, offset))

    threads = [threading.Thread(target=begin, args=(100 + number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({claim.next_offset for claim in claims}) == 1
    assert len({claim.epoch for claim in claims}) == THREADS
    assert catalog.offsets() == {P0: claims[0].next_offset}


# ---- what goes wrong outside


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_engine, "LOCK_WAIT_S", 0.3)


@pytest.fixture
def locked(url: str, catalog: Catalog) -> Iterator[sa.Connection]:
    """Somebody else holds what a commit needs."""
    catalog.start_at(P0, 0)
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.exec_driver_sql("LOCK TABLE offsets IN ACCESS EXCLUSIVE MODE")
        yield connection
        connection.rollback()
    engine.dispose()


def test_a_locked_catalog_is_to_be_tried_again_and_then_works(impatient: None, url: str, locked: sa.Connection) -> None:
    with contextlib.closing(Catalog.open(url, create=True)) as waiting:
        commit = commit_of(P0, 0, 5)
        with pytest.raises(RetryableError, match="lock"):
            waiting.commit(commit, 1, [])
        with pytest.raises(RetryableError, match="lock"):
            waiting.take(P0)
        if locked.dialect.name == "sqlite":
            assert waiting.live_files() == [], "who only reads goes on"
        locked.rollback()
        claim = waiting.take(P0)
        assert claim is not None
        waiting.commit(commit, claim.epoch, files_of(commit))
        assert waiting.offsets() == {P0: 5}
