"""Alerts and snapshots come with their commit, once; on SQLite and on PostgreSQL."""

from __future__ import annotations

import contextlib
import dataclasses
import random
from typing import Any

import pytest

from pipeline.batch import Partition
from pipeline.commits import SnapshotEntry
from pipeline.errors import FencedError
from pipeline.io.catalog import AlertFilter, Catalog
from pipeline.io.catalog_alerts import NEW, PAST
from tests.contract.catalog_commits import (
    P0,
    P1,
    alert_of,
    commit_of,
    execute,
    files_of,
    snapshot_of,
)


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
    execute(url, "UPDATE outbox SET state = 'sent'")
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
