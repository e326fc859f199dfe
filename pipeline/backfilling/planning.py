"""What of some files is to be landed, and where: decided from what the catalog knows, before anything is written.

Pure: what was found and what is known in, a plan out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pipeline.batch import Partition
from pipeline.errors import ConfigError
from pipeline.sources import FEED, FeedFile, SourceFile, own_feed

NEW: Final = "new"
BEGUN: Final = "begun"
DONE: Final = "already there"
TWICE: Final = "the same as another"
EMPTY: Final = "empty"


@dataclass(frozen=True, slots=True)
class Found:
    """A file, and what is to become of it.

    Attributes:
        file: as it is.
        state: one of the above.
        place: in its feed; None of a new one.
    """

    file: SourceFile
    state: str
    place: FeedFile | None = None


@dataclass(slots=True)
class FilePlan:
    """What is to be done with files.

    Attributes:
        found: every file named, in order.
    """

    found: list[Found] = field(default_factory=list)

    @property
    def new(self) -> list[SourceFile]:
        """Files that get a place."""
        return [one.file for one in self.found if one.state == NEW]

    @property
    def to_land(self) -> list[Found]:
        """Files of which something is to be landed."""
        return [one for one in self.found if one.state in (NEW, BEGUN)]

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return sum(one.file.rows for one in self.found)

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(one.file.bytes for one in self.found)


def plan_files(
    files: Sequence[SourceFile], known: Mapping[str, FeedFile], offsets: Mapping[Partition, int], feed: str | None
) -> FilePlan:
    """Decide what becomes of each file.

    Args:
        files: as found.
        known: those that have a place, by hash.
        offsets: how far each partition is landed.
        feed: topic of the feed that scores them; None: each file is its own feed.

    Raises:
        ConfigError: a file was begun otherwise than it is to be continued.
    """
    plan, seen = FilePlan(), set[str]()
    for file in files:
        plan.found.append(_found(file, known.get(file.sha256), offsets, feed, twice=file.sha256 in seen))
        seen.add(file.sha256)
    return plan


def _found(
    file: SourceFile, place: FeedFile | None, offsets: Mapping[Partition, int], feed: str | None, *, twice: bool
) -> Found:
    if not file.rows:
        return Found(file, EMPTY)
    if twice:
        return Found(file, TWICE, place)
    if place is None:
        return Found(file, NEW)
    stands = [offset for partition, offset in offsets.items() if partition.topic == place.topic]
    if stands and min(stands) >= place.next_offset:
        return Found(file, DONE, place)
    is_begun = bool(stands) and max(stands) > place.first_offset
    if place.topic != (feed or own_feed(file.sha256)):
        raise ConfigError(_other_way(file, place, is_begun=is_begun))
    return Found(file, BEGUN if is_begun else NEW, place)


def _other_way(file: SourceFile, place: FeedFile, *, is_begun: bool) -> str:
    name = place.topic.removeprefix(FEED)
    alone = place.topic == own_feed(file.sha256)
    how = "--no-score" if alone else f"--score --feed {name}"
    what = "was landed in part" if is_begun else "has its place, but no rows in the lake yet,"
    where = "without scores" if alone else f"in the feed {name}"
    return f"{file.path}: it {what} {where}, and must be finished so: run with {how}"


def check_unfinished(left: Sequence[FeedFile], plan: FilePlan, feed: str) -> None:
    """A feed is a log: what comes later in it can be landed only when all before it is.

    Args:
        left: files of the feed that are begun and not done.
        plan: what is to be done.
        feed: its name, for people.

    Raises:
        ConfigError: one that is begun is not among the files named.
    """
    named = {one.file.sha256 for one in plan.found}
    missing = [place for place in left if place.sha256 not in named]
    if missing and plan.new:
        raise ConfigError(
            f"the feed {feed} stands in the middle of {missing[0].name} (SHA-256 {missing[0].sha256[:12]}…): name that "
            "file, too, so that it is finished first, or give these files a feed of their own with --feed NAME"
        )


def unfinished(places: Sequence[FeedFile], offsets: Mapping[Partition, int], topic: str) -> list[FeedFile]:
    """Files of a feed that are begun and not done, in order."""
    stands = [offset for partition, offset in offsets.items() if partition.topic == topic]
    if not stands:
        return []
    return [place for place in places if place.first_offset < max(stands) and min(stands) < place.next_offset]


def dealt(files: Sequence[tuple[int, int]], hands: int) -> list[list[int]]:
    """Deal files out so that each hand gets about as much: the largest first, each to who has the least.

    Args:
        files: key and size of each.
        hands: how many there are, at least 1.

    Returns:
        Keys by hand, in the order given; no hand is empty unless there are fewer files.
    """
    held = [0] * hands
    keys: list[list[int]] = [[] for _ in range(hands)]
    for key, size in sorted(files, key=lambda file: -file[1]):
        least = held.index(min(held))
        held[least] += size
        keys[least].append(key)
    return [sorted(hand) for hand in keys if hand]
