"""`stillwatch backfill` of a range of a file, of files that were begun, and of feeds that are held up."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import backfill_files, backfill_work
from pipeline.backfilling.slices import Slice
from pipeline.config import CATALOG_FILE
from pipeline.errors import ConfigError
from pipeline.io import event_files
from pipeline.io.catalog import sqlite_url
from pipeline.io.lake import Lake
from pipeline.io.rebuild import plan_of, rebuild
from pipeline.io.row_files import look_at
from pipeline.sources import SourceFile
from tests.unit.jobs.backfilled import (
    AT_1,
    EVENTS,
    Killed,
    Land,
    assert_clean,
    counted,
    event,
    killed_at,
    lines_of,
    rows,
    write,
)


@pytest.mark.parametrize("name", ("a.ndjson", "a.parquet"))
@pytest.mark.parametrize("score", (True, False))
def test_of_a_file_only_a_range_is_landed_and_later_the_rest(
    tmp_path: Path, lake: Path, land: Land, name: str, score: bool
) -> None:
    path = write(tmp_path / name)
    if not score:
        dry = land(path, "--dry-run", *AT_1)
        assert (counted(dry)["to be landed"], counted(dry)["out of range"]) == (60, 60)
    first = land(path, *AT_1, score=score)
    assert first.exit_code == 0, first.output
    said = counted(first)
    assert (said["read"], said["landed"], said["skipped as already there"], said["out of range"]) == (60, 60, 0, 60)
    assert sorted(row for (row,) in rows(lake, '"offset"')) == list(range(60))
    again = counted(land(path, *AT_1, score=score))
    assert (again["read"], again["skipped as already there"], again["out of range"]) == (0, 60, 60)
    wider = counted(land(path, "--from", "2026-03-01T00:30", "--to", "2026-03-01T01:30", score=score))
    assert (wider["read"], wider["skipped as already there"], wider["out of range"]) == (30, 30, 60)
    rest = counted(land(path, score=score))
    assert (rest["read"], rest["skipped as already there"]) == (30, 90)
    assert counted(land(path, score=score))["skipped as already there"] == 120
    assert sorted(rows(lake, "request_id")) == sorted((one["request_id"],) for one in EVENTS)
    assert_clean(lake)


def test_a_reject_without_a_time_is_landed_with_the_first_range(tmp_path: Path, lake: Path, land: Land) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(lines_of(EVENTS[:2]) + b"broken\n" + lines_of([event(80, model=7)]) + lines_of(EVENTS[90:]))
    assert counted(land(path, *AT_1))["rejected"] == 1
    assert counted(land(path, "--from", "2026-03-01T01:00"))["rejected"] == 1
    assert [offset for (offset,) in rows(lake, '"offset"', "rejects")] == [2, 3]
    assert_clean(lake)


def test_a_range_that_was_killed_goes_on_and_is_not_mistaken_for_another(
    tmp_path: Path, lake: Path, land: Land, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.ndjson")
    monkeypatch.setattr(event_files, "CHUNK_ROWS", 20)
    monkeypatch.setenv("STILLWATCH_FILE_ROWS_MAX", "10")
    with monkeypatch.context() as patch:
        patch.setattr(backfill_work, "_check_fenced", killed_at(2))
        with pytest.raises(Killed):
            land(path, *AT_1)
    assert len(rows(lake)) == 20
    refused = land(path, "--to", "2026-03-01T00:50")
    assert "must be finished first: run with --to 2026-03-01T01:00:00Z" in str(refused.exception)
    result = counted(land(path, *AT_1))
    assert (result["read"], result["skipped as already there"], result["out of range"]) == (40, 20, 60)
    assert sorted(row for (row,) in rows(lake, '"offset"')) == list(range(60))
    assert_clean(lake)


def test_a_rebuilt_catalog_knows_which_ranges_are_landed(tmp_path: Path, lake: Path, land: Land) -> None:
    path = write(tmp_path / "a.ndjson")
    land(path, *AT_1)
    (lake / CATALOG_FILE).unlink()
    storage = Lake.open(str(lake), create=False)
    rebuild(storage, sqlite_url(lake / CATALOG_FILE), plan_of(storage), 1)
    assert counted(land(path))["skipped as already there"] == 60
    assert len(rows(lake)) == 120
    assert_clean(lake)


def test_messages_of_the_command_line(land: Land, tmp_path: Path) -> None:
    for arguments, words in (
        ((), "nothing is named"),
        (("a.ndjson", "--rejects"), "these are several"),
        (("a.ndjson", "--bootstrap", "b:9092"), "--bootstrap: nothing is read from Kafka with files: leave it out"),
        (("--rejects", "--kafka", "client_id=x"), "--kafka: nothing is read from Kafka with --rejects"),
        (("--give-up", "a.ndjson", "--bootstrap", "b:9092"), "--bootstrap: nothing is read from Kafka with --give-up"),
        (("a.ndjson", "--replace", "--of", "x", "--bootstrap", "b:1"), "nothing is read from Kafka with files"),
        (("--rejects", "--from", "1"), "--from 1: expected a day or a time"),
        (("a.ndjson", "--from", "2026-03-02", "--to", "2026-03-01"), "nothing lies between"),
        (("a.ndjson", "--feed", "a/b"), "--feed a/b: letters, digits"),
        (("a.ndjson", "--feed", "a"), "--feed: only scored files are added to a feed, and each file stands for itself"),
        (
            ("--rejects", "--partitions", "2"),
            "--partitions: only scored files are added to a feed, and rejects and past",
        ),
        (("--rejects", "--parallel", "2"), "--parallel: rejects are read by one process"),
        (("--rejects",), "there is no such folder"),
        ((tmp_path,), "no file in this folder is called *.ndjson"),
    ):
        refused = land(*arguments)
        assert isinstance(refused.exception, ConfigError)
        assert words in str(refused.exception)
    refused = land("--rejects", "--score")
    assert "--score: rejects come out of their order" in str(refused.exception)


def test_a_file_that_was_begun_is_finished_as_it_was_begun(
    tmp_path: Path, lake: Path, land: Land, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And before anything else of its feed."""
    first, other = write(tmp_path / "a.ndjson"), write(tmp_path / "b.ndjson", EVENTS[:9])
    monkeypatch.setattr(event_files, "CHUNK_ROWS", 50)
    monkeypatch.setenv("STILLWATCH_FILE_ROWS_MAX", "10")
    with monkeypatch.context() as patch:
        patch.setattr(backfill_work, "_check_fenced", killed_at(2))
        with pytest.raises(Killed):
            land(first, score=True)
    assert len(rows(lake)) == 50
    refused = land(first)
    assert "was landed in part in the feed backfill, and must be finished so: run with --score --feed backfill" in str(
        refused.exception
    )
    assert "the feed backfill stands in the middle of" in str(land(other, score=True).exception)
    dry = land(other, first, "--dry-run", score=True)
    assert (counted(dry)["to be read"], counted(dry)["skipped as already there"]) == (79, 50)
    result = land(other, first, score=True)
    assert (counted(result)["read"], counted(result)["skipped as already there"]) == (79, 50)
    assert rows(lake, '"offset"') == [(at,) for at in range(129)]
    assert_clean(lake)


def two_files_in_small_steps(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The first of them is landed in so many commits that a backfill can be killed in its middle."""
    monkeypatch.setattr(event_files, "CHUNK_ROWS", 50)
    monkeypatch.setenv("STILLWATCH_FILE_ROWS_MAX", "10")
    later = [event(at, temperature=1) for at in range(300, 309)]
    return write(folder / "a.ndjson"), write(folder / "b.ndjson", later)


@pytest.mark.parametrize("flags", (("--feed", "other"), ("--no-score",)))
def test_a_feed_that_stands_in_the_middle_of_a_lost_file_keeps_no_other_file(
    tmp_path: Path, lake: Path, land: Land, flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that have their places behind it and are not begun get others, and are known there to a rebuilt catalog."""
    lost, other = two_files_in_small_steps(tmp_path, monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(backfill_work, "_check_fenced", killed_at(2))
        with pytest.raises(Killed):
            land(lost, other, score=True)
    lost.unlink()
    assert "or give these files a feed of their own with --feed NAME" in str(land(other, score=True).exception)
    result = land(other, *flags, score=True)
    assert result.exit_code == 0, (result.output, result.exception)
    assert (counted(result)["read"], len(rows(lake))) == (9, 59)
    (lake / CATALOG_FILE).unlink()
    storage = Lake.open(str(lake), create=False)
    rebuild(storage, sqlite_url(lake / CATALOG_FILE), plan_of(storage), 1)
    assert counted(land(other, *flags, score=True))["read"] == 0
    assert_clean(lake)


@pytest.mark.parametrize("partitions", (1, 3))
def test_a_file_that_is_lost_in_the_middle_is_given_up_and_the_feed_goes_on(
    tmp_path: Path, lake: Path, land: Land, partitions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, other = two_files_in_small_steps(tmp_path, monkeypatch)
    nothing = land("--give-up", "a.ndjson", score=True)
    assert isinstance(nothing.exception, ConfigError)
    with monkeypatch.context() as patch:
        patch.setattr(backfill_work, "_check_fenced", killed_at(2))
        with pytest.raises(Killed):
            land(lost, other, "--partitions", partitions, score=True)
    before = len(rows(lake))
    lost.unlink()
    assert "--feed backfill --give-up " in str(land(other, score=True).exception)
    assert "is held by " in str(land("--give-up", "b.ndjson", score=True).exception)
    assert "give it alone" in str(land("--give-up", "a.ndjson", other, score=True).exception)
    assert "nothing was changed" in land("--give-up", "a.ndjson", "--dry-run", score=True).stdout
    assert "--give-up " in str(land(other, score=True).exception)
    assert "is given up" in land("--give-up", "a.ndjson", score=True).stdout
    assert counted(land(other, score=True))["read"] == 9
    assert len(rows(lake)) == before + 9
    assert_clean(lake)
    assert "no file of the feed backfill is landed in part" in str(land("--give-up", "a.ndjson", score=True).exception)
    (lake / CATALOG_FILE).unlink()
    storage = Lake.open(str(lake), create=False)
    rebuild(storage, sqlite_url(lake / CATALOG_FILE), plan_of(storage), 1)
    assert counted(land(other, score=True))["read"] == 0
    assert len(rows(lake)) == before + 9


def test_a_file_that_changes_while_it_is_read_is_named(
    tmp_path: Path, land: Land, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.ndjson")

    def seen_and_changed(name: Path, asked: Slice) -> SourceFile:
        found = look_at(name, asked)
        write(path, EVENTS[:100])
        return found

    monkeypatch.setattr(backfill_files, "look_at", seen_and_changed)
    refused = land(path)
    assert isinstance(refused.exception, ConfigError)
    assert f"{path}: it had 120 rows when this backfill began and has others now" in str(refused.exception)
