"""`stillwatch sql`: queries over the lake, while it is written."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Final, cast

import typer

from jobs import actors, options, sql_output
from jobs.catalogs import opened
from jobs.out_files import replacing
from jobs.sql_output import Format, Harmless
from pipeline.config import Settings, read_settings
from pipeline.counted import counted
from pipeline.errors import ConfigError, StillwatchError
from pipeline.harmless import harmless
from pipeline.io.catalog import Catalog
from pipeline.io.clock import SystemClock
from pipeline.io.desk.audit_log import Act
from pipeline.io.desk.looks import NotRecordedError, record_look
from pipeline.io.lake import Lake
from pipeline.io.views.export import export as export_views
from pipeline.io.views.session import Seen, Session

ROWS_MAX_DEFAULT: Final = 40
QUERIED: Final = "content.queried"
EXPORTED: Final = "content.exported"
WITHOUT_TEXT: Final = (
    "a query that leaves the views content and events and the bytes of rejects (raw) out is answered; an export has "
    "all of these"
)
_BY_SUFFIX: Final[dict[str, Format]] = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "ndjson",
    ".ndjson": "ndjson",
    ".parquet": "parquet",
    ".txt": "table",
}


@dataclass(frozen=True, slots=True)
class Shape:
    """How answers are shown.

    Attributes:
        form: of the text.
        rows_max: rows of a table; None shows all.
    """

    form: Format
    rows_max: int | None


def _form_of(out: Path | None) -> Format:
    """The form that a file's suffix asks for.

    Raises:
        ConfigError: it asks for none.
    """
    if out is None:
        return "table"
    if out.suffix.lower() not in _BY_SUFFIX:
        known = ", ".join(_BY_SUFFIX)
        raise ConfigError(f"--out {out}: what is to be in it? Use one of the suffixes {known}, or say so with --format")
    return _BY_SUFFIX[out.suffix.lower()]


def sql(  # noqa: PLR0913, PLR0917  # one argument per flag is how Typer reads a command
    query: Annotated[
        str | None, typer.Argument(help="The query; without one it is read from standard input, or asked for.")
    ] = None,
    lake: options.LakeFolder = None,
    catalog: options.CatalogUrl = None,
    config: options.ConfigFile = None,
    form: Annotated[
        Format | None,
        typer.Option(
            "--format", metavar="table|csv|json|ndjson|parquet", help="[default: by the suffix of --out, else table]"
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the answer to a file, or replace it.")] = None,
    max_rows: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help=f"Rows that a table shows; 0: all.  [default: {ROWS_MAX_DEFAULT}, all with --out]",
        ),
    ] = None,
    no_files: Annotated[
        bool, typer.Option("--no-files", help="Let queries read no files but the lake's (no read_csv and the like).")
    ] = False,
    by: actors.By = "",
    export: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the views to a DuckDB file for other clients, and end.")
    ] = None,
) -> None:
    """Ask the lake in SQL (DuckDB's), read-only, also while `stillwatch run` writes.

    Views: access, content, events (both side by side), rejects, account_windows, alerts, and of the catalog verdicts,
    exceptions, audit, lake_files, lake_commits, lake_offsets, lake_holes.  Filter on event_time or on dt (and hour):
    only the files of that time are opened.  A query of content or events, or of the bytes of rejects (raw), is
    recorded (see `stillwatch audit`), and refused where it cannot be.

    Exit codes: 0 done; 2 a wrong query or setting; 4 the catalog does not answer; 5 a file of the lake is missing or
    broken.
    """
    settings = read_settings(config, lake=lake, catalog=catalog, query_files=False if no_files else None)
    if export is not None:
        if query is not None or out is not None:
            raise ConfigError("--export takes neither a query nor --out")
        _export(settings, export, actors.actor(by))
        return
    if max_rows is None:
        max_rows = ROWS_MAX_DEFAULT if out is None else 0
    shape = Shape(form or _form_of(out), max_rows or None)
    interactive = query is None and sys.stdin.isatty()
    if interactive and out is not None:
        raise ConfigError("--out needs a query")
    with _in_plain_words(), Session.open(settings, _recorder(by)) as session:
        if interactive:
            from jobs.sql_prompt import prompt  # noqa: PLC0415  # takes a moment to load, and few commands need it

            prompt(session, lambda statement: show(session, statement, shape))
        else:
            _answer(session, sys.stdin.read() if query in {None, "-"} else str(query), shape, out)


def show(session: Session, statement: str, shape: Shape) -> None:
    """Run one statement and show its answer on standard output.

    Raises:
        ConfigError: see `Session.run`.
    """
    _run(session, statement, shape, sys.stdout.buffer, is_terminal=sys.stdout.isatty())
    sys.stdout.buffer.flush()


def _answer(session: Session, text: str, shape: Shape, out: Path | None) -> None:
    statements = session.statements(text)
    if not statements:
        raise ConfigError("there is no query: give one as an argument or on standard input")
    if len(statements) > 1 and (shape.form != "table"):
        raise ConfigError(f"--format {shape.form} takes one query, not {len(statements)}")
    with replacing(out, "--out") if out else _stdout() as target:
        is_terminal = out is None and sys.stdout.isatty()
        for number, statement in enumerate(statements):
            if number:
                target.write(b"\n")
            _run(session, statement, shape, target, is_terminal=is_terminal)


def _run(session: Session, statement: str, shape: Shape, out: BinaryIO, *, is_terminal: bool) -> None:
    if shape.form == "parquet" and is_terminal:
        raise ConfigError("Parquet is no text for a terminal: give --out FILE, or pipe it on")
    with session.run(statement, lossless=shape.form != "parquet") as result:
        if shape.form == "table":
            width = shutil.get_terminal_size().columns if is_terminal else None
            sql_output.write_table(result, out, rows_max=shape.rows_max, width=width)
        else:
            sql_output.write(result, shape.form, cast(BinaryIO, Harmless(out)) if is_terminal else out)


def _recorder(by: str) -> Seen:
    """What records that somebody looks at stored text."""

    def record(catalog: Catalog, views: Sequence[str], query: str) -> None:
        details = {"views": list(views)}  # the query's words may name accounts, which an erasure could not find
        _record(catalog, Act(QUERIED, actors.actor(by), details=details, keyed={"query": query}))

    return record


def _record(catalog: Catalog, act: Act) -> None:
    """Record a look at stored text, or refuse it."""
    try:
        record_look(catalog, act, SystemClock().now_us())
    except NotRecordedError as error:
        raise ConfigError(f"{error}; {WITHOUT_TEXT}") from None


def _export(settings: Settings, target: Path, by: str) -> None:
    lake = Lake.open(settings.lake, create=False)
    with opened(settings) as catalog:
        _record(catalog, Act(EXPORTED, by))
        files = export_views(lake, catalog, target)
    typer.echo(f"{target}: views over {counted(files, 'file')}, as the lake is now; open it read-only", err=True)


@contextlib.contextmanager
def _in_plain_words() -> Iterator[None]:
    """An error may quote a value of the lake: a terminal must not obey it."""
    try:
        yield
    except StillwatchError as error:
        error.args = (harmless(str(error), keep="\n"),)
        raise


@contextlib.contextmanager
def _stdout() -> Iterator[BinaryIO]:
    """Standard output; if its reader goes (`| head`), that is the end and no error."""
    try:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # Python flushes again when it ends: let that go nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
