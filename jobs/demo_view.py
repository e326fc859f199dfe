"""What `stillwatch demo` shows: one live view on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from pipeline.counted import counted

WIDTH_MAX: Final = 100
"""Wider lines are harder to read, however wide the terminal is."""

_PLAIN_EVERY_S: Final = 5.0
_NAME_WIDTH: Final = 14


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query gave.

    Attributes:
        sql: the query.
        columns: names.
        rows: as DuckDB gave them.
        took_s: how long it took.
    """

    sql: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    took_s: float


@dataclass(frozen=True, slots=True)
class Moment:
    """How far everything is.

    Attributes:
        elapsed_s: since the traffic began.
        seconds: how long the traffic takes.
        clock: simulated time of the newest record.
        produced: records that the broker has acknowledged.
        landed: events in the lake.
        rejected: records in the lake's table of rejects.
        files: Parquet files that readers see.
        file_bytes: their size.
        flagged: accounts that live rules have flagged.
        answer: the latest answer over the lake, if there was one.
    """

    elapsed_s: float
    seconds: int
    clock: str
    produced: int
    landed: int
    rejected: int
    files: int
    file_bytes: int
    flagged: int
    answer: Answer | None

    @property
    def lag(self) -> int:
        """Records that the broker holds and the lake does not yet."""
        return max(0, self.produced - self.landed - self.rejected)


class View:
    """Shows moments as they come, by whatever means the console has."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._said_s = time.monotonic()

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, moment: Moment) -> None:
        """Show a moment; without a terminal, only every few seconds."""
        if self._live:
            self._live.update(_picture(moment, _width(self._console)), refresh=True)
        elif time.monotonic() - self._said_s >= _PLAIN_EVERY_S:
            self._said_s = time.monotonic()
            say(self._console, _line(moment))


def say(console: Console, text: str | Text = "") -> None:
    """Print a line that may be longer than the terminal is wide: it must stay whole to be copied."""
    console.print(text, soft_wrap=True, markup=False)


def prose(console: Console, text: str) -> None:
    """Print sentences, wrapped between words."""
    console.print()
    for line in textwrap.wrap(text, _width(console) - 2, break_on_hyphens=False):
        say(console, f"  {line}")


def points(console: Console, sentences: Sequence[str]) -> None:
    """Print sentences one below the other, each with a dash, wrapped between words."""
    for sentence in sentences:
        wrapped = textwrap.wrap(sentence, _width(console) - 6, break_on_hyphens=False)
        for number, line in enumerate(wrapped):
            say(console, f"    {'  ' if number else '- '}{line}")


def title(console: Console, text: str) -> None:
    """Begin a part of the report."""
    console.print()
    console.print(Rule(Text(text, style="bold"), align="left", style="dim"), width=_width(console))


def pairs(console: Console, values: Mapping[str, str]) -> None:
    """Print names and what there is to say of each, one below the other."""
    for name, value in values.items():
        say(console, Text.assemble(("  " + name.ljust(_NAME_WIDTH), "dim"), value))


def commands(console: Console, values: Mapping[str, str]) -> None:
    """Print what each command is for, and the command on a line of its own."""
    for what, command in values.items():
        say(console, Text(f"  {what}:", "dim"))
        say(console, f"    {command}")


def sql(console: Console, text: str) -> None:
    """Print a query."""
    console.print(_sql(text), soft_wrap=True)


def query(console: Console, answer: Answer) -> None:
    """Print a query and its answer."""
    sql(console, answer.sql)
    console.print()
    console.print(table(answer), width=_width(console))


def table(answer: Answer) -> Padding:
    """A query's answer: numbers with thousands separated, to the right; where room is short, the last column wraps."""
    shown = Table.grid(padding=(0, 2, 0, 0))
    columns = [[_cell(row[number]) for row in answer.rows] for number in range(len(answer.columns))]
    for number, cells in enumerate(columns):
        numeric = all(isinstance(row[number], int | float) for row in answer.rows)
        last = number == len(columns) - 1
        wide = max(map(len, [answer.columns[number], *cells]))
        shown.add_column(justify="right" if numeric else "left", no_wrap=not last, min_width=None if last else wide)
    shown.add_row(*(Text(name, "dim") for name in answer.columns))
    for row in zip(*columns, strict=True):
        shown.add_row(*map(Text, row))
    return Padding(shown, (0, 0, 0, 2), expand=False)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.1f}"
    if isinstance(value, int):
        return f"{value:,}"
    return "" if value is None else str(value)


def _sql(sql: str) -> Text:
    painter = Syntax("", "sql", theme="ansi_dark", background_color="default")
    painted = painter.highlight("\n".join("  " + line for line in sql.splitlines()))
    painted.rstrip()
    return painted


def _width(console: Console) -> int:
    return min(console.width, WIDTH_MAX)


def _line(moment: Moment) -> str:
    answered = f", query in {moment.answer.took_s * 1000:.0f} ms" if moment.answer else ""
    return (
        f"{moment.elapsed_s:3.0f} s: produced {moment.produced:,}, landed {moment.landed:,}, "
        f"rejected {moment.rejected:,}, lag {moment.lag:,}, {counted(moment.files, 'file')}{answered}, "
        f"{counted(moment.flagged, 'account')} flagged"
    )


def _picture(moment: Moment, width: int) -> RenderableType:
    bar = ProgressBar(total=moment.seconds, completed=min(moment.elapsed_s, moment.seconds), width=width - 24)
    progress = Table.grid(padding=(0, 2))
    progress.add_row(" ", bar, Text(moment.clock, style="bold"))
    counts = Table.grid(padding=(0, 2, 0, 0))
    bold = "bold"
    counts.add_row(
        Text(f"{moment.produced:>9,}", bold), "produced", Text(f"{moment.landed:>9,}", "bold green"), "landed",
        Text(f"{moment.rejected:>5,}", "bold yellow"), "rejected", Text(f"{moment.lag:>7,}", bold), "lag",
    )  # fmt: skip
    flagged = Text.assemble((f"{moment.flagged:>9,}", "bold red"), "  accounts flagged")
    parts: list[RenderableType] = [Text(), progress, Text(), counts, flagged]
    if moment.answer:
        took_ms = moment.answer.took_s * 1000
        size = f"{counted(moment.files, 'file')}, {moment.file_bytes / 1e6:,.1f} MB"
        said = f"The lake while the job writes: {size}, this query {took_ms:.0f} ms"
        parts += [Text(), Text("  " + said, "dim"), _sql(moment.answer.sql), Text(), table(moment.answer)]
    else:
        parts += [
            Text(),
            Text("  The job is joining its consumer group; until then the traffic waits in Kafka.", "dim"),
        ]
    return Group(*parts)
