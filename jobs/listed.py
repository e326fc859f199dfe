"""Lists as people and programs read them: a table that fits, CSV, JSON."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Annotated, Any, Final, Literal

import typer
from rich.cells import cell_len, chop_cells, set_cell_size

from pipeline.alerts import spelled
from pipeline.harmless import harmless
from pipeline.moments import rfc3339

__all__ = [
    "ACCOUNT_CHARS_MAX", "ID_SHOWN", "LIMIT_DEFAULT", "TABLE_CELLS_MIN", "Form", "FormFlag", "LimitFlag", "as_csv",
    "as_json", "cut", "fit", "in_form", "limit_of", "line", "rfc3339", "say", "shown_account", "table", "whole_table",
    "width", "wrap",
]  # fmt: skip

Form = Literal["table", "csv", "json"]
FormFlag = Annotated[Form, typer.Option("--format", metavar="table|csv|json", help="What is printed.")]

LIMIT_DEFAULT: Final = 40
LimitFlag = Annotated[
    int | None,
    typer.Option(
        "--limit", min=0, metavar="N",
        help=f"The latest N; 0: all.  [default: {LIMIT_DEFAULT}, all as csv or json]",
    ),
]  # fmt: skip

TABLE_CELLS_MIN: Final = 80
ID_SHOWN: Final = 8
"""Characters of an id in a table: two of ten thousand share them once in a hundred times."""

ACCOUNT_CHARS_MAX: Final = 100
"""Longer account ids are cut for display; JSON and CSV have them whole."""

_ESCAPED_CELLS_MAX: Final = 10 * ACCOUNT_CHARS_MAX  # all of them written out as \\U000e0001
_GAP: Final = "  "
_INDENT: Final = " " * 6
_WORD: Final = re.compile(r"\S*\s+|\S+")


def shown_account(account: str, cells: int = _ESCAPED_CELLS_MAX) -> str:
    """An account's id for display, as it can be typed again: NULs as U+2400, and quotes around one of blanks alone.

    Nothing in it is obeyed, and of a very long one the length is said.
    """
    account = spelled(account)
    text = harmless(account[: ACCOUNT_CHARS_MAX + 1])
    if len(account) <= ACCOUNT_CHARS_MAX:
        return cut(text, cells)
    length = f"…({len(account):,} chars)"
    room = cells - cell_len(length)
    return f"{set_cell_size(text, min(room, ACCOUNT_CHARS_MAX)).rstrip()}{length}" if room > 0 else cut(text, cells)


def fit(widths: list[int], width: int, give_way: Iterable[tuple[int, int]]) -> None:
    """Make columns narrower until all fit; a column of width 0 is left out.

    Args:
        widths: changed in place.
        width: of the terminal, in cells.  Below 80 lines are as for 80.
        give_way: which column is made narrower, to what at the least, one after the other.
    """
    room = max(width, TABLE_CELLS_MIN) - len(_GAP) * (sum(map(bool, widths)) - 1)
    for column, least in give_way:
        excess = sum(widths) - room
        if excess > 0:
            widths[column] = max(min(widths[column], least), widths[column] - excess)


def line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """One line of a table."""
    parts = [(cut(text, width), width) for text, width in zip(cells, widths, strict=True) if width]
    return _GAP.join(text + " " * (width - cell_len(text)) for text, width in parts).rstrip()


def cut(text: str, cells: int) -> str:
    """A text that takes no more cells."""
    return text if cell_len(text) <= cells else set_cell_size(text, cells - 1) + "…"


def wrap(text: str, cells: int) -> list[str]:
    """A text in lines of so many cells, broken behind spaces where it has some: put together they are the text."""
    lines = [""]
    for word in _WORD.findall(text):
        if cell_len((lines[-1] + word).rstrip()) <= cells:
            lines[-1] += word
        else:
            whole = word.rstrip()
            lines += chop_cells(whole, cells)
            lines[-1] += word[len(whole) :]
    return lines if lines[0] or len(lines) == 1 else lines[1:]


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], width: int | None, give_way: Iterable[tuple[int, int]]
) -> list[str]:
    """The lines of a table; columns in which nothing stands are left out.

    Args:
        head: names of the columns.
        rows: harmless.
        width: of the terminal; None if nothing bounds it.
        give_way: see `fit`.
    """
    widths = widths_of(head, rows)
    if width is not None:
        fit(widths, width, give_way)
    return [line(cells, widths) for cells in (head, *rows)]


def whole_table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    below: int,
    width: int | None,
    give_way: Iterable[tuple[int, int]],
) -> list[str]:
    """The lines of a table in which nothing is cut: what does not fit goes on in the next line.

    Args:
        head: names of the columns.
        rows: harmless.
        below: so many of the last columns stand below the others, on lines of their own, where the table is too wide.
        width: of the terminal; None if nothing bounds it.
        give_way: see `fit`; of the columns that stand side by side.
    """
    widths = widths_of(head, rows)
    room = max(width or 0, TABLE_CELLS_MIN)
    if width is None or sum(widths) + len(_GAP) * (sum(map(bool, widths)) - 1) <= room:
        return [line(cells, widths) for cells in (head, *rows)]
    widths = widths[:-below]
    fit(widths, width, give_way)
    lines = [*_lines(head[:-below], widths), f"{_INDENT}{', '.join(head[-below:])}"]
    for row in rows:
        lines += _lines(row[:-below], widths)
        parts = (part for cell in row[-below:] if cell for part in wrap(cell, room - len(_INDENT)))
        lines += [f"{_INDENT}{part}".rstrip() for part in parts]
    return lines


def widths_of(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """Cells that each column takes; 0 where nothing stands in it."""
    columns = list(zip(*rows, strict=True)) or [()] * len(head)
    return [
        max(map(cell_len, (name, *column))) if any(column) else 0 for name, column in zip(head, columns, strict=True)
    ]


def _lines(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    """A row of a table, on as many lines as its longest cell takes."""
    wrapped = [wrap(text, width) if width else [] for text, width in zip(cells, widths, strict=True)]
    return [line([part.rstrip() for part in parts], widths) for parts in zip_longest(*wrapped, fillvalue="")]


def as_json(objects: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A JSON array in pieces, an object a line; everything but ASCII is written out."""
    before = "["
    for one in objects:
        yield f"{before}\n{json.dumps(one)}"
        before = ","
    yield "[]\n" if before == "[" else "\n]\n"


def as_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """CSV in pieces (RFC 4180 with line feeds); what is None is empty, what has parts is JSON."""
    yield _csv_line(columns)
    for row in rows:
        yield _csv_line([json.dumps(row[name]) if isinstance(row[name], dict) else row[name] for name in columns])


def _csv_line(cells: Sequence[Any]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue()


def in_form(
    form: Form, columns: Sequence[str], objects: Iterable[Mapping[str, Any]], as_table: Callable[[int | None], str]
) -> Iterable[str]:
    """A list in the form that was asked for, in pieces.

    Args:
        form: which.
        columns: of the CSV.
        objects: of JSON and CSV; gone over once.
        as_table: the table, for a terminal of so many cells.
    """
    if form == "json":
        return as_json(objects)
    return as_csv(columns, objects) if form == "csv" else [as_table(width())]


def limit_of(said: int | None, form: Form) -> int:
    """How many are listed; 0: all."""
    return (LIMIT_DEFAULT if form == "table" else 0) if said is None else said


def width() -> int | None:
    """Of the terminal, in cells; None where nothing bounds a line."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def say(text: str | Iterable[str]) -> None:
    """Print, all of it or a piece after the other; a terminal must not obey what is written by strangers."""
    for piece in [text] if isinstance(text, str) else text:
        typer.echo(harmless(piece, keep="\n") if sys.stdout.isatty() else piece, nl=False)
