"""What the commit protocol asks of a catalog; one suite, run on SQLite and on PostgreSQL."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import random
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from pipeline.alerts import Alert, alert_id_of
from pipeline.batch import Partition
from pipeline.commits import REPLACED, UNKNOWN_LOG, Claim, Commit, FileEntry, Hole, LogMark, SnapshotEntry
from pipeline.errors import ConfigError, FencedError, RetryableError, SchemaError
from pipeline.io import catalog_engine
from pipeline.io.catalog import AlertFilter, Catalog, sqlite_url, url_without_password
from pipeline.io.catalog_alerts import NEW, PAST
from pipeline.io.catalog_tables import SCHEMA_VERSION
from pipeline.io.desk import copies

P0, P1 = Partition("access", 0), Partition("access", 1)
PROCESSES = 2
THREADS = 4
STEPS = 30
SECRET = "hunter2"


def commit_of(partition: Partition, first: int, following: int) -> Commit:
    return Commit(uuid.uuid4().hex, partition, first, following, following - first, 0, 1_780_000_000_000_000, "test:1")


def files_of(commit: Commit, count: int = 1) -> list[FileEntry]:
    return [
        FileEntry(
            path=f"access/dt=2026-03-01/hour={hour:02d}/{commit.commit_id}.parquet",
            table_name="access",
            dt="2026-03-01",
            hour=hour,
            rows=3,
            bytes=2**40,
            sha256="0" * 64,
            time_min_us=hour * 3_600_000_000,
            time_max_us=hour * 3_600_000_000 + 59,
        )
        for hour in range(count)
    ]


def live(catalog: Catalog) -> set[str]:
    return {file.path for file in catalog.live_files()}


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


# ---- alerts and snapshots


def alert_of(number: int, **changed: Any) -> Alert:
    account = f"account-{number}"
    known = {"state": "live", "severity": "high", "rule": "harvest", **changed}
    return Alert(
        alert_id=alert_id_of(known["rule"], 1, "account", account, number),
        rule_version=1,
        entity_type="account",
        entity_id=account,
        window_start_us=number,
        raised_at_us=1_000 * number,
        first_seen_us=0,
        topic="access",
        partition=0,
        offset=number,
        exchanges=2**40,
        output_tokens=0,
        risk=0.1 + 0.2,
        reasons=("one \0 \U0001f600", "two"),
        features={"a": 0.5, "b": None},
        versions={"models": "1"},
        **known,
    )


def snapshot_of(commit: Commit) -> SnapshotEntry:
    path = f"snapshots/access-0/{commit.commit_id}.snapshot"
    return SnapshotEntry(commit.partition, commit.next_offset, commit.commit_id, path, 2**40, "0" * 64, 1, 7)


def test_alerts_come_with_the_commit_and_live_ones_go_to_the_outbox(catalog: Catalog) -> None:
    claim = catalog.start_at(P0, 0)
    commit = commit_of(P0, 0, 10)
    alerts = [alert_of(1), alert_of(2, state="shadow"), alert_of(3)]
    catalog.commit(commit, claim.epoch, [], alerts=alerts)
    assert catalog.alerts() == alerts[::-1], "the latest first"
    assert catalog.outbox() == {alerts[0].alert_id: "new", alerts[2].alert_id: "new"}
    assert catalog.alert(alerts[1].alert_id) == alerts[1]
    assert catalog.alert("0" * 32) is None


def test_a_replay_adds_no_alert_and_sends_none_again(catalog: Catalog, url: str) -> None:
    claim = catalog.start_at(P0, 0)
    first, again, other = alert_of(1), alert_of(1, severity="low"), alert_of(2)
    commit = commit_of(P0, 0, 10)
    for _ in range(2):
        catalog.commit(commit, claim.epoch, [], alerts=[first, first])
    _execute(url, "UPDATE outbox SET state = 'sent'")
    catalog.commit(commit_of(P0, 10, 20), claim.epoch, [], alerts=[again, other])
    assert catalog.alerts() == [other, first]
    assert catalog.outbox() == {first.alert_id: "sent", other.alert_id: "new"}


def test_an_alert_that_was_a_shadow_is_not_sent_when_it_is_raised_again(catalog: Catalog) -> None:
    claim = catalog.start_at(P0, 0)
    catalog.commit(commit_of(P0, 0, 10), claim.epoch, [], alerts=[alert_of(1, state="shadow")])
    catalog.commit(commit_of(P0, 10, 20), claim.epoch, [], alerts=[alert_of(1)])
    assert catalog.outbox() == {}


def test_a_fenced_commit_leaves_no_alert_and_no_snapshot(catalog: Catalog) -> None:
    former = catalog.start_at(P0, 0)
    catalog.take(P0)
    commit = commit_of(P0, 0, 10)
    with pytest.raises(FencedError):
        catalog.commit(commit, former.epoch, [], alerts=[alert_of(1)], snapshot=snapshot_of(commit))
    assert (catalog.alerts(), catalog.outbox(), catalog.snapshots(P0)) == ([], {}, [])


def test_many_alerts_and_odd_names_are_kept(catalog: Catalog) -> None:
    """PostgreSQL's texts hold no NUL: it must not stop the job that somebody sends one."""
    claim = catalog.start_at(P0, 0)
    alerts = [alert_of(number) for number in range(1200)]
    alerts[7] = dataclasses.replace(alerts[7], entity_id="nul\0")
    catalog.commit(commit_of(P0, 0, 10), claim.epoch, [], alerts=alerts)
    assert len(catalog.alerts()) == len(catalog.outbox()) == 1200
    assert catalog.alert(alerts[7].alert_id) == dataclasses.replace(alerts[7], entity_id="nul\u2400")


def test_an_account_id_of_ten_kilobytes_is_kept_and_found(catalog: Catalog) -> None:
    """Letters drawn at random: PostgreSQL refuses them in an index, where it could compress ten thousand alike."""
    claim = catalog.start_at(P0, 0)
    letters = random.Random(0)
    name = "".join(chr(letters.randrange(0x4E00, 0x9FFF)) for _ in range(10_240))
    alerts = [dataclasses.replace(alert_of(number), entity_id=f"{name}{number % 2}\0") for number in range(4)]
    catalog.commit(commit_of(P0, 0, 10), claim.epoch, [], alerts=alerts)
    found = catalog.alerts(AlertFilter(entity_id=f"{name}1\0"))
    assert [alert.offset for alert in found] == [3, 1]
    assert found[0].entity_id == f"{name}1\u2400"


def test_alerts_are_found_by_what_is_asked_for(catalog: Catalog) -> None:
    claim = catalog.start_at(P0, 0)
    alerts = [
        alert_of(1),
        alert_of(2, rule="other"),
        alert_of(3, severity="low"),
        alert_of(4, state="shadow"),
        alert_of(5),
    ]
    catalog.commit(commit_of(P0, 0, 10), claim.epoch, [], alerts=alerts)

    def found(**wanted: Any) -> list[int]:
        return [alert.offset for alert in catalog.alerts(AlertFilter(**wanted))]

    assert found() == [5, 4, 3, 2, 1]
    assert found(rule="other") == [2]
    assert found(severity="low") == [3]
    assert found(state="shadow") == [4]
    assert found(entity_id="account-5") == [5]
    assert found(since_us=3_000) == [5, 4, 3]
    assert found(limit=2) == [5, 4]
    assert found(rule="harvest", severity="high", state="live", since_us=2_000) == [5]
    assert found(rule="none") == []


def test_a_snapshot_is_pending_with_its_commit_even_without_files(catalog: Catalog) -> None:
    claim = catalog.start_at(P0, 0)
    commit, other = commit_of(P0, 0, 10), commit_of(P0, 10, 20)
    catalog.commit(commit, claim.epoch, files_of(commit), snapshot=snapshot_of(commit))
    catalog.commit(other, claim.epoch, [], snapshot=snapshot_of(other))
    assert catalog.pending(P0) == {commit: [*files_of(commit), snapshot_of(commit)], other: [snapshot_of(other)]}
    assert catalog.pending(P1) == {}
    for done in (commit, other):
        catalog.publish(done.commit_id)
    assert catalog.pending() == {}
    assert catalog.snapshots(P0) == list(catalog.manifest().snapshots) == [snapshot_of(other), snapshot_of(commit)]


def test_of_a_partitions_snapshots_two_are_kept(catalog: Catalog) -> None:
    claims = {partition: catalog.start_at(partition, 0) for partition in (P0, P1)}
    made: dict[Partition, list[SnapshotEntry]] = {P0: [], P1: []}
    for partition, steps in ((P0, 4), (P1, 1)):
        for step in range(steps):
            commit = commit_of(partition, step * 10, step * 10 + 10)
            made[partition].insert(0, snapshot_of(commit))
            catalog.commit(commit, claims[partition].epoch, [], snapshot=made[partition][0])
    assert catalog.snapshots(P0) == made[P0][:2]
    assert catalog.snapshots(P1) == made[P1]


def test_commits_since_an_offset_and_their_files(catalog: Catalog) -> None:
    claims = {partition: catalog.start_at(partition, 0) for partition in (P0, P1)}
    commits = [commit_of(P0, first, first + 10) for first in range(0, 50, 10)]
    for commit in commits:
        catalog.commit(commit, claims[P0].epoch, files_of(commit, 2))
    catalog.commit(commit_of(P1, 0, 5), claims[P1].epoch, [])
    assert catalog.commits_since(P0, 0) == commits
    assert catalog.commits_since(P0, 30) == commits[3:]
    assert catalog.commits_since(P0, 31) == commits[3:]
    assert catalog.commits_since(P0, 50) == []
    assert catalog.files_of(commits[1:2]) == files_of(commits[1], 2)


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


def insist(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call until the catalog answers: with so many at once it may take longer than one wait for a lock."""
    while True:
        try:
            return call(*arguments)
        except RetryableError:
            continue


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
    start = threading.Barrier(THREADS)
    errors: list[BaseException] = []

    def begin() -> None:
        start.wait()
        try:
            Catalog.open(url, create=True).close()
        except BaseException as error:  # noqa: BLE001  # shown below, in the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=begin) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
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


def test_a_newer_catalog_is_refused(url: str, catalog: Catalog) -> None:
    newer = SCHEMA_VERSION + 1
    _execute(url, f"UPDATE meta SET value = '{newer}' WHERE key = 'schema_version'")
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
        _execute(url, statement)
    with pytest.raises(SchemaError, match="the next `stillwatch run` brings it up to date"):
        Catalog.open(url, create=False)
    start = threading.Barrier(THREADS)
    errors: list[BaseException] = []

    def begin() -> None:
        start.wait()
        try:
            Catalog.open(url, create=True).close()
        except BaseException as error:  # noqa: BLE001  # shown below, in the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=begin) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with contextlib.closing(Catalog.open(url, create=False)) as catalog:
        assert catalog.holes() == [Hole(P0, 3, 5, accepted=True)]
        claim = catalog.take(P0)
        assert claim == Claim(P0, 10, 8, UNKNOWN_LOG)
        commit = commit_of(P0, 10, 20)
        catalog.commit(commit, claim.epoch, files_of(commit), LogMark("topic", 1))
        assert catalog.commits() == [commit]


def test_an_alert_of_the_past_is_sent_once_the_live_job_raises_it(url: str, catalog: Catalog) -> None:
    """And one that the live job raised is not sent again because a backfill raises it."""
    with contextlib.closing(Catalog.open(url, create=True)) as backfill:
        backfill.alerts_are = PAST
        past, live = catalog.start_at(P0, 0), catalog.start_at(P1, 0)
        backfill.commit(commit_of(P0, 0, 5), past.epoch, [], alerts=[alert_of(1), alert_of(2)])
        ids = [alert_of(number).alert_id for number in (1, 2, 3)]
        assert catalog.outbox() == dict.fromkeys(ids[:2], PAST)
        catalog.commit(commit_of(P1, 0, 5), live.epoch, [], alerts=[alert_of(1), alert_of(3)])
        assert catalog.outbox() == {ids[0]: NEW, ids[1]: PAST, ids[2]: NEW}
        backfill.commit(commit_of(P0, 5, 9), past.epoch, [], alerts=[alert_of(3)])
        assert catalog.outbox()[ids[2]] == NEW
        assert len(catalog.alerts()) == len(ids)


def test_a_catalog_of_version_2_keeps_all_and_gets_the_new_tables(url: str, catalog: Catalog) -> None:
    claim = catalog.start_at(P0, 0)
    commit = commit_of(P0, 0, 10)
    catalog.commit(commit, claim.epoch, files_of(commit))
    for statement in ("DROP TABLE outbox", "DROP TABLE alerts", "DROP TABLE snapshots"):
        _execute(url, statement)
    _execute(url, "UPDATE meta SET value = '2' WHERE key = 'schema_version'")
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
        _execute(url, statement)
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


def _execute(url: str, statement: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


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
