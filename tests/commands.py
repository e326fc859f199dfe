"""Commands run in this process, as their users see them."""

from __future__ import annotations

from typer.testing import CliRunner

from jobs.cli import app
from pipeline.errors import StillwatchError


def run_command(*arguments: str, given: str | None = None) -> tuple[int, str, str]:
    """Run `stillwatch` with some arguments.

    Args:
        arguments: of the command line.
        given: what stands on its standard input.

    Returns:
        Its exit code, its standard output, and what its error says.
    """
    result = CliRunner().invoke(app, arguments, input=given)
    if isinstance(result.exception, StillwatchError):
        return result.exception.exit_code, result.stdout, str(result.exception)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr
