"""How `stillwatch demo` reads the lake while the job writes it."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import duckdb

from jobs.demo_view import Answer
from pipeline.config import CATALOG_FILE
from pipeline.errors import ConfigError, RetryableError
from pipeline.io.catalog import Catalog, sqlite_url
from pipeline.io.catalog_alerts import AlertFilter
from pipeline.lake_tables import TABLE_SCHEMAS


class Reader:
    """Reads the lake as `stillwatch sql` does: the files that the catalog shows."""

    def __init__(self, lake: Path) -> None:
        self._lake = lake
        self._catalog: Catalog | None = None
        self._duckdb = duckdb.connect(config={"threads": 1})
        self._duckdb.execute("SET TimeZone = 'UTC'")

    def close(self) -> None:
        """Close everything."""
        self._duckdb.close()
        if self._catalog:
            self._catalog.close()

    def counts(self) -> tuple[int, int, int, int]:
        """Events, rejects, files and bytes so far."""
        if self._catalog is None:
            with contextlib.suppress(ConfigError):  # the job has not made its tables yet
                path = self._lake / CATALOG_FILE
                self._catalog = Catalog.open(sqlite_url(path.absolute()), create=False) if path.exists() else None
        if self._catalog is None:
            return 0, 0, 0, 0
        files = self._catalog.live_files()
        rows = {table: sum(file.rows for file in files if file.table_name == table) for table in ("access", "rejects")}
        return rows["access"], rows["rejects"], len(files), sum(file.bytes for file in files)

    def flagged(self) -> int:
        """Accounts that live rules have flagged so far."""
        alerts = self._catalog.alerts(AlertFilter(state="live")) if self._catalog else []
        return len({alert.entity_id for alert in alerts})

    def ask(self, sql: str) -> Answer:
        """Run a query over the lake as it is at this moment.

        Raises:
            RetryableError: there is no lake yet.
        """
        if self._catalog is None:
            raise RetryableError(f"the job has made no lake in {self._lake}")
        began_s = time.monotonic()
        files = self._catalog.live_files()
        for table, schema in TABLE_SCHEMAS.items():
            paths = [str(self._lake / file.path) for file in files if file.table_name == table]
            if paths:
                rows = self._duckdb.read_parquet(paths, hive_partitioning=True)
            else:
                rows = self._duckdb.from_arrow(schema.empty_table())
            rows.create_view(table, replace=True)
        found = self._duckdb.sql(sql)
        return Answer(sql, found.columns, found.fetchall(), time.monotonic() - began_s)

    def number(self, sql: str) -> int:
        """The one number that a query gives."""
        return int(str(self.ask(sql).rows[0][0]))
