"""Events from files and lakes, as the main job has them after decoding: for whoever replays history.

* NDJSON, plain, `.gz` or `.zst`: through the job's own decoder, so what is no event is a reject here, too;
* Parquet with the columns of `schemas/access.v1.json`, those that are not required may be missing;
* a lake: what its catalog lists, partition by partition in offset order.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.backtesting.partitioning import Partitioner
from pipeline.batch import Partition, Records
from pipeline.decode import Decoder
from pipeline.errors import ConfigError
from pipeline.events import ACCESS_FIELDS, DECODED_SCHEMA, EVENT_SCHEMA, LINEAGE, Field
from pipeline.io.ndjson import plain, spoken
from pipeline.io.replay import key_of, open_lines
from pipeline.io.views.session import Session
from pipeline.io.views.tables import quoted
from pipeline.sql_text import literal
from pipeline.text_views import kept

CHUNK_ROWS: Final = 50_000
CHUNK_BYTES: Final = 32 << 20
"""Records are read so many at a time, or fewer once they take so many bytes."""

REASONS_MAX: Final = 20
"""Kinds of rejects that are told apart; the rest is counted together."""

_PARQUET: Final = ".parquet"


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some consecutive records.

    Attributes:
        events: `pipeline.events.DECODED_SCHEMA`, one table a partition, each in offset order.
        records: how many there were, rejects included.
        rejects: how many of them are no events, by reason.
        first_reject: where the first of these is and why, in words; empty if there is none.
        done: how much of the whole is read after this chunk, in units of `Events.size`.
    """

    events: tuple[pa.Table, ...]
    records: int
    rejects: dict[str, int]
    first_reject: str
    done: int


@dataclass(frozen=True, slots=True)
class Events:
    """A source of events, to be read once.

    Attributes:
        names: what it consists of, for people: files in the order they are read, or the lake.
        files: the same as paths; none for a lake.
        size: bytes of the files, or events of the lake: what the chunks' `done` rises to.
        chunks: the events.
    """

    names: tuple[str, ...]
    files: tuple[Path, ...]
    size: int
    chunks: Iterator[Chunk]


def find_files(pattern: str) -> tuple[Path, ...]:
    """Files by name or glob (`**` too), in the order of their names.

    Raises:
        ConfigError: there are none.
    """
    path = Path(pattern)
    if path.is_file():
        return (path,)
    if not glob.has_magic(pattern):
        raise ConfigError(f"--events {pattern}: no such file")
    found = tuple(path for path in map(Path, sorted(glob.glob(pattern, recursive=True))) if path.is_file())  # noqa: PTH207  # the whole pattern may be absolute
    if not found:
        raise ConfigError(f"--events {pattern}: no file matches")
    return found


def read_files(files: Sequence[Path], topic: str, partitions: int) -> Events:
    """Events of files, divided among partitions as the topic would have them.

    Args:
        files: NDJSON or Parquet, read one after the other.
        topic: what the partitions are called.
        partitions: how many; as many as the topic has give the live job's rows.
    """
    return Events(
        names=tuple(map(str, files)),
        files=tuple(files),
        size=sum(path.stat().st_size for path in files),
        chunks=_chunks(files, Partitioner(topic, partitions)),
    )


def _chunks(files: Sequence[Path], partitioner: Partitioner) -> Iterator[Chunk]:
    before = 0
    for path in files:
        read = _parquet_chunks if path.suffix == _PARQUET else _line_chunks
        yield from read(path, partitioner, before)
        before += path.stat().st_size


def _line_chunks(path: Path, partitioner: Partitioner, before: int) -> Iterator[Chunk]:
    decoder, whole, first = Decoder(), Partition(str(path), 0), 0
    with open_lines(path) as lines:
        for batch in batches(plain(lines)):
            records, numbers = spoken(batch, first)
            first += len(batch)
            decoded = decoder.decode(
                Records(
                    whole,
                    pa.array(records, pa.binary()).cast(pa.binary_view()),
                    numbers,
                    np.full(len(records), -1),  # a line has no Kafka timestamp
                    first,
                )
            )
            at = np.searchsorted(numbers, decoded.events["offset"].to_numpy())
            rejected = np.searchsorted(numbers, decoded.rejects["offset"].to_numpy())
            keys: list[str | None] = [None] * len(records)
            for position, account in zip(at.tolist(), decoded.events["account_id"].to_pylist(), strict=True):
                keys[position] = account
            said = ""
            for position, reason in zip(rejected.tolist(), decoded.rejects["reason"].to_pylist(), strict=True):
                key = key_of(records[position])
                keys[position] = None if key is None else key.decode()
                said = said or f"{path}, line {numbers[position] + 1}: {reason}"
            counted = _counted(decoded.rejects["error_type"], decoded.rejects["field"])
            parts = tuple(partitioner.divide(decoded.events, at, keys))
            yield Chunk(parts, len(records), counted, said, before + lines.bytes_read)


def batches(lines: Iterator[bytes]) -> Iterator[list[bytes]]:
    """Lines by the chunk."""
    batch: list[bytes] = []
    held = 0
    for line in lines:
        batch.append(line)
        held += len(line)
        if len(batch) >= CHUNK_ROWS or held >= CHUNK_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _counted(error_types: pa.ChunkedArray, fields: pa.ChunkedArray) -> dict[str, int]:
    counts: dict[str, int] = {}
    for error_type, field in zip(error_types.to_pylist(), fields.to_pylist(), strict=True):
        reason = error_type if field is None else f"{error_type}: {field}"
        if reason not in counts and len(counts) >= REASONS_MAX:
            reason = "others"
        counts[reason] = counts.get(reason, 0) + 1
    return counts


def _parquet_chunks(path: Path, partitioner: Partitioner, before: int) -> Iterator[Chunk]:
    try:
        with pq.ParquetFile(path) as file:
            _check_columns(path, file.schema_arrow)
            names = [name for name in file.schema_arrow.names if name in DECODED_SCHEMA.names]
            rows, last = 0, np.int64(-1)
            for batch in file.iter_batches(CHUNK_ROWS, columns=names):
                given = pa.Table.from_batches([batch])
                last = _check_order(path, given, last)
                rows += len(given)
                done = before + path.stat().st_size * rows // max(1, file.metadata.num_rows)
                yield _chunk_of(path, given, partitioner, done)
    except (pa.ArrowInvalid, OSError) as error:
        raise ConfigError(f"--events {path}: cannot be read as Parquet: {error}") from error


def _check_columns(path: Path, schema: pa.Schema) -> None:
    missing = [field.name for field in ACCESS_FIELDS if field.required and field.name not in schema.names]
    if missing:
        raise ConfigError(f"--events {path}: no column {', '.join(missing)}, which every event must have")


def _check_order(path: Path, given: pa.Table, last: np.int64) -> np.int64:
    """A lake's own files are sorted by account: read as a log they would tell another story."""
    if "offset" not in given.column_names or not len(given):
        return last
    offsets = given["offset"].to_numpy()
    if last >= offsets[0] or (offsets[1:] <= offsets[:-1]).any():
        raise ConfigError(f"--events {path}: its rows are not in the order of the log; of a lake, name the folder")
    return np.int64(offsets[-1])


def _chunk_of(path: Path, given: pa.Table, partitioner: Partitioner, done: int) -> Chunk:
    """The rows of a table that can be events; the others are rejects, as the decoder would have it."""
    columns = []
    for field in DECODED_SCHEMA:
        if field.name in given.column_names and field.name not in {known.name for known in LINEAGE}:
            try:
                columns.append(given[field.name].cast(field.type))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise ConfigError(f"--events {path}: column {field.name}: {error}") from error
        else:
            columns.append(pa.nulls(len(given), field.type))
    table = pa.table(columns, names=DECODED_SCHEMA.names)
    impossible = {
        field.name: wrong for field in ACCESS_FIELDS if (wrong := _impossible(table[field.name], field)).any()
    }
    good = ~np.logical_or.reduce([*impossible.values(), np.zeros(len(table), np.bool_)])
    rejects = {f"impossible value: {name}": int(np.count_nonzero(wrong)) for name, wrong in impossible.items()}
    said = f"{path}: column {next(iter(impossible))} holds impossible values" if impossible else ""
    keys = table["account_id"].to_pylist()
    events = table if good.all() else kept(table, good)
    parts = tuple(partitioner.divide(events, np.flatnonzero(good), keys))
    return Chunk(parts, len(table), rejects, said, done)


def _impossible(column: pa.ChunkedArray, field: Field) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which values break the schema: null though required, too short, too small or too large."""
    wrong = column.is_null() if field.required else pa.chunked_array([pa.repeat(pa.scalar(value=False), len(column))])
    if field.length_min:
        wrong = pc.or_(
            wrong, pc.fill_null(pc.less(pc.binary_length(column.cast(pa.string())), field.length_min), fill_value=False)
        )
    if field.minimum is not None:
        wrong = pc.or_(wrong, pc.fill_null(pc.less(column, field.minimum), fill_value=False))
    if field.maximum is not None:
        wrong = pc.or_(wrong, pc.fill_null(pc.greater(column, field.maximum), fill_value=False))
    return np.asarray(wrong.to_numpy(zero_copy_only=False), dtype=np.bool_)


def read_lake(session: Session, name: str) -> Events:
    """All events of a lake, with the partitions and offsets that they had in Kafka.

    Args:
        session: over the lake; to be closed after the last chunk.
        name: of the lake, for people.
    """
    counts = 'SELECT topic, "partition", count(*) AS n FROM access GROUP BY ALL ORDER BY ALL'
    with session.run(counts, lossless=False) as result:
        rows = [row for batch in result.batches for row in batch.to_pylist()]
    partitions = [Partition(row["topic"], row["partition"]) for row in rows]
    if not partitions:
        raise ConfigError(f"--events: the lake {name} holds no events")
    return Events((name,), (), sum(row["n"] for row in rows), _lake_chunks(session, partitions))


def _lake_chunks(session: Session, partitions: Sequence[Partition]) -> Iterator[Chunk]:
    columns = ", ".join(map(quoted, EVENT_SCHEMA.names))
    done = 0
    for partition in partitions:
        query = (
            f"SELECT {columns} FROM events WHERE topic = {literal(partition.topic)} "  # noqa: S608  # names of our own, quoted
            f'AND "partition" = {partition.number} ORDER BY "offset"'
        )
        with session.run(query, lossless=False) as result:
            for batch in result.batches:
                done += batch.num_rows
                events = pa.Table.from_batches([batch]).cast(DECODED_SCHEMA)
                yield Chunk((events,), batch.num_rows, {}, "", done)
