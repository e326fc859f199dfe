"""Files that tests of `stillwatch backfill` give it, and what is in the lake afterwards."""

from __future__ import annotations

import contextlib
import gzip
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import orjson
import polars as pl
import zstandard
from typer.testing import Result

from pipeline.config import CATALOG_FILE
from pipeline.io.catalog import Catalog, sqlite_url
from pipeline.io.inspection import inspect
from pipeline.io.lake import Lake
from tests.integration import backfills

Land = Callable[..., Result]


class Killed(BaseException):
    """Stands for the end of a process, where nothing is tidied up."""


def killed_at(count: int) -> Callable[..., None]:
    """Something to be called that ends the process at its nth call."""
    calls = itertools.count(1)

    def call(*_arguments: object) -> None:
        if next(calls) == count:
            raise Killed

    return call


def event(at: int, **others: Any) -> dict[str, Any]:
    return {
        "event_time": f"2026-03-01T{at // 60:02}:{at % 60:02}:00.000250Z", "account_id": f"a{at % 7}", "model": "m",
        "request_id": f"r{at}", "temperature": at / 3, "output_tokens": at, "stream": at % 2 == 0, "prompt": f"p{at}\n",
        "region": f"x{at % 2}", **others,
    }  # fmt: skip


EVENTS = [event(at) for at in range(120)]
AT_1 = ("--to", "2026-03-01T01:00")


def lines_of(events: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(orjson.dumps(one) + b"\n" for one in events)


def write(path: Path, events: Sequence[dict[str, Any]] = EVENTS) -> Path:
    """Write events in the form that the file's name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        frame = pl.DataFrame(events).with_columns(
            pl.col("event_time").str.to_datetime(time_unit="us", time_zone="UTC").dt.replace_time_zone(None)
        )
        frame.write_parquet(path, row_group_size=50)
        return path
    pack: Any = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}.get(path.suffix, bytes)
    path.write_bytes(pack(lines_of(events)))
    return path


def rows(
    lake: Path, columns: str = '* EXCLUDE (topic, partition, "offset")', table: str = "access"
) -> list[tuple[Any, ...]]:
    glob = str(lake / table / "**" / "*.parquet")
    read = f"read_parquet('{glob}', hive_partitioning = false, union_by_name = true)"
    found = duckdb.sql(f"SELECT {columns} FROM {read} ORDER BY ALL").to_arrow_table()
    return [tuple(row.values()) for row in found.to_pylist()]


def counted(result: Result) -> dict[str, int]:
    """The counts of the table at the end."""
    return backfills.counted(result.stdout)


def assert_clean(lake: Path) -> None:
    with contextlib.closing(Catalog.open(sqlite_url(lake / CATALOG_FILE), create=False)) as catalog:
        found = inspect(Lake.open(str(lake), create=False), catalog)
    assert found.errors == []
    assert found.notes == []
