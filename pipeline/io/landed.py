"""Events read back from the lake's files as they were when they were decoded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.commits import Commit, FileEntry
from pipeline.errors import RetryableError
from pipeline.events import ACCESS_SCHEMA, CONTENT_COLUMNS, DECODED_SCHEMA
from pipeline.ports import Landed
from pipeline.text_views import one_chunk

FOOTER_KEY: Final = b"stillwatch"
"""Key of the Parquet footer's entry that says which offsets a file belongs to, in JSON."""


def read_landed(root: Path, commit: Commit, files: Sequence[FileEntry]) -> Landed:
    """Read a commit's events: rows of `access`, with the text of their rows of `content`.

    Args:
        root: of the lake.
        commit: which.
        files: of the commit, as the catalog lists them.

    Raises:
        RetryableError: the file system refuses.
    """
    missing: list[str] = []
    access, told = _rows(root, files, "access", ACCESS_SCHEMA.names, missing)
    content, _ = _rows(root, files, "content", ["offset", *CONTENT_COLUMNS], missing)
    if len(access) != commit.events and not missing:
        missing.append(f"{commit.events - len(access)} events")
    if told > len(files):
        missing.append(f"{told - len(files)} files that the catalog does not list any more")
    offsets = access["offset"].to_numpy()
    order = np.argsort(offsets, kind="stable")
    columns = {name: access[name].take(pa.array(order)) for name in ACCESS_SCHEMA.names}
    columns |= _texts(content, offsets[order])
    cast = [_cast(columns[field.name], field.type) for field in DECODED_SCHEMA]
    return Landed(pa.table(cast, schema=DECODED_SCHEMA), tuple(missing))


def _rows(
    root: Path, files: Sequence[FileEntry], table: str, names: Sequence[str], missing: list[str]
) -> tuple[pa.Table, int]:
    """Rows of one table; a column that an old file lacks is null; and of how many files their commit is said to be."""
    fields = [DECODED_SCHEMA.field(name) for name in names]
    schema = pa.schema([field.with_type(pa.string()) if field.type == pa.string_view() else field for field in fields])
    parts, told = [schema.empty_table()], 0
    for file in files:
        if file.table_name != table:
            continue
        try:
            with pq.ParquetFile(root / file.path) as source:
                there = [name for name in names if name in source.schema_arrow.names]
                rows = source.read(columns=there)
                told = int(footer_in(source.metadata)["files"])
        except FileNotFoundError:
            missing.append(file.path)
            continue
        except (pa.ArrowInvalid, KeyError, ValueError) as error:
            missing.append(f"{file.path} ({' '.join(str(error).split())})")
            continue
        except OSError as error:
            if error.errno is None:  # Arrow's word for bytes that make no sense
                missing.append(f"{file.path} ({' '.join(str(error).split())})")
                continue
            raise RetryableError(f"lake {root}: {error.strerror or error}") from error
        columns = [
            rows[field.name].cast(field.type) if field.name in there else pa.nulls(len(rows), field.type)
            for field in schema
        ]
        parts.append(pa.table(columns, schema=schema))
    return pa.concat_tables(parts), told


def footer_in(metadata: pq.FileMetaData) -> dict[str, Any]:
    """What a file's footer says of its commit.

    Raises:
        KeyError: nothing.
        ValueError: nothing that can be read.
    """
    return dict(json.loads((metadata.metadata or {})[FOOTER_KEY]))


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
