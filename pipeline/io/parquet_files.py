"""How the lake's Parquet files are written: one place for compression, encodings, statistics and Bloom filters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.lake_tables import TABLES
from pipeline.text_views import is_view

ROW_GROUP_ROWS: Final = 122_880
"""DuckDB's own row group: sixty of its vectors."""

_PLAIN: Final = (
    "request_id",
    "system_prompt_hash",
    "prompt_hash",
    "response_hash",
    "prompt",
    "response",
    "raw",
)
"""Columns whose values hardly repeat: a dictionary of them would be built in vain."""

_DELTA: Final = ("event_time", "kafka_time", "offset", "latency_ms", "scored_at")
"""Numbers that hardly repeat either, but lie close together: their differences take less space and less time."""


def parquet_writer(
    sink: pa.BufferOutputStream | Path, table: str, schema: pa.Schema, *, rows: int, level: int = 1
) -> pq.ParquetWriter:
    """A writer of one of the lake's files.

    Args:
        sink: where to.
        table: of the lake; says how its rows are sorted, and which column a Bloom filter is of.
        schema: of the rows.
        rows: how many come, or more.
        level: of zstd.
    """
    about, names = TABLES[table], schema.names
    bloom = {"ndv": max(1, min(rows, ROW_GROUP_ROWS)), "fpp": 0.01}
    return pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        compression_level=level,
        use_dictionary=[path for path in _leaves(schema) if path not in _PLAIN + _DELTA],
        column_encoding={name: "DELTA_BINARY_PACKED" for name in _DELTA if name in names},
        write_page_index=True,
        write_statistics=[field.name for field in schema if _has_useful_bounds(field)],
        sorting_columns=[pq.SortingColumn(names.index(name)) for name in about.order],
        bloom_filter_options={about.sought: bloom} if about.sought else None,
        store_schema=False,  # that texts were views on their way is nobody's business
    )


def _has_useful_bounds(field: pa.Field) -> bool:
    """Whether the least and greatest of many values tell a reader anything: those of unsorted texts do not."""
    if pa.types.is_nested(field.type):
        return False
    return field.name in ("account_id", "entity_id") or not (pa.types.is_string(field.type) or is_view(field.type))


def _leaves(schema: pa.Schema) -> Iterator[str]:
    """Paths of the columns that Parquet makes of a schema, those of fractions in nested columns left out."""
    for field in schema:
        if pa.types.is_list(field.type) and pa.types.is_struct(field.type.value_type):
            texts = [part.name for part in field.type.value_type if pa.types.is_string(part.type)]
            yield from (f"{field.name}.list.element.{name}" for name in texts)
        elif not pa.types.is_nested(field.type):
            yield field.name
