"""What the footers of the lake's files say, so that the catalog can be made anew from the files.

A file that a commit made names the commit and all of its files.  A file that `stillwatch maintain` made of others
names its *sources*: each commit that it holds rows of, with all that the commit's own files say, and how many rows it
holds or leaves out.  So of each file that a commit ever made, what became of its rows can be told from those there are.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.batch import Partition
from pipeline.commits import Commit
from pipeline.errors import SchemaError

FORMAT_VERSION: Final = 1

FOOTER_KEY: Final = b"stillwatch"
"""Key of the Parquet footer's entry, in JSON."""

_COMMIT_NAMES: Final = ("commit_id", "first_offset", "next_offset", "events", "rejects", "committed_at_us", "worker")


class Hour(NamedTuple):
    """One file of a commit, by what is in it.

    Attributes:
        table: of the lake.
        dt: day of its rows.
        hour: of that day.
        rows: how many.
    """

    table: str
    dt: str
    hour: int
    rows: int


@dataclass(frozen=True, slots=True)
class Made:
    """A file that a commit made.

    Attributes:
        commit: which.
        table: of the lake.
        index: which of the commit's files it is.
        files: how many these are.
        hours: all of them, in order; empty in files that an early Stillwatch wrote.
    """

    commit: Commit
    table: str
    index: int
    files: int
    hours: tuple[Hour, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """What a rewritten file holds of one file that a commit made.

    Attributes:
        made: the commit's file.
        landed: rows that it had.
        rows: that are in the rewritten file.
        erased: that were left out of it, and are in no other.
    """

    made: Made
    landed: int
    rows: int
    erased: int


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A file made of others.

    Attributes:
        file_id: its own, a UUID in hex.
        table: of the lake.
        replaces: ids of the rewritten files that it was made of.
        sources: what it holds; no commit stands twice.
    """

    file_id: str
    table: str
    replaces: tuple[str, ...]
    sources: tuple[Source, ...]


def footer_of(commit: Commit) -> dict[str, Any]:
    """What every file of a commit says of it."""
    return {
        "format": FORMAT_VERSION,
        "topic": commit.partition.topic,
        "partition": commit.partition.number,
        **{name: getattr(commit, name) for name in _COMMIT_NAMES},
    }


def commit_of(footer: dict[str, Any]) -> Commit:
    """The commit that a footer speaks of."""
    partition = Partition(footer["topic"], footer["partition"])
    return Commit(partition=partition, **{name: footer[name] for name in _COMMIT_NAMES})


def made_footer(commit: Commit, hours: Sequence[Hour], index: int) -> dict[str, Any]:
    """The footer of one of a commit's files, all of which `hours` tells."""
    said = {"table": hours[index].table, "file": index, "files": len(hours), "hours": [list(hour) for hour in hours]}
    return {**footer_of(commit), **said}


def rewritten_footer(file: Rewritten) -> dict[str, Any]:
    """The footer of a rewritten file; of thousands of commits, so it is packed."""
    ordered = sorted(file.sources, key=lambda one: (one.made.commit.partition, one.made.commit.first_offset))
    sources = [[_made_said(source.made), source.landed, source.rows, source.erased] for source in ordered]
    packed = base64.b64encode(zlib.compress(json.dumps(sources, separators=(",", ":")).encode())).decode()
    return {
        "format": FORMAT_VERSION,
        "rewritten": file.file_id,
        "table": file.table,
        "replaces": list(file.replaces),
        "sources": packed,
    }


def said_by(footer: dict[str, Any]) -> Made | Rewritten:
    """What a footer says.

    Raises:
        SchemaError: nothing that this Stillwatch understands.
    """
    try:
        if "rewritten" not in footer:
            return _made_of(footer)
        packed = json.loads(zlib.decompress(base64.b64decode(footer["sources"])))
        sources = tuple(Source(_made_of(made), landed, rows, erased) for made, landed, rows, erased in packed)
        return Rewritten(footer["rewritten"], footer["table"], tuple(footer["replaces"]), sources)
    except (KeyError, TypeError, ValueError, zlib.error) as error:
        raise SchemaError(f"a footer that this Stillwatch does not understand ({error!r})") from error


def footer_in(metadata: pq.FileMetaData) -> dict[str, Any]:
    """The footer's entry of Stillwatch.

    Raises:
        KeyError: there is none.
        ValueError: none that can be read.
    """
    return dict(json.loads((metadata.metadata or {})[FOOTER_KEY]))


def read_footer(source: Path | BinaryIO) -> tuple[dict[str, Any], pq.FileMetaData]:
    """Read a file's footer.

    Raises:
        SchemaError: it is no Parquet file of the lake's.
    """
    try:
        metadata = pq.read_metadata(source)
        return footer_in(metadata), metadata
    except (pa.ArrowInvalid, OSError, KeyError, ValueError) as error:
        name = source if isinstance(source, Path) else source.name
        raise SchemaError(f"{name}: not a file that Stillwatch wrote ({error})") from error


def joined_sources(files: Iterable[Rewritten | tuple[Made, int]]) -> dict[str, Source]:
    """What files of one table and hour hold together, by commit.

    Args:
        files: rewritten ones, and those that commits made with their rows.
    """
    found: dict[str, Source] = {}
    for file in files:
        parts = file.sources if isinstance(file, Rewritten) else (Source(file[0], file[1], file[1], 0),)
        for part in parts:
            known = found.get(part.made.commit.commit_id)
            rows, erased = (known.rows, known.erased) if known else (0, 0)
            whole = Source(part.made, part.landed, part.rows + rows, part.erased + erased)
            found[part.made.commit.commit_id] = whole
    return found


def _made_of(footer: dict[str, Any]) -> Made:
    hours = tuple(Hour(*said) for said in footer.get("hours", ()))
    return Made(commit_of(footer), footer["table"], int(footer["file"]), int(footer["files"]), hours)


def _made_said(made: Made) -> dict[str, Any]:
    said = {**footer_of(made.commit), "table": made.table, "file": made.index, "files": made.files}
    return {**said, "hours": [list(hour) for hour in made.hours]}
