"""The canonical event: its fields, read from `schemas/access.v1.json`, and every Arrow schema derived from them.

The JSON Schema is the one source.  Nothing else in the code lists the fields.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

import pyarrow as pa

TIME: Final = pa.timestamp("us", "UTC")

_ARROW: Final[dict[tuple[str, str | None], pa.DataType]] = {
    ("string", None): pa.string(),
    ("string", "date-time"): TIME,
    ("integer", None): pa.int64(),
    ("number", None): pa.float64(),
    ("boolean", None): pa.bool_(),
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a feed.

    Attributes:
        name: as in the JSON and in every table.
        arrow: type of its column.
        required: a record without it (or with null) is a reject.
        table: the lake's table that keeps it.
        minimum: smallest possible number, inclusive.
        maximum: largest possible number, inclusive.
        length_min: shortest possible text, in characters.
        description: what it means.
    """

    name: str
    arrow: pa.DataType
    required: bool
    table: str
    minimum: float | int | None
    maximum: float | int | None
    length_min: int
    description: str


def load_schema(name: str) -> dict[str, Any]:
    """Read one of the package's JSON Schemas, `access.v1` for example."""
    text = resources.files("schemas").joinpath(f"{name}.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def fields_of(schema: dict[str, Any], table: str) -> tuple[Field, ...]:
    """Derive the fields of a feed from its JSON Schema.

    Args:
        schema: JSON Schema of an object with flat properties.
        table: where a field goes that names no `x-table` of its own.
    """
    return tuple(
        Field(
            name=name,
            arrow=_ARROW[_json_type(spec), spec.get("format")],
            required=name in schema["required"],
            table=spec.get("x-table", table),
            minimum=spec.get("minimum"),
            maximum=spec.get("maximum"),
            length_min=spec.get("minLength", 0),
            description=spec["description"],
        )
        for name, spec in schema["properties"].items()
    )


def _json_type(spec: dict[str, Any]) -> str:
    types = [spec["type"]] if isinstance(spec["type"], str) else [kind for kind in spec["type"] if kind != "null"]
    return str(types[0])


def arrow_schema(fields: tuple[Field, ...]) -> pa.Schema:
    """Arrow schema of a feed: one column a field, in the JSON Schema's order."""
    return pa.schema([pa.field(field.name, field.arrow, nullable=not field.required) for field in fields])


ACCESS_FIELDS: Final = fields_of(load_schema("access.v1"), table="access")
ACCOUNT_FIELDS: Final = fields_of(load_schema("accounts.v1"), table="accounts")

EXTRA: Final = pa.field("extra", pa.string())
"""Unknown fields of the payload, as one JSON object.  Nobody knows what they hold, so they live with the text."""

LINEAGE: Final = (
    pa.field("topic", pa.string(), nullable=False),
    pa.field("partition", pa.int32(), nullable=False),
    pa.field("offset", pa.int64(), nullable=False),
    pa.field("kafka_time", TIME),
)
"""Where a row comes from; `kafka_time` is the record's Kafka timestamp, null where it had none or an impossible one."""

EVENT_SCHEMA: Final = pa.schema([*arrow_schema(ACCESS_FIELDS), EXTRA, *LINEAGE])
"""One decoded event with all that its payload said; `land` divides it into the lake's tables."""


def with_views(schema: pa.Schema) -> pa.Schema:
    """The schema as rows have it on their way to a file: texts as views, which are made and sorted without a copy."""
    return pa.schema(
        [field.with_type(pa.string_view()) if field.type == pa.string() else field for field in schema],
    )


DECODED_SCHEMA: Final = with_views(EVENT_SCHEMA)
"""Decoded events on their way."""

_KEYS: Final = ("event_time", "account_id")
"""What a row of `content` repeats of its event: for pruning by hour and for erasing an account."""

_TEXT: Final = tuple(field.name for field in ACCESS_FIELDS if field.table == "content")

ACCESS_SCHEMA: Final = pa.schema(
    [EVENT_SCHEMA.field(f.name) for f in ACCESS_FIELDS if f.table == "access"] + list(LINEAGE)
)
CONTENT_SCHEMA: Final = pa.schema([EVENT_SCHEMA.field(name) for name in (*_KEYS, *_TEXT)] + [EXTRA, *LINEAGE[:3]])
CONTENT_COLUMNS: Final = (*_TEXT, EXTRA.name)
"""A row of `content` exists where at least one of these is not null."""

REJECT_SCHEMA: Final = pa.schema(
    [
        *LINEAGE,
        pa.field("error_type", pa.string(), nullable=False),
        pa.field("field", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("raw", pa.binary()),
    ]
)
"""One record that could not become an event: what was wrong, in which field, and the bytes as they came."""
