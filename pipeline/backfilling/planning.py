"""What of some files is to be landed, and where: decided from what the catalog knows, before anything is written.

Pure: what was found and what is known in, a plan out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from pipeline.backfilling.slices import OPEN_HIGH, OPEN_LOW, WHOLE, Slice, flag_of
from pipeline.batch import Partition
from pipeline.errors import ConfigError
from pipeline.sources import FEED, FeedFile, SourceFile

NEW: Final = "new"
BEGUN: Final = "begun"
DONE: Final = "already there"
TWICE: Final = "the same as another"
EMPTY: Final = "empty"


@dataclass(frozen=True, slots=True)
class Found:
    """A file, and what is to become of it, or of a slice of it.

    Attributes:
        file: as it is; of a new one, with the rows that are to be landed.
        state: one of the above.
        place: in its feed; None of a new one.
    """

    file: SourceFile
    state: str
    place: FeedFile | None = None

    def in_words(self) -> str:
        """The state; of a slice, with its range."""
        part = self.place.of.part if self.place else self.file.part
        return self.state if part.is_whole else f"{self.state}: {part.in_words()}"


@dataclass(slots=True)
class FilePlan:
    """What is to be done with files.

    Attributes:
        files: every file named, in order.
        found: what becomes of them, in the same order; of one file a slice may be begun and another one new.
        dropped: feeds whose places that nobody has begun to land are given up, for some are to be others' now.
    """

    files: list[SourceFile] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

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
        return sum(file.rows for file in self.files)

    @property
    def rows_asked(self) -> int:
        """Rows of all files that are in the range that was asked for."""
        return sum(file.rows_asked for file in self.files)

    @property
    def rows_beyond(self) -> int:
        """Rows of all files that are out of it."""
        return sum(file.rows_beyond for file in self.files)

    @property
    def blank(self) -> int:
        """Blank lines of all files."""
        return sum(file.blank for file in self.files)

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.bytes for file in self.files)


def plan_files(  # what is there, and what is wanted of it
    files: Sequence[SourceFile],
    known: Mapping[str, Sequence[FeedFile]],
    offsets: Mapping[Partition, int],
    feed: str | None,
    asked: Slice = WHOLE,
) -> FilePlan:
    """Decide what becomes of each file.

    Args:
        files: as found.
        known: places of those that have some, by hash.
        offsets: how far each partition is landed.
        feed: topic of the feed that scores them; None: each file is its own feed.
        asked: which rows are wanted.

    Raises:
        ConfigError: a file was begun otherwise than it is to be continued.
    """
    plan, seen = FilePlan(), set[str]()
    for file in files:
        plan.files.append(file)
        if file.rows == file.blank:
            plan.found.append(Found(file, EMPTY))
        elif file.sha256 in seen:
            plan.found.append(Found(file, TWICE))
        else:
            plan.found += _found(_Wanted(file, asked, feed), known.get(file.sha256, ()), offsets, plan.dropped)
        seen.add(file.sha256)
    return plan


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is asked for of a file."""

    file: SourceFile
    part: Slice
    feed: str | None

    def goes_to(self, place: FeedFile) -> bool:
        """Whether a place is one that it would be given now."""
        return place.topic == self.feed or (self.feed is None and place.is_alone)


def _found(
    wanted: _Wanted, places: Sequence[FeedFile], offsets: Mapping[Partition, int], dropped: list[str]
) -> Iterator[Found]:
    left, begun = wanted.part, 0
    for place in places:
        part, state = place.of.part, _state_of(place, offsets)
        if not part.meets(wanted.part):
            continue
        if state == NEW:
            if place.topic != wanted.feed:  # which gives its places anew by itself
                dropped.append(place.topic)
            continue
        if state == BEGUN:
            _check_goes_on(wanted, place)
            yield Found(wanted.file, BEGUN, place)
            begun += 1
        left = left.without(part)
    if not left.is_empty:
        yield Found(replace(wanted.file, part=left), NEW)
    elif not begun:
        yield Found(wanted.file, DONE)


def _state_of(place: FeedFile, offsets: Mapping[Partition, int]) -> str:
    stands = [offset for partition, offset in offsets.items() if partition.topic == place.topic]
    if not stands or max(stands) <= place.first_offset:
        return NEW
    return DONE if min(stands) >= place.next_offset else BEGUN


def _check_goes_on(wanted: _Wanted, place: FeedFile) -> None:
    """See that a place that was begun can be gone on with as is asked for."""
    if not wanted.goes_to(place):
        raise ConfigError(_other_way(wanted.file, place))
    if not place.of.part.within(wanted.part):
        raise ConfigError(_other_range(wanted.file, place))


def _other_way(file: SourceFile, place: FeedFile) -> str:
    name = place.topic.removeprefix(FEED)
    how = "--no-score" if place.is_alone else f"--score --feed {name}"
    where = "without scores" if place.is_alone else f"in the feed {name}"
    return f"{file.path}: it was landed in part {where}, and must be finished so: run with {how}"


def _other_range(file: SourceFile, place: FeedFile) -> str:
    part = place.of.part
    ends = (("--from", part.ends[0], OPEN_LOW), ("--to", part.ends[1], OPEN_HIGH))
    flags = [f"{flag} {flag_of(end)}" for flag, end, none in ends if end != none]
    how = f"with {' '.join(flags)}" if flags else "without --from and --to"
    return f"{file.path}: {part.in_words()} of it was landed in part, and must be finished first: run {how}"


def check_unfinished(left: Sequence[FeedFile], plan: FilePlan, feed: str) -> None:
    """A feed is a log: what comes later in it can be landed only when all before it is.

    Args:
        left: files of the feed that are begun and not done.
        plan: what is to be done.
        feed: its name, for people.

    Raises:
        ConfigError: one that is begun is not among the files named.
    """
    named = {file.sha256 for file in plan.files}
    missing = [place for place in left if place.of.sha256 not in named]
    if missing and plan.new:
        first, sha256 = missing[0].name, missing[0].of.sha256[:12]
        raise ConfigError(
            f"the feed {feed} stands in the middle of {first} (SHA-256 {sha256}…): name that file, too, so that it is "
            "finished first, or give these files a feed of their own with --feed NAME. If it is lost or has changed, "
            f"`stillwatch backfill --feed {feed} --give-up {sha256}` lets the feed go on without it"
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
