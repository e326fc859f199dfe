"""One reader of the lake: queries in, rows out, and nothing is ever written."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self

import duckdb
import pyarrow as pa

from pipeline.commits import FileEntry, Manifest
from pipeline.config import Settings
from pipeline.errors import ConfigError, SchemaError
from pipeline.io.catalog import Catalog
from pipeline.io.lake import REWRITES, Lake
from pipeline.io.views import desk, tables
from pipeline.io.views.interrupts import interruptible
from pipeline.io.views.pruning import OPTIMIZERS, Plan, Pruner, read_plan
from pipeline.sql_text import literal

BATCH_ROWS: Final = 20_000
"""Rows at a time of an answer; answers stream, so they may be larger than memory."""

_CONFIG: Final[dict[str, str | bool | int | float | list[str]]] = {
    "python_enable_replacements": False,  # FROM settings must not find this program's variables
    "autoinstall_known_extensions": False,  # nothing is fetched from the network, nor put on this disk
    "autoload_known_extensions": False,
    "allow_persistent_secrets": False,
}
_SWITCHES: Final = ("arrow_lossless_conversion", "disabled_optimizers", "explain_output")

_READING: Final = frozenset({duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN, duckdb.StatementType.MULTI})
_WRITING_WORDS: Final = frozenset({"COPY", "DELETE", "INSERT", "MERGE", "UPDATE"})
_NO_WORD: Final = frozenset(
    {duckdb.token_type.comment, duckdb.token_type.string_const, duckdb.token_type.numeric_const}
)
_LINE: Final = re.compile(r"^LINE (\d+): ", re.MULTILINE)

ONLY_READS: Final = (
    "stillwatch sql only reads: SELECT, WITH, FROM, VALUES, DESCRIBE, SHOW, SUMMARIZE, PIVOT, and EXPLAIN of these. "
    "--out FILE writes the answer to a file"
)

Seen = Callable[[Catalog, Sequence[str], str], None]


def unseen(_catalog: Catalog, _views: Sequence[str], _query: str) -> None:
    """Nobody is told."""


CONFINED: Final = "queries are confined to the lake's tables here (query_files = false, or --no-files)"


@dataclass(frozen=True, slots=True)
class Result:
    """An answer, to be read once.

    Attributes:
        names: of the columns; the same name may stand twice.
        types: their SQL types.
        schema: their Arrow types.
        batches: the rows.
    """

    names: Sequence[str]
    types: Sequence[str]
    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]


@dataclass(frozen=True, slots=True)
class _Statement:
    """One statement; `query` is what is planned: the same without EXPLAIN before it."""

    text: str
    query: str


class Session:
    """Views of a lake, each query over the files of one moment.

    For each query: plan it over empty stand-ins, read from the catalog which files there are, put views over those that
    the plan can need in the place of the stand-ins, run it, and take the views back.  All in one transaction, so that
    now() is the same for plan and run.
    """

    def __init__(self, lake: Lake, catalog: Catalog, *, confined: bool = False, seen: Seen = unseen) -> None:
        """Make the views.

        Args:
            lake: where the files are.
            catalog: which files there are; closed with the session.
            confined: queries may read no other files than those of the lake's tables.
            seen: told, before a query looks at stored text, which views it does, and the query.
        """
        self._seen = seen
        self._lake, self._catalog = lake, catalog
        self._held: list[FileEntry] | None = None
        self._spill = tempfile.TemporaryDirectory(prefix="stillwatch-sql-")
        self._pruner = Pruner()
        self._duckdb = duckdb.connect(config=_CONFIG)
        self._duckdb.execute("SET TimeZone = 'UTC'")
        self._duckdb.execute(f"SET temp_directory = {literal(self._spill.name)}")
        for name, view in tables.VIEWS.items():
            self._duckdb.execute(f"CREATE TABLE {name} ({tables.columns_sql(view.columns)})")
        every = {name for (name,) in self._duckdb.execute("SELECT name FROM duckdb_optimizers()").fetchall()}
        self._not_over_stand_ins = ",".join(sorted(every - OPTIMIZERS))
        if confined:
            self._confine()
        self._duckdb.execute(f"SET allowed_configs = {list(_SWITCHES)}")
        self._duckdb.execute("SET lock_configuration = true")

    @classmethod
    def open(cls, settings: Settings, seen: Seen = unseen) -> Session:
        """Open the lake that the settings name; see `__init__`.

        Raises:
            ConfigError: there is none.
            RetryableError: the catalog does not answer.
        """
        lake = Lake.open(settings.lake, create=False)
        catalog = Catalog.open(settings.catalog_url, create=False)
        return cls(lake, catalog, confined=not settings.query_files, seen=seen)

    def _confine(self) -> None:
        """Close every file but the tables' own, and DuckDB's for what memory does not hold; for good, once locked."""
        names = (*tables.FILE_VIEWS, REWRITES)
        folders = ", ".join(literal(f"{self._lake.root / name}/") for name in names)
        self._duckdb.execute(f"SET allowed_directories = [{folders}]")
        self._duckdb.execute("SET enable_external_access = false")

    def interrupt(self) -> None:
        """Stop what another thread runs here, if anything."""
        with contextlib.suppress(duckdb.ConnectionException):  # closed meanwhile
            self._duckdb.interrupt()

    def close(self) -> None:
        """Close everything."""
        self._duckdb.close()
        self._pruner.close()
        self._catalog.close()
        self._spill.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def statements(self, text: str) -> list[str]:
        """Take a script apart into its statements.

        Raises:
            ConfigError: it is not SQL.
        """
        with _in_words():
            return [statement.query for statement in self._duckdb.extract_statements(text)]

    @contextlib.contextmanager
    def run(self, statement: str, *, lossless: bool = True, prune: bool = True) -> Iterator[Result]:
        """Run one statement.

        Args:
            statement: that only reads.
            lossless: keep types that Arrow does not know as extension types of DuckDB's, for DuckDB to read again;
                else take the nearest that others know.
            prune: leave out files that the query cannot need; an answer never depends on it.

        Raises:
            ConfigError: it writes, or DuckDB refuses it; also while its rows are read.
            RetryableError: the catalog does not answer.
            SchemaError: a file of the lake is missing or broken; also while its rows are read.
            KeyboardInterrupt: as ever; the session can be used again.
        """
        parsed = self._parse(statement)
        with self._transaction():
            with _in_words(self._lake):
                plan = self._plan(parsed)
                self._tell(plan, parsed)
                self._bind(plan, prune=prune)
                self._duckdb.execute(f"SET arrow_lossless_conversion = {lossless}")
                relation = self._duckdb.sql(parsed.text)
                if relation is None:
                    raise ConfigError(f"this gives no rows. {ONLY_READS}")
                reader = relation.to_arrow_reader(BATCH_ROWS)
            with contextlib.closing(reader):
                types = [str(kind) for kind in relation.types]
                yield Result(relation.columns, types, reader.schema, _batches(reader, self._lake))

    def files(self, statement: str) -> list[str]:
        """Paths, relative to the lake, of the files that a statement would be given.

        Raises:
            ConfigError: see `run`.
        """
        parsed = self._parse(statement)
        with self._transaction():
            with _in_words():
                plan = self._plan(parsed)
            return [path for paths in self._picked(plan, self.live_files()).values() for path in paths]

    def live_files(self) -> list[FileEntry]:
        """Every file of the lake."""
        return self._catalog.live_files() if self._held is None else self._held

    @contextlib.contextmanager
    def one_moment(self, files: list[FileEntry] | None = None) -> Iterator[None]:
        """Let all queries over files, until the end, see the lake as it is now; for seconds, or files may be gone.

        Args:
            files: those of the moment that another session sees; None: as the lake is now.

        Raises:
            RetryableError: the catalog does not answer.
        """
        self._held = self._catalog.live_files() if files is None else files
        try:
            yield
        finally:
            self._held = None

    # ---- before a query

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._duckdb.begin()
        try:
            with interruptible(self._duckdb):
                yield
        finally:
            self._duckdb.rollback()

    def _parse(self, text: str) -> _Statement:
        """Refuse what is not one statement that reads, as far as its text tells."""
        with _in_words():
            statements = self._duckdb.extract_statements(text)
        if len(statements) != 1:
            raise ConfigError("one statement at a time")
        words = _words(text)
        try:
            reads = statements[0].type in _READING
        except ValueError:  # a kind of statement that the Python package has no name for
            reads = False
        if not reads:
            raise ConfigError(f"{next(iter(words.values()), '?')} is refused: {ONLY_READS}")
        query = _without_explain(text, words)
        if query != text:
            return _Statement(text, self._parse(query).query)
        writing = _WRITING_WORDS.intersection(words.values())
        if writing and statements[0].type == duckdb.StatementType.MULTI:
            # such a statement runs in part when it is planned: to look at the plan would be too late
            raise ConfigError(
                f"{min(writing)} is refused in a PIVOT without IN (…), even as a name (quote it): {ONLY_READS}"
            )
        return _Statement(text, query)

    def _plan(self, statement: _Statement) -> Plan:
        """Plan a query over the stand-ins, and refuse it if it writes."""
        self._duckdb.execute(f"SET disabled_optimizers = '{self._not_over_stand_ins}'")
        self._duckdb.execute("SET explain_output = 'all'")
        try:
            rows = self._duckdb.execute(f"EXPLAIN (FORMAT json)\n{statement.query}").fetchall()
        except duckdb.Error as error:
            raise type(error)(_LINE.sub(lambda line: f"LINE {int(line[1]) - 1}: ", str(error))) from None
        self._duckdb.execute("RESET explain_output")
        self._duckdb.execute("RESET disabled_optimizers")
        plan = read_plan(rows[0][1], rows[-1][1])
        if plan.writing:
            raise ConfigError(f"refused, it would write ({plan.writing}): {ONLY_READS}")
        return plan

    def _tell(self, plan: Plan, statement: _Statement) -> None:
        """Tell that stored text is looked at, before it is."""
        looked_at = sorted(
            name
            for name in plan.scans
            if name in tables.TEXT_VIEWS
            or any(plan.looks_at(name, column) for column in tables.TEXT_COLUMNS.get(name, ()))
        )
        if looked_at:
            self._seen(self._catalog, looked_at, statement.text)

    def _bind(self, plan: Plan, *, prune: bool) -> None:
        """Put what the plan reads in the place of the stand-ins."""
        if not plan.scans:
            return
        if any(name in tables.CATALOG_VIEWS for name in plan.scans if name != "lake_files"):
            manifest = self._catalog.manifest()
            files = manifest.files()
            self._fill_from(manifest, plan)
        else:
            files = self.live_files()
        if "lake_files" in plan.scans:
            self._fill("lake_files", tables.files_rows(files))
        for name in tables.DESK_VIEWS:
            if name in plan.scans:
                for rows in desk.rows_of(name, self._catalog):
                    self._fill(name, rows)
        for table, paths in self._picked(plan if prune else plan.unpruned(), files).items():
            if paths:
                self._replace(table, tables.files_sql(table, [str(self._lake.root / path) for path in paths]))
        if tables.EVENTS in plan.scans:
            self._replace(tables.EVENTS, tables.events_sql())

    def _picked(self, plan: Plan, files: Sequence[FileEntry]) -> dict[str, list[str]]:
        """Paths to read of each table."""
        read = set(plan.scans) | (set(tables.EVENTS_FROM) if tables.EVENTS in plan.scans else set())
        picked = {}
        for table in tables.FILE_VIEWS:
            mine = [file for file in files if file.table_name == table] if table in read else []
            if mine:
                picked[table] = self._pruner.paths(tables.files_rows(mine), table, plan.of_table(table))
        return picked

    def _replace(self, stand_in: str, sql: str) -> None:
        self._duckdb.execute(f"DROP TABLE {stand_in}")
        self._duckdb.execute(f"CREATE VIEW {stand_in} AS {sql}")

    def _fill_from(self, manifest: Manifest, plan: Plan) -> None:
        for name, rows in tables.catalog_rows(manifest).items():
            if name in plan.scans:
                self._fill(name, rows)

    def _fill(self, name: str, rows: pa.Table) -> None:
        self._duckdb.register("_rows", rows)
        try:
            self._duckdb.execute(f"INSERT INTO {name} FROM _rows")
        finally:
            self._duckdb.unregister("_rows")


def _words(text: str) -> dict[int, str]:
    """The words and signs of a statement in capitals, by their position in its UTF-8."""
    data = text.encode()
    tokens = duckdb.tokenize(text)
    ends = [position for position, _ in tokens[1:]] + [len(data)]
    return {
        position: data[position:end].decode().strip().upper()
        for (position, kind), end in zip(tokens, ends, strict=True)
        if kind not in _NO_WORD
    }


def _without_explain(text: str, words: dict[int, str]) -> str:
    """What an EXPLAIN is of; the text itself if it is none."""
    rest = list(words.items())
    if not rest or rest[0][1] != "EXPLAIN":
        return text
    del rest[0]
    if rest and rest[0][1] in {"ANALYZE", "ANALYSE"}:
        del rest[0]
    if rest and rest[0][1] == "(":
        while rest and rest[0][1] != ")":
            del rest[0]
        del rest[:1]
    return text.encode()[rest[0][0] :].decode() if rest else ""


def _batches(reader: pa.RecordBatchReader, lake: Lake) -> Iterator[pa.RecordBatch]:
    while True:
        with _in_words(lake):
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                return
        yield batch


@contextlib.contextmanager
def _in_words(lake: Lake | None = None) -> Iterator[None]:
    """DuckDB's errors as ours; those that it has while rows are read come as Arrow's."""
    try:
        yield
    except duckdb.InterruptException as error:
        raise KeyboardInterrupt from error
    except duckdb.PermissionException as error:
        raise ConfigError(f"{str(error).strip()}\n{CONFINED}") from error
    except (duckdb.Error, pa.ArrowInvalid, OSError) as error:
        said = str(error).strip()
        if lake is not None and f"{lake.root}/" in said and ".parquet" in said:
            raise SchemaError(f"{said}\n{tables.BROKEN}") from error
        raise ConfigError(said) from error
    except RuntimeError as error:
        if "interrupted" in str(error).lower():
            raise KeyboardInterrupt from error
        raise
