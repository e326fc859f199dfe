"""Retention: whole hours go, exactly those that are too old, and whoever needs them is told."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.batch import Partition
from pipeline.io.catalog import Catalog
from pipeline.io.rebuild import plan_of, rebuild
from pipeline.io.rewriting.ledger import RewriteLedger
from pipeline.io.rewriting.marks import read_marks
from pipeline.io.rewriting.retention import Retainer, hour_before
from pipeline.io.rewriting.settling import tidy
from tests.lake_maker import LakeMaker
from tests.rewrites import (
    DAYS_TO_13,
    NOW_US,
    WORK,
    StandingClock,
    assert_sound,
    compact_all,
    content_of,
    many_commits,
    payloads,
)

FROM_NOW = 10.0
"""Days before `NOW_US`: 21 March 2026."""


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[LakeMaker]:
    with many_commits(tmp_path / "lake", commits=4) as maker:
        yield maker


def retainer_of(maker: LakeMaker, now_us: int = NOW_US) -> Retainer:
    return Retainer(maker.lake, maker.catalog, RewriteLedger(maker.catalog, "tests"), StandingClock(now_us))


def test_an_hour_goes_when_its_last_moment_is_too_old(maker: LakeMaker) -> None:
    assert hour_before(NOW_US, DAYS_TO_13) == "2026-03-01T13"
    retainer = retainer_of(maker)
    assert {file.hour for file in retainer.old("access", DAYS_TO_13).files} == {12}
    assert not retainer.old("access", DAYS_TO_13 + 1 / 86_400).files
    assert {file.hour for file in retainer.old("access", DAYS_TO_13 - 1 / 24).files} == {12, 13}


@pytest.mark.parametrize("compacted", (False, True))
def test_other_hours_and_tables_stay_as_they_are(maker: LakeMaker, *, compacted: bool) -> None:
    if compacted:
        compact_all(maker.root, maker.catalog)
    rows = content_of(maker.root, maker.catalog_url)
    retainer_of(maker).retain("access", DAYS_TO_13)
    found = content_of(maker.root, maker.catalog_url)
    assert {text for text in found["access"] if "2026-03-01 12:" in text} == set()
    assert found["access"] == rows["access"] - (rows["access"] - found["access"])
    assert {table: found[table] for table in rows if table != "access"} == {
        table: rows[table] for table in rows if table != "access"
    }
    assert read_marks(maker.root) == maker.catalog.manifest().marks == {"access": "2026-03-01T13"}
    assert_sound(maker.root, maker.catalog)


def test_rows_that_come_late_are_landed_and_go_with_the_next_run(maker: LakeMaker) -> None:
    retainer_of(maker).retain("access", DAYS_TO_13)
    maker.append(payloads(9))
    assert_sound(maker.root, maker.catalog)
    assert retainer_of(maker).retain("access", DAYS_TO_13).files
    assert not retainer_of(maker).retain("access", DAYS_TO_13).files
    assert_sound(maker.root, maker.catalog)


def test_a_replay_says_that_text_is_missing_and_goes_on(maker: LakeMaker) -> None:
    WORK["retain"](maker.lake, maker.catalog, RewriteLedger(maker.catalog, "tests"), lambda _step: None)
    (partition, *_) = maker.catalog.offsets()
    commits = maker.catalog.commits_since(partition, 0)
    landed = maker.lake.read_events(commits, maker.catalog.files_of(commits))
    assert "no file has" in landed.missing[-1] or "events" in landed.missing[0]
    assert len(landed.events)


def test_rejects_without_a_time_are_as_old_as_their_commits(maker: LakeMaker) -> None:
    maker.append([b"{broken"], kafka_ms=-1)  # committed on 3 March 2026
    timeless = [file for file in maker.catalog.live_files("rejects") if file.dt == "1970-01-01"]
    assert timeless
    assert not set(timeless) & set(retainer_of(maker).old("rejects", 29).files)
    assert set(timeless) <= set(retainer_of(maker).old("rejects", FROM_NOW).files)


def test_rejects_without_a_time_are_not_merged_with_later_ones(maker: LakeMaker) -> None:
    """They would go with the last of them only: never, where some come each day."""
    for _ in range(2):
        maker.append([b"{broken"], kafka_ms=-1)
    before = [file.path for file in maker.catalog.live_files("rejects") if file.dt == "1970-01-01"]
    compact_all(maker.root, maker.catalog)
    assert [file.path for file in maker.catalog.live_files("rejects") if file.dt == "1970-01-01"] == before


def test_a_lost_catalog_is_made_anew_of_what_was_kept(maker: LakeMaker, tmp_path: Path) -> None:
    """Even the offset of a partition all of whose files are gone: its snapshot tells."""
    maker.append(payloads(4), partition=2, snapshot=True)
    for table in ("access", "content", "rejects", "account_windows", "alerts"):
        retainer_of(maker).retain(table, DAYS_TO_13)
    maker.append(payloads(5))
    for _ in range(2):
        tidy(maker.lake, RewriteLedger(maker.catalog, "tests"), NOW_US, 0)
    rows, offsets = content_of(maker.root, maker.catalog_url), maker.catalog.offsets()
    url = f"sqlite:///{tmp_path / 'new.db'}"
    rebuild(maker.lake, url, plan_of(maker.lake), now_us=1)
    assert content_of(maker.root, url) == rows
    with contextlib.closing(Catalog.open(url, create=False)) as catalog:
        assert catalog.offsets() == offsets
        assert catalog.manifest().marks == maker.catalog.manifest().marks
        assert_sound(maker.root, catalog)


@pytest.mark.parametrize("compacted", (False, True))
def test_a_catalog_that_is_made_anew_in_the_grace_period_says_what_is_seen_again(
    maker: LakeMaker, *, compacted: bool
) -> None:
    ledger = RewriteLedger(maker.catalog, "tests")
    if compacted:
        compact_all(maker.root, maker.catalog)
        for _ in range(2):
            tidy(maker.lake, ledger, NOW_US, 0)
    assert plan_of(maker.lake).below_marks == []
    old = retainer_of(maker).retain("access", DAYS_TO_13)
    assert old.files
    assert sorted(plan_of(maker.lake).below_marks) == sorted(file.path for file in old.files)
    for _ in range(2):
        tidy(maker.lake, ledger, NOW_US, 0)
    assert plan_of(maker.lake).below_marks == []


def test_the_offset_of_a_partition_without_files_comes_from_its_snapshot(maker: LakeMaker, tmp_path: Path) -> None:
    maker.append(payloads(4), partition=2, snapshot=True)
    for table in ("access", "content", "rejects", "account_windows", "alerts"):
        retainer_of(maker).retain(table, FROM_NOW)
    for _ in range(2):
        tidy(maker.lake, RewriteLedger(maker.catalog, "tests"), NOW_US, 0)
    assert not maker.catalog.live_files()
    assert plan_of(maker.lake).offsets == {Partition("llm-access", 2): 41}
