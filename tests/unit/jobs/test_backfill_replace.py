"""`stillwatch backfill --replace`: what goes, what comes, what stays, and what it refuses."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner, Result

from jobs import backfill_replace
from jobs.cli import app
from pipeline.config import CATALOG_FILE
from pipeline.errors import ConfigError, LakeDamagedError
from pipeline.io.catalog import Catalog, sqlite_url
from pipeline.io.inspection import inspect
from pipeline.io.lake import Lake
from pipeline.io.rebuild import plan_of, rebuild
from pipeline.io.rewriting import settling
from pipeline.io.rewriting.ledger import RewriteLedger
from pipeline.io.rewriting.settling import tidy
from pipeline.sources import own_feed
from tests.integration import backfills
from tests.lake_maker import LakeMaker
from tests.rewrites import StandingClock, assert_sound, compact_all, content_by_glob, events_of
from tests.rule_files import rule_text
from tests.unit.jobs.backfilled import Killed, Land

NOW_US = 1 << 60
"""After every grace period."""

RANGE = ("--from", "2026-03-01T00:30", "--to", "2026-03-01T02:30")


def event(at: int, account: str, **others: Any) -> dict[str, Any]:
    return {
        "event_time": f"2026-03-01T{at // 60:02}:{at % 60:02}:00Z", "account_id": f"{account}{at % 5}", "model": "m",
        "request_id": f"{account}{at}", "prompt": f"p{at}", **others,
    }  # fmt: skip


OLD = [event(at, "a") for at in range(240)]
OTHER = [event(at, "b") for at in range(0, 240, 3)]
NEW = [event(at, "n") for at in range(0, 240, 2)]


def write(path: Path, events: Sequence[dict[str, Any]], *more: bytes) -> Path:
    path.write_bytes(b"".join(line + b"\n" for line in (*map(orjson.dumps, events), *more)))
    return path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Two files that are landed and one that is not."""
    return {
        "old": write(tmp_path / "old.ndjson", OLD, b"broken"),
        "other": write(tmp_path / "other.ndjson", OTHER),
        "new": write(tmp_path / "new.ndjson", NEW, b"broken, too"),
    }


def seen(lake: Path, url: str = "") -> Counter[str]:
    """Requests that readers by the catalog see."""
    with contextlib.closing(Catalog.open(url or sqlite_url(lake / CATALOG_FILE), create=False)) as catalog:
        assert not catalog.pending()
        return Counter(row["request_id"] for rows in events_of(lake, catalog).values() for row in rows)


def expected(*, kept: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]] = NEW) -> Counter[str]:
    """What is to be there: what lies beyond the range of what was there, and what lies in it of what came."""
    beyond = [one for one in kept if not "2026-03-01T00:30" <= one["event_time"] < "2026-03-01T02:30"]
    inside = [one for one in new if "2026-03-01T00:30" <= one["event_time"] < "2026-03-01T02:30"]
    return Counter(one["request_id"] for one in (*beyond, *inside))


def counted(result: Result) -> dict[str, int]:
    assert result.exit_code == 0, (result.output, result.exception)
    return backfills.counted(result.stdout)


@contextlib.contextmanager
def opened(lake: Path) -> Any:
    with contextlib.closing(Catalog.open(sqlite_url(lake / CATALOG_FILE), create=False)) as catalog:
        yield Lake(lake), catalog, RewriteLedger(catalog, "tests")


def settle(lake: Path) -> None:
    with opened(lake) as (storage, _, ledger):
        for _ in range(2):
            tidy(storage, ledger, NOW_US, 0)


def assert_clean(lake: Path) -> None:
    with opened(lake) as (storage, catalog, _):
        found = inspect(storage, catalog)
    assert (found.errors, found.notes) == ([], [])


def test_a_range_is_that_of_the_files_afterwards_and_what_lies_beyond_is_as_it_was(
    lake: Path, land: Land, files: dict[str, Path]
) -> None:
    land(files["old"], files["other"])
    before = {path: path.read_bytes() for path in lake.rglob("*.parquet")}
    dry = land("--replace", *RANGE, files["new"], "--dry-run")
    assert counted(dry)["events"] == 60
    assert "160" in next(line for line in dry.stdout.splitlines() if "rows in all" in line)
    assert {path: path.read_bytes() for path in lake.rglob("*.parquet")} == before
    assert not (lake / "_replacing").exists()
    said = counted(land("--replace", *RANGE, files["new"], "--parallel", 2))
    assert (said["events that went"], said["events that came"]) == (160, 60)
    assert (said["rejects that went"], said["rejects that came"]) == (0, 1)
    assert seen(lake) == expected(kept=[*OLD, *OTHER])
    assert_clean(lake)
    settle(lake)
    assert_clean(lake)
    assert sum(content_by_glob(lake)["access"].values()) == sum(expected(kept=[*OLD, *OTHER]).values())
    assert list((lake / "_replacing").iterdir()) == []


def test_it_can_be_done_again_and_leaves_the_same(lake: Path, land: Land, files: dict[str, Path]) -> None:
    """Also before the first one is settled, and after a compaction."""
    land(files["old"])
    for _ in range(3):
        counted(land("--replace", *RANGE, files["new"]))
        assert seen(lake) == expected(kept=OLD)
        assert_clean(lake)
        with opened(lake) as (_, catalog, _ledger):
            compact_all(lake, catalog, clock=StandingClock(1_790_000_000_000_000))
    settle(lake)
    assert_clean(lake)


@pytest.mark.parametrize("how", ("path", "name", "hash", "topic"))
def test_of_one_source_only_its_rows_go(lake: Path, land: Land, files: dict[str, Path], how: str) -> None:
    land(files["old"], files["other"])
    sha256 = hashlib.sha256(files["old"].read_bytes()).hexdigest()
    names = {"path": files["old"], "name": "old.ndjson", "hash": sha256[:10], "topic": own_feed(sha256)}
    said = counted(land("--replace", *RANGE, "--of", names[how], files["new"]))
    assert (said["events that went"], said["events that came"]) == (120, 60)
    assert seen(lake) == expected(kept=OLD) + Counter(one["request_id"] for one in OTHER)
    assert_clean(lake)


def test_a_whole_source_goes_with_its_rejects(lake: Path, land: Land, files: dict[str, Path]) -> None:
    land(files["old"], files["other"])
    said = counted(land("--replace", "--of", "old.ndjson", files["new"]))
    assert (said["events that went"], said["rejects that went"], said["rejects that came"]) == (len(OLD), 1, 1)
    assert seen(lake) == Counter(one["request_id"] for one in (*OTHER, *NEW))
    assert counted(land(files["old"], files["other"], files["new"]))["read"] == 0
    assert_clean(lake)


def test_what_comes_by_a_range_is_known_when_the_file_is_given_again(
    lake: Path, land: Land, files: dict[str, Path]
) -> None:
    land(files["old"])
    land("--replace", *RANGE, files["new"])
    said = counted(land(files["new"], files["old"]))
    assert (said["read"], said["skipped as already there"]) == (60, 302)
    assert seen(lake) == expected(kept=[*OLD, *NEW])
    assert_clean(lake)


def test_a_file_may_come_in_the_place_of_itself(lake: Path, land: Land, files: dict[str, Path]) -> None:
    """After an upgrade; and what of it stays, since it is not of the source that goes, does not come again."""
    land(files["old"], files["other"])
    assert counted(land("--replace", *RANGE, files["old"], files["other"]))["events that came"] == 160
    assert seen(lake) == Counter(one["request_id"] for one in (*OLD, *OTHER))
    refused = land("--replace", *RANGE, "--of", "other.ndjson", files["old"])
    assert "the files hold no event that would come" in str(refused.exception)
    assert_clean(lake)


def test_scores_and_alerts_stay_and_it_says_how_many(lake: Path, land: Land, files: dict[str, Path]) -> None:
    rules = lake.parent / "rules.toml"
    rules.write_text(rule_text(name="eight", state="live", condition="exchanges >= 8"), encoding="utf-8")
    counted(land(files["old"], "--rules", rules, score=True))
    with opened(lake) as (_, catalog, _ledger):
        before = {file.path for file in catalog.live_files() if file.table_name in ("account_windows", "alerts")}
        alerts = catalog.alerts()
    assert before
    result = land("--replace", *RANGE, files["new"])
    assert counted(result)["events that went"] == 120
    assert "what was concluded from rows that go stays as it was: " in result.stdout
    with opened(lake) as (_, catalog, _ledger):
        after = {file.path for file in catalog.live_files() if file.table_name in ("account_windows", "alerts")}
        assert (after, catalog.alerts()) == (before, alerts)
    counted(land(write(lake.parent / "later.ndjson", [event(239, "z")]), "--rules", rules, score=True))
    assert_clean(lake)


def test_what_came_would_have_raised_what_a_backtest_of_the_lake_says(
    lake: Path, land: Land, files: dict[str, Path], tmp_path: Path
) -> None:
    assert land(files["old"], score=True).exit_code == 0
    done = land("--replace", *RANGE, files["new"], score=True)
    assert "what came has no scores and raises no alerts: `stillwatch backtest --events lake`" in done.stdout
    flags = ("--events", "lake", "--lake", str(lake), "--out", str(tmp_path / "out"))
    tried = CliRunner().invoke(app, ["backtest", *flags])
    assert tried.exit_code == 0, tried.output
    assert "180 events of " in tried.output, "120 of the former 240, and 60 that came"


def test_what_lands_after_it_has_begun_stays(lake: Path, land: Land, files: dict[str, Path]) -> None:
    """A late row of the live job, say; the one that goes on after a kill takes nothing that the first did not see."""
    with contextlib.closing(LakeMaker(lake, sqlite_url(lake / CATALOG_FILE))) as maker:
        maker.append(OLD)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(backfill_replace, "_landed", lambda *_: (_ for _ in ()).throw(Killed()))
            with pytest.raises(Killed):
                land("--replace", *RANGE, files["new"])
        maker.append([event(90, "late")])
    counted(land("--replace", *RANGE, files["new"]))
    assert seen(lake) == expected(kept=OLD) + Counter(["late90"])
    assert_clean(lake)


@pytest.mark.parametrize("step", ("begun", "written", "swapped"))
def test_a_rebuilt_catalog_is_of_before_or_after(
    lake: Path, land: Land, files: dict[str, Path], step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the same command goes on from there."""
    land(files["old"])

    def die(name: str) -> None:
        if name == step:
            raise Killed

    made = backfill_replace.Replacer
    with monkeypatch.context() as patch:
        patch.setattr(backfill_replace, "Replacer", lambda *given: made(*given, die))
        with pytest.raises(Killed):
            land("--replace", *RANGE, files["new"])
    (lake / CATALOG_FILE).unlink()
    storage = Lake(lake)
    plan = plan_of(storage)
    assert len(plan.replacements) == 1
    rebuild(storage, sqlite_url(lake / CATALOG_FILE), plan, 1)
    assert seen(lake) == Counter(one["request_id"] for one in OLD)
    counted(land("--replace", *RANGE, files["new"]))
    assert seen(lake) == expected(kept=OLD)
    settle(lake)
    assert_clean(lake)


def test_a_catalog_lost_while_files_get_their_names_is_made_anew_with_what_came(
    lake: Path, land: Land, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    land(files["old"])
    counted(land("--replace", *RANGE, files["new"]))
    linked = settling.os.link
    left = [2]

    def link(*given: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        linked(*given)

    with monkeypatch.context() as patch:
        patch.setattr(settling.os, "link", link)
        with pytest.raises(Killed):
            settle(lake)
    copy, url = tmp_path / "copy", sqlite_url(tmp_path / "new.db")
    shutil.copytree(lake, copy)
    rebuild(Lake(copy), url, plan_of(Lake(copy)), 1)
    assert seen(copy, url) == expected(kept=OLD)
    with contextlib.closing(Catalog.open(url, create=False)) as catalog:
        assert_sound(copy, catalog)


def test_a_replacement_that_was_given_up_is_swept_after_a_day(
    lake: Path, land: Land, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    land(files["old"])
    with monkeypatch.context() as patch:
        patch.setattr(backfill_replace, "swapped", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            land("--replace", *RANGE, files["new"])
    with opened(lake) as (storage, catalog, _):
        assert [note.kind for note in inspect(storage, catalog).notes] == ["replacement"]
    [annex] = (lake / "_replacing").iterdir()
    sweep = ["maintain", "sweep", "--lake", str(lake), "--apply"]
    assert "nothing to sweep" in CliRunner().invoke(app, sweep).output
    for path in (annex, *annex.iterdir()):
        os.utime(path, (1, 1))
    assert annex.name in CliRunner().invoke(app, sweep).output
    assert not annex.exists()
    assert counted(land(files["new"], score=True))["read"] == len(NEW) + 1
    assert_clean(lake)


@pytest.mark.parametrize("what", ("staged", "placed", "half written"))
def test_an_erasure_finds_what_a_killed_replacement_has_read(
    lake: Path, land: Land, files: dict[str, Path], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Staged or landed; it says where, and what to do: given up, it is gone."""
    land(files["old"])
    with monkeypatch.context() as patch:
        if what == "placed":
            patch.setattr(backfill_replace, "swapped", lambda *_: (_ for _ in ()).throw(Killed()))
        else:
            patch.setattr(Catalog, "commit", lambda *_args, **_more: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            land("--replace", *RANGE, files["new"])
    [annex] = (lake / "_replacing").iterdir()
    if what == "half written":
        for path in annex.rglob("*.parquet"):
            path.write_bytes(path.read_bytes()[:-9])
    erase = ["maintain", "erase", "--lake", str(lake), "--account", "n0", "--apply"]
    refused = CliRunner().invoke(app, erase)
    assert isinstance(refused.exception, LakeDamagedError)
    held = "were not written to their end" if what == "half written" else f"_replacing/{annex.name} holds "
    assert held in str(refused.exception)
    assert "maintain sweep --abandoned 0s --apply" in str(refused.exception)
    assert "nothing to sweep" in CliRunner().invoke(app, ["maintain", "sweep", "--lake", str(lake), "--apply"]).output
    swept = CliRunner().invoke(app, ["maintain", "sweep", "--lake", str(lake), "--abandoned", "0s", "--apply"])
    assert annex.name in swept.output
    assert CliRunner().invoke(app, erase).exit_code == 0
    assert_clean(lake)


def test_another_backfill_of_the_same_rows_meanwhile_is_noticed(
    lake: Path, land: Land, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    land(files["old"])
    swapped = backfill_replace.swapped

    def after_another(*given: Any) -> Any:
        assert counted(land(files["new"]))["read"] == len(NEW) + 1
        return swapped(*given)

    monkeypatch.setattr(backfill_replace, "swapped", after_another)
    refused = land("--replace", *RANGE, files["new"])
    assert "another backfill has landed rows of it meanwhile" in str(refused.exception)
    monkeypatch.undo()
    assert seen(lake) == Counter(one["request_id"] for one in (*OLD, *NEW))
    counted(land("--replace", *RANGE, files["new"]))
    assert seen(lake) == expected(kept=[*OLD, *NEW])
    assert_clean(lake)


def test_nothing_goes_where_nothing_can_come(lake: Path, land: Land, files: dict[str, Path]) -> None:
    land(files["old"])
    rejects = write(lake.parent / "rejects.ndjson", [], b"broken")
    for arguments, words in (
        (("--replace", files["new"]), "say what goes: a range with --from and --to, a source with --of, or both"),
        (("--of", "old.ndjson", files["new"]), "--of says what --replace takes away"),
        (("--replace", *RANGE), "name the files whose rows come"),
        (("--replace", *RANGE, "nowhere.ndjson"), "no such file or folder"),
        (("--replace", *RANGE, rejects), "the files hold no event that would come"),
        (("--replace", "--from", "2027-01-01", files["new"]), "the files hold no event that would come"),
        (("--replace", "--of", "nobody", files["new"]), "nothing of that name is landed"),
    ):
        refused = land(*arguments)
        assert isinstance(refused.exception, ConfigError), arguments
        assert words in str(refused.exception)
    refused = str(land("--replace", *RANGE, files["new"], "--score", score=True).exception)
    assert "is landed without scores" in refused
    assert "backtest --events lake` afterwards says what the new rows would have raised" in refused
    assert seen(lake) == Counter(one["request_id"] for one in OLD)
    assert_clean(lake)
