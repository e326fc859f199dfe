"""`kill -9` in the middle of `stillwatch maintain`, on real files and both catalogs: whoever looks finds all of it."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.io.catalog import Catalog, sqlite_url
from pipeline.io.lake import Lake
from pipeline.io.rebuild import plan_of, rebuild
from pipeline.io.rewriting.ledger import RewriteLedger
from tests.catalogs import new_catalog_url
from tests.rewrites import ERASED, WORK, assert_sound, content_by_glob, content_of, events_of, many_commits, payloads

ROOT = Path(__file__).parents[2]
STEPS = ("begun", "written", "swapped", "linked", "removed", "settled", "finished")
RETAIN_STEPS = ("marked", "begun", "swapped", "removed", "settled", "finished")


def on_both(steps: Sequence[str], *always: str) -> list[Any]:
    """All steps on SQLite, some on PostgreSQL: there the others, which leave the same files, are for the soak."""
    soak = pytest.mark.soak
    on_postgresql = [pytest.param("postgresql", step, marks=() if step in always else soak) for step in steps]
    return [pytest.param("sqlite", step) for step in steps] + on_postgresql


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where no catalog is yet."""
    return new_catalog_url(request, tmp_path)


def start(what: str, step: str, count: int, root: Path, url: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.integration.crashing_maintain", what, step, str(count), str(root), url]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})


def crash(what: str, step: str, count: int, root: Path, url: str) -> None:
    assert start(what, step, count, root, url).wait(120) == -signal.SIGKILL, step


@pytest.mark.parametrize(("url", "step"), on_both(STEPS, "swapped"), indirect=["url"])
def test_compaction_killed_after_any_step_loses_and_doubles_nothing(tmp_path: Path, url: str, step: str) -> None:
    root = tmp_path / "lake"
    with many_commits(root, url, commits=4) as maker:
        rows, by_glob = content_of(root, url), content_by_glob(root)
        events = events_of(root, maker.catalog)
        crash("compact", step, 2, root, url)
        assert content_of(root, url) == rows
        assert events_of(root, maker.catalog) == events
        if step not in {"linked", "removed"}:  # the moment in which a glob may be wrong
            assert content_by_glob(root) == by_glob
        assert_sound(root, maker.catalog)
        assert _content_of_rebuilt(tmp_path, root) == rows
        WORK["compact"](Lake(root), maker.catalog, RewriteLedger(maker.catalog, "tests"), lambda _step: None)
        assert content_of(root, url) == rows
        assert content_by_glob(root) == by_glob
        assert_sound(root, maker.catalog)
        assert len(maker.catalog.live_files("access")) == 2


@pytest.mark.parametrize(("url", "step"), on_both(RETAIN_STEPS, "swapped"), indirect=["url"])
def test_retention_killed_after_any_step_leaves_whole_hours(tmp_path: Path, url: str, step: str) -> None:
    """Each table's old hour is there whole or gone whole; the next run ends what was begun."""
    root = tmp_path / "lake"
    with many_commits(root, url, commits=4) as maker:
        if step == "removed":  # of merged files, too
            WORK["compact"](Lake(root), maker.catalog, RewriteLedger(maker.catalog, "tests"), lambda _step: None)
        rows = content_of(root, url)
        crash("retain", step, 1, root, url)
        for table, found in content_of(root, url).items():
            kept = Counter(text for text in rows[table].elements() if "2026-03-01 12:" not in text)
            assert found in (rows[table], kept if table in ("access", "content") else rows[table])
        assert_sound(root, maker.catalog)
        _content_of_rebuilt(tmp_path, root)
        WORK["retain"](Lake(root), maker.catalog, RewriteLedger(maker.catalog, "tests"), lambda _step: None)
        found = content_of(root, url)
        assert found["account_windows"] == rows["account_windows"]
        for table in ("access", "content"):
            assert not any("2026-03-01 12:" in text for text in found[table])
            assert sum(found[table].values()) == sum(content_by_glob(root)[table].values())
        assert_sound(root, maker.catalog)
        assert _content_of_rebuilt(tmp_path / "again", root) == found


ERASE_STEPS = (
    "begun", "written", "swapped", "snapshot written", "snapshot swapped", "taken over", "alerts erased", "linked", "removed",
    "settled", "finished", "noted",
)  # fmt: skip


@pytest.mark.parametrize(("url", "step"), on_both(ERASE_STEPS, "snapshot swapped"), indirect=["url"])
def test_erasure_killed_after_any_step_costs_nobody_else_a_row(tmp_path: Path, url: str, step: str) -> None:
    root = tmp_path / "lake"
    with many_commits(root, url, commits=4) as maker:
        WORK["compact"](Lake(root), maker.catalog, RewriteLedger(maker.catalog, "tests"), lambda _step: None)
        maker.append(payloads(4), snapshot=True)
        kept = {table: Counter(_of_others(found)) for table, found in content_of(root, url).items()}
        crash("erase", step, 1, root, url)
        assert {table: Counter(_of_others(found)) for table, found in content_of(root, url).items()} == kept
        assert_sound(root, maker.catalog)
        anew = _content_of_rebuilt(tmp_path / "killed", root)
        assert {table: Counter(_of_others(found)) for table, found in anew.items()} == kept
        WORK["erase"](Lake(root), maker.catalog, RewriteLedger(maker.catalog, "tests"), lambda _step: None)
        assert content_of(root, url) == kept
        assert_sound(root, maker.catalog)
        assert _content_of_rebuilt(tmp_path, root) == kept


def _of_others(rows: Counter[str]) -> dict[str, int]:
    return {text: count for text, count in rows.items() if ERASED not in text}


@pytest.mark.parametrize("url", ("sqlite", pytest.param("postgresql", marks=pytest.mark.soak)), indirect=True)
def test_compactors_killed_at_any_moment_beside_each_other_lose_nothing(tmp_path: Path, url: str) -> None:
    """Two at a time, killed after random times, while a worker goes on landing."""
    root, chance = tmp_path / "lake", random.Random(7)
    with many_commits(root, url, commits=4) as maker:
        for _ in range(4):
            both = [start("compact", "never", 1, root, url) for _ in range(2)]
            maker.append([{"event_time": "2026-03-01T12:30:00Z", "account_id": "late", "model": "m"}])
            with contextlib.suppress(subprocess.TimeoutExpired):
                both[0].wait(chance.uniform(0.5, 2.5))
            for process in both:
                process.kill()
                process.wait()
            found = content_of(root, url)
            assert sum(found["access"].values()) == sum(commit.events for commit in maker.catalog.commits())
            assert max(found["access"].values()) == 1
        WORK["compact"](Lake(root), maker.catalog, RewriteLedger(maker.catalog, "tests"), lambda _step: None)
        events_of(root, maker.catalog)
        assert max(content_by_glob(root)["access"].values()) == 1
        assert_sound(root, maker.catalog)


def _content_of_rebuilt(tmp_path: Path, root: Path) -> dict[str, Counter[str]]:
    """What readers find by a catalog made anew; from a copy of the files, for a rebuild moves what it does not need."""
    copy, url = tmp_path / "copy", sqlite_url(tmp_path / "rebuilt.db")
    shutil.copytree(root, copy)
    rebuild(Lake(copy), url, plan_of(Lake(copy)), now_us=1)
    with contextlib.closing(Catalog.open(url, create=False)) as catalog:
        assert_sound(copy, catalog)
    return content_of(copy, url)
