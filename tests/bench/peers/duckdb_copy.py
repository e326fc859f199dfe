"""DuckDB turns a file of JSON lines into Parquet, on one thread."""

from __future__ import annotations

import duckdb

from tests.bench.peers.task import EVENT_FIELDS, Task, measured

_SQL_TYPES = {"int64": "BIGINT", "double": "DOUBLE", "bool": "BOOLEAN", "string": "VARCHAR"}


def copy(task: Task) -> int:
    """Run the COPY; as short as it can be written, or with the columns named and the lake's compression.

    Returns:
        Rows written.
    """
    target = task.folder / "out.parquet"
    if task.variant == "columns":
        types = {field.name: _SQL_TYPES[str(field.type)] for field in EVENT_FIELDS} | {"event_time": "TIMESTAMPTZ"}
        columns = ", ".join(f"{name}: '{kind}'" for name, kind in types.items())
        source = f"read_json('{task.ndjson}', format='newline_delimited', columns={{{columns}}})"
        options = "(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)"
    else:
        source, options = f"read_json('{task.ndjson}')", ""
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")
        return connection.execute(f"COPY (FROM {source}) TO '{target}' {options}").fetchone()[0]


if __name__ == "__main__":
    given = Task.given()
    with measured() as facts:
        facts["events"] = copy(given)
