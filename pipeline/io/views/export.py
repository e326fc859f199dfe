"""The views as a DuckDB file, for any other client: of the moment of the export."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.commits import FileEntry, Manifest
from pipeline.errors import ConfigError, SchemaError
from pipeline.io.catalog import Catalog
from pipeline.io.lake import Lake
from pipeline.io.views import desk, tables
from pipeline.io.views.tables import BROKEN
from pipeline.lake_tables import TABLE_SCHEMAS
from pipeline.sql_text import literal

_HIVE: Final = "hive_partitioning = true, hive_types = {'dt': DATE, 'hour': INTEGER}"
_KEYS: Final = (*tables.JOIN_KEYS, tables.DT.name, tables.HOUR.name)
"""With them a filter on the day of an event spares the files of its text, too: DuckDB prunes by path alone here."""


def export(lake: Lake, catalog: Catalog, target: Path) -> int:
    """Write a DuckDB file with every view; an older one is replaced when the new one is complete.

    Args:
        lake: its absolute path goes into the views.
        catalog: read at one moment.
        target: the file.

    Returns:
        How many Parquet files the views are made of.

    Raises:
        ConfigError: the file cannot be written, or is not a DuckDB file that may be replaced.
        SchemaError: a file of the lake is missing or broken.
    """
    _check_target(target)
    manifest = catalog.manifest()
    files = manifest.files()
    _check_folders(lake.root)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        with duckdb.connect(str(temporary)) as connection:
            _create(connection, lake.root, files, manifest)
            for name in tables.DESK_VIEWS:
                _add(connection, name, desk.SCHEMAS[name], desk.rows_of(name, catalog))
        temporary.replace(target)
    except (duckdb.Error, OSError) as error:
        raise ConfigError(f"--export {target}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
        temporary.with_name(f"{temporary.name}.wal").unlink(missing_ok=True)
    return len(files)


def _check_target(target: Path) -> None:
    """Replace nothing that is not an export: a slip of the hand must not cost a file."""
    if not target.parent.is_dir():
        raise ConfigError(f"--export {target}: there is no folder {target.parent}")
    if target.is_dir():
        raise ConfigError(f"--export {target}: is a folder")
    if not target.exists():
        return
    try:
        with duckdb.connect(str(target), read_only=True) as former:
            ours = former.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'lake_offsets'").fetchall()
    except duckdb.Error as error:
        raise ConfigError(f"--export {target}: exists, and stays as it is: {error}") from error
    if ours != [(1,)]:
        raise ConfigError(f"--export {target}: exists, and is no export of a lake; it stays as it is")


def _check_folders(root: Path) -> None:
    """DuckDB takes every folder `name=value` of a path for a column, those above the lake, too."""
    names = {name for schema in TABLE_SCHEMAS.values() for name in schema.names} | {tables.DT.name, tables.HOUR.name}
    for part in root.parts:
        name, equals, _ = part.partition("=")
        if equals and name.lower() in names:
            raise ConfigError(f"--export: the lake lies below {part}, which DuckDB would take for a column")


def _create(connection: duckdb.DuckDBPyConnection, root: Path, files: Sequence[FileEntry], manifest: Manifest) -> None:
    for table in tables.FILE_VIEWS:
        sql = _union_sql(table, root, [file.path for file in files if file.table_name == table])
        connection.execute(f"CREATE VIEW {table} AS {sql}")
    connection.execute(f"CREATE VIEW {tables.EVENTS} AS {tables.events_sql(_KEYS)}")
    for name, rows in {"lake_files": tables.files_rows(files), **tables.catalog_rows(manifest)}.items():
        _add(connection, name, rows.schema, [rows])


def _add(connection: duckdb.DuckDBPyConnection, name: str, schema: pa.Schema, rows: Iterable[pa.Table]) -> None:
    connection.execute(f"CREATE TABLE {name} ({tables.columns_sql(schema)})")
    for some in rows:
        connection.register("_rows", some)
        connection.execute(f"INSERT INTO {name} FROM _rows")
        connection.unregister("_rows")


def _union_sql(table: str, root: Path, paths: Sequence[str]) -> str:
    """SELECT over all files of a table: one read for all of the same columns, so that none is opened to learn them."""
    groups: dict[pa.Schema, list[str]] = {}
    for path in paths:
        groups.setdefault(_schema(root / path), []).append(str(root / path))
    reads = [_read_sql(table, schema, of_group) for schema, of_group in groups.items()]
    return " UNION ALL ".join(reads) or _nothing_sql(table)


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path).remove_metadata()
    except (OSError, pa.ArrowInvalid) as error:
        raise SchemaError(f"{path}: {error}\n{BROKEN}") from error


def _read_sql(table: str, schema: pa.Schema, paths: Sequence[str]) -> str:
    columns = []
    for field in TABLE_SCHEMAS[table]:
        name, kind = tables.quoted(field.name), tables.sql_type(field.type)
        there = field.name in schema.names
        same = there and schema.field(field.name).type == field.type
        columns.append(name if same else f"CAST({name if there else 'NULL'} AS {kind}) AS {name}")
    listed = ", ".join(literal(path) for path in paths)
    return f"SELECT {', '.join(columns)}, dt, hour FROM read_parquet([{listed}], {_HIVE})"  # noqa: S608  # names of our own, paths quoted


def _nothing_sql(table: str) -> str:
    columns = [
        f"CAST(NULL AS {tables.sql_type(field.type)}) AS {tables.quoted(field.name)}"
        for field in tables.VIEWS[table].columns
    ]
    return f"SELECT {', '.join(columns)} WHERE false"
