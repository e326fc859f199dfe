"""The lake's tables: of which columns each is, how it is cut into hours, and how its files are sorted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from pipeline.alerts import ALERT_SCHEMA
from pipeline.events import ACCESS_SCHEMA, CONTENT_SCHEMA, REJECT_SCHEMA
from pipeline.windows import WINDOWS_SCHEMA


@dataclass(frozen=True, slots=True)
class LakeTable:
    """One table.

    Attributes:
        schema: its columns.
        time: the column that decides in which hour a row is kept; rows without it are kept in 1970.
        order: the columns by which the rows of a file are sorted.
        sought: the column that a file's Bloom filter is of; empty: it has none.
    """

    schema: pa.Schema
    time: str
    order: tuple[str, ...]
    sought: str = ""


TABLES: Final[dict[str, LakeTable]] = {
    "access": LakeTable(ACCESS_SCHEMA, "event_time", ("account_id", "event_time", "offset"), "account_id"),
    "content": LakeTable(CONTENT_SCHEMA, "event_time", ("account_id", "event_time", "offset"), "account_id"),
    "rejects": LakeTable(REJECT_SCHEMA, "kafka_time", ("offset",)),
    "account_windows": LakeTable(WINDOWS_SCHEMA, "scored_at", ("account_id", "scored_at", "offset"), "account_id"),
    "alerts": LakeTable(ALERT_SCHEMA, "raised_at", ("entity_id", "raised_at", "offset"), "entity_id"),
}

NO_TIME_DAY: Final = "1970-01-01"
"""Day under which rows without a time are kept: rejects of files, which have no Kafka time."""

TABLE_SCHEMAS: Final[dict[str, pa.Schema]] = {name: table.schema for name, table in TABLES.items()}


def is_of(found: pa.DataType, expected: pa.DataType) -> bool:
    """Whether a file's column has its table's type; a struct may lack fields, or have some that are no more."""
    if pa.types.is_struct(found) and pa.types.is_struct(expected):
        shared = {field.name for field in found} & {field.name for field in expected}
        return all(is_of(found.field(name).type, expected.field(name).type) for name in shared)
    return bool(found == expected)
