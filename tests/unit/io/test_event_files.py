"""Events from files and lakes are those that the job would have decoded."""

from __future__ import annotations

import contextlib
import gzip
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from pipeline.config import Settings
from pipeline.errors import ConfigError
from pipeline.events import DECODED_SCHEMA
from pipeline.io.event_files import Events, find_files, read_files, read_lake
from pipeline.io.views.session import Session
from tests.lake_maker import LakeMaker

EVENTS: list[dict[str, Any]] = [
    {
        "event_time": f"2026-03-01T10:{at:02}:00+00:00",
        "account_id": f"a{at % 4}",
        "model": "m",
        "prompt": f"p{at}",
        "output_tokens": at,
    }
    for at in range(20)
]
LINES = b"".join(orjson.dumps(event) + b"\n" for event in EVENTS)


def rows(events: Events) -> list[dict[str, Any]]:
    chunks = list(events.chunks)
    assert chunks[-1].done == events.size
    for chunk in chunks:
        assert all(part.schema == DECODED_SCHEMA for part in chunk.events)
    return [row for chunk in chunks for part in chunk.events for row in part.to_pylist()]


@pytest.mark.parametrize("suffix", ("", ".gz", ".zst"))
def test_lines_are_decoded_whatever_their_compression(tmp_path: Path, suffix: str) -> None:
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}[suffix]
    path = tmp_path / f"access.ndjson{suffix}"
    path.write_bytes(pack(LINES))  # type: ignore[operator]
    found = rows(read_files([path], "t", 1))
    assert [row["prompt"] for row in found] == [event["prompt"] for event in EVENTS]
    assert [row["offset"] for row in found] == list(range(20))
    assert {(row["topic"], row["partition"], row["kafka_time"]) for row in found} == {("t", 0, None)}


def test_a_mark_crlf_and_blank_lines_are_no_events_and_no_rejects(tmp_path: Path) -> None:
    (tmp_path / "plain.ndjson").write_bytes(LINES + b"broken\n")
    path = tmp_path / "a.ndjson"
    path.write_bytes(b"\xef\xbb\xbf\r\n" + LINES.replace(b"\n", b"\r\n\r\n") + b"broken\r\n")
    (chunk,) = read_files([path], "t", 3).chunks
    assert (chunk.records, chunk.rejects.keys()) == (21, {"invalid_json"})
    assert f"{path}, line 42: " in chunk.first_reject
    assert rows(read_files([path], "t", 3)) == rows(read_files([tmp_path / "plain.ndjson"], "t", 3))


def test_offsets_go_on_from_file_to_file_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, part in (("b.ndjson", EVENTS[10:]), ("a.ndjson", EVENTS[:10])):
        (tmp_path / name).write_bytes(b"".join(orjson.dumps(event) + b"\n" for event in part))
    found = rows(read_files(find_files(str(tmp_path / "*.ndjson")), "t", 1))
    assert [(row["offset"], row["prompt"]) for row in found] == [(at, f"p{at}") for at in range(20)]


def test_parquet_gives_the_events_that_its_lines_would_give(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_bytes(LINES)
    events = pa.Table.from_pylist(EVENTS)
    time = pa.array([event["event_time"] for event in EVENTS]).cast(pa.timestamp("us", "UTC"))
    pq.write_table(
        events.set_column(events.column_names.index("event_time"), "event_time", time), tmp_path / "a.parquet"
    )
    assert rows(read_files([tmp_path / "a.parquet"], "t", 3)) == rows(read_files([tmp_path / "a.ndjson"], "t", 3))


def parquet(folder: Path, **columns: list[Any]) -> Path:
    length = len(next(iter(columns.values())))
    base = {
        "event_time": pa.array([0] * length, pa.timestamp("us", "UTC")),
        "account_id": ["a"] * length,
        "model": ["m"] * length,
    }
    pq.write_table(pa.table({**base, **columns}), folder / "x.parquet")
    return folder / "x.parquet"


def test_impossible_values_of_parquet_are_rejects_with_an_offset_of_their_own(tmp_path: Path) -> None:
    path = parquet(tmp_path, account_id=["a", None, "", "a", "b"], output_tokens=[1, 1, 1, -1, None])
    (chunk,) = read_files([path], "t", 1).chunks
    assert chunk.records == 5
    assert chunk.rejects == {"impossible value: account_id": 2, "impossible value: output_tokens": 1}
    assert "column account_id" in chunk.first_reject
    assert chunk.events[0].select(["account_id", "offset"]).to_pylist() == [
        {"account_id": "a", "offset": 0}, {"account_id": "b", "offset": 4},
    ]  # fmt: skip


def test_files_of_a_lake_are_not_taken_for_a_log(tmp_path: Path) -> None:
    path = parquet(tmp_path, offset=[3, 1])
    with pytest.raises(ConfigError, match="not in the order of the log; of a lake, name the folder"):
        list(read_files([path], "t", 1).chunks)


def test_what_is_no_parquet_of_events_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"account_id": ["a"]}), tmp_path / "x.parquet")
    with pytest.raises(ConfigError, match=r"x\.parquet: no column event_time, model"):
        list(read_files([tmp_path / "x.parquet"], "t", 1).chunks)
    (tmp_path / "y.parquet").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="cannot be read as Parquet"):
        list(read_files([tmp_path / "y.parquet"], "t", 1).chunks)
    with pytest.raises(ConfigError, match="column output_tokens: "):
        list(read_files([parquet(tmp_path, output_tokens=["many"])], "t", 1).chunks)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--events .*gone\.ndjson: no such file"):
        find_files(str(tmp_path / "gone.ndjson"))
    with pytest.raises(ConfigError, match=r"\*\.zst: no file matches"):
        find_files(str(tmp_path / "*.zst"))


def test_a_lake_gives_its_events_in_the_order_of_their_offsets(tmp_path: Path) -> None:
    with contextlib.closing(LakeMaker(tmp_path)) as maker:
        maker.append(EVENTS[:7], partition=0)
        maker.append([*EVENTS[7:12], b"broken"], partition=1)
        maker.append(EVENTS[12:], partition=0)
    with Session.open(Settings(lake=str(tmp_path))) as session:
        found = rows(read_lake(session, "it"))
    assert [(row["partition"], row["offset"], row["prompt"]) for row in found] == [
        *((0, at, f"p{at}") for at in range(7)),
        *((0, at - 5, f"p{at}") for at in range(12, 20)),
        *((1, at - 7, f"p{at}") for at in range(7, 12)),
    ]
    assert all(row["kafka_time"] is not None for row in found)


def test_an_empty_lake_is_an_error(tmp_path: Path) -> None:
    LakeMaker(tmp_path).close()
    with Session.open(Settings(lake=str(tmp_path))) as session, pytest.raises(ConfigError, match="holds no events"):
        read_lake(session, "it")
