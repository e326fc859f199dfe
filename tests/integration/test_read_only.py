"""A lake that its reader cannot write to: a read-only mount, with and without somebody who writes elsewhere."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from jobs.cli import app
from pipeline.errors import StillwatchError
from pipeline.io.catalog import Catalog, sqlite_url
from tests import mounts
from tests.lake_maker import LakeMaker

ROW = {"event_time": "2026-03-01T12:00:00Z", "account_id": "a", "model": "m"}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounts.small_disk(tmp_path / "disk", megabytes=64) as folder:
        yield folder


@pytest.fixture
def lake(disk: Path) -> Path:
    """A lake of one commit on the disk, which nobody has open."""
    with contextlib.closing(LakeMaker(disk / "lake")) as maker:
        maker.append([ROW, {**ROW, "prompt": "hi"}, b"{broken"])
    return disk / "lake"


def stillwatch(*arguments: str) -> tuple[int, str]:
    """Exit code, and what was said."""
    result = CliRunner().invoke(app, arguments)
    if isinstance(result.exception, StillwatchError):
        return result.exception.exit_code, str(result.exception)
    return result.exit_code, result.output


def rows_in(lake: Path) -> str:
    code, said = stillwatch("sql", "--lake", str(lake), "--format", "csv", "SELECT count(*) AS n FROM access")
    assert code == 0, said
    return said


def test_dry_runs_write_nothing_and_so_need_not(disk: Path, lake: Path, tmp_path: Path) -> None:
    events = tmp_path / "a.ndjson"
    events.write_bytes(orjson.dumps({**ROW, "account_id": "b"}))
    mounts.remount(disk, "ro")
    where = ("--lake", str(lake))
    for arguments in (
        ("maintain", "compact", *where, "--dry-run"),
        ("maintain", "retain", *where),
        ("maintain", "sweep", *where),
        ("maintain", "stats", *where),
        ("maintain", "erase", *where, "--account", "a"),
        ("backfill", *where, "--no-score", "--dry-run", str(events)),
        ("backfill", *where, "--rejects", "--dry-run"),
        ("backfill", *where, "--replace", "--from", "2026-03-01", "--dry-run", str(events)),
    ):
        code, said = stillwatch(*arguments)
        assert code == 0, (arguments, said)
        assert "readonly" not in said, arguments


def test_a_lake_on_a_read_only_mount_is_queried_and_verified(disk: Path, lake: Path) -> None:
    mounts.remount(disk, "ro")
    assert rows_in(lake) == "n\n2\n"
    code, said = stillwatch("sql", "--lake", str(lake), "--format", "csv", "SELECT prompt FROM content")
    assert code == 2, said
    assert "the record cannot be written: the catalog cannot be written from here; a query that leaves" in said
    code, said = stillwatch("maintain", "verify", "--lake", str(lake))
    assert code == 0, said
    assert "all is well" in said
    target = disk.parent / "views.duckdb"
    code, said = stillwatch("sql", "--lake", str(lake), "--export", str(target))
    assert (code, "an export has all of these" in said) == (2, True)
    assert not target.exists()


def test_of_an_account_on_a_read_only_mount_all_is_shown_but_texts(disk: Path, lake: Path) -> None:
    """Whoever looks at texts goes on record, and here there can be none."""
    mounts.remount(disk, "ro")
    code, said = stillwatch("account", "a", "--lake", str(lake))
    assert code == 0, said
    assert "2 requests" in said
    assert "the record cannot be written" in " ".join(said.split())
    assert "prompt" not in said
    mounts.remount(disk, "rw")
    assert "prompt   hi" in stillwatch("account", "a", "--lake", str(lake))[1]


def test_a_copy_of_a_lake_whose_worker_was_killed_is_readable_with_all_that_was_copied(disk: Path, lake: Path) -> None:
    with contextlib.closing(LakeMaker(lake)) as maker:
        maker.append([ROW])
        shutil.copytree(lake, disk / "copy")
    assert (disk / "copy" / "catalog.db-wal").stat().st_size
    mounts.remount(disk, "ro")
    assert rows_in(disk / "copy") == "n\n3\n"


def test_commits_that_only_a_writer_can_bring_together_are_an_error_and_never_left_out(disk: Path, lake: Path) -> None:
    with contextlib.closing(LakeMaker(lake)) as maker:
        maker.append([ROW])
        shutil.copytree(lake, disk / "copy", ignore=shutil.ignore_patterns("*-shm"))
    mounts.remount(disk, "ro")
    for command in (("sql", "SELECT 1 FROM access"), ("maintain", "verify")):
        code, said = stillwatch(*command, "--lake", str(disk / "copy"))
        assert code == 2, said
        assert "catalog.db-wal holds commits" in said


def test_a_reader_behind_a_read_only_mount_sees_what_a_worker_commits_meanwhile(tmp_path: Path, lake: Path) -> None:
    """Before there is a worker, beside one, and after it."""
    behind = tmp_path / "behind"
    behind.mkdir()
    subprocess.run(["mount", "--bind", str(lake), str(behind)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(behind)], check=True)
        with contextlib.closing(Catalog.open(f"sqlite:///{behind}/catalog.db", create=False)) as reader:
            assert len(reader.commits()) == 1
            with contextlib.closing(LakeMaker(lake)) as maker:
                for commits in (2, 3):
                    maker.append([ROW])
                    assert len(reader.commits()) == commits
                    assert rows_in(behind) == f"n\n{commits + 1}\n"
            assert len(reader.commits()) == 3
        assert rows_in(behind) == "n\n4\n"
    finally:
        subprocess.run(["umount", "--lazy", str(behind)], check=True)


NOBODY = 65534


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else; run as root")
def test_a_lake_of_another_user_is_read() -> None:
    """Its folder could be written, but not by this user, and nobody has the catalog open."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        root = Path(folder)
        root.chmod(0o755)
        with contextlib.closing(LakeMaker(root / "lake")) as maker:
            maker.append([ROW])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads: the child uses none
            child = os.fork()
        if child == 0:
            code = 2
            try:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
                with contextlib.closing(
                    Catalog.open(sqlite_url(root / "lake" / "catalog.db"), create=False)
                ) as catalog:
                    code = 0 if len(catalog.live_files()) == 1 else 1
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
