"""Events read back from the lake's files as they were when they were decoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.batch import Partition
from pipeline.commits import Commit, FileEntry
from pipeline.counted import counted
from pipeline.errors import RetryableError, SchemaError
from pipeline.events import ACCESS_SCHEMA, CONTENT_COLUMNS, DECODED_SCHEMA
from pipeline.io.footers import Made, Rewritten, Source, joined_sources, read_footer, said_by
from pipeline.ports import Landed
from pipeline.text_views import one_chunk

_TABLES: Final = ("access", "content")


def read_landed(root: Path, commits: Sequence[Commit], files: Sequence[FileEntry]) -> Landed:
    """Read commits' events: rows of `access`, with the text of their rows of `content`.

    Args:
        root: of the lake.
        commits: which; of one partition, one after the other, at least one.
        files: that hold rows of theirs, as the catalog lists them; those of others are left alone.

    Raises:
        RetryableError: the file system refuses.
    """
    reading = _Reading(root, commits)
    access = reading.rows(files, "access", ACCESS_SCHEMA.names)
    content = reading.rows(files, "content", ["offset", *CONTENT_COLUMNS])
    offsets = access["offset"].to_numpy()
    order = np.argsort(offsets, kind="stable")
    columns = {name: access[name].take(pa.array(order)) for name in ACCESS_SCHEMA.names}
    columns |= _texts(content, offsets[order])
    cast = [_cast(columns[field.name], field.type) for field in DECODED_SCHEMA]
    missing = reading.missing or tuple(reading.untold(len(access)))
    return Landed(pa.table(cast, schema=DECODED_SCHEMA), tuple(missing))


class _Reading:
    """Rows of some commits out of files, and what is not there."""

    def __init__(self, root: Path, commits: Sequence[Commit]) -> None:
        self._root = root
        self._commits = {commit.commit_id: commit for commit in commits}
        self._partition: Partition = commits[0].partition
        self._span = commits[0].first_offset, commits[-1].next_offset
        self._sources: dict[tuple[str, str, int, str], Source] = {}
        self.missing: list[str] = []

    def rows(self, files: Sequence[FileEntry], table: str, names: Sequence[str]) -> pa.Table:
        """Rows of one table; a column that an old file lacks is null."""
        fields = [DECODED_SCHEMA.field(name) for name in names]
        plain = [field.with_type(pa.string()) if field.type == pa.string_view() else field for field in fields]
        schema = pa.schema(plain)
        parts = [schema.empty_table()]
        for file in files:
            if file.table_name != table:
                continue
            try:
                rows = self._read(file, names)
            except (SchemaError, pa.ArrowInvalid, FileNotFoundError) as error:
                gone = not (self._root / file.path).exists()
                self.missing.append(file.path if gone else f"{file.path} ({' '.join(str(error).split())})")
                continue
            except OSError as error:
                if error.errno is None:  # Arrow's word for bytes that make no sense
                    self.missing.append(f"{file.path} ({' '.join(str(error).split())})")
                    continue
                raise RetryableError(f"lake {self._root}: {error.strerror or error}") from error
            there = rows.column_names
            columns = [
                rows[field.name].cast(field.type) if field.name in there else pa.nulls(len(rows), field.type)
                for field in schema
            ]
            parts.append(pa.table(columns, schema=schema))
        return pa.concat_tables(parts)

    def _read(self, file: FileEntry, names: Sequence[str]) -> pa.Table:
        path = self._root / file.path
        footer, metadata = read_footer(path)
        said = said_by(footer)
        there = [name for name in names if name in metadata.schema.to_arrow_schema().names]
        self._note(file, said)
        if isinstance(said, Made):
            return pq.read_table(path, columns=there, partitioning=None)
        first, following = self._span
        mine = (pc.field("topic") == self._partition.topic) & (pc.field("partition") == self._partition.number)
        mine &= (pc.field("offset") >= first) & (pc.field("offset") < following)
        return pq.read_table(path, columns=there, filters=mine, partitioning=None)

    def _note(self, file: FileEntry, said: Made | Rewritten) -> None:
        """Remember what a file says that it holds of the commits."""
        where = (file.table_name, file.dt, file.hour)
        told = (said, file.rows) if isinstance(said, Made) else said
        for commit_id, source in joined_sources([told]).items():
            if commit_id in self._commits:
                before = self._sources.get((*where, commit_id))
                rows, erased = (before.rows, before.erased) if before else (0, 0)
                whole = Source(source.made, source.landed, source.rows + rows, source.erased + erased)
                self._sources[*where, commit_id] = whole

    def untold(self, events: int) -> Iterator[str]:
        """What commits landed and no file has, in words; what was erased is no loss."""
        erased = sum(source.erased for (table, *_), source in self._sources.items() if table == "access")
        landed = sum(commit.events for commit in self._commits.values())
        if events + erased != landed:
            yield counted(landed - erased - events, "event")
        hours = {
            (source.made.commit.commit_id, hour)
            for source in self._sources.values()
            for hour in source.made.hours
            if hour.table in _TABLES
        }
        gone = [
            hour.rows - (source.rows + source.erased if source else 0)
            for commit_id, hour in hours
            for source in [self._sources.get((hour.table, hour.dt, hour.hour, commit_id))]
        ]
        if any(gone):
            yield f"{counted(sum(gone), 'row')} that no file has which the catalog lists"


def _texts(content: pa.Table, offsets: np.ndarray[Any, np.dtype[np.int64]]) -> dict[str, pa.ChunkedArray]:
    """The columns of text for sorted offsets; null where an event has none."""
    of_content = content["offset"].to_numpy()
    order = np.argsort(of_content, kind="stable")
    place = np.searchsorted(of_content, offsets, sorter=order)
    found = place < len(order)
    found[found] = of_content[order[place[found]]] == offsets[found]
    rows = np.zeros(len(offsets), np.int64)
    rows[found] = order[place[found]]
    indices = pa.array(rows, mask=~found)
    return {name: content[name].take(indices) for name in CONTENT_COLUMNS}


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    return one_chunk(column).cast(kind)
