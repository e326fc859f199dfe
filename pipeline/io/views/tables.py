"""The views of the lake: their columns, and the SQL that makes them of files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import pyarrow as pa

from pipeline.commits import FileEntry, Manifest
from pipeline.events import ACCESS_FIELDS, EVENT_SCHEMA, TIME
from pipeline.io.views import desk
from pipeline.lake_tables import TABLE_SCHEMAS, TABLES
from pipeline.sql_text import literal

DT: Final = pa.field("dt", pa.date32())
HOUR: Final = pa.field("hour", pa.int32())

_SQL_TYPES: Final[dict[pa.DataType, str]] = {
    pa.string(): "VARCHAR",
    pa.binary(): "BLOB",
    pa.bool_(): "BOOLEAN",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.date32(): "DATE",
    TIME: "TIMESTAMP WITH TIME ZONE",
}

TIME_COLUMNS: Final = {name: table.time for name, table in TABLES.items()}
"""The column that decides in which hour a row is kept; the catalog has its range for each file."""

EVENTS: Final = "events"
EVENTS_FROM: Final = ("access", "content")

BROKEN: Final = "A file that the catalog lists is missing or broken; `stillwatch maintain verify` says which are"

JOIN_KEYS: Final = ("topic", "partition", "offset", "account_id", "event_time")
"""What a row of `access` and its row of `content` share.  The first three would do; the others let a filter on one side
reach the other."""

_TYPE_CHARS_MAX: Final = 90

_HOUR_US: Final = 3_600_000_000

FILES_SCHEMA: Final = pa.schema(
    [
        pa.field("path", pa.string()),
        pa.field("table_name", pa.string()),
        DT,
        HOUR,
        pa.field("rows", pa.int64()),
        pa.field("bytes", pa.int64()),
        pa.field("sha256", pa.string()),
        pa.field("time_min", TIME),
        pa.field("time_max", TIME),
    ]
)
_COMMITS_SCHEMA: Final = pa.schema(
    [
        pa.field("commit_id", pa.string()),
        pa.field("topic", pa.string()),
        pa.field("partition", pa.int32()),
        pa.field("first_offset", pa.int64()),
        pa.field("next_offset", pa.int64()),
        pa.field("events", pa.int64()),
        pa.field("rejects", pa.int64()),
        pa.field("committed_at", TIME),
        pa.field("worker", pa.string()),
    ]
)
_OFFSETS_SCHEMA: Final = pa.schema(
    [pa.field("topic", pa.string()), pa.field("partition", pa.int32()), pa.field("next_offset", pa.int64())]
)
_HOLES_SCHEMA: Final = pa.schema(
    [
        pa.field("topic", pa.string()),
        pa.field("partition", pa.int32()),
        pa.field("first_offset", pa.int64()),
        pa.field("next_offset", pa.int64()),
        pa.field("kind", pa.string()),
        pa.field("accepted", pa.bool_()),
    ]
)

_WORDS: Final = {
    **{field.name: field.description for field in ACCESS_FIELDS},
    "extra": "Fields that the schema does not know, as one JSON object; those that are null are left out.",
    "topic": "Kafka topic that the row comes from; `file:…`, `past:…` and `again:…` of backfills.",
    "partition": "Its partition.",
    "offset": 'Its offset; topic, partition and offset name a row for good. A word of SQL: write it "offset".',
    "kafka_time": "Timestamp of the Kafka record; null where it had none.",
    "error_type": "Kind of the first thing that was wrong.",
    "field": "The field at fault, if it was one.",
    "reason": "What was wrong, in words.",
    "raw": "The record's bytes as they came; decode(raw) is its text where it is UTF-8.",
    "dt": "Day of the row in UTC.",
    "hour": "Hour of the row in UTC, 0 to 23.",
    "path": "The file, relative to the lake.",
    "table_name": f"Table that it belongs to: {', '.join(TABLES)}.",
    "rows": "How many rows it holds.",
    "bytes": "Its size.",
    "sha256": "Of its bytes, in hex.",
    "time_min": "Earliest of the times that its rows are kept by; null where one has none.",
    "time_max": "Latest of the same.",
    "commit_id": "UUID of the commit; the file names hold it too.",
    "first_offset": "First offset of the range.",
    "next_offset": "The offset after the last of the range.",
    "events": "How many of its records became events.",
    "rejects": "How many became rejects.",
    "committed_at": "Wall clock of the worker.",
    "worker": "Host and process that wrote it.",
    "kind": "`lost`: Kafka deleted the records before they were landed. `replaced`: they were landed, and the topic "
    "has lost them or holds others there now.",
    "accepted": "An operator has decided to go on without these records.",
}


_WORDS_OF_SCORES: Final = {
    "account_id": "The account.",
    "scored_at": "The account's clock when it was scored: event time.",
    "kind": "Why it was scored then: `count`: a number of requests; `tick`: a boundary of its clock.",
    "exchanges": "Requests of the account's present life so far.",
    "output_tokens": "Tokens that it was answered in its present life so far.",
    "first_seen": "When the account's present life began.",
    "risk": "Probability of harvesting, 0 to 1; null: unknown, as it is of an account with few requests.",
    "zscore": "Mean robust z-score towards harvesting against the population.",
    "half_space_trees": "Anomaly score of the half-space trees, 0 to 1.",
    "mondrian_forest": "Probability by the Mondrian forest.",
    "logistic_regression": "Probability by the logistic regression.",
    "extra_trees": "Probability by the trees: extremely randomised ones and, of grown accounts, boosted ones.",
    "features": "Numbers by their names, null where inputs are absent; of an alert, those behind it.",
    "versions": "Of features, models and configuration: what makes the same events give the same score.",
    "alert_id": "Hash of rule, version, entity and window: a replay raises the same alert and no second one.",
    "rule": "Name of the rule.",
    "rule_version": "Its version.",
    "state": "`live`: delivered; `shadow`: kept, and delivered to nobody.",
    "severity": "informational, low, medium, high or critical, as in OCSF.",
    "entity_type": "What the alert is about: account.",
    "entity_id": "Its id.",
    "window_start": "What the alert is about begins here.",
    "raised_at": "Event time of the row that raised it.",
    "reasons": "Why, the weightiest first: what a feature adds to the log-odds of the risk; of an alert, in words.",
    "offset": "Offset of the record that triggered it.",
}


@dataclass(frozen=True, slots=True)
class View:
    """One view.

    Attributes:
        name: in SQL.
        about: what a row of it is.
        columns: names and types.
    """

    name: str
    about: str
    columns: pa.Schema

    def described(self) -> list[tuple[str, str, str]]:
        """Each column's name, SQL type and meaning."""
        return [
            (field.name, sql_type(field.type).replace('"', ""), self._meaning(field.name)) for field in self.columns
        ]

    def _meaning(self, column: str) -> str:
        if self.name == "lake_offsets" and column == "next_offset":
            return "Where reading goes on: all offsets below are in the lake."
        if self.name in desk.WORDS:
            return desk.WORDS[self.name][column]
        return (
            _WORDS_OF_SCORES[column]
            if self.name in ("account_windows", "alerts") and column in _WORDS_OF_SCORES
            else _WORDS[column]
        )


def _of_table(name: str) -> pa.Schema:
    return pa.schema([*TABLE_SCHEMAS[name], DT, HOUR])


VIEWS: Final[dict[str, View]] = {
    view.name: view
    for view in (
        View("access", "one request to the API, without its text", _of_table("access")),
        View("content", "the text of a request; only where there is any", _of_table("content")),
        View("rejects", "one record that could not become an event", _of_table("rejects")),
        View("account_windows", "an account as it was scored at one moment of its clock", _of_table("account_windows")),
        View("alerts", "a rule that held for an account; those of shadow rules, too", _of_table("alerts")),
        View(
            EVENTS, "access and content side by side: one request and all it said", pa.schema([*EVENT_SCHEMA, DT, HOUR])
        ),
        *(View(name, desk.ABOUT[name], schema) for name, schema in desk.SCHEMAS.items()),
        View("lake_files", "one Parquet file that readers see", FILES_SCHEMA),
        View("lake_commits", "one step forward of one partition", _COMMITS_SCHEMA),
        View("lake_offsets", "how far each partition is landed", _OFFSETS_SCHEMA),
        View(
            "lake_holes",
            "a range of offsets whose records, as the topic had or has them, are not in the lake",
            _HOLES_SCHEMA,
        ),
    )
}

FILE_VIEWS: Final = tuple(TABLE_SCHEMAS)
"""Those that are made of Parquet files; `events` is made of them in turn."""

DESK_VIEWS: Final = tuple(desk.SCHEMAS)
TEXT_VIEWS: Final = frozenset({"content", EVENTS})
"""Views that hold what people and models wrote, whatever is asked of them."""

TEXT_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {"rejects": ("raw",)}
"""Columns of other views that hold it: what could not be decoded may hold a prompt."""

CATALOG_VIEWS: Final = tuple(name for name in VIEWS if name.startswith("lake_"))


def sql_type(kind: pa.DataType) -> str:
    """A column's type as DuckDB writes it."""
    if pa.types.is_list(kind):
        return f"{sql_type(kind.value_type)}[]"
    if pa.types.is_map(kind):
        return f"MAP({sql_type(kind.key_type)}, {sql_type(kind.item_type)})"
    if pa.types.is_struct(kind):
        return f"STRUCT({', '.join(f'{quoted(field.name)} {sql_type(field.type)}' for field in kind)})"
    return _SQL_TYPES[kind]


def brief(kind: str) -> str:
    """A type as people are told it: of a struct of many fields only that it is one."""
    return kind if len(kind) <= _TYPE_CHARS_MAX else kind.partition("(")[0]


def quoted(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def columns_sql(schema: pa.Schema) -> str:
    """Columns for CREATE TABLE.  Never NOT NULL: a planner would draw conclusions that hold for no Parquet file."""
    return ", ".join(f"{quoted(field.name)} {sql_type(field.type)}" for field in schema)


def files_sql(table: str, paths: Sequence[str]) -> str:
    """SELECT over Parquet files of a table, old and new, with the columns of today.

    The columns are given and not looked up: DuckDB opens no file before the query runs, a column that an old file lacks
    is null, and one that a newer Stillwatch added is left out.

    Args:
        table: of the lake.
        paths: absolute; at least one.
    """
    schema = TABLE_SCHEMAS[table]
    given = ", ".join(
        f"{name}: {{name: {name}, type: {literal(sql_type(field.type))}, default_value: NULL}}"
        for field in schema
        for name in [literal(field.name)]
    )
    names = ", ".join(_whole(field) for field in schema)
    read = f"read_parquet([{', '.join(map(literal, paths))}], hive_partitioning = false, schema = MAP {{{given}}})"
    return f"SELECT {names}, {hours_sql(table)} FROM {read}"  # noqa: S608  # names of our own, paths quoted


def _whole(field: pa.Field) -> str:
    """A column as files have it, a struct read whole.

    DuckDB 2.0 takes one field of a struct by its place in the type that is given, and not by its name, so that a file
    with other fields would answer with another feature's numbers.
    """
    name = quoted(field.name)
    return f"list_extract([{name}], 1) AS {name}" if pa.types.is_struct(field.type) else name


def hours_sql(table: str) -> str:
    """`dt` and `hour` from a row's time: what the path of its file says, too."""
    microseconds = f"coalesce(epoch_us({quoted(TIME_COLUMNS[table])}), 0)"
    return (
        f"CAST(make_timestamp({microseconds}) AS DATE) AS dt, "
        f"CAST({microseconds} // {_HOUR_US} % 24 AS INTEGER) AS hour"
    )


def events_sql(keys: Iterable[str] = JOIN_KEYS) -> str:
    """SELECT of `events` from `access` and `content`, joined on columns that both have."""
    text = {field.name for field in TABLE_SCHEMAS["content"]} - {field.name for field in TABLE_SCHEMAS["access"]}
    names = ", ".join(f"{'c' if field.name in text else 'a'}.{quoted(field.name)}" for field in VIEWS[EVENTS].columns)
    on = " AND ".join(f"a.{quoted(key)} = c.{quoted(key)}" for key in keys)
    return f"SELECT {names} FROM access AS a LEFT JOIN content AS c ON {on}"  # noqa: S608  # names of our own


def files_rows(files: Sequence[FileEntry]) -> pa.Table:
    """Rows of `lake_files`."""
    columns = [
        [file.path for file in files],
        [file.table_name for file in files],
        [date.fromisoformat(file.dt) for file in files],
        [file.hour for file in files],
        [file.rows for file in files],
        [file.bytes for file in files],
        [file.sha256 for file in files],
        [file.time_min_us for file in files],
        [file.time_max_us for file in files],
    ]
    return _rows(columns, FILES_SCHEMA)


def catalog_rows(manifest: Manifest) -> dict[str, pa.Table]:
    """Rows of `lake_commits`, `lake_offsets` and `lake_holes`."""
    commits, offsets, holes = manifest.commits, manifest.offsets, manifest.holes
    of_commits = [
        [commit.commit_id for commit in commits],
        [commit.partition.topic for commit in commits],
        [commit.partition.number for commit in commits],
        [commit.first_offset for commit in commits],
        [commit.next_offset for commit in commits],
        [commit.events for commit in commits],
        [commit.rejects for commit in commits],
        [commit.committed_at_us for commit in commits],
        [commit.worker for commit in commits],
    ]
    of_offsets = [[at.topic for at in offsets], [at.number for at in offsets], list(offsets.values())]
    of_holes = [
        [hole.partition.topic for hole in holes],
        [hole.partition.number for hole in holes],
        [hole.first_offset for hole in holes],
        [hole.next_offset for hole in holes],
        [hole.kind for hole in holes],
        [hole.accepted for hole in holes],
    ]
    return {
        "lake_commits": _rows(of_commits, _COMMITS_SCHEMA),
        "lake_offsets": _rows(of_offsets, _OFFSETS_SCHEMA),
        "lake_holes": _rows(of_holes, _HOLES_SCHEMA),
    }


def _rows(columns: Sequence[Any], schema: pa.Schema) -> pa.Table:
    arrays = [
        pa.array(column, pa.int64()).cast(TIME) if field.type == TIME else pa.array(column, field.type)
        for column, field in zip(columns, schema, strict=True)
    ]
    return pa.table(arrays, schema=schema)
