"""`stillwatch backfill` as a command: what it lands, what it skips, what it refuses, and that it says so."""

from __future__ import annotations

import gzip
import os
import re
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import zstandard
from typer.testing import CliRunner

from jobs import backfill_work
from jobs.cli import app
from pipeline.batch import Partition
from pipeline.config import CATALOG_FILE
from pipeline.errors import ConfigError, RetryableError
from pipeline.io import event_files
from pipeline.io.catalog import Catalog, sqlite_url
from pipeline.io.lake import Lake
from pipeline.io.rebuild import plan_of, rebuild
from tests.rule_files import rule_text
from tests.unit.jobs.backfilled import (
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


@pytest.mark.parametrize("name", ("a.ndjson", "a.ndjson.gz", "a.ndjson.zst", "a.parquet"))
def test_rows_are_the_same_whatever_the_form(tmp_path: Path, lake: Path, land: Land, name: str) -> None:
    expected = tmp_path / "plain"
    CliRunner().invoke(app, ["backfill", "--lake", str(expected), "--no-score", str(write(tmp_path / "b.ndjson"))])
    result = land(write(tmp_path / name))
    assert result.exit_code == 0, result.output
    assert counted(result) | {"read": 120, "landed": 120, "rejected": 0, "skipped as already there": 0} == counted(
        result
    )
    assert len(rows(lake)) == 120
    assert rows(lake) == rows(expected)
    assert rows(lake, table="content") == rows(expected, table="content")
    assert rows(lake, '"offset", request_id') == [(at, f"r{at}") for at in range(120)]
    assert_clean(lake)


def test_a_file_is_landed_once_whatever_it_is_called(tmp_path: Path, lake: Path, land: Land) -> None:
    first = write(tmp_path / "a.ndjson")
    land(first)
    assert counted(land(first))["skipped as already there"] == 120
    moved = first.rename(tmp_path / "elsewhere.ndjson")
    copy = tmp_path / "copy.ndjson"
    copy.write_bytes(moved.read_bytes())
    result = land(moved, copy, write(tmp_path / "more.ndjson", [event(at) for at in range(120, 130)]))
    assert counted(result)["read"] == counted(result)["landed"] == 10
    assert counted(result)["skipped as already there"] == 240
    assert len(rows(lake)) == 130
    assert_clean(lake)


def test_folders_and_globs_stand_for_their_files_in_the_order_of_names(
    tmp_path: Path, land: Land, ledger: Catalog
) -> None:
    for name, part in (("day2/b.ndjson.gz", EVENTS[60:]), ("day1/a.ndjson", EVENTS[:60])):
        write(tmp_path / "logs" / name, part)
    (tmp_path / "logs" / "_SUCCESS").touch()
    (tmp_path / "logs" / "notes.txt").write_text("no events", encoding="utf-8")
    result = land(tmp_path / "logs", tmp_path / "logs" / "*" / "*.gz", score=True)
    assert result.exit_code == 0, result.output
    assert counted(result)["read"] == 120
    assert [Path(file.name).name for file in ledger.sources.files_of("file:backfill")] == ["a.ndjson", "b.ndjson.gz"]
    assert ledger.offsets() == {Partition("file:backfill", 0): 120}


def test_of_many_reasons_the_commonest_are_told_and_how_many_more_there_are(tmp_path: Path, land: Land) -> None:
    kinds = ("status", "input_tokens", "output_tokens", "latency_ms", "message_count", "tool_count", "max_tokens")
    broken = [
        b'{"account_id": "a", "event_time": "2026-03-01T12:00:00Z", "model": "m", "%s": "x"}' % kind.encode()
        for kind in kinds
    ]
    (tmp_path / "a.ndjson").write_bytes(b"\n".join(broken) + b"\n" + lines_of(EVENTS[:1]))
    result = land(tmp_path / "a.ndjson")
    assert result.stdout.count("reject, 1 time: ") == 5
    assert "2 reasons more" in result.stdout


def test_what_is_no_event_is_a_reject_with_its_bytes(tmp_path: Path, lake: Path, land: Land) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(lines_of(EVENTS[:2]) + b'{"broken": \n{"model": "m"}\n' + lines_of(EVENTS[2:4])[:-1])
    result = land(path)
    assert result.exit_code == 0
    assert (counted(result)["landed"], counted(result)["rejected"]) == (4, 2)
    assert len(re.findall(r"reject, 1 time: ", result.stdout)) == 2
    assert "no row was an event" not in result.stdout
    assert rows(lake, '"offset", raw', "rejects") == [(2, b'{"broken": '), (3, b'{"model": "m"}')]
    assert_clean(lake)


def as_windows_writes(events: Sequence[dict[str, Any]]) -> bytes:
    """With a byte order mark, CRLF, and a blank line before every tenth event, at the beginning and at the end."""
    lines = [part for at, one in enumerate(events) for part in ([b""] if at % 10 == 0 else []) + [orjson.dumps(one)]]
    return b"\xef\xbb\xbf" + b"".join(line + b"\r\n" for line in [*lines, b" "])


@pytest.mark.parametrize("name", ("a.ndjson", "a.ndjson.gz"))
@pytest.mark.parametrize("score", (True, False))
def test_a_mark_crlf_and_blank_lines_change_no_row_and_no_number(
    tmp_path: Path, lake: Path, land: Land, name: str, score: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the backfill was killed in the middle; and all of the file is there afterwards, its last blank line too."""
    path = tmp_path / name
    content = as_windows_writes(EVENTS)
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert counted(land(path, "--dry-run", score=score))["blank lines"] == 13
    monkeypatch.setattr(event_files, "CHUNK_ROWS", 25)
    monkeypatch.setenv("STILLWATCH_FILE_ROWS_MAX", "20")
    with monkeypatch.context() as patch:
        patch.setattr(backfill_work, "_check_fenced", killed_at(2))
        with pytest.raises(Killed):
            land(path, score=score)
    said = counted(land(path, score=score))
    assert said["rejected"] == 0
    assert said["read"] + said["skipped as already there"] == 120
    assert rows(lake, '"offset", request_id') == [(at + at // 10 + 1, f"r{at}") for at in range(120)]
    again = counted(land(path, score=score))
    assert (again["read"], again["skipped as already there"], again["blank lines"]) == (0, 120, 13)
    assert "already there" in land(path, score=score).stdout
    assert_clean(lake)


def test_blank_lines_are_of_no_range_and_a_file_of_them_is_empty(tmp_path: Path, lake: Path, land: Land) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(as_windows_writes([*EVENTS, {"model": "m"}]))
    said = counted(land("--from", "2026-03-01T00:30", "--to", "2026-03-01T00:40", path))
    assert (said["landed"], said["rejected"], said["out of range"], said["blank lines"]) == (10, 1, 110, 14)
    said = counted(land(path))
    assert (said["landed"], said["rejected"], said["skipped as already there"]) == (110, 0, 11)
    path.write_bytes(b"\xef\xbb\xbf\r\n\r\n")
    assert "empty" in land(path).stdout
    assert_clean(lake)


def test_rows_that_the_next_retention_lets_go_are_counted(tmp_path: Path, lake: Path, land: Land) -> None:
    land(write(tmp_path / "a.ndjson", EVENTS[:10]))
    retain = ["maintain", "retain", "--lake", str(lake), "--keep", "access=1h", "--apply"]
    assert CliRunner().invoke(app, retain).exit_code == 0
    more = write(tmp_path / "b.ndjson", EVENTS[10:20])
    for flags in (("--dry-run",), ()):
        said = land(more, *flags).stdout
        assert "note: 10 rows of access are of hours before " in said
        assert "note: 10 rows of content are of hours before " in said
        assert "unless it is given a longer --keep access=" in said


@pytest.mark.parametrize("score", (True, False))
def test_a_file_of_which_no_row_is_an_event_says_so_and_how_to_mend_it(
    tmp_path: Path, lake: Path, land: Land, score: bool
) -> None:
    """Only of its own rejects, whatever else was rejected before."""
    land(write(tmp_path / "before.ndjson", [*EVENTS[:3], {"model": "m"}]), score=score)
    path = tmp_path / "a.log"
    path.write_text("2026-03-01 a called m\n" * 3, encoding="utf-8")
    result = land(path, score=score)
    assert result.exit_code == 0
    assert "reject, 3 times: " in result.stdout
    assert result.stdout.count("reject, ") == 1
    assert "no row was an event, and what was landed as rejects counts as landed" in result.stdout
    assert "--replace --of FILE MENDED" in result.stdout
    if not score:
        mended = write(tmp_path / "mended.ndjson", EVENTS[5:9])
        done = counted(land("--replace", "--of", path, mended))
        assert (done["rejects that went"], done["events that came"]) == (3, 4)


def test_a_dry_run_says_what_would_be_and_writes_nothing(tmp_path: Path, lake: Path, land: Land) -> None:
    path = write(tmp_path / "a.ndjson", [*EVENTS, {"model": "m"}])
    result = land(path, "--dry-run")
    assert result.exit_code == 0, result.output
    assert not lake.exists()
    said = counted(result)
    assert (said["to be read"], said["to be landed"], said["to be rejected"]) == (121, 120, 1)
    assert "2, from 2026-03-01 00:00 to 2026-03-01 02:00" in result.stdout
    assert "reject, 1 time: " in result.stdout
    real = land(path)
    assert counted(real)["landed"] == 120
    before = {file: file.read_bytes() for file in lake.rglob("*") if file.is_file()}
    more = write(tmp_path / "b.ndjson", [event(at, request_id="again") for at in range(5)])
    again = land(path, more, "--dry-run")
    assert {file: file.read_bytes() for file in lake.rglob("*") if file.is_file()} == before
    assert (counted(again)["to be read"], counted(again)["skipped as already there"]) == (5, 121)
    assert "of these hours 1 holds events in the lake already" in again.stdout


@pytest.mark.parametrize(("score", "parallel"), ((True, 2), (False, 3)))
def test_several_processes_land_what_one_does(
    tmp_path: Path, lake: Path, land: Land, score: bool, parallel: int
) -> None:
    for number in range(4):
        write(tmp_path / "logs" / f"{number}.ndjson", EVENTS[number * 30 : number * 30 + 30])
    flags = ["--partitions", "3"] if score else []
    result = land(tmp_path / "logs", "--parallel", parallel, *flags, score=score)
    assert result.exit_code == 0, result.output
    assert counted(result)["read"] == counted(result)["landed"] == 120
    alone = tmp_path / "alone"
    once = CliRunner().invoke(
        app, ["backfill", "--lake", str(alone), *flags, *([] if score else ["--no-score"]), str(tmp_path / "logs")]
    )
    assert once.exit_code == 0, once.output
    assert rows(lake, "*") == rows(alone, "*")
    if score:
        assert rows(lake, "*", "account_windows") == rows(alone, "*", "account_windows")
    assert_clean(lake)


def test_a_feed_keeps_its_partitions(tmp_path: Path, land: Land) -> None:
    assert land(write(tmp_path / "a.ndjson", EVENTS[:9]), "--partitions", 2, score=True).exit_code == 0
    more = write(tmp_path / "b.ndjson", EVENTS[9:20])
    refused = land(more, "--partitions", 3, score=True)
    assert isinstance(refused.exception, ConfigError)
    assert "the feed backfill has 2" in str(refused.exception)
    assert land(more, score=True).exit_code == 0


@pytest.mark.parametrize(
    ("content", "name", "said"),
    (
        (b"", "nowhere.ndjson", "no such file or folder"),
        (b"x", "*.none", "no file matches"),
        (zstandard.ZstdCompressor().compress(lines_of(EVENTS))[:-9], "a.ndjson.zst", "is damaged"),
        (b"PAR1", "a.parquet", "cannot be read as Parquet"),
    ),
)
def test_what_cannot_be_read_is_said_before_anything_is_landed(
    tmp_path: Path, lake: Path, land: Land, content: bytes, name: str, said: str
) -> None:
    good = write(tmp_path / "good.ndjson")
    if content and "*" not in name:
        (tmp_path / name).write_bytes(content)
    result = land(good, tmp_path / name)
    assert isinstance(result.exception, ConfigError)
    assert said in str(result.exception)
    assert not lake.exists()


def test_a_damaged_row_group_is_found_before_anything_is_landed(tmp_path: Path, lake: Path, land: Land) -> None:
    path = write(tmp_path / "a.parquet")
    where = pq.read_metadata(path).row_group(2).column(3)
    at = where.dictionary_page_offset or where.data_page_offset
    content = bytearray(path.read_bytes())
    content[at : at + where.total_compressed_size] = b"\x55" * where.total_compressed_size
    path.write_bytes(content)
    for flags in ((), ("--from", "2026-03-01T01:50"), ("--dry-run",)):
        refused = land(write(tmp_path / "b.ndjson"), path, *flags, score=True)
        assert isinstance(refused.exception, ConfigError)
        assert f"{path}: cannot be read as Parquet: " in str(refused.exception)
    assert not lake.exists()


@pytest.mark.parametrize(
    ("column", "words"),
    (
        (pa.nulls(2, pa.decimal256(50, 5)), "column x is of type decimal256(50, 5), which cannot be read: drop it"),
        (pa.nulls(2, pa.list_(pa.decimal256(50, 5))), "column x is of type list<"),
    ),
)
def test_a_column_of_a_type_that_cannot_be_read_is_named(
    tmp_path: Path, lake: Path, land: Land, column: pa.Array, words: str
) -> None:
    given = {"event_time": ["2026-03-01"] * 2, "account_id": ["a"] * 2, "model": ["m"] * 2}
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({**given, "x": column}), path)
    refused = land(path)
    assert isinstance(refused.exception, ConfigError)
    assert words in str(refused.exception)
    assert not lake.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    (
        (gzip.compress(lines_of(EVENTS)), "begins as gzip does, and is not called so: give it a name that ends in .gz"),
        (zstandard.ZstdCompressor().compress(lines_of(EVENTS)), "begins as zstd does"),
        (b"PAR1 and so on", "begins as Parquet does"),
        (b"PK\x03\x04 and so on", "begins as zip does, and is not called so: unpack it"),
        (lines_of(EVENTS).decode().encode("utf-16"), "begins as UTF-16 does, and is not called so: write it as UTF-8"),
    ),
)
def test_what_is_no_ndjson_though_it_is_called_so_is_refused(
    tmp_path: Path, lake: Path, land: Land, content: bytes, words: str
) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(content)
    refused = land(path)
    assert isinstance(refused.exception, ConfigError)
    assert f"{path}: it {words}" in str(refused.exception)
    assert not lake.exists()


def test_parquet_without_a_needed_column_is_refused_by_its_name(tmp_path: Path, land: Land) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({"account_id": ["a"], "model": ["m"]}).write_parquet(path)
    assert "no column event_time" in str(land(path).exception)


def test_bytes_in_parquet_are_text_and_none_are_lost(tmp_path: Path, lake: Path, land: Land) -> None:
    path = tmp_path / "a.parquet"
    times = pa.array([0, 1], pa.timestamp("s")).cast(pa.timestamp("us"))
    given = {"event_time": pc.add(times, pa.scalar(1_772_323_200_000_000, pa.duration("us"))), "account_id": ["a", "b"]}
    table = pa.table({**given, "model": pa.array([b"m", b"m"]), "key": pa.array([b"k\xc3\xa9", b"\xff\x00"])})
    pq.write_table(table, path)
    assert counted(land(path))["landed"] == 2
    assert rows(lake, "extra", "content") == [('{"key":"\\\\xff00"}',), ('{"key":"k\u00e9"}',)]
    nested = tmp_path / "b.parquet"
    pq.write_table(table.append_column("tags", pa.array([[b"x"], []])), nested)
    assert "b.parquet: column tags holds bytes inside of a list" in str(land(nested).exception)


def test_names_are_shown_as_they_are(tmp_path: Path, land: Land) -> None:
    assert "we[ir]d :x: é.ndjson" in land(write(tmp_path / "we[ir]d :x: é.ndjson", EVENTS[:2])).stdout


def test_a_lakes_own_parquet_is_landed_as_it_was(tmp_path: Path, lake: Path, land: Land) -> None:
    """Its lineage is left behind, and unknown fields become fields again."""
    land(write(tmp_path / "a.ndjson"))
    exported = tmp_path / "events.parquet"
    sql = CliRunner().invoke(app, ["sql", "--lake", str(lake), "--format", "parquet", "--out", str(exported),
                                   'SELECT * FROM events ORDER BY topic, "partition", "offset"'])  # fmt: skip
    assert sql.exit_code == 0, sql.output
    other = tmp_path / "other"
    CliRunner().invoke(app, ["backfill", "--lake", str(other), "--no-score", str(exported)], catch_exceptions=False)
    assert rows(other) == rows(lake)
    assert rows(other, table="content") == rows(lake, table="content")


def test_alerts_of_the_past_are_listed_and_sent_to_nobody(tmp_path: Path, land: Land, ledger: Catalog) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(rule_text(name="eight", state="live", condition="exchanges >= 8"), encoding="utf-8")
    result = land(write(tmp_path / "a.ndjson"), "--rules", rules, score=True)
    assert result.exit_code == 0, result.output
    alerts = ledger.alerts()
    assert len(alerts) == counted(result)["alerts of live rules"] > 0
    assert set(ledger.outbox().values()) == {"past"}


def test_a_rebuilt_catalog_knows_what_is_landed(tmp_path: Path, lake: Path, land: Land) -> None:
    first, second = write(tmp_path / "a.ndjson", EVENTS[:60]), write(tmp_path / "b.ndjson", EVENTS[60:])
    land(first, "--partitions", 2, score=True)
    land(second)
    (lake / CATALOG_FILE).unlink()
    storage = Lake.open(str(lake), create=False)
    rebuild(storage, sqlite_url(lake / CATALOG_FILE), plan_of(storage), 1)
    assert counted(land(first, score=True))["skipped as already there"] == 60
    assert counted(land(second))["skipped as already there"] == 60
    assert len(rows(lake)) == 120
    assert_clean(lake)


@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGINT))
def test_a_signal_ends_it_soon_while_the_disk_is_full(
    tmp_path: Path, lake: Path, land: Land, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last rows of a file wait to be written then; they are not waited for until `retry_s` is over."""
    monkeypatch.setenv("STILLWATCH_STOP_S", "0.5")

    asked = []

    def full(*_arguments: object) -> None:
        if not asked:  # a second signal would end the process
            asked.append(os.kill(os.getpid(), number))
        raise RetryableError("No space left on device")

    began_s = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(Lake, "stage", full)
        result = land(write(tmp_path / "a.ndjson"))
    assert time.monotonic() - began_s < 30
    assert isinstance(result.exception, RetryableError)
    assert str(result.exception).startswith("not everything could be written: No space left on device")
    assert counted(land(tmp_path / "a.ndjson"))["landed"] == 120
    assert_clean(lake)
