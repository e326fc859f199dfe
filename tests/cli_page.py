"""docs/cli.md, made of what each command says of itself.  `python -m tests.cli_page` writes it; a test compares."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from unittest import mock

import typer.main
from typer.testing import CliRunner

from jobs.cli import COMMANDS, app

PAGE: Final = Path(__file__).parents[1] / "docs" / "cli.md"
WIDTH: Final = 100

_HEAD: Final = """# Commands

What every command says with `--help`, for those who read before they install. This page is made by
`python -m tests.cli_page`, and a test holds it to what the commands say. What a flag does not say comes from the
environment (`STILLWATCH_…`), then the file of `--config`, then the default: [configuration.md](configuration.md).
"""


def commands() -> Iterator[tuple[str, ...]]:
    """Every command's words: the program itself, each command, and each command's own commands."""
    yield ()
    for name in COMMANDS:
        yield (name,)
        own: Any = getattr(importlib.import_module(f"jobs.{name}"), "app", None)
        if own is not None:
            for inner in sorted(typer.main.get_group(own).commands):
                yield (name, inner)


def help_of(words: tuple[str, ...]) -> str:
    """What a command says with `--help`."""
    with mock.patch.dict("os.environ", {"COLUMNS": str(WIDTH), "TERMINAL_WIDTH": str(WIDTH)}):
        result = CliRunner().invoke(app, [*words, "--help"], terminal_width=WIDTH, prog_name="stillwatch")
    if result.exit_code:
        raise RuntimeError(f"stillwatch {' '.join(words)} --help ended with {result.exit_code}: {result.output}")
    return "\n".join(line.rstrip() for line in result.stdout.strip().splitlines())


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    for words in commands():
        name = " ".join(("stillwatch", *words))
        parts.append(f"{'##' if len(words) < 2 else '###'} `{name}`\n\n```text\n{help_of(words)}\n```\n")
    return "\n".join(parts)


def main() -> int:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
