"""A lost catalog made anew from the files: the same views, a clean verify, and refusal where files contradict."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.batch import Partition
from pipeline.commits import REBUILT, Commit, SnapshotEntry
from pipeline.errors import ConfigError, LakeDamagedError
from pipeline.io.catalog import Catalog, sqlite_url
from pipeline.io.inspection import inspect
from pipeline.io.rebuild import plan_of, rebuild
from pipeline.snapshots import Label, pack
from tests.lake_maker import LakeMaker, make_lake
from tests.simulation.worlds import event as world_event
from tests.stages import stand_ins

Rebuilt = Callable[..., Catalog]

P0, P1 = Partition("llm-access", 0), Partition("llm-access", 1)


def event(account: str, hour: int = 12) -> dict[str, object]:
    return {"event_time": f"2026-03-01T{hour:02d}:00:00Z", "account_id": account, "model": "m", "prompt": "hi"}


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[LakeMaker]:
    maker = LakeMaker(tmp_path / "lake", sqlite_url(tmp_path / "lost.db"))
    maker.append([event("a"), event("b", 13), b"{broken"])
    maker.append([event("a"), event("c", 11)])
    maker.append([event("e")], partition=1)
    yield maker
    maker.close()


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Where the new catalog goes."""
    return sqlite_url(tmp_path / "new.db")


@pytest.fixture
def rebuilt(maker: LakeMaker, url: str) -> Iterator[Rebuilt]:
    """`rebuilt()` rebuilds, and opens what came out; it must be clean."""
    with contextlib.ExitStack() as catalogs:

        def make(where: str = url) -> Catalog:
            rebuild(maker.lake, where, plan_of(maker.lake), now_us=1)
            catalog = Catalog.open(where, create=False)
            catalogs.callback(catalog.close)
            assert inspect(maker.lake, catalog).errors == []
            return catalog

        yield make


def unplace(maker: LakeMaker, path: str) -> Path:
    """Put a file back into staging, as if its worker had died before placing it; returns where it is."""
    commit = commit_of(maker, path)
    staged = maker.lake.staged_path(commit, path)
    staged.parent.mkdir(parents=True, exist_ok=True)
    return (maker.root / path).rename(staged)


def commit_of(maker: LakeMaker, path: str) -> Commit:
    return next(commit for commit in maker.catalog.commits() if commit.commit_id in path)


def tree(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_the_new_catalog_says_what_the_lost_one_said(maker: LakeMaker, rebuilt: Rebuilt) -> None:
    catalog = rebuilt()
    assert catalog.manifest() == maker.catalog.manifest()
    assert catalog.live_files() == maker.catalog.live_files()


def test_the_plan_alone_changes_nothing(maker: LakeMaker, tmp_path: Path) -> None:
    unplace(maker, maker.append([event("z")])[0].path)
    before = tree(tmp_path)
    plan = plan_of(maker.lake)
    assert plan.to_place
    assert tree(tmp_path) == before


@pytest.mark.parametrize("lost", (0, 1, 2))
def test_a_half_placed_commit_is_completed_from_staging(maker: LakeMaker, rebuilt: Rebuilt, lost: int) -> None:
    files = maker.append([event("y"), event("z", 14), b"{"])
    unplace(maker, files[lost].path)
    plan = plan_of(maker.lake)
    assert plan.to_place == [files[lost].path]
    catalog = rebuilt()
    assert catalog.manifest() == maker.catalog.manifest()
    assert list(maker.lake.staged_files()) == []


def test_what_cannot_be_completed_is_moved_aside_and_read_again(maker: LakeMaker, rebuilt: Rebuilt) -> None:
    files = maker.append([event("y"), b"{"])
    (maker.root / files[0].path).unlink()
    plan = plan_of(maker.lake)
    assert sorted(plan.to_quarantine) == sorted(file.path for file in files[1:])
    catalog = rebuilt()
    assert catalog.offsets() == {P0: 5, P1: 1}, "before the incomplete commit"
    assert all((maker.root / "_quarantine" / file.path).is_file() for file in files[1:])
    assert not any((maker.root / file.path).exists() for file in files)


def test_an_unreadable_file_of_the_last_commit_is_moved_aside_too(maker: LakeMaker, rebuilt: Rebuilt) -> None:
    files = maker.append([event("y"), b"{"])
    (maker.root / files[0].path).write_bytes(b"PAR1 no more")
    catalog = rebuilt()
    assert catalog.offsets()[P0] == 5
    assert {f"_quarantine/{file.path}" for file in files} <= tree(maker.root)


def test_commits_that_were_only_staged_are_left_out(maker: LakeMaker, rebuilt: Rebuilt) -> None:
    staged = [unplace(maker, file.path) for file in maker.append([event("y"), b"{"])]
    plan = plan_of(maker.lake)
    assert len(plan.left_out) == 1
    catalog = rebuilt()
    assert catalog.offsets()[P0] == 5
    assert all(path.is_file() for path in staged), "the partition's next owner removes them"


def test_a_partition_of_which_nothing_was_placed_begins_where_it_would_have(maker: LakeMaker, rebuilt: Rebuilt) -> None:
    """Not at the topic's beginning or end, as a partition that was never read."""
    for file in maker.append([event("y")], partition=2):
        unplace(maker, file.path)
    assert rebuilt().offsets()[Partition("llm-access", 2)] == 0


def test_a_range_without_files_gets_an_empty_commit_that_verify_notes(maker: LakeMaker, rebuilt: Rebuilt) -> None:
    for file in maker.catalog.live_files():  # partition 0's second commit is gone without trace, a third one follows
        if commit_of(maker, file.path).first_offset == 3:
            (maker.root / file.path).unlink()
    maker.append([event("z")])
    catalog = rebuilt()
    filled = [commit for commit in catalog.commits() if commit.worker == REBUILT]
    assert [(commit.partition, commit.first_offset, commit.next_offset) for commit in filled] == [(P0, 3, 5)]
    assert [note.kind for note in inspect(maker.lake, catalog).notes] == ["rebuilt"]
    assert catalog.offsets()[P0] == 6


@pytest.mark.parametrize("damage", ("remove", "break"))
def test_an_incomplete_commit_with_later_ones_is_refused(maker: LakeMaker, url: str, damage: str) -> None:
    """Reading again from there would double what came after."""
    path = next(file.path for file in maker.catalog.live_files() if commit_of(maker, file.path).first_offset == 0)
    if damage == "remove":
        (maker.root / path).unlink()
    else:
        (maker.root / path).write_bytes(b"broken")
    before = tree(maker.root)
    with pytest.raises(LakeDamagedError, match="later commits follow"):
        plan_of(maker.lake)
    assert tree(maker.root) == before
    assert not Path(url.removeprefix("sqlite:///")).exists()


def test_overlapping_commits_are_refused_by_name(maker: LakeMaker, tmp_path: Path) -> None:
    """Two lakes poured into one folder."""
    other = LakeMaker(tmp_path / "other", sqlite_url(tmp_path / "other.db"))
    other.append([event("x"), event("y"), event("z"), event("z")])
    shutil.copytree(other.root, maker.root, dirs_exist_ok=True)
    with pytest.raises(LakeDamagedError, match="overlap") as caught:
        plan_of(maker.lake)
    assert other.catalog.live_files()[0].path in str(caught.value)
    other.close()


def test_a_file_that_is_there_twice_is_refused(maker: LakeMaker) -> None:
    path = maker.root / maker.catalog.live_files()[0].path
    shutil.copy(path, path.with_name("copy.parquet"))
    with pytest.raises(LakeDamagedError, match="contradict each other"):
        plan_of(maker.lake)


def test_a_catalog_that_is_not_empty_is_left_alone(maker: LakeMaker) -> None:
    before = maker.catalog.manifest()
    unplace(maker, maker.append([event("z")], publish=False)[0].path)
    files = tree(maker.root)
    with pytest.raises(ConfigError, match="not empty"):
        rebuild(maker.lake, maker.catalog_url, plan_of(maker.lake), now_us=1)
    assert tree(maker.root) == files
    assert maker.catalog.manifest().live == before.live


def test_a_rebuild_that_died_half_way_can_be_done_again(maker: LakeMaker, rebuilt: Rebuilt) -> None:
    files = maker.append([event("y"), event("z", 14)])
    unplace(maker, files[0].path)
    plan = plan_of(maker.lake)
    for commit, entries in plan.commits:
        if any(entry.path in plan.to_place for entry in entries):
            maker.lake.place(commit, entries)  # and then it died
    assert rebuilt().manifest() == maker.catalog.manifest()


def test_it_works_on_postgresql(maker: LakeMaker, rebuilt: Rebuilt, postgres_url: str) -> None:
    catalog = rebuilt(postgres_url)
    assert catalog.manifest() == maker.catalog.manifest()


# ---- what was found about accounts


@pytest.fixture
def scored(tmp_path: Path) -> Iterator[LakeMaker]:
    """Two commits with windows and alerts."""
    with make_lake(tmp_path / "scored", catalog_url=sqlite_url(tmp_path / "scored.db"), watch=stand_ins()) as maker:
        for start in (0, 40):
            payloads = [world_event(P0, offset, random.Random(offset)) for offset in range(start, start + 40)]
            maker.append(payloads, kafka_ms=-1)
        yield maker


def with_snapshots(maker: LakeMaker) -> list[SnapshotEntry]:
    """Snapshots at the end of each commit and one beyond, which a commit that was lost had."""
    placed = []
    for commit in maker.catalog.commits():
        for end in (commit.next_offset, commit.next_offset + 1000):
            at = dataclasses.replace(commit, next_offset=end)
            body = pack(Label(commit.partition, end, "f", "m"), {})
            placed.append(maker.lake.stage_snapshot(at, body))
            maker.lake.place(at, [placed[-1]])
    return [entry for entry in placed if entry.next_offset < 1000]


def test_alerts_come_back_from_the_files_and_are_not_sent_unasked(scored: LakeMaker, tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "again.db")
    rebuild(scored.lake, url, plan_of(scored.lake), now_us=1)
    with contextlib.closing(Catalog.open(url, create=False)) as catalog:
        assert catalog.alerts() == scored.catalog.alerts()
        assert catalog.outbox().keys() == scored.catalog.outbox().keys()
        assert set(catalog.outbox().values()) == {"unclear"}
        assert catalog.live_files() == scored.catalog.live_files()
        assert inspect(scored.lake, catalog).errors == []
    assert len(scored.catalog.outbox()) > 1


def test_snapshots_up_to_the_offset_are_listed_again(scored: LakeMaker, tmp_path: Path) -> None:
    entries = with_snapshots(scored)
    (scored.root / entries[0].path).with_name("torn.snapshot").write_bytes(b"STILL")
    url = sqlite_url(tmp_path / "again.db")
    rebuild(scored.lake, url, plan_of(scored.lake), now_us=1)
    with contextlib.closing(Catalog.open(url, create=False)) as catalog:
        found = [dataclasses.replace(entry, created_at_us=0) for entry in catalog.snapshots(P0)]
        assert found == [dataclasses.replace(entry, created_at_us=0) for entry in entries[::-1]]
        left = inspect(scored.lake, catalog)
        assert left.errors == []
        assert [note.kind for note in left.notes] == ["snapshot"] * 3, "what is not listed is said, and harms nobody"
