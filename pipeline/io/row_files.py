"""Files whose rows are records: NDJSON, plain, gzip or zstd, and Parquet, each row of which is made a JSON object.

So that a row of whatever file goes the way of a record of Kafka, through the same decoder, and what is no event becomes
the same reject, with its bytes.
"""

from __future__ import annotations

import glob
import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.backfilling.slices import WHOLE, Slice
from pipeline.backfilling.stated_times import stated_times
from pipeline.decode import Decoder
from pipeline.errors import ConfigError
from pipeline.events import ACCESS_FIELDS, EXTRA, LINEAGE
from pipeline.io import other_forms
from pipeline.io.event_files import CHUNK_BYTES, CHUNK_ROWS, batches
from pipeline.io.ndjson import LineCount, plain, spoken
from pipeline.io.replay import open_lines
from pipeline.sources import SourceFile

PARQUET: Final = ".parquet"
PACKED: Final = (".gz", ".zst")
_READ_BYTES: Final = 4 << 20
SUFFIXES: Final = (
    *(f"{kind}{packed}" for kind in (".ndjson", ".jsonl", ".json") for packed in ("", *PACKED)), PARQUET,
)  # fmt: skip
"""What is taken of a folder; a file that is named, or that a glob finds, may be called anything."""

_NOT_SAID: Final = frozenset(field.name for field in LINEAGE) | {"dt", "hour"}
"""Columns of a lake's own files that say where a row stood there: here it gets a place of its own."""

_FORMS: Final = (
    (b"PAR1", "Parquet", "give it a name that ends in .parquet"),
    (b"\x1f\x8b", "gzip", "give it a name that ends in .gz"),
    (b"\x28\xb5\x2f\xfd", "zstd", "give it a name that ends in .zst"),
    (b"BZh", "bzip2", "unpack it, or pack it by gzip or zstd"),
    (b"\xfd7zXZ\x00", "xz", "unpack it, or pack it by gzip or zstd"),
    (b"PK\x03\x04", "zip", "unpack it, or pack it by gzip or zstd"),
    (b"\xff\xfe", "UTF-16", "write it as UTF-8"),
    (b"\xfe\xff", "UTF-16", "write it as UTF-8"),
)
"""How files begin that are no NDJSON whatever they are called, what they are, and what to do with them."""

_TIME: Final = "%Y-%m-%dT%H:%M:%S%.6fZ"


def find_sources(names: Sequence[str]) -> list[Path]:
    """The files of names, folders and globs, in the order given; those of one folder or glob by their names.

    Args:
        names: a folder stands for all files below it that are called as NDJSON or Parquet files are.

    Raises:
        ConfigError: one names nothing.
    """
    found: dict[Path, None] = {}
    for name in names:
        found |= dict.fromkeys(_files_of(name))
    return list(found)


def _files_of(name: str) -> list[Path]:
    path = Path(name)
    if path.is_file():
        return [path]
    if path.is_dir():
        below = [one for one in path.rglob("*") if one.name.endswith(SUFFIXES) and one.is_file()]
        below = sorted(one for one in below if not _is_hidden(one.relative_to(path)))
        if not below:
            raise ConfigError(f"{name}: no file in this folder is called {', '.join(f'*{end}' for end in SUFFIXES)}")
        return below
    if not glob.has_magic(name):
        raise ConfigError(f"{name}: no such file or folder")
    matching = [one for one in map(Path, sorted(glob.glob(name, recursive=True))) if one.is_file()]  # noqa: PTH207  # the whole pattern may be absolute
    if not matching:
        raise ConfigError(f"{name}: no file matches")
    return matching


def _is_hidden(path: Path) -> bool:
    """Unfinished files are called so by those who write them, Stillwatch and Spark among them."""
    return any(part.startswith((".", "_")) for part in path.parts)


def look_at(path: Path, asked: Slice = WHOLE) -> SourceFile:
    """Read a file once: what it is, how many rows it has, and that all of it can be read.

    Args:
        path: where it is.
        asked: which rows are asked for; where that is not all, they are counted.

    Raises:
        ConfigError: it cannot.
    """
    try:
        _check_form(path)
        if path.suffix != PARQUET:
            other_forms.check_form(path)
        digest, counted = _hash_and_lines(path)
        size = path.stat().st_size
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if path.suffix == PARQUET:
        _check_columns(path)
    elif path.suffix not in PACKED and asked.is_whole:
        rows, blank = counted
        return SourceFile(path, digest, size, rows, blank=blank)
    rows, inside, blank = _rows_in(path, asked)
    return SourceFile(path, digest, size, rows, None if asked.is_whole else inside, blank=blank)


def _check_form(path: Path) -> None:
    """Refuse what is called as NDJSON is, and is something else: each piece of it would be a reject."""
    if path.suffix in (PARQUET, *PACKED):
        return
    with path.open("rb") as file:
        head = file.read(8)
    for magic, form, advice in _FORMS:
        if head.startswith(magic):
            raise ConfigError(f"{path}: it begins as {form} does, and is not called so: {advice}")


def _hash_and_lines(path: Path) -> tuple[str, tuple[int, int]]:
    """A file's SHA-256 in hex and how many lines its bytes are, in one reading; most of it lets other threads run."""
    digest, lines = hashlib.sha256(), LineCount()
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
            lines.add(chunk)
    return digest.hexdigest(), lines.rows


def _rows_in(path: Path, asked: Slice) -> tuple[int, int, int]:
    """How many rows there are, how many of them in a slice, and how many are blank lines, which are in none."""
    decoder, rows, inside, blank = Decoder(), 0, 0, 0
    with open_rows(path) as chunks:
        for lines in chunks:
            said, _ = spoken(lines, 0)
            rows += len(lines)
            blank += len(lines) - len(said)
            inside += len(said) if asked.is_whole else int(asked.holds(*stated_times(decoder, said)).sum())
    return rows, inside, blank


@contextmanager
def open_rows(path: Path) -> Iterator[Iterator[list[bytes]]]:
    """Open a file for reading; rows come by the chunk, as JSON, and blank lines as no bytes.

    Raises:
        ConfigError: it cannot be read.
    """
    if path.suffix == PARQUET:
        yield _parquet_lines(path)
        return
    with open_lines(path) as lines:
        yield batches(plain(lines))


def _check_columns(path: Path) -> None:
    """See that a Parquet file has the columns of events, and none that cannot be read."""
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"{path}: cannot be read as Parquet: {_one_line(error)}") from error
    missing = [field.name for field in ACCESS_FIELDS if field.required and field.name not in schema.names]
    if missing:
        raise ConfigError(f"{path}: no column {', '.join(missing)}, which every event must have")
    for field in schema:
        if field.name in _NOT_SAID:
            continue
        if _buries_bytes(field.type):
            raise ConfigError(
                f"{path}: column {field.name} holds bytes inside of a list or struct, which no JSON can: drop it"
            )
        if _is_foreign(field.type):
            raise ConfigError(f"{path}: column {field.name} is of type {field.type}, which cannot be read: drop it")


def _inner(kind: pa.DataType) -> list[pa.DataType]:
    """The types that a nested type is made of."""
    return [kind.field(at).type for at in range(kind.num_fields)]


def _buries_bytes(kind: pa.DataType) -> bool:
    """Whether a nested type holds bytes somewhere inside."""
    return any(pa.types.is_binary(it) or pa.types.is_fixed_size_binary(it) or _buries_bytes(it) for it in _inner(kind))


def _is_foreign(kind: pa.DataType) -> bool:
    """Whether polars, which makes JSON of rows, has nothing like a type; it would panic, and not say so."""
    if isinstance(kind, pa.BaseExtensionType):
        return pa.types.is_fixed_size_binary(kind.storage_type) or _is_foreign(kind.storage_type)
    foreign = (
        pa.types.is_decimal256, pa.types.is_interval, pa.types.is_union, pa.types.is_run_end_encoded,
        pa.types.is_list_view, pa.types.is_large_list_view,
    )  # fmt: skip
    return any(is_of(kind) for is_of in foreign) or any(map(_is_foreign, _inner(kind)))


_UNREADABLE: Final = (
    pa.ArrowException, OSError, ValueError, OverflowError, pl.exceptions.PolarsError, pl.exceptions.PanicException,
)  # fmt: skip
"""What comes of a damaged file, or of values that JSON has no words for; a panic of polars is no `Exception`."""


def _parquet_lines(path: Path) -> Iterator[list[bytes]]:
    try:
        with pq.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if name not in _NOT_SAID]
            for batch in file.iter_batches(_rows_at_once(file.metadata), columns=names):
                if batch.num_rows:
                    yield lines_of(pa.Table.from_batches([batch]))
    except _UNREADABLE as error:
        raise ConfigError(f"{path}: cannot be read as Parquet: {_one_line(error)}") from error


def _rows_at_once(metadata: pq.FileMetaData) -> int:
    """As many as usual, or fewer where they are long."""
    size: int = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    return max(1, min(CHUNK_ROWS, CHUNK_BYTES * int(metadata.num_rows) // max(1, size)))


def lines_of(rows: pa.Table) -> list[bytes]:
    """Rows as JSON objects: times in UTC (those without a zone are taken to be so), unknown columns as fields.

    A column `extra` of text holds further fields as an object, as that of a lake does; they become fields again.
    """
    frame = _with_texts(pl.DataFrame(rows))
    frame = frame.with_columns(
        (pl.col(name).dt.convert_time_zone("UTC") if kind.time_zone else pl.col(name)).dt.strftime(_TIME)
        for name, kind in frame.schema.items()
        if isinstance(kind, pl.Datetime)
    )
    extras = frame[EXTRA.name].to_list() if frame.schema.get(EXTRA.name) == pl.String else []
    sink = io.BytesIO()
    (frame.drop(EXTRA.name) if extras else frame).write_ndjson(sink)
    lines = sink.getvalue().split(b"\n")[: len(rows)]
    for at, extra in enumerate(extras):
        if extra is not None:
            lines[at] = _with_fields(lines[at], extra)
    return lines


def _with_texts(frame: pl.DataFrame) -> pl.DataFrame:
    """Columns of bytes as text, which many writers mean."""
    return frame.with_columns(_as_text(frame[name]) for name, kind in frame.schema.items() if kind == pl.Binary)


def _as_text(column: pl.Series) -> pl.Series:
    try:
        return column.cast(pl.String)
    except pl.exceptions.PolarsError:
        texts = [None if value is None else _text_of(value) for value in column.to_list()]
        return pl.Series(column.name, texts, pl.String)


def _text_of(value: bytes) -> str:
    r"""Bytes as text; what is no UTF-8 as `\x` and its digits, so that nothing is lost."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return f"\\x{value.hex()}"


def _with_fields(line: bytes, extra: str) -> bytes:
    try:
        fields = orjson.loads(extra)
    except orjson.JSONDecodeError:
        fields = None
    if not isinstance(fields, dict):
        fields = {EXTRA.name: extra}
    return line[:-1] + b"," + orjson.dumps(fields)[1:] if fields else line


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
