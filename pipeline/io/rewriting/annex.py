"""Where a replacement lands its rows before anybody may see them: a small lake with a catalog of its own, in the lake.

It stays until the rows that it replaces are gone from the disk: were the catalog lost before, it would be made anew as
it was before the replacement, and the same command would go on from the annex.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.backfilling.runs import Runs
from pipeline.backfilling.slices import WHOLE, FilePart
from pipeline.batch import Partition
from pipeline.errors import RetryableError, SchemaError
from pipeline.io.catalog import Catalog, sqlite_url
from pipeline.io.durable import replace_for_good, sync_folders
from pipeline.io.lake import Lake
from pipeline.io.rewriting.chosen import Chosen
from pipeline.io.rewriting.ledger import SWAPPED, RewriteLedger
from pipeline.sources import PAST, PastRange, Span, own_feed

ANNEXES: Final = "_replacing"
_PLAN: Final = "replacement.json"
_DONE: Final = "swapped"
_CATALOG: Final = "catalog.db"
_FORMAT: Final = 2
_READABLE: Final = (1, 2)
"""Former releases had no ranges of a log."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """What was decided when a replacement began; it holds until it ends.

    Attributes:
        chosen: rows that go.
        parts: rows that come, by the hash of each file.
        edition: tells its rows from those that the same files may have brought before.
        since_us: wall clock, when it began.
        ranges: of a topic's log that come.
    """

    chosen: Chosen
    parts: Mapping[str, FilePart]
    edition: str
    since_us: int
    ranges: Sequence[PastRange] = ()

    @classmethod
    def made(cls, chosen: Chosen, parts: Mapping[str, FilePart], now_us: int) -> Replacement:
        """Decide on one."""
        edition = uuid.uuid4().hex[:8]
        return cls(chosen, {key: FilePart(key, part.part, edition) for key, part in parts.items()}, edition, now_us)

    @classmethod
    def of_log(cls, topic: str, topic_id: str, records: Mapping[int, Runs], now_us: int) -> Replacement:
        """Decide to read records of a topic's log again.

        Args:
            topic: of Kafka.
            topic_id: Kafka's id of it; empty: not known.
            records: which, by partition; of each at least one.
            now_us: wall clock.
        """
        edition = uuid.uuid4().hex[:8]
        comes = f"{PAST}{int(edition, 16)}:{topic}"  # a number that no range of a backfill has
        spans = {Partition(topic, number): runs for number, runs in records.items()}
        ranges = [PastRange(topic, *Span(number, *runs.ends), comes, topic_id) for number, runs in records.items()]
        return cls(Chosen(spans, WHOLE, comes), {}, edition, now_us, ranges)

    @property
    def topics(self) -> set[str]:
        """Of the rows that come."""
        return {own_feed(str(part)) for part in self.parts.values()} | {past.landed_as for past in self.ranges}

    def said(self) -> dict[str, Any]:
        """As JSON."""
        spans = [[*partition, runs.spans] for partition, runs in self.chosen.spans.items()]
        parts = [str(part) for part in self.parts.values()]
        asked = str(FilePart("asked", self.chosen.asked))
        decided = {"edition": self.edition, "since_us": self.since_us, "again": self.chosen.again}
        ranges = [asdict(past) for past in self.ranges]
        return {"format": _FORMAT, **decided, "asked": asked, "spans": spans, "parts": parts, "ranges": ranges}

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Replacement:
        """Read what `said` gave."""
        spans = {
            Partition(topic, number): Runs.merged((first, following) for first, following in ends)
            for topic, number, ends in said["spans"]
        }
        parts = [FilePart.parse(text) for text in said["parts"]]
        chosen = Chosen(spans, FilePart.parse(said["asked"]).part, said.get("again", ""))
        ranges = [PastRange(**past) for past in said.get("ranges", ())]
        return cls(chosen, {part.sha256: part for part in parts}, said["edition"], said["since_us"], ranges)


@dataclass(frozen=True, slots=True)
class Annex:
    """One of them.

    Attributes:
        lake: the lake that it is in.
        name: its folder's.
        replacement: what it is for.
    """

    lake: Lake
    name: str
    replacement: Replacement

    @property
    def root(self) -> Path:
        """Its folder: a lake of its own."""
        return self.lake.root / ANNEXES / self.name

    @property
    def catalog_url(self) -> str:
        """Its catalog."""
        return sqlite_url(self.root / _CATALOG)

    @classmethod
    def begun(cls, lake: Lake, key: str, topics: set[str]) -> Annex | None:
        """The one that a killed backfill left, of the same command.

        Args:
            lake: in which it is looked for.
            key: by which the command is known.
            topics: that the lake's catalog knows.
        """
        for name in unfinished(lake, topics):
            if name.startswith(f"{key}-") and (lake.root / ANNEXES / name / _PLAN).exists():
                return cls(lake, name, _read(lake.root / ANNEXES / name))
        return None

    @classmethod
    def begin(cls, lake: Lake, key: str, replacement: Replacement) -> Annex:
        """Make one.

        Raises:
            RetryableError: the disk is full or fails.
        """
        annex = cls(lake, f"{key}-{replacement.edition}", replacement)
        with _worth_another_try(lake):
            annex.root.mkdir(parents=True, exist_ok=True)
            replace_for_good(annex.root / _PLAN, json.dumps(replacement.said()).encode(), lake.root)
        return annex

    def swapped(self, rewrite_id: str) -> None:
        """Note that its rows are in the lake, by a rewrite."""
        with _worth_another_try(self.lake):
            replace_for_good(self.root / _DONE, rewrite_id.encode(), self.lake.root)

    def remove(self) -> None:
        """Remove it; nothing was changed by it."""
        _remove(self.root)


def remove_settled(lake: Lake, ledger: RewriteLedger) -> None:
    """Remove annexes whose rows stand in the lake for good."""
    folders = [folder for folder in _folders(lake) if (folder / _DONE).exists()]
    topics = topics_of(ledger.catalog) if folders else set()
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):
            rewrite = ledger.find((folder / _DONE).read_text(encoding="utf-8"))
            if _read(folder).topics & topics and (rewrite is None or rewrite.state != SWAPPED):
                _remove(folder)


def unfinished(lake: Lake, topics: set[str]) -> dict[str, float]:
    """Names of annexes that are to be gone on with, and when something was last done in each, in seconds.

    That is: which nobody has said to be in the lake; or whose rows the catalog does not know, for it was lost since.
    """
    found = {}
    for folder in _folders(lake):
        with contextlib.suppress(FileNotFoundError):  # it is removed this moment, or was not begun in earnest
            if not (folder / _DONE).exists() or not _read(folder).topics & topics:
                found[folder.name] = max(it.stat().st_mtime for it in (folder, *folder.iterdir()))
    return found


def remove_unfinished(lake: Lake, name: str) -> None:
    """Give a replacement up."""
    _remove(lake.root / ANNEXES / name)


def topics_of(catalog: Catalog) -> set[str]:
    """Topics that a catalog knows."""
    return {partition.topic for partition in catalog.offsets()}


def _folders(lake: Lake) -> Iterator[Path]:
    with _worth_another_try(lake):
        try:
            yield from sorted((lake.root / ANNEXES).iterdir())
        except FileNotFoundError:
            return


def _read(folder: Path) -> Replacement:
    try:
        said = json.loads((folder / _PLAN).read_text(encoding="utf-8"))
        if said["format"] not in _READABLE:
            raise SchemaError(f"{folder / _PLAN}: format {said['format']}, this Stillwatch knows {_FORMAT}: upgrade it")
        return Replacement.read(said)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SchemaError(f"{folder / _PLAN}: not what a replacement wrote ({error!r}); remove the folder") from error


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        sync_folders([folder.parent], folder.parent)


@contextlib.contextmanager
def _worth_another_try(lake: Lake) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RetryableError(f"lake {lake.root}: {error.strerror or error}") from error
