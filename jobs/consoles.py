"""Where commands show tables and progress."""

from __future__ import annotations

import sys
from typing import Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_FILE_COLUMNS: Final = 500


def console() -> Console:
    """Where tables go; in a file or a pipe nothing is cut to a screen's width, for paths must be whole.

    What is shown is shown as it is: a file may be called `a[b].ndjson` or `:x:`.
    """
    width = None if sys.stdout.isatty() else _FILE_COLUMNS
    return Console(width=width, markup=False, emoji=False)


def progress_columns(doing: str) -> tuple[ProgressColumn, ...]:
    """What a progress bar shows: what is done, how far it is, a field `said`, and the times so far and left."""
    return (
        TextColumn(doing), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[said]}"),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
