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


def incompatibilities(old: Schema, new: Schema) -> Iterator[str]:
    """What a reader or writer of the old schema could trip over in the new one."""
    for name in sorted(set(new["required"]) - set(old["required"])):
        yield f"{name} became required"
    for name, before in old["properties"].items():
        after = new["properties"].get(name)
        if after is None:
            yield f"{name} was removed or renamed"
            continue
        for key in ("type", "format", "x-table"):
            if after.get(key) != before.get(key):
                yield f"{name}: {key} changed"
        for key, narrower in (("minimum", 1), ("maximum", -1), ("minLength", 1)):
            if _is_narrower(before.get(key), after.get(key), narrower):
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


def _removed(schema: Schema) -> None:
    del schema["properties"]["model"]


def _retyped(schema: Schema) -> None:
    schema["properties"]["status"]["type"] = ["string", "null"]


def _required(schema: Schema) -> None:
    schema["required"].append("status")


def _narrowed(schema: Schema) -> None:
    schema["properties"]["top_p"]["maximum"] = 0.5


def _bounded(schema: Schema) -> None:
    schema["properties"]["user_agent"]["minLength"] = 3


def _moved(schema: Schema) -> None:
    schema["properties"]["prompt"]["x-table"] = "access"


@pytest.mark.parametrize("change", (_removed, _retyped, _required, _narrowed, _bounded, _moved))
def test_a_breaking_change_is_noticed(change: Callable[[Schema], None]) -> None:
    """The check itself sees each kind of change that is not additive."""
    new = copy.deepcopy(load_schema("access.v1"))
    change(new)
    assert len(list(incompatibilities(load_schema("access.v1"), new))) == 1


def test_a_new_optional_field_is_no_breaking_change() -> None:
    """Nor is a wider range."""
    new = copy.deepcopy(load_schema("access.v1"))
    new["properties"]["colour"] = {"type": ["string", "null"], "description": "new"}
    new["properties"]["status"]["maximum"] = 999
    assert list(incompatibilities(load_schema("access.v1"), new)) == []


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
