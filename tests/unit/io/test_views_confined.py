"""Queries that may read the lake and no other file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
import typer
from typer.testing import CliRunner

from jobs.sql import sql
from pipeline.errors import ConfigError
from pipeline.io.views.session import Session
from pipeline.io.views.tables import VIEWS
from tests.lake_maker import make_lake
from tests.unit.io.views_lake import rows_of, session_on, three_days


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake beside files that are nobody's business, one of them linked from a table's folder."""
    folder = tmp_path_factory.mktemp("confined") / "it's a lake"
    with make_lake(folder, three_days(), rows_per_commit=7):
        pass
    secret = folder.parent / "secret.parquet"
    duckdb.sql("SELECT 'secret' AS word").write_parquet(str(secret))
    (folder.parent / "secret.csv").write_text("word\nsecret\n")
    (folder / "access" / "link.parquet").symlink_to(secret)
    with sqlite3.connect(folder.parent / "secret.db") as database:
        database.execute("CREATE TABLE secret (word)")
    return folder


@pytest.fixture(scope="module")
def confined(root: Path) -> Iterator[Session]:
    with session_on(root, query_files=False) as opened:
        yield opened


def test_a_confined_query_sees_every_view_as_any_other(confined: Session, root: Path) -> None:
    with session_on(root) as free:
        for name in VIEWS:
            query = f"SELECT * FROM {name} ORDER BY ALL"
            assert rows_of(confined, query) == rows_of(free, query)


def test_a_confined_query_may_be_larger_than_memory(confined: Session) -> None:
    """What DuckDB puts aside goes to files of its own."""
    assert rows_of(confined, "SELECT count(*) FROM duckdb_temporary_files()") == [(0,)]
    query = "SELECT current_setting('temp_directory') IN (SELECT unnest(current_setting('allowed_directories')))"
    assert rows_of(confined, query.replace("'temp_directory')", "'temp_directory') || '/'")) == [(True,)]


@pytest.mark.parametrize(
    "reading",
    (
        "read_csv('{outside}/secret.csv')", "read_text('{outside}/secret.csv')", "read_blob('/proc/self/environ')",
        "read_parquet('{outside}/secret.parquet')", "'{outside}/secret.parquet'", "glob('{outside}/*')",
        "read_parquet('{lake}/access/../../secret.parquet')", "read_parquet('{lake}/access/link.parquet')",
        "parquet_metadata('{outside}/secret.parquet')", "sniff_csv('{outside}/secret.csv')",
        "read_blob('{lake}/catalog.db')", "query('FROM read_text(''/etc/hostname'')')", "read_text('https://127.0.0.1:1/x')",
        "read_duckdb('{outside}/secret.db')",
    ),
)  # fmt: skip
def test_a_confined_query_reads_nothing_else(confined: Session, root: Path, reading: str) -> None:
    named = reading.format(outside=str(root.parent), lake=str(root).replace("'", "''"))
    with pytest.raises(ConfigError, match="queries are confined to the lake's tables here"):
        rows_of(confined, f"FROM {named}")
    assert rows_of(confined, "SELECT count(*) FROM access") == [(36,)]


@pytest.mark.parametrize(
    "setting", ("enable_external_access = true", "allowed_directories = ['/']", "lock_configuration = false")
)
def test_a_confined_query_cannot_free_itself(confined: Session, setting: str) -> None:
    with pytest.raises(duckdb.InvalidInputException, match="locked"):
        confined._duckdb.execute(f"SET {setting}")


def test_the_flag_and_the_environment_confine_and_no_flag_frees(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = typer.Typer()
    app.command()(sql)
    reading = f"FROM read_csv('{root.parent}/secret.csv')"

    def run(*flags: str) -> int:
        result = CliRunner().invoke(app, ["--lake", str(root), reading, *flags])
        return 2 if isinstance(result.exception, ConfigError) else result.exit_code

    assert (run(), run("--no-files")) == (0, 2)
    monkeypatch.setenv("STILLWATCH_QUERY_FILES", "false")
    assert run() == 2
    assert run("--files") == 2
