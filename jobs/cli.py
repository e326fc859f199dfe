"""The command `stillwatch`: its subcommands, and what becomes of an error."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys
from typing import Annotated

import typer

from pipeline.errors import StillwatchError

app = typer.Typer(
    name="stillwatch",
    help="Watches the access logs of an LLM API for harvesting: Kafka to Parquet, exactly once, queryable in SQL.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"stillwatch {importlib.metadata.version('stillwatch')}")
        raise typer.Exit


@app.callback()
def _stillwatch(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    del version


def _register() -> None:
    """Attach every command; each lives in a file of its name."""
    for name in ("run", "sql", "simulate", "demo"):
        module = importlib.import_module(f"jobs.{name}")
        app.command(name=name)(getattr(module, name))
    app.add_typer(importlib.import_module("jobs.maintain").app, name="maintain")


_register()


def main() -> None:
    """Run the command line; a known error is one line on standard error and an exit code of its own."""
    try:
        app()
    except StillwatchError as error:
        print(f"stillwatch: {error}", file=sys.stderr)  # noqa: T201  # the one line that is promised
        code = error.exit_code
    else:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(
        code
    )  # kafka-python's thread may still wait for a broker that is not there, and DuckDB complains of it at a clean exit


if __name__ == "__main__":
    main()
