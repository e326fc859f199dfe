"""Answers as people and programs read them: a table, CSV, JSON, Parquet."""

from __future__ import annotations

import codecs
import contextlib
import io
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, Final, Literal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from rich.cells import cell_len, set_cell_size

from pipeline.counted import counted
from pipeline.errors import ConfigError
from pipeline.harmless import harmless
from pipeline.io.views.session import Result
from pipeline.sql_text import literal

Format = Literal["table", "csv", "json", "ndjson", "parquet"]

ROW_GROUP_ROWS: Final = 122_880
"""DuckDB's own row group: sixty of its vectors."""

CELL_CHARS_MAX: Final = 200
"""Longer values are cut in tables, where nothing else bounds them."""

MEASURED_ROWS: Final = 1_000
"""Rows that decide the widths of a table's columns, and all of a table that is held in memory."""

_COLUMN_CELLS_MIN: Final = 8
"""Narrower columns say nothing: then each row is shown as a block of lines instead."""

_GAP: Final = " | "
_NULL: Final = "NULL"
_NUMBERS: Final = re.compile(r"(U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER|FLOAT|DOUBLE|DECIMAL\b.*|BIGNUM)")
_FLOATS: Final = frozenset({"DOUBLE", "FLOAT"})
_CSV_SPECIAL: Final = re.compile('[",\r\n]')
_NOT_JSON: Final = re.compile("NaN|Infinity")


class Harmless(io.RawIOBase):
    """A terminal, shielded from what is written to it; line ends pass."""

    def __init__(self, terminal: BinaryIO) -> None:
        self._terminal = terminal
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="backslashreplace")

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]  # callers pass bytes, never a bare buffer
        """Write UTF-8, in pieces of any size."""
        self._terminal.write(harmless(self._decoder.decode(bytes(data)), keep="\n").encode())
        return len(data)

    def flush(self) -> None:
        """Flush the terminal."""
        self._terminal.flush()


class Texts:
    """Values as text: DuckDB itself writes them, as it would in its own shell."""

    def __init__(self) -> None:
        self._duckdb = duckdb.connect(config={"threads": 1})
        self._duckdb.execute("SET TimeZone = 'UTC'")

    def columns(self, batch: pa.RecordBatch) -> list[list[str | None]]:
        """Each column's values."""
        columns = ", ".join(f"CAST(c{index} AS VARCHAR) AS c{index}" for index in range(batch.num_columns))
        return [column.to_pylist() for column in self._query(columns, batch).columns]

    def objects(self, batch: pa.RecordBatch, names: Sequence[str], types: Sequence[str]) -> list[str]:
        """Each row as a JSON object; times in RFC 3339, and null for numbers that JSON does not have."""
        pairs = (
            f"{literal(name)}, {_json_value(f'c{index}', kind)}"
            for index, (name, kind) in enumerate(zip(names, types, strict=True))
        )
        rows = self._query(f"CAST(json_object({', '.join(pairs)}) AS VARCHAR) AS row", batch).column(0).to_pylist()
        return [_valid_json(row) if _NOT_JSON.search(row) else row for row in rows]

    def close(self) -> None:
        """Close the connection."""
        self._duckdb.close()

    def _query(self, columns: str, batch: pa.RecordBatch) -> pa.Table:
        table = pa.Table.from_batches([batch]).rename_columns([f"c{index}" for index in range(batch.num_columns)])
        self._duckdb.register("batch", table)
        try:
            return self._duckdb.sql(f"SELECT {columns} FROM batch").to_arrow_table()  # noqa: S608  # names made here
        finally:
            self._duckdb.unregister("batch")


def _json_value(column: str, kind: str) -> str:
    if kind == "TIMESTAMP WITH TIME ZONE":
        text = f"strftime({column}, '%Y-%m-%dT%H:%M:%S.%fZ')"
        return f"CASE WHEN isfinite({column}) THEN {text} ELSE CAST({column} AS VARCHAR) END"
    if kind in _FLOATS:
        return f"CASE WHEN isfinite({column}) THEN {column} END"
    return column


def _valid_json(row: str) -> str:
    """NaN and infinities deep inside a value become null; rare enough to be slow."""
    return json.dumps(json.loads(row, parse_constant=lambda _name: None), ensure_ascii=False)


def distinct(names: Sequence[str]) -> list[str]:
    """Names without repetition: a second `x` becomes `x_1`, as DuckDB has it."""
    taken: dict[str, None] = {}
    for name in names:
        count, free = 0, name
        while free in taken or (count and free in names):
            count += 1
            free = f"{name}_{count}"
        taken[free] = None
    return list(taken)


def write(result: Result, form: Format, out: BinaryIO) -> None:
    """Write a whole answer for programs.

    Args:
        result: to be read here.
        form: any but `table`.
        out: UTF-8, or Parquet.

    Raises:
        ConfigError: a column has a type that Parquet does not know.
    """
    if form == "parquet":
        _write_parquet(result, out)
    elif form == "csv":
        _write_csv(result, out)
    else:
        _write_json(result, out, lines=form == "ndjson")


def _write_csv(result: Result, out: BinaryIO) -> None:
    """RFC 4180 with line feeds; nothing between two commas is null, a pair of quotes an empty text."""
    out.write((",".join(map(_csv_cell, result.names)) + "\n").encode())
    with contextlib.closing(Texts()) as texts:
        for batch in result.batches:
            rows = zip(*texts.columns(batch), strict=True)
            out.write("".join(",".join(map(_csv_cell, row)) + "\n" for row in rows).encode())


def _csv_cell(value: str | None) -> str:
    if value is None:
        return ""
    if not value or _CSV_SPECIAL.search(value):
        return '"' + value.replace('"', '""') + '"'
    return value


def _write_json(result: Result, out: BinaryIO, *, lines: bool) -> None:
    """One object a line; for `lines` nothing else, else the whole is one array."""
    names = distinct(result.names)
    head, between, tail = ("", "\n", "\n") if lines else ("[\n", ",\n", "\n]\n")
    begun = False
    with contextlib.closing(Texts()) as texts:
        for batch in result.batches:
            if batch.num_rows:
                text = between.join(texts.objects(batch, names, result.types))
                out.write(((between if begun else head) + text).encode())
                begun = True
    out.write((tail if begun else "" if lines else "[]\n").encode())


def _write_parquet(result: Result, out: BinaryIO) -> None:
    schema = pa.schema(
        [field.with_name(name) for field, name in zip(result.schema, distinct(result.names), strict=True)]
    )
    try:
        with pq.ParquetWriter(out, schema, compression="zstd") as writer:
            held: list[pa.RecordBatch] = []
            for batch in result.batches:
                held.append(batch.rename_columns(schema.names))
                if sum(map(len, held)) >= ROW_GROUP_ROWS:
                    writer.write_table(pa.Table.from_batches(held, schema))
                    held.clear()
            if held:
                writer.write_table(pa.Table.from_batches(held, schema))
    except pa.ArrowNotImplementedError as error:
        raise ConfigError(f"Parquet has no such type ({error}); CAST the column to VARCHAR") from error


class _Rows:
    """Rows of an answer as cells of a table, one after the other.

    Attributes:
        shown: how many were taken so far.
        count: how many there are so far, those included that are not to be shown.
    """

    def __init__(self, result: Result, texts: Texts, rows_max: int | None) -> None:
        self._result, self._texts, self._rows_max = result, texts, rows_max
        self.shown = self.count = 0

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        for batch in self._result.batches:
            self.count += batch.num_rows
            left = batch.num_rows if self._rows_max is None else min(batch.num_rows, self._rows_max - self.shown)
            if left:
                columns = self._texts.columns(batch.slice(0, left))
                for row in zip(*([_cell(value) for value in column] for column in columns), strict=True):
                    self.shown += 1
                    yield row


def write_table(result: Result, out: BinaryIO, *, rows_max: int | None, width: int | None) -> None:
    """Write an answer for people: as a table, or row by row where the columns do not fit side by side.

    The first rows decide how wide the columns are, and the others follow as they come: an answer may be larger than
    memory.

    Args:
        result: to be read here.
        out: UTF-8.
        rows_max: show no more rows, only count them; None shows all.
        width: of the terminal, in cells; None if nothing bounds it.
    """
    with contextlib.closing(Texts()) as texts:
        rows = _Rows(result, texts, rows_max)
        rest = iter(rows)
        first = list(itertools.islice(rest, MEASURED_ROWS))
        if list(result.names) == ["explain_key", "explain_value"]:
            _write_lines(out, (line for _, plan in first for line in plan.split("\\n")))
            return
        names = [harmless(name) for name in result.names]
        widths = _widths(names, first, width)
        every = itertools.chain(first, rest)
        if widths is None:
            _write_lines(out, _one_by_one(names, every, width))
        else:
            _write_lines(out, _side_by_side(names, result.types, every, widths, bounded=width is not None))
        _write_lines(out, [_count_line(rows.shown, rows.count)])


def _write_lines(out: BinaryIO, lines: Iterable[str]) -> None:
    out.writelines(f"{line.rstrip()}\n".encode(errors="backslashreplace") for line in lines)


def _count_line(shown: int, count: int) -> str:
    rows = counted(count, "row")
    return f"({rows})" if shown == count else f"({shown:,} of {rows}; --max-rows 0 shows all)"


def _cell(value: str | None) -> str:
    return _NULL if value is None else harmless(value)


def _widths(names: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> list[int] | None:
    """Widths of a table's columns; None if it could not be read at this width."""
    natural = [
        min(max(cell_len(text) for text in (name, *column)), CELL_CHARS_MAX)
        for name, column in zip(names, zip(*rows, strict=True) if rows else [()] * len(names), strict=True)
    ]
    return natural if width is None else _fitted(natural, width - len(_GAP) * (len(names) - 1))


def _side_by_side(
    names: Sequence[str], types: Sequence[str], rows: Iterable[Sequence[str]], widths: Sequence[int], *, bounded: bool
) -> Iterator[str]:
    """The lines of a table; where nothing bounds it, a value wider than its column pushes the others aside."""
    limits = widths if bounded else [CELL_CHARS_MAX] * len(widths)
    columns = [
        (cells, limit, bool(_NUMBERS.fullmatch(kind))) for cells, limit, kind in zip(widths, limits, types, strict=True)
    ]
    yield _line(names, columns)
    yield "-+-".join("-" * cells for cells in widths)
    for row in rows:
        yield _line(row, columns)


def _fitted(natural: Sequence[int], room: int) -> list[int] | None:
    """Widths that fit: the widest columns give way first; None if too little would be left of them."""
    widths = list(natural)
    while sum(widths) > room:
        widest = max(widths)
        second = max((cells for cells in widths if cells < widest), default=0)
        at = [index for index, cells in enumerate(widths) if cells == widest]
        target = max(second, widest - -(-(sum(widths) - room) // len(at)))
        if target < _COLUMN_CELLS_MIN:
            return None
        for index in at:
            widths[index] = target
    return widths


def _line(texts: Sequence[str], columns: Sequence[tuple[int, int, bool]]) -> str:
    return _GAP.join(
        _padded(_cut(text, limit), cells, right=right)
        for text, (cells, limit, right) in zip(texts, columns, strict=True)
    )


def _padded(text: str, cells: int, *, right: bool) -> str:
    space = " " * (cells - cell_len(text))
    return space + text if right else text + space


def _cut(text: str, cells: int) -> str:
    return text if cell_len(text) <= cells else set_cell_size(text, cells - 1) + "…"


def _one_by_one(names: Sequence[str], rows: Iterable[Sequence[str]], width: int | None) -> Iterator[str]:
    """Each row as a block, a line for each column."""
    margin = max(map(cell_len, names))
    room = max((width or CELL_CHARS_MAX) - margin - len(_GAP), _COLUMN_CELLS_MIN)
    for number, row in enumerate(rows, 1):
        yield f"--- row {number}"
        for name, text in zip(names, row, strict=True):
            yield f"{_padded(name, margin, right=False)}{_GAP}{_cut(text, room)}"
