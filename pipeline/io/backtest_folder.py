"""The folder of a backtest: written beside an earlier run's results, and in their place once all of it is there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.alerts import Alert
from pipeline.backtesting.tables import ALERTS_SCHEMA, alert_rows
from pipeline.errors import ConfigError, RetryableError

SCORES, ALERTS, ACCOUNTS = "scores.parquet", "alerts.parquet", "accounts.parquet"
REPORT, PAGE = "report.json", "report.html"
FILES: Final = (SCORES, ALERTS, ACCOUNTS, PAGE, REPORT)
"""In the order in which they appear: a folder with a `report.json` has all of them."""

_GROUP_ROWS: Final = 20_000
"""Rows are held until so many are there: row groups of a useful size, and a bound on memory."""

_PARTIAL: Final = ".partial"


class BacktestFolder(AbstractContextManager["BacktestFolder"]):
    """Writes the results of one run.

    Leaving the context without `publish` removes what was written, and leaves an earlier run's results alone.

    Args:
        path: made if need be; it may hold an earlier run's results, which are replaced.
        windows: schema of the scores.

    Raises:
        ConfigError: it holds something else, or nothing can be written there.
    """

    def __init__(self, path: Path, windows: pa.Schema) -> None:
        self.path = path
        _check(path)
        try:
            self._made = not path.exists()
            path.mkdir(parents=True, exist_ok=True)
            self._scores = _Growing(self.partial(SCORES), windows)
            self._alerts = _Growing(self.partial(ALERTS), ALERTS_SCHEMA)
        except OSError as error:
            raise ConfigError(f"--out {path}: cannot write there: {error.strerror}") from error

    def partial(self, name: str) -> Path:
        """Where a file is until all is there."""
        return self.path / f".{name}.{os.getpid()}{_PARTIAL}"

    def add(self, windows: pa.Table, alerts: Sequence[Alert]) -> None:
        """Add scores and alerts."""
        self._scores.add(windows)
        if alerts:
            self._alerts.add(alert_rows(alerts))

    def frames(self) -> tuple[pl.LazyFrame, pl.LazyFrame]:
        """Scores and alerts, which are complete now, to be read lazily."""
        self._scores.close()
        self._alerts.close()
        return pl.scan_parquet(self.partial(SCORES)), pl.scan_parquet(self.partial(ALERTS))

    def write_accounts(self, accounts: pl.DataFrame) -> None:
        """Write the table of accounts."""
        with _disk_errors(self.path):
            accounts.write_parquet(self.partial(ACCOUNTS), compression="zstd")

    def write(self, name: str, content: bytes) -> None:
        """Write one of the other files."""
        with _disk_errors(self.path):
            self.partial(name).write_bytes(content)

    def publish(self) -> None:
        """Give every file its name; the report comes last."""
        with _disk_errors(self.path):
            for name in FILES:
                self.partial(name).replace(self.path / name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scores.close()
        self._alerts.close()
        for name in FILES:
            self.partial(name).unlink(missing_ok=True)
        if kind is not None and self._made:
            with suppress(OSError):  # somebody else's file in it keeps it
                self.path.rmdir()


def _check(path: Path) -> None:
    if path.is_file():
        raise ConfigError(f"--out {path} is a file: name a folder")
    if not path.is_dir():
        return
    others = sorted(found.name for found in path.iterdir() if found.name not in FILES and not _is_partial(found.name))
    if others:
        raise ConfigError(f"--out {path} holds other files ({others[0]}): name a new folder, or one of an earlier run")


def _is_partial(name: str) -> bool:
    return name.startswith(".") and name.endswith(_PARTIAL)


class _Growing:
    """A Parquet file that grows by row groups."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path, self._schema = path, schema
        self._writer: Any = pq.ParquetWriter(path, schema, compression="zstd")
        self._held: list[pa.Table] = []
        self._rows = 0

    def add(self, rows: pa.Table) -> None:
        self._held.append(rows)
        self._rows += len(rows)
        if self._rows >= _GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            with _disk_errors(self._path):
                self._writer.write_table(pa.concat_tables(self._held).cast(self._schema))
        self._held, self._rows = [], 0

    def close(self) -> None:
        if self._writer is not None:
            self._flush()
            with _disk_errors(self._path):
                self._writer.close()
            self._writer = None


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RetryableError(f"cannot write {path}: {error.strerror or error}") from error


def read_report(folder: Path) -> tuple[dict[str, Any], pl.DataFrame, pl.DataFrame]:
    """Report, accounts and alerts of an earlier run.

    Raises:
        ConfigError: the folder is none of a backtest.
    """
    try:
        report = orjson.loads((folder / REPORT).read_bytes())
        return dict(report), pl.read_parquet(folder / ACCOUNTS), pl.read_parquet(folder / ALERTS)
    except (OSError, ValueError, TypeError, pl.exceptions.PolarsError) as error:
        raise ConfigError(f"--compare {folder}: no results of a backtest: {str(error).splitlines()[0]}") from error
