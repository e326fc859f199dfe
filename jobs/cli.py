"""The command `stillwatch`: its subcommands, and what becomes of an error."""

from __future__ import annotations

import atexit
import importlib
import os
import sys
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from jobs.collecting import no_collecting
from pipeline.errors import StillwatchError
from pipeline.harmless import harmless

# NumPy brings OpenBLAS, whose threads spin in wait of linear algebra; nothing here does any.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

COMMANDS: Final = {
    "run": "Read the access log from Kafka, land it as Parquet exactly once, score every account, and raise alerts.",
    "sql": "Ask the lake in SQL (DuckDB's), read-only, also while `stillwatch run` writes.",
    "alerts": "List the alerts, show one with its reasons, and claim it.",
    "serve": "Serve the triage page: alerts, accounts, verdicts, exceptions and the audit log, in a browser.",
    "account": "Show all that is known of one account: what it did, what Stillwatch makes of it, what people decided.",
    "rules": "List the alert rules, show one, check rule files, and test each rule on its sequences of events.",
    "deliver": "Send alerts to files, topics, webhooks, Slack and PagerDuty: each at least once, in order.",
    "verdict": "Judge accounts: give, list, change and withdraw verdicts, from the command line, a file or a topic.",
    "exception": "Say whose alerts are known and allowed: add, list and end exceptions, each with an owner and an end.",
    "audit": "Who did what and when: list the record, and check that nobody has changed it.",
    "backfill": "Land past records, each once, by the stages of the live job; safe beside `stillwatch run`.",
    "backtest": "Replay past traffic through a configuration, and report what it would have alerted.",
    "simulate": "Make labelled traffic of customers and harvesters, and send it to a topic or write it to a file.",
    "train": "Learn the models from labelled traffic and write them as plain data: numbers and no text.",
    "demo": "See the whole job at work on simulated traffic: broker, job, lake and queries, in about a minute.",
    "maintain": "Look after the lake: merge its files, forget what is too old, erase an account, check, mend.",
}
"""The first line of each one's own help.  Each lives in a file of its name, which is imported when it is called: to
import Kafka, Arrow and DuckDB takes far longer than to show that line."""


class _Commands(TyperGroup):
    """Lists stand-ins, and imports the command that is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and _imported(str(command.name)), rest


app = typer.Typer(
    name="stillwatch",
    cls=_Commands,
    help="Watches the access logs of an LLM API for harvesting: Kafka to Parquet, exactly once, queryable in SQL.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version  # noqa: PLC0415  # for this flag alone

        typer.echo(f"stillwatch {version('stillwatch')}")
        raise typer.Exit


@app.callback()
def _stillwatch(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    del version


def _stand_in() -> None: ...


def _register() -> None:
    for name, about in COMMANDS.items():
        app.command(name=name, help=about)(_stand_in)


_register()


def _imported(name: str) -> Any:
    """The command itself; `maintain` has commands of its own."""
    with no_collecting():
        module = importlib.import_module(f"jobs.{name}")
    own: typer.Typer | None = getattr(module, "app", None)
    if own is None:
        own = typer.Typer(add_completion=False, rich_markup_mode=None)
        own.command(name=name)(getattr(module, name))
    return typer.main.get_command(own)


def run() -> None:
    """Run the command line; a known error is one line on standard error and an exit code of its own."""
    try:
        app()
    except StillwatchError as error:
        # an error may quote what strangers wrote: a terminal must not obey it
        said = harmless(str(error), keep="\n")
        print(f"stillwatch: {said}", file=sys.stderr)  # noqa: T201  # the one line that is promised
        code = error.exit_code
    else:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    # kafka-python's thread may still wait for a broker that is not there, and DuckDB complains of it at a clean exit
    os._exit(code)


def main() -> None:
    """Run the command line, and end the process: `stillwatch`."""
    ended: list[int] = []
    atexit.register(_end, ended)  # first, so that it is called last
    try:
        run()
    except SystemExit as done:
        if done.code is None or isinstance(done.code, int):
            ended.append(done.code or 0)
        raise


def _end(ended: list[int]) -> None:
    """End the process at once where a command has ended well and all that had to be done at the end is done.

    What is left is Python's: to take hundreds of modules apart, which is a fifth of the time of a short command.
    """
    if not ended:
        return
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (AttributeError, OSError, ValueError):  # closed: Python says what is to be said
        return
    os._exit(ended[0])


if __name__ == "__main__":
    main()
