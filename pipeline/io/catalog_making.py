"""How a catalog's tables are made, and older ones brought up to date."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from pipeline.errors import ConfigError
from pipeline.io import catalog_tables as tables
from pipeline.io.desk import audit_log, keyed

_CREATION_LOCK: Final = 0x5711
"""PostgreSQL's CREATE TABLE IF NOT EXISTS fails where two run at once; any number will do, as long as all use it."""


def make(tx: sa.Connection) -> None:
    """Make the tables, or bring older ones up to date; of several workers that start at once, one."""
    if tx.dialect.name == "postgresql":
        tx.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATION_LOCK)))
    for older in range(version_in(tx) or tables.SCHEMA_VERSION, tables.SCHEMA_VERSION):
        for statement in tables.MIGRATIONS[older]:
            tx.exec_driver_sql(statement)
    tables.META.create_all(tx)
    _add_columns(tx)
    keyed.make_key(tx)
    audit_log.guard(tx)
    audit_log.adopt(tx)
    row = {"key": "schema_version", "value": str(tables.SCHEMA_VERSION)}
    new = tables.insert(tx.engine, tables.meta).values(row)
    tx.execute(new.on_conflict_do_update(index_elements=["key"], set_={"value": new.excluded.value}))


def _add_columns(tx: sa.Connection) -> None:
    """Give tables that an older version made the columns that they lack, with their indexes."""
    for name, columns in tables.COLUMNS_SINCE_6.items():
        there = {column["name"] for column in sa.inspect(tx).get_columns(name)}
        for column, definition in columns.items():
            if column not in there:
                tx.exec_driver_sql(f"ALTER TABLE {name} ADD COLUMN {column} {definition}")
        for index in tables.META.tables[name].indexes:
            index.create(tx, checkfirst=True)


def version_in(tx: sa.Connection) -> int | None:
    """Version of the tables, or None where there are none."""
    if not sa.inspect(tx).has_table(tables.meta.name):
        return None
    query = sa.select(tables.meta.c.value).where(tables.meta.c.key == "schema_version")
    found = tx.execute(query).scalar_one_or_none()
    return None if found is None else int(found)


def check_empty(tx: sa.Connection) -> None:
    """Check that no partition was ever read.

    Raises:
        ConfigError: one was.
    """
    for table in (tables.offsets, tables.commits):
        if tx.execute(sa.select(sa.func.count()).select_from(table)).scalar_one():
            raise ConfigError("the catalog is not empty: move it away, or name a new one with --catalog")
