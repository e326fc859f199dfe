"""New files made of others: the rows of one table and hour, sorted as one, in files of a target size.

DuckDB sorts, within a limit of memory and on disk beyond it; rows stream from there into files, a row group at a time.
That no row is lost on the way is counted, commit by commit, before anything is swapped.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.batch import Partition
from pipeline.commits import FileEntry
from pipeline.counted import counted
from pipeline.errors import RetryableError, SchemaError
from pipeline.io.digests import sha256_of_file
from pipeline.io.durable import sync_folders
from pipeline.io.footers import (
    FOOTER_KEY,
    Made,
    Rewritten,
    Source,
    joined_sources,
    read_footer,
    rewritten_footer,
    said_by,
)
from pipeline.io.lake import REWRITES, Lake
from pipeline.io.parquet_files import ROW_GROUP_ROWS, parquet_writer
from pipeline.io.rewriting.ledger_rows import Output, spans_of
from pipeline.lake_tables import TABLES
from pipeline.text_views import one_chunk

Ints = npt.NDArray[np.int64]
Keep = Callable[[pa.Table], pa.Array]
"""Which rows stay: bool for each."""

LEVEL: Final = 6
"""Of zstd: written once, read for months."""

BATCH_ROWS: Final = 8_192
GROUP_BYTES_MAX: Final = 64 << 20
"""A row group is written once it has so many bytes, even of few rows: texts may be long."""

REWRITTEN: Final = "rewritten-"
"""How the names of these files begin."""

_SPILL: Final = "_spill"


@dataclass(frozen=True, slots=True)
class Input:
    """A file to be replaced.

    Attributes:
        file: as the catalog lists it.
        said: its footer.
        schema: its columns.
    """

    file: FileEntry
    said: Made | Rewritten
    schema: pa.Schema


@dataclass(frozen=True, slots=True)
class Limits:
    """How files are made.

    Attributes:
        file_bytes: a file is ended once it has so many.
        memory_bytes: for DuckDB's sorting.
    """

    file_bytes: int = 128 << 20
    memory_bytes: int = 512 << 20


def read_input(lake: Lake, file: FileEntry) -> Input:
    """Read the footer of a file that is to be replaced.

    Raises:
        SchemaError: it is missing or broken; nothing is replaced that cannot be read.
    """
    footer, metadata = read_footer(lake.root / file.path)
    if metadata.num_rows != file.rows:
        raise SchemaError(
            f"{file.path}: {counted(metadata.num_rows, 'row')}, expected {file.rows}; see `maintain verify`"
        )
    return Input(file, said_by(footer), metadata.schema.to_arrow_schema().remove_metadata())


def write_outputs(
    lake: Lake, rewrite_id: str, inputs: Sequence[Input], limits: Limits, keep: Keep | None = None
) -> list[Output]:
    """Write new files of the rows of others, on disk for good when this returns.

    Args:
        lake: where.
        rewrite_id: whose folder they go to.
        inputs: of one table and hour and of the same columns; at least one.
        limits: of size and memory.
        keep: which rows stay; all without it.  The others are told as erased.

    Returns:
        The files, at least one, if need be of no rows.

    Raises:
        RetryableError: the disk is full or fails.
        SchemaError: rows got lost, or belong to no commit of the inputs' footers; nothing is to be swapped.
    """
    try:
        with _Outputs(lake, rewrite_id, inputs, limits) as outputs:
            for rows in _sorted_rows(lake, rewrite_id, inputs, limits):
                outputs.add(rows if keep is None else rows.filter(keep(rows)))
            return outputs.finish(may_lose=keep is not None)
    except duckdb.Error as error:
        raise RetryableError(f"lake {lake.root}: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise RetryableError(f"lake {lake.root}: {error.strerror or error}") from error


def _sorted_rows(lake: Lake, rewrite_id: str, inputs: Sequence[Input], limits: Limits) -> Iterator[pa.Table]:
    first = inputs[0]
    spill = lake.root / REWRITES / rewrite_id / _SPILL
    order = [*TABLES[first.file.table_name].order, "topic", "partition"]
    names = ", ".join(f'"{name}"' for name in first.schema.names)
    by = ", ".join(f'"{name}"' for name in order)
    query = f"SELECT {names} FROM read_parquet(?, hive_partitioning = false) ORDER BY {by}"  # noqa: S608  # names of our own
    with duckdb.connect(config={"memory_limit": f"{limits.memory_bytes}B", "temp_directory": str(spill)}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        paths = [str(lake.root / one.file.path) for one in inputs]
        reader: pa.RecordBatchReader = connection.sql(query, params=[paths]).to_arrow_reader(BATCH_ROWS)
        for batch in reader:
            yield pa.Table.from_batches([batch]).cast(first.schema)


@dataclass(slots=True)
class _Open:
    """A file that is being written."""

    file_id: str
    path: str
    writer: pq.ParquetWriter
    sink: Any
    rows: int = 0
    time_min: int | None = None
    time_max: int | None = None
    without_time: bool = False
    of_commit: dict[str, int] = field(default_factory=dict)
    waiting: list[pa.Table] = field(default_factory=list)
    waiting_rows: int = 0
    waiting_bytes: int = 0


class _Outputs:
    """Files of one rewrite, written one after the other."""

    def __init__(self, lake: Lake, rewrite_id: str, inputs: Sequence[Input], limits: Limits) -> None:
        self._lake, self._limits = lake, limits
        file = inputs[0].file
        self._table, self._dt, self._hour, self._schema = file.table_name, file.dt, file.hour, inputs[0].schema
        self._folder = f"{REWRITES}/{rewrite_id}/{file.table_name}/dt={file.dt}/hour={file.hour:02d}"
        self._rows = sum(one.file.rows for one in inputs)
        said = [one.said if isinstance(one.said, Rewritten) else (one.said, one.file.rows) for one in inputs]
        self._sources = joined_sources(said)
        self._replaces = tuple(sorted(one.said.file_id for one in inputs if isinstance(one.said, Rewritten)))
        self._index = _Index(self._sources)
        self._kept: dict[str, int] = dict.fromkeys(self._sources, 0)
        self._open: _Open | None = None
        self._outputs: list[Output] = []

    def __enter__(self) -> Self:
        (self._lake.root / self._folder).mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_error: object) -> None:
        if self._open is not None:
            self._open.writer.close()
            self._open.sink.close()

    def add(self, rows: pa.Table) -> None:
        """Take the next rows."""
        if not len(rows):
            return
        if self._open is not None and self._open.sink.tell() + self._open.waiting_bytes // 4 >= self._limits.file_bytes:
            self._end(self._sources_of(self._open))
        out = self._open = self._open or self._begin()
        out.rows += len(rows)
        self._note_times(out, rows)
        for commit_id, count in self._index.count(rows).items():
            out.of_commit[commit_id] = out.of_commit.get(commit_id, 0) + count
            self._kept[commit_id] += count
        out.waiting.append(rows)
        out.waiting_rows += len(rows)
        out.waiting_bytes += rows.nbytes
        if out.waiting_rows >= ROW_GROUP_ROWS or out.waiting_bytes >= GROUP_BYTES_MAX:
            _write_group(out)

    def finish(self, *, may_lose: bool) -> list[Output]:
        """End the last file, which also tells what was erased."""
        lost = {key: source.rows - self._kept[key] for key, source in self._sources.items()}
        if any(count < 0 or (count and not may_lose) for count in lost.values()):
            raise SchemaError(f"{self._folder}: rows were lost or doubled while they were merged; nothing was changed")
        out = self._open = self._open or self._begin()
        told = self._sources_of(out)
        for key, source in self._sources.items():
            erased = source.erased + lost[key]
            if erased or not self._kept[key]:
                told[key] = Source(source.made, source.landed, out.of_commit.get(key, 0), erased)
        self._end(told)
        sync_folders([self._lake.root / self._folder], self._lake.root)
        return self._outputs

    def _begin(self) -> _Open:
        file_id = uuid.uuid4().hex
        path = f"{self._folder}/{REWRITTEN}{file_id}.parquet"
        sink = (self._lake.root / path).open("xb")
        writer = parquet_writer(sink, self._table, self._schema, rows=self._rows, level=LEVEL)
        return _Open(file_id, path, writer, sink)

    def _sources_of(self, out: _Open) -> dict[str, Source]:
        return {
            key: Source(self._sources[key].made, self._sources[key].landed, count, 0)
            for key, count in out.of_commit.items()
        }

    def _note_times(self, out: _Open, rows: pa.Table) -> None:
        times = rows[TABLES[self._table].time].cast(pa.int64())
        ends: Mapping[str, Any] = pc.min_max(times).as_py()
        out.without_time |= times.null_count > 0
        if ends["min"] is not None:
            out.time_min = ends["min"] if out.time_min is None else min(out.time_min, ends["min"])
            out.time_max = ends["max"] if out.time_max is None else max(out.time_max, ends["max"])

    def _end(self, sources: Mapping[str, Source]) -> None:
        out = self._open
        if out is None:
            return
        _write_group(out)
        said = Rewritten(out.file_id, self._table, self._replaces, tuple(sources.values()))
        out.writer.add_key_value_metadata({FOOTER_KEY: json.dumps(rewritten_footer(said))})
        out.writer.close()
        out.sink.flush()
        os.fsync(out.sink.fileno())
        out.sink.close()
        self._open = None
        path = self._lake.root / out.path
        entry = FileEntry(
            path=out.path, table_name=self._table, dt=self._dt, hour=self._hour, rows=out.rows,
            bytes=path.stat().st_size, sha256=sha256_of_file(path),
            time_min_us=None if out.without_time else out.time_min,
            time_max_us=None if out.without_time else out.time_max,
        )  # fmt: skip
        self._outputs.append(Output(out.file_id, entry, spans_of(said)))


class _Index:
    """From offsets to commits."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        by_partition: dict[Partition, list[tuple[int, int, str]]] = {}
        for key, source in sources.items():
            commit = source.made.commit
            span = (commit.first_offset, commit.next_offset, key)
            by_partition.setdefault(commit.partition, []).append(span)
        self._firsts: dict[Partition, Ints] = {}
        self._nexts: dict[Partition, Ints] = {}
        self._keys: dict[Partition, list[str]] = {}
        for partition, spans in by_partition.items():
            spans.sort()
            self._firsts[partition] = np.array([first for first, _, _ in spans], np.int64)
            self._nexts[partition] = np.array([following for _, following, _ in spans], np.int64)
            self._keys[partition] = [key for _, _, key in spans]

    def count(self, rows: pa.Table) -> dict[str, int]:
        """How many rows are each commit's.

        Raises:
            SchemaError: some are no commit's.
        """
        counts: dict[str, int] = {}
        offsets: Ints = rows["offset"].to_numpy()
        for partition, mine in by_partition(rows):
            if partition not in self._firsts:
                raise SchemaError(f"rows of {partition}, which no footer speaks of; nothing was changed")
            of_mine = offsets[mine]
            at = np.searchsorted(self._firsts[partition], of_mine, side="right") - 1
            if (at < 0).any() or (of_mine >= self._nexts[partition][at]).any():
                raise SchemaError(f"rows of {partition} at offsets that no footer speaks of; nothing was changed")
            places, found = np.unique(at, return_counts=True)
            for place, count in zip(places.tolist(), found.tolist(), strict=True):
                counts[self._keys[partition][place]] = count
        return counts


def by_partition(rows: pa.Table) -> Iterator[tuple[Partition, npt.NDArray[np.bool_]]]:
    """Partitions that rows are of, each with which rows are its."""
    topics = one_chunk(rows["topic"]).dictionary_encode()
    names, topic_of = topics.dictionary.to_pylist(), topics.indices.to_numpy()
    numbers = rows["partition"].to_numpy()
    for topic, number in sorted(set(zip(topic_of.tolist(), numbers.tolist(), strict=True))):
        yield Partition(names[topic], number), (topic_of == topic) & (numbers == number)


def _write_group(out: _Open) -> None:
    if out.waiting:
        out.writer.write_table(pa.concat_tables(out.waiting), row_group_size=ROW_GROUP_ROWS)
        out.waiting, out.waiting_rows, out.waiting_bytes = [], 0, 0
