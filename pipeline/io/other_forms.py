"""Files that are called as NDJSON is, and are one JSON array or CSV: each of their lines would be a reject.

Told from NDJSON with bad lines by more than the first of them: what holds a line that is an object is NDJSON.
"""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import orjson
import pyarrow as pa

from pipeline.errors import ConfigError
from pipeline.events import ACCESS_FIELDS
from pipeline.io.ndjson import MARK
from pipeline.io.replay import head_of
from pipeline.sql_text import literal

_HEAD_BYTES: Final = 1 << 20
_LINES: Final = 100
_TAIL_BYTES: Final = 4096
_SEPARATORS: Final = ",;\t|"
_COLUMNS_MIN: Final = 2
_NAMED_CSV: Final = (".csv", ".tsv")
_TEXT: Final = [field.name for field in ACCESS_FIELDS if field.arrow == pa.string()]
_KNOWN: Final = {field.name for field in ACCESS_FIELDS}
_PACKED: Final = (".gz", ".zst")
_FOR_SHELLS: Final = frozenset('"$`\\!')
"""What shells do not leave alone in double quotes."""


def check_form(path: Path) -> None:
    """Refuse a file of lines that looks like one JSON array, or like CSV.

    Args:
        path: of the file, packed (by its name) or not.

    Raises:
        ConfigError: it does, and how to make NDJSON or Parquet of it; or it cannot be read.
    """
    head = head_of(path, _HEAD_BYTES).removeprefix(MARK)
    is_all = len(head) < _HEAD_BYTES - len(MARK)
    lines = [line for line in head.split(b"\n") if line.strip()]
    if not is_all:
        lines = lines[:-1] or lines  # the last may be cut off
    if not lines:
        return
    if lines[0].lstrip().startswith(b"["):
        if _is_array(path, head, lines, is_all=is_all):
            raise ConfigError(f"{path}: it looks like one JSON array. {_of_array(path)}")
    elif not any(map(_is_object, lines[:_LINES])):
        columns = _columns(
            lines[0], named=Path(path.stem if path.suffix in _PACKED else path.name).suffix in _NAMED_CSV
        )
        if columns:
            raise ConfigError(f"{path}: it looks like CSV, with the columns {_some(columns)}. {_of_csv(path, columns)}")


def _is_array(path: Path, head: bytes, lines: Sequence[bytes], *, is_all: bool) -> bool:
    if is_all:
        return isinstance(_read(head), list)
    if path.suffix not in _PACKED and not _tail(path).rstrip().endswith(b"]"):
        return False
    return not any(isinstance(_read(line), list | dict) for line in lines[:_LINES])


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        return file.read()


def _columns(line: bytes, *, named: bool) -> list[str]:
    """Names of columns, if a line looks like such; of a file that is not called CSV they must be those of events."""
    try:
        text = line.decode().strip("\r")
    except UnicodeDecodeError:
        return []
    separator = max(_SEPARATORS, key=text.count)
    try:
        names = next(csv.reader(io.StringIO(text), delimiter=separator, strict=True), [])
    except csv.Error:
        return []
    names = [name.strip() for name in names]
    is_one = len(names) >= _COLUMNS_MIN and (named or len(_KNOWN & set(names)) >= _COLUMNS_MIN)
    return names if is_one else []


def _is_object(line: bytes) -> bool:
    return isinstance(_read(line), dict)


def _read(text: bytes) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _of_array(path: Path) -> str:
    target = _sql(_beside(path, ".ndjson"))
    lines = f"SELECT to_json(json) FROM read_json_objects({_sql(path)}, format = 'array')"  # noqa: S608  # to be read
    query = f"COPY ({lines}) TO {target} (FORMAT csv, HEADER false, QUOTE '', ESCAPE '')"
    return (
        f"NDJSON is wanted: one event a line, without brackets and commas around them. DuckDB makes it: {_typed(query)}"
    )


def _of_csv(path: Path, columns: Sequence[str]) -> str:
    texts = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in columns if name in _TEXT)
    types = f", types = {{{texts}}}" if texts else ""
    query = f"COPY (FROM read_csv({_sql(path)}{types})) TO {_sql(_beside(path, '.parquet'))}"
    missing = [field.name for field in ACCESS_FIELDS if field.required and field.name not in columns]
    renamed = f"; name its columns as events' fields first, it has no {', '.join(missing)}" if missing else ""
    return f"NDJSON or Parquet is wanted. DuckDB makes Parquet of it: {_typed(query)}{renamed}"


def _beside(path: Path, suffix: str) -> Path:
    whole = path.with_suffix("") if path.suffix in _PACKED else path
    made = whole.with_suffix(suffix)
    return made if made not in {path, whole} else whole.with_name(f"{whole.stem}.lines{suffix}")


def _sql(path: Path) -> str:
    return literal(str(path))


def _typed(query: str) -> str:
    """A command for a shell, in double quotes where these do, for SQL is full of single ones."""
    quoted = shlex.quote(query) if _FOR_SHELLS & set(query) else '"' + query + '"'
    return f"duckdb -c {quoted}"


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(name[:40] for name in names[:6])
    return f"{shown}, …" if len(names) > 6 else shown  # noqa: PLR2004  # as many as are shown
