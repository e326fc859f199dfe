"""`stillwatch maintain`: what it prints, what it changes, and how it ends."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.cli import app
from pipeline.decode import Decoder
from pipeline.io.catalog import Catalog
from pipeline.land import sections
from tests.commands import run_command
from tests.lake_maker import LakeMaker, records_of

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

    return run_command


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
    assert "would write 1 commit with 3 files" in shown
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
    for flags in ([], ["--dry-run"], ["--apply"]):
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


def test_help_names_all_commands(stillwatch: Command) -> None:
    code, shown, _ = stillwatch("maintain", "--help")
    assert code == 0
    for name in ("verify", "rebuild-catalog", "compact", "stats", "sweep", "retain", "erase"):
        assert f" {name} " in shown


# ---- stats, compact, sweep


def test_stats_count_files_and_what_there_is_to_merge(maker: LakeMaker, stillwatch: Command) -> None:
    maker.append([{"event_time": "2026-03-01T12:59:00Z", "account_id": "b", "model": "m"}])
    code, shown, _ = stillwatch("maintain", "stats", "--lake", str(maker.root), "--json")
    assert code == 0
    access = json.loads(shown)["tables"][0]
    assert (access["table"], access["files"], access["rows"], access["to_merge"]) == ("access", 2, 3, 2)
    assert (access["first"], access["last"]) == ("2026-03-01T12", "2026-03-01T12")
    code, shown, _ = stillwatch("maintain", "stats", "--lake", str(maker.root))
    assert code == 0
    assert "bytes/row" in shown


def test_compact_says_first_with_dry_run_and_then_does_it(maker: LakeMaker, stillwatch: Command) -> None:
    maker.append([{"event_time": "2026-03-01T12:59:00Z", "account_id": "b", "model": "m"}])
    before = maker.catalog.manifest()
    code, shown, _ = stillwatch("maintain", "compact", "--lake", str(maker.root), "--dry-run")
    assert code == 0
    assert "would merge 2 files of 1 hour of tables (3 rows" in shown
    assert maker.catalog.manifest() == before
    assert not (maker.root / "_rewrites").exists()
    code, shown, _ = stillwatch("maintain", "compact", "--lake", str(maker.root))
    assert code == 0
    assert "merged 2 files of 1 hour of tables (3 rows" in shown
    assert "for the grace period (1 h)" in shown
    code, shown, _ = stillwatch("maintain", "compact", "--lake", str(maker.root), "--grace", "0s", "--json")
    report = json.loads(shown)
    assert len(report["tidied"]["removed"]) == 2
    assert not any((maker.root / path).exists() for path in report["tidied"]["removed"])
    assert stillwatch("maintain", "verify", "--lake", str(maker.root))[0] == 0


def test_compact_refuses_what_makes_no_sense(maker: LakeMaker, stillwatch: Command) -> None:
    code, _, error = stillwatch("maintain", "compact", "--lake", str(maker.root), "--table", "acess")
    assert code == 2
    assert "no such table" in error
    code, _, error = stillwatch("maintain", "compact", "--lake", str(maker.root), "--grace", "soon")
    assert code == 2
    assert "no duration" in error


def test_compact_with_a_broken_file_ends_with_6_and_names_it(maker: LakeMaker, stillwatch: Command) -> None:
    maker.append([{"event_time": "2026-03-01T12:59:00Z", "account_id": "b", "model": "m"}])
    path = maker.catalog.live_files("access")[0].path
    (maker.root / path).write_bytes(b"no Parquet")
    code, _, error = stillwatch("maintain", "compact", "--lake", str(maker.root))
    assert code == 6
    assert path in error


def test_sweep_moves_aside_what_nothing_lists_and_only_when_told(maker: LakeMaker, stillwatch: Command) -> None:
    first = maker.root / maker.catalog.live_files("access")[0].path
    orphan = first.with_name("orphan.parquet")
    shutil.copy(first, orphan)
    dead = maker.root / "_rewrites" / ("0" * 32) / "access" / "half.parquet"
    dead.parent.mkdir(parents=True)
    dead.write_bytes(b"half")
    code, shown, _ = stillwatch("maintain", "sweep", "--lake", str(maker.root))
    assert code == 0
    assert "orphan.parquet" in shown
    assert "--apply does it" in shown
    assert orphan.exists()
    assert dead.exists()
    code, shown, _ = stillwatch("maintain", "sweep", "--lake", str(maker.root), "--apply")
    assert code == 0
    assert not orphan.exists()
    assert not dead.exists()
    assert (maker.root / "_quarantine" / orphan.relative_to(maker.root)).exists()
    assert first.exists()
    assert "nothing to sweep" in stillwatch("maintain", "sweep", "--lake", str(maker.root))[1]


def test_sweep_removes_staged_commits_that_another_was_faster_than(maker: LakeMaker, stillwatch: Command) -> None:
    """One that may still be made stays."""
    (files,) = maker.catalog.manifest().live.values()
    (made,) = maker.catalog.commits()
    dead = dataclasses.replace(made, commit_id="d" * 32)
    alive = dataclasses.replace(made, commit_id="a" * 32, first_offset=3, next_offset=6)
    row = {"event_time": "2026-03-01T12:00:00Z", "account_id": "a", "model": "m"}
    for commit in (dead, alive):
        table = Decoder().decode(records_of([row], commit.first_offset, made.partition))
        maker.lake.stage(commit, list(sections([table])))
    assert files
    code, shown, _ = stillwatch("maintain", "sweep", "--lake", str(maker.root), "--apply", "--json")
    assert code == 0
    assert json.loads(shown)["staged"] == [dead.commit_id]
    assert [path.parts[2] for path in maker.lake.staged_files()] == [alive.commit_id]


# ---- retain


def test_retain_says_first_and_lets_go_only_when_told(maker: LakeMaker, stillwatch: Command) -> None:
    before = maker.catalog.manifest()
    code, shown, _ = stillwatch("maintain", "retain", "--lake", str(maker.root))
    assert code == 0
    assert "nothing was changed; --apply does it" in shown
    assert maker.catalog.manifest() == before
    keep = [flag for table in ("access", "account_windows", "alerts") for flag in ("--keep", f"{table}=forever")]
    arguments = ("maintain", "retain", "--lake", str(maker.root), *keep)
    code, shown, _ = stillwatch(*arguments, "--apply", "--json")
    assert code == 0
    gone = {table["table"]: table["rows"] for table in json.loads(shown)["tables"]}
    assert gone == {"content": 1, "rejects": 1}
    assert {file.table_name for file in maker.catalog.live_files()} == {"access"}
    code, shown, _ = stillwatch(*arguments, "--apply", "--grace", "0s", "--json")
    assert len(json.loads(shown)["removed"]) == 2
    assert stillwatch("maintain", "verify", "--lake", str(maker.root))[0] == 0
    assert "content holds nothing from before" in stillwatch("maintain", "stats", "--lake", str(maker.root))[1]


@pytest.mark.parametrize("keep", ("acess=7d", "access", "access=soon", "access=", "access=999999999d"))
def test_retain_refuses_what_makes_no_sense(maker: LakeMaker, stillwatch: Command, keep: str) -> None:
    code, _, error = stillwatch("maintain", "retain", "--lake", str(maker.root), "--keep", keep)
    assert code == 2
    assert f"--keep {keep}" in error


# ---- erase


def test_erase_says_first_and_proves_what_it_did(maker: LakeMaker, stillwatch: Command) -> None:
    maker.append([{"event_time": "2026-03-01T12:59:00Z", "account_id": "b", "model": "m"}])
    before = maker.catalog.manifest()
    arguments = ("maintain", "erase", "--lake", str(maker.root), "--account", "a")
    code, shown, _ = stillwatch(*arguments, "--json")
    assert code == 0
    assert json.loads(shown)["rows"] == {"access": 2, "content": 1}
    assert maker.catalog.manifest() == before
    code, shown, _ = stillwatch(*arguments, "--apply", "--json")
    assert code == 0
    report = json.loads(shown)
    assert report["proven"]
    assert report["rows"] == {"access": 2, "content": 1}
    assert not any(report["left_on_disk"].values())
    assert stillwatch("maintain", "verify", "--lake", str(maker.root))[0] == 0
    assert sum(file.rows for file in maker.catalog.live_files("access")) == 1
    code, shown, _ = stillwatch(*arguments, "--apply")
    assert code == 0
    assert "no row, alert, decision or snapshot of the account is left; there was nothing of it" in shown
    assert "nothing was changed; there was nothing of it in this lake" in stillwatch(*arguments)[1]
    assert not json.loads(stillwatch(*arguments, "--apply", "--json")[1])["found_any"]


def test_erase_with_a_grace_period_says_that_it_is_not_proven_yet(maker: LakeMaker, stillwatch: Command) -> None:
    arguments = ("maintain", "erase", "--lake", str(maker.root), "--account", "a", "--apply")
    code, shown, _ = stillwatch(*arguments, "--grace", "1h")
    assert code == 0
    assert "run `erase` again to prove it" in shown
    assert not any(file.rows for file in maker.catalog.live_files("access"))
    code, shown, _ = stillwatch(*arguments)
    assert "no row, alert, decision or snapshot of the account is left" in shown


def test_erase_counts_rejects_that_hold_the_id_otherwise(maker: LakeMaker, stillwatch: Command) -> None:
    maker.append([b"account=a at noon", b"account=ab"])
    arguments = ("maintain", "erase", "--lake", str(maker.root), "--account", "a")
    for flags in ((), ("--apply",)):
        assert "its id also stands in 1 reject of other forms" in stillwatch(*arguments, *flags)[1]


def test_erase_takes_an_id_with_a_nul_as_it_is_shown(maker: LakeMaker, stillwatch: Command) -> None:
    maker.append([{"event_time": "2026-03-01T12:59:00Z", "account_id": "n\0", "model": "m"}])
    arguments = ("maintain", "erase", "--lake", str(maker.root), "--account", "n\u2400", "--apply", "--json")
    report = json.loads(stillwatch(*arguments)[1])
    assert report["proven"]
    assert report["rows"]["access"] == 1


def test_erase_takes_an_id_with_a_nul_as_it_is_shown_where_only_rejects_hold_it(
    maker: LakeMaker, stillwatch: Command
) -> None:
    raws = [
        b'{"account_id": "n\\u0000", "model',
        b'{"account_id": "o\\u0000", "model',
        '{"account_id": "o\u2400"'.encode(),
    ]
    maker.append(raws)
    arguments = ("maintain", "erase", "--lake", str(maker.root), "--apply", "--json", "--account")
    report = json.loads(stillwatch(*arguments, "n\u2400")[1])
    assert (report["proven"], report["rows"]) == (True, {"rejects": 1})
    assert [json.loads(stillwatch(*arguments, "o\u2400")[1])["rows"] for _ in range(2)] == [{"rejects": 1}] * 2
    assert not json.loads(stillwatch(*arguments, "o\u2400")[1])["found_any"]


def test_erase_refuses_an_id_that_is_no_text(maker: LakeMaker, stillwatch: Command) -> None:
    code, _, error = stillwatch("maintain", "erase", "--lake", str(maker.root), "--account", "\udcff\udcfe")
    assert code == 2
    assert "--account: its bytes are no UTF-8" in error


def test_erase_takes_the_id_from_standard_input_and_refuses_an_empty_one(maker: LakeMaker, stillwatch: Command) -> None:
    arguments = ["maintain", "erase", "--lake", str(maker.root), "--account", "-", "--json"]
    for given in ("a\n", "a\r\n", "a"):
        result = CliRunner().invoke(app, arguments, input=given)
        assert json.loads(result.stdout)["rows"]["access"] == 2
    refused = CliRunner().invoke(app, [*arguments, "--apply"], input="a\nb\n")
    assert "standard input holds 2 lines, and one id is erased at a time" in str(refused.exception)
    code, _, error = stillwatch("maintain", "erase", "--lake", str(maker.root), "--account", "")
    assert code == 2
    assert "--account" in error
