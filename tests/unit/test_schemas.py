"""Schemas: the Arrow schemas derived from them, examples with their expected rows, and additive change only."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pytest

from pipeline.batch import Partition, Records
from pipeline.decode import Decoder
from pipeline.events import (
    ACCESS_SCHEMA,
    ACCOUNT_FIELDS,
    CONTENT_SCHEMA,
    EVENT_SCHEMA,
    TIME,
    arrow_schema,
    load_schema,
)

SCHEMAS = Path(__file__).parents[2] / "schemas"
EXAMPLES = sorted((SCHEMAS / "examples/canonical").glob("*.json"))
FEEDS = ("access.v1", "accounts.v1")

Schema = dict[str, Any]

LIMITS = {"minimum": 1, "exclusiveMinimum": 1, "minLength": 1, "maximum": -1, "exclusiveMaximum": -1, "maxLength": -1}
"""Keywords that limit a value, and the direction in which they narrow it."""


def incompatibilities(old: Schema, new: Schema) -> Iterator[str]:
    """What a reader or writer of the old schema could trip over in the new one."""
    for name in sorted(set(new["required"]) - set(old["required"])):
        yield f"{name} became required"
    if new.get("additionalProperties", True) is not True:
        yield "unknown fields became forbidden"
    for name, before in old["properties"].items():
        after = new["properties"].get(name)
        if after is None:
            yield f"{name} was removed or renamed"
            continue
        for key in ("type", "format", "x-table", "enum", "const", "pattern", "multipleOf"):
            if after.get(key) != before.get(key):
                yield f"{name}: {key} changed"
        for key, sign in LIMITS.items():
            if _is_narrower(before.get(key), after.get(key), sign):
                yield f"{name}: {key} was narrowed"


def _is_narrower(before: float | None, after: float | None, sign: int) -> bool:
    if after is None:
        return False
    return before is None or (after - before) * sign > 0


@pytest.mark.parametrize("feed", FEEDS)
def test_a_schema_only_grows(feed: str) -> None:
    """Against the first version that was ever released, kept in schemas/history."""
    old = json.loads((SCHEMAS / "history" / f"{feed}.json").read_text(encoding="utf-8"))
    assert list(incompatibilities(old, load_schema(feed))) == []


def _set(*keys: str, to: Any) -> Callable[[Schema], None]:
    def act(schema: Schema) -> None:
        for key in keys[:-1]:
            schema = schema[key]
        schema[keys[-1]] = to

    return act


BREAKING: dict[str, Callable[[Schema], object]] = {
    "removed": lambda schema: schema["properties"].pop("country"),
    "renamed": lambda schema: schema["properties"].update(land=schema["properties"].pop("country")),
    "retyped": _set("properties", "status", "type", to=["string", "null"]),
    "from whole numbers to any": _set("properties", "status", "type", to=["number", "null"]),
    "no longer null": _set("properties", "status", "type", to="integer"),
    "a format dropped": lambda schema: schema["properties"]["event_time"].pop("format"),
    "a format added": _set("properties", "country", "format", to="date-time"),
    "newly required": lambda schema: schema["required"].append("status"),
    "added and required": lambda schema: (
        schema["properties"].update(x={"type": "string"}),
        schema["required"].append("x"),
    ),
    "maximum lowered": _set("properties", "top_p", "maximum", to=0.5),
    "minimum raised": _set("properties", "status", "minimum", to=200),
    "minimum added": _set("properties", "temperature", "exclusiveMinimum", to=0),
    "length demanded": _set("properties", "user_agent", "minLength", to=3),
    "length raised": _set("properties", "model", "minLength", to=2),
    "length limited": _set("properties", "country", "maxLength", to=2),
    "values listed": _set("properties", "operation", "enum", to=["chat"]),
    "a pattern": _set("properties", "country", "pattern", to="^..$"),
    "moved to another table": _set("properties", "prompt", "x-table", to="access"),
    "closed": _set("additionalProperties", to=False),
}


@pytest.mark.parametrize("change", BREAKING)
def test_a_breaking_change_is_noticed(change: str) -> None:
    """The check itself sees each kind of change that is not additive."""
    new = copy.deepcopy(load_schema("access.v1"))
    BREAKING[change](new)
    assert len(list(incompatibilities(load_schema("access.v1"), new))) == 1


def test_a_new_optional_field_is_no_breaking_change() -> None:
    """Nor is a wider range."""
    new = copy.deepcopy(load_schema("access.v1"))
    new["properties"]["colour"] = {"type": ["string", "null"], "description": "new"}
    new["properties"]["status"]["maximum"] = 999
    del new["properties"]["status"]["minimum"]
    new["properties"]["model"]["minLength"] = 0
    new["properties"]["country"]["description"] = "Other words."
    assert list(incompatibilities(load_schema("access.v1"), new)) == []


def test_history_keeps_the_first_version_of_every_feed() -> None:
    """A feed without one would be checked against nothing."""
    assert {path.stem for path in (SCHEMAS / "history").glob("*.json")} == set(FEEDS)
    assert {path.stem for path in SCHEMAS.glob("*.json")} == set(FEEDS)


def test_every_column_is_derived_from_the_schema() -> None:
    """In the schema's order, of the schema's type; nothing else in the code lists the fields."""
    properties = load_schema("access.v1")["properties"]
    assert EVENT_SCHEMA.names[: len(properties)] == list(properties)
    types = {"string": pa.string(), "integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}
    for name, spec in properties.items():
        kinds = {spec["type"]} if isinstance(spec["type"], str) else set(spec["type"]) - {"null"}
        expected = TIME if spec.get("format") == "date-time" else types[kinds.pop()]
        assert EVENT_SCHEMA.field(name).type == expected
        assert EVENT_SCHEMA.field(name).nullable == (name not in ("event_time", "account_id", "model"))
    for table in (ACCESS_SCHEMA, CONTENT_SCHEMA):
        assert all(table.field(name) == EVENT_SCHEMA.field(name) for name in table.names)


def test_every_field_of_the_access_log_stands_in_one_table() -> None:
    """Text in `content`, all else in `access`; what the tables share identifies the row."""
    shared = set(ACCESS_SCHEMA.names) & set(CONTENT_SCHEMA.names)
    assert shared == {"event_time", "account_id", "topic", "partition", "offset"}
    assert set(ACCESS_SCHEMA.names) | set(CONTENT_SCHEMA.names) == set(EVENT_SCHEMA.names)
    assert {"prompt", "response", "system_prompt", "extra"} <= set(CONTENT_SCHEMA.names) - set(ACCESS_SCHEMA.names)


def test_the_arrow_schema_of_the_accounts_feed() -> None:
    """Types and required fields come from the JSON Schema."""
    schema = arrow_schema(ACCOUNT_FIELDS)
    assert schema.names == list(load_schema("accounts.v1")["properties"])
    assert schema.field("created_at").type == TIME
    assert schema.field("verified").type == pa.bool_()
    assert [field.name for field in schema if not field.nullable] == ["account_id"]


@pytest.mark.parametrize("feed", FEEDS)
def test_a_schema_is_one(feed: str) -> None:
    """By JSON Schema's own rules."""
    jsonschema.Draft202012Validator.check_schema(load_schema(feed))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_becomes_the_row_that_is_expected(example: Path) -> None:
    """An event becomes its row, anything else its reject; where only JSON Schema can tell, it agrees."""
    case = json.loads(example.read_text(encoding="utf-8"))
    raw = case["raw"].encode() if "raw" in case else json.dumps(case["payload"], ensure_ascii=False).encode()
    kafka_time = int(datetime.fromisoformat(case["kafka_time"]).timestamp() * 1000)
    records = Records(
        Partition("logs", 3), pa.array([raw], pa.binary_view()), np.array([17]), np.array([kafka_time]), next_offset=18
    )
    decoded = Decoder().decode(records)
    rows = [
        {name: _shown(value) for name, value in row.items() if value is not None}
        for row in [*decoded.events.to_pylist(), *decoded.rejects.drop_columns("raw").to_pylist()]
    ]
    assert rows == [case["expected"]]
    if "payload" in case and case.get("schema_can_tell", True):
        valid = jsonschema.Draft202012Validator(load_schema("access.v1")).is_valid(case["payload"])
        assert valid == bool(len(decoded.events))


def _shown(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value


def test_there_are_examples_of_events_and_of_every_kind_of_reject() -> None:
    """A glob that finds nothing would test nothing."""
    kinds = {json.loads(path.read_text(encoding="utf-8"))["expected"].get("error_type", "event") for path in EXAMPLES}
    assert kinds == {"event", "invalid_json", "missing_field", "wrong_type", "impossible_value"}


def test_all_examples_in_one_batch_become_the_same_rows() -> None:
    """Bad neighbours change nothing."""
    cases = [json.loads(path.read_text(encoding="utf-8")) for path in EXAMPLES]
    raws = [
        case["raw"].encode() if "raw" in case else json.dumps(case["payload"], ensure_ascii=False).encode()
        for case in cases
    ]
    times = [int(datetime.fromisoformat(case["kafka_time"]).timestamp() * 1000) for case in cases]
    offsets = np.arange(len(cases))
    values = pa.array(raws, pa.binary_view())
    decoded = Decoder().decode(Records(Partition("logs", 3), values, offsets, np.array(times), len(cases)))
    for kind, table in ((False, decoded.events), (True, decoded.rejects.drop_columns("raw"))):
        rows = [{name: _shown(value) for name, value in row.items() if value is not None} for row in table.to_pylist()]
        wanted = [
            {**case["expected"], "offset": offset}
            for offset, case in enumerate(cases)
            if ("error_type" in case["expected"]) == kind
        ]
        assert rows == wanted


def test_every_field_has_an_example() -> None:
    """A new field comes with one."""
    shown = {name for path in EXAMPLES for name in json.loads(path.read_text(encoding="utf-8"))["expected"]}
    assert set(EVENT_SCHEMA.names) <= shown
