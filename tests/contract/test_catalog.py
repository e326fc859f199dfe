"""What the commit protocol asks of a catalog; one suite, run on SQLite and on PostgreSQL."""

from __future__ import annotations

import contextlib
import dataclasses
import threading

import pytest
import sqlalchemy as sa

from pipeline.batch import Partition
from pipeline.commits import REPLACED, UNKNOWN_LOG, Claim, Hole, LogMark
from pipeline.errors import ConfigError, FencedError
from pipeline.io.catalog import Catalog
from tests.contract.catalog_commits import (
    P0,
    P1,
    STEPS,
    THREADS,
    commit_of,
    files_of,
    live,
)

# ---- offsets and ownership


def test_a_partition_never_read_has_no_claim_until_it_gets_its_first_offset(catalog: Catalog) -> None:
    assert catalog.take(P0) is None
    assert catalog.start_at(P0, 42).next_offset == 42
    assert catalog.take(P1) is None
    assert catalog.offsets() == {P0: 42}


def test_the_first_offset_holds_for_whoever_comes_second(catalog: Catalog) -> None:
    first = catalog.start_at(P0, 42)
    second = catalog.start_at(P0, 99)
    assert second.next_offset == 42
    assert second.epoch > first.epoch


def test_a_commit_moves_the_offset_and_the_next_owner_goes_on_there(catalog: Catalog) -> None:
    claim = catalog.start_at(P0, 0)
    commit = commit_of(P0, 0, 10)
    catalog.commit(commit, claim.epoch, files_of(commit))
    assert catalog.offsets() == {P0: 10}
    assert catalog.commits() == [commit]
    taken = catalog.take(P0)
    assert taken == Claim(P0, 10, claim.epoch + 1)


def test_large_offsets_keep_every_digit(catalog: Catalog) -> None:
    claim = catalog.start_at(P0, 2**62)
    commit = commit_of(P0, 2**62, 2**62 + 1)
    catalog.commit(commit, claim.epoch, [])
    assert catalog.offsets() == {P0: 2**62 + 1}
    assert catalog.commits() == [commit]


def test_taking_a_partition_over_shuts_its_former_owner_out(catalog: Catalog) -> None:
    """Even where the offset has not moved: what the former owner staged may be swept from now on."""
    former = catalog.start_at(P0, 0)
    catalog.take(P0)
    commit = commit_of(P0, 0, 10)
    with pytest.raises(FencedError, match="access-0"):
        catalog.commit(commit, former.epoch, files_of(commit))
    assert catalog.offsets() == {P0: 0}
    assert catalog.manifest().pending == {}
    assert catalog.commits() == []


@pytest.mark.parametrize(("first", "following"), ((5, 10), (11, 20), (0, 10)))
def test_a_commit_from_anywhere_but_the_offset_is_fenced(catalog: Catalog, first: int, following: int) -> None:
    claim = catalog.start_at(P0, 0)
    catalog.commit(commit_of(P0, 0, 10), claim.epoch, [])
    with pytest.raises(FencedError):
        catalog.commit(commit_of(P0, first, following), claim.epoch, [])
    assert catalog.offsets() == {P0: 10}


def test_partitions_and_topics_do_not_touch_each_other(catalog: Catalog) -> None:
    claims = {p: catalog.start_at(p, 0) for p in (P0, P1, Partition("access-0", 0), Partition("Access", 0))}
    catalog.take(P1)
    for partition, claim in claims.items():
        if partition != P1:
            catalog.commit(commit_of(partition, 0, 7), claim.epoch, [])
    assert catalog.offsets() == {p: 0 if p == P1 else 7 for p in claims}


def test_doing_a_commit_again_changes_nothing_even_after_a_take_over(catalog: Catalog) -> None:
    """A worker whose connection broke cannot know whether the commit was made."""
    claim = catalog.start_at(P0, 0)
    commit = commit_of(P0, 0, 10)
    catalog.commit(commit, claim.epoch, files_of(commit))
    before = catalog.manifest()
    catalog.commit(commit, claim.epoch, files_of(commit))
    assert catalog.manifest() == before
    catalog.take(P0)
    catalog.commit(commit, claim.epoch, files_of(commit))
    assert catalog.manifest() == before


def test_a_commit_that_fails_half_way_leaves_nothing(catalog: Catalog) -> None:
    claim = catalog.start_at(P0, 0)
    one = commit_of(P0, 0, 10)
    catalog.commit(one, claim.epoch, files_of(one))
    two = commit_of(P0, 10, 20)
    with pytest.raises(sa.exc.IntegrityError):
        catalog.commit(two, claim.epoch, [*files_of(two), *files_of(one)])
    assert catalog.offsets() == {P0: 10}
    assert catalog.commits() == [one]


# ---- the consumer group


def test_a_topic_has_one_group_and_another_is_told_whose_it_is(url: str, catalog: Catalog) -> None:
    catalog.join("access", "one", now_us=1_780_000_000_000_000)
    catalog.join("access", "one", now_us=1_790_000_000_000_000)
    with contextlib.closing(Catalog.open(url, create=True)) as other:
        with pytest.raises(
            ConfigError, match=r"topic access read by .* group one since 2026-05-28.*--group one.*--change-gr"
        ):
            other.join("access", "two", now_us=1_790_000_000_000_000)
        other.join("elsewhere", "two", now_us=1)
        assert catalog.start_at(P0, 0).epoch == 1, "nobody was hindered"


def test_a_group_that_takes_a_topic_over_shuts_the_former_one_out(url: str, catalog: Catalog) -> None:
    """The former group's worker learns of it when it next takes a partition, and fences nobody by trying."""
    catalog.join("access", "one", now_us=1)
    former = catalog.start_at(P0, 0)
    with contextlib.closing(Catalog.open(url, create=True)) as other:
        other.join("access", "two", now_us=2, change=True)
        other.join("access", "two", now_us=3, change=True)
        claim = other.take(P0)
        assert claim == Claim(P0, 0, former.epoch + 1)
        with pytest.raises(FencedError):
            catalog.commit(commit_of(P0, 0, 5), former.epoch, [])
        for try_again in (lambda: catalog.take(P0), lambda: catalog.start_at(P1, 0)):
            with pytest.raises(ConfigError, match="group two since 1970-01-01T00:00:00"):
                try_again()
        other.commit(commit_of(P0, 0, 5), former.epoch + 1, [])
        assert other.offsets() == {P0: 5}


def test_of_groups_that_begin_a_topic_at_once_one_gets_it(url: str) -> None:
    start = threading.Barrier(THREADS)
    joined: list[str] = []

    def begin(group: str) -> None:
        with contextlib.closing(Catalog.open(url, create=True)) as mine, contextlib.suppress(ConfigError):
            start.wait()
            mine.join("access", group, now_us=1)
            joined.append(group)

    threads = [threading.Thread(target=begin, args=(f"group-{number}",)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(joined) == 1


# ---- files become visible


def test_files_are_pending_until_they_are_published_and_then_live_all_at_once(catalog: Catalog) -> None:
    claim = catalog.start_at(P0, 0)
    commit = commit_of(P0, 0, 10)
    files = files_of(commit, 3)
    catalog.commit(commit, claim.epoch, files)
    assert live(catalog) == set()
    assert catalog.pending() == {commit: files}
    assert catalog.pending(P0) == {commit: files}
    assert catalog.pending(P1) == {}
    catalog.publish(commit.commit_id)
    assert catalog.live_files() == files
    assert catalog.pending() == {}
    catalog.publish(commit.commit_id)
    assert catalog.live_files() == files


def test_pending_commits_come_in_offset_order(catalog: Catalog) -> None:
    claim = catalog.start_at(P0, 0)
    commits = [commit_of(P0, first, first + 5) for first in range(0, 50, 5)]
    for commit in commits:
        catalog.commit(commit, claim.epoch, files_of(commit))
    assert list(catalog.pending(P0)) == commits


def test_a_reader_in_a_loop_never_sees_a_part_of_a_commit(catalog: Catalog, url: str) -> None:
    claim = catalog.start_at(P0, 0)
    done = threading.Event()
    seen: list[int] = []

    def read() -> None:
        with contextlib.closing(Catalog.open(url, create=False)) as reader:
            while not done.is_set():
                seen.append(len(reader.live_files()))
                manifest = reader.manifest()
                assert set(map(len, manifest.live.values())) <= {4}
                assert manifest.offsets[P0] == max((commit.next_offset for commit in manifest.commits), default=0)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for first in range(STEPS):
            commit = commit_of(P0, first, first + 1)
            catalog.commit(commit, claim.epoch, files_of(commit, 4))
            catalog.publish(commit.commit_id)
    finally:
        done.set()
        reader.join()
    assert seen
    assert all(count % 4 == 0 for count in seen)
    assert seen == sorted(seen)


def test_files_are_found_by_table_and_by_time(catalog: Catalog) -> None:
    claim = catalog.start_at(P0, 0)
    commit = commit_of(P0, 0, 10)
    reject = dataclasses.replace(
        files_of(commit)[0], path="rejects/x.parquet", table_name="rejects", time_min_us=None, time_max_us=None
    )
    files = files_of(commit, 24)
    catalog.commit(commit, claim.epoch, [*files, reject])
    catalog.publish(commit.commit_id)
    hour_us = 3_600_000_000
    assert [file.table_name for file in catalog.live_files("rejects")] == ["rejects"]
    assert catalog.live_files("access") == files
    assert [file.hour for file in catalog.live_files("access", (5 * hour_us, 7 * hour_us))] == [5, 6, 7]
    assert [file.hour for file in catalog.live_files("access", (5 * hour_us + 59, 6 * hour_us - 1))] == [5]
    assert [file.hour for file in catalog.live_files("access", (None, 0))] == [0]
    assert [file.hour for file in catalog.live_files("access", (23 * hour_us, None))] == [23]
    assert reject in catalog.live_files(time_us=(99 * hour_us, None)), "rows without a time may be of any"


# ---- holes


def test_a_hole_is_noted_once_and_accepting_it_moves_the_offset(catalog: Catalog) -> None:
    catalog.start_at(P0, 10)
    hole = catalog.note_hole(P0, 10, 25, now_us=1)
    catalog.note_hole(P0, 10, 25, now_us=2)
    assert catalog.holes() == [Hole(P0, 10, 25, accepted=False)]
    assert catalog.offsets() == {P0: 10}
    catalog.accept_hole(hole, now_us=3)
    assert catalog.holes() == [Hole(P0, 10, 25, accepted=True)]
    assert catalog.offsets() == {P0: 25}
    with pytest.raises(FencedError):
        catalog.accept_hole(hole, now_us=4)


def test_accepting_replaced_offsets_moves_nothing_and_forgets_the_logs_mark(catalog: Catalog) -> None:
    """They were landed once: the offset stands at their end, and from there on the log counts as it is now."""
    claim = catalog.start_at(P0, 0, LogMark("topic", -1))
    catalog.commit(commit_of(P0, 0, 25), claim.epoch, [], LogMark("topic", 3))
    hole = catalog.note_hole(P0, 10, 25, now_us=1, kind=REPLACED)
    assert catalog.holes() == [Hole(P0, 10, 25, accepted=False, kind=REPLACED)]
    catalog.accept_hole(hole, now_us=3)
    assert catalog.holes() == catalog.manifest().holes == [Hole(P0, 10, 25, accepted=True, kind=REPLACED)]
    assert catalog.take(P0) == Claim(P0, 25, claim.epoch + 1, UNKNOWN_LOG)
    catalog.commit(commit_of(P0, 25, 30), claim.epoch + 1, [])
    with pytest.raises(FencedError):
        catalog.accept_hole(hole, now_us=4)


def test_the_mark_of_a_log_goes_with_the_offset(catalog: Catalog) -> None:
    claim = catalog.start_at(P0, 0, LogMark("topic", -1))
    assert claim.mark == LogMark("topic", -1)
    catalog.start_at(P0, 0, LogMark("another", 9))
    claim = catalog.take(P0) or claim
    assert claim.mark == LogMark("topic", -1), "the first offset holds, and so does its mark"
    catalog.commit(commit_of(P0, 0, 10), claim.epoch, [], LogMark("topic", 3))
    with pytest.raises(FencedError):
        catalog.commit(commit_of(P0, 0, 20), claim.epoch, [], LogMark("topic", 4))
    assert catalog.take(P0) == Claim(P0, 10, claim.epoch + 1, LogMark("topic", 3))
