"""What the catalog knows of backfills, beside the lake's files: a lost catalog is made anew from these, too.

Without them a rebuilt catalog would not know which files are landed, and land them again.  One note a feed or topic, as
it stands, under `_backfill/`; it is written before anything of what it says is landed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from pipeline.errors import RetryableError, SchemaError
from pipeline.io.durable import replace_for_good
from pipeline.io.source_book import SourceBook
from pipeline.sources import FeedFile, PastRange

NOTES: Final = "_backfill"
_FORMAT: Final = 1


@dataclass(slots=True)
class Noted:
    """What notes say.

    Attributes:
        feeds: number of partitions of each feed.
        files: with their places.
        ranges: past ranges.
    """

    feeds: dict[str, int] = field(default_factory=dict)
    files: list[FeedFile] = field(default_factory=list)
    ranges: list[PastRange] = field(default_factory=list)


def note_feeds(root: Path, book: SourceBook, topics: Iterable[str]) -> None:
    """Write down what the catalog says of feeds, on disk for good when this returns.

    Raises:
        RetryableError: the disk is full or fails.
    """
    for topic in topics:
        said = {"feed": topic, "partitions": book.feed_of(topic), "files": [asdict(it) for it in book.files_of(topic)]}
        _write(root, topic, said)


def note_ranges(root: Path, book: SourceBook, topic: str) -> None:
    """The same of past ranges of a topic."""
    _write(root, f"past:{topic}", {"topic": topic, "ranges": [asdict(it) for it in book.ranges_of(topic)]})


def read_notes(root: Path) -> Noted:
    """Read all notes of a lake.

    Raises:
        SchemaError: one cannot be read, or is of a newer Stillwatch.
    """
    noted = Noted()
    for path in sorted((root / NOTES).glob("*.json")):
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            if said["format"] != _FORMAT:
                raise SchemaError(f"{path}: format {said['format']}, this Stillwatch knows {_FORMAT}: upgrade it")
            if "feed" in said:
                noted.feeds[said["feed"]] = int(said["partitions"])
            noted.files += [FeedFile(**row) for row in said.get("files", ())]
            noted.ranges += [PastRange(**row) for row in said.get("ranges", ())]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SchemaError(
                f"{path} cannot be read ({error}): it says what is backfilled. Bring it back from a copy, or "
                "move it away and never backfill the same files again"
            ) from error
    return noted


def _write(root: Path, name: str, said: Mapping[str, object]) -> None:
    path = root / NOTES / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_for_good(path, json.dumps({"format": _FORMAT, **said}, indent=1).encode(), root)
    except OSError as error:
        raise RetryableError(f"lake {root}: {error.strerror or error}") from error
