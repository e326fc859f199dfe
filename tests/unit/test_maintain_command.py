"""`stillwatch maintain`: what it prints, what it changes, and how it ends."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.cli import app
from pipeline.errors import StillwatchError
from pipeline.io.catalog import Catalog
from tests.lake_maker import LakeMaker

ROOT = Path(__file__).parents[2]
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[LakeMaker]:
    maker = LakeMaker(tmp_path / "lake")
    row = {"event_time": "2026-03-01T12:00:00Z", "account_id": "a", "model": "m"}
    maker.append([row, {**row, "prompt": "hi"}, b"{broken"])
    yield maker
    maker.close()


@pytest.fixture
def stillwatch() -> Command:
    """`stillwatch(...)` runs the command; its exit code, standard output, and what its error says."""

    def run(*arguments: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(app, arguments)
        if isinstance(result.exception, StillwatchError):
            return result.exception.exit_code, result.stdout, str(result.exception)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return run


def test_verify_of_a_sound_lake_says_so(maker: LakeMaker, stillwatch: Command) -> None:
    code, shown, _ = stillwatch("maintain", "verify", "--lake", str(maker.root))
    assert code == 0
    assert "all is well" in shown
    code, shown, _ = stillwatch("maintain", "verify", "--lake", str(maker.root), "--json", "--quick")
    assert code == 0
    report = json.loads(shown)
    assert report["ok"]
    assert (report["events"], report["rejects"], report["errors"], report["quick"]) == (2, 1, [], True)


def test_verify_of_a_damaged_lake_names_the_file_and_ends_with_6(maker: LakeMaker, stillwatch: Command) -> None:
    path = maker.catalog.live_files()[0].path
    (maker.root / path).unlink()
    code, shown, error = stillwatch("maintain", "verify", "--lake", str(maker.root), "--json")
    assert code == 6
    assert path in {wrong["subject"] for wrong in json.loads(shown)["errors"]}
    assert str(maker.root) in error
    code, shown, _ = stillwatch("maintain", "verify", "--lake", str(maker.root))
    assert code == 6
    assert "missing" in shown


def test_the_process_ends_with_6_and_one_line_on_standard_error(maker: LakeMaker) -> None:
    (maker.root / maker.catalog.live_files()[0].path).unlink()
    command = [sys.executable, "-m", "jobs.cli", "maintain", "verify", "--lake", str(maker.root)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 6
    assert done.stderr.startswith("stillwatch: ")
    assert done.stderr.count("\n") == 1


def test_verify_where_nothing_is_ends_with_2_and_makes_nothing(tmp_path: Path, stillwatch: Command) -> None:
    assert stillwatch("maintain", "verify", "--lake", str(tmp_path / "none"))[0] == 2
    (tmp_path / "empty").mkdir()
    assert stillwatch("maintain", "verify", "--lake", str(tmp_path / "empty"))[0] == 2
    assert list((tmp_path / "empty").iterdir()) == []


def test_rebuild_says_first_and_does_only_when_told(maker: LakeMaker, stillwatch: Command) -> None:
    before = maker.catalog.manifest()
    maker.close()
    for file in maker.root.glob("catalog.db*"):
        file.unlink()
    code, shown, _ = stillwatch("maintain", "rebuild-catalog", "--lake", str(maker.root))
    assert code == 0
    assert "would write 1 commits with 3 files" in shown
    assert list(maker.root.glob("catalog.db*")) == []
    code, shown, _ = stillwatch("maintain", "rebuild-catalog", "--lake", str(maker.root), "--apply", "--json")
    assert code == 0
    report = json.loads(shown)
    assert report["applied"]
    assert report["offsets"] == {"llm-access-0": 3}
    with contextlib.closing(Catalog.open(maker.catalog_url, create=False)) as catalog:
        assert catalog.manifest() == before
    assert stillwatch("maintain", "verify", "--lake", str(maker.root))[0] == 0


def test_rebuild_refuses_a_catalog_that_is_not_empty(maker: LakeMaker, stillwatch: Command) -> None:
    for flags in ([], ["--apply"]):
        code, _, error = stillwatch("maintain", "rebuild-catalog", "--lake", str(maker.root), *flags)
        assert code == 2
        assert "not empty" in error


def test_rebuild_of_contradicting_files_ends_with_6(maker: LakeMaker, stillwatch: Command, tmp_path: Path) -> None:
    path = maker.root / maker.catalog.live_files()[0].path
    shutil.copy(path, path.with_name("copy.parquet"))
    new = f"sqlite:///{tmp_path / 'new.db'}"
    code, _, _ = stillwatch("maintain", "rebuild-catalog", "--lake", str(maker.root), "--catalog", new, "--apply")
    assert code == 6
    assert not (tmp_path / "new.db").exists()


def test_help_names_both_commands(stillwatch: Command) -> None:
    code, shown, _ = stillwatch("maintain", "--help")
    assert code == 0
    assert "verify" in shown
    assert "rebuild-catalog" in shown
