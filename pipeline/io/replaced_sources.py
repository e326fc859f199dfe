"""Which sources of a lake a replacement is about: offsets that are landed, by file, feed or topic, or all of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from pipeline.batch import Partition
from pipeline.errors import ConfigError
from pipeline.io.digests import sha256_of_file
from pipeline.sources import FEED, FeedFile, origin

Spans = dict[Partition, list[tuple[int, int]]]
"""First offsets, and those after the last."""

_HASH_SHOWN_MIN: Final = 8
_NAMED_MAX: Final = 10


class Sources:
    """What is landed in a lake, by where it came from."""

    def __init__(self, offsets: Mapping[Partition, int], places: Sequence[FeedFile]) -> None:
        """Take what the catalog says.

        Args:
            offsets: how far each partition is landed.
            places: of all files that were backfilled.
        """
        self._offsets, self._places = offsets, places

    def spans(self, names: Sequence[str]) -> Spans:
        """Offsets of some sources, of all without names.

        Raises:
            ConfigError: a name is of none, or a file is not landed to its end.
        """
        if not names:
            return {partition: [(0, offset)] for partition, offset in self._offsets.items()}
        spans: Spans = {}
        for name in names:
            for partition, span in self._of(name):
                spans.setdefault(partition, []).append(span)
        return spans

    def named(self, topic: str) -> str:
        """A topic in words: the file that it is of, if it is of one."""
        names = [place.name for place in self._places if place.topic == topic and place.is_alone]
        return f"{names[0]} ({topic})" if names else topic

    def is_covered(self, place: FeedFile, spans: Spans) -> bool:
        """Whether offsets hold all that is landed of a file."""
        return all(
            any(low <= place.first_offset and min(place.next_offset, offset) <= high for low, high in spans.get(at, ()))
            for at, offset in self._offsets.items()
            if at.topic == place.topic and offset > place.first_offset
        )

    def is_begun(self, place: FeedFile) -> bool:
        """Whether a file is landed in part."""
        stands = [offset for at, offset in self._offsets.items() if at.topic == place.topic]
        return bool(stands) and max(stands) > place.first_offset and min(stands) < place.next_offset

    def places_of(self, hashes: Iterable[str]) -> list[FeedFile]:
        """Places of files of which something is landed, by their hashes."""
        wanted = set(hashes)
        return [place for place in self._places if place.of.sha256 in wanted and self._is_landed(place)]

    def _is_landed(self, place: FeedFile) -> bool:
        return any(at.topic == place.topic and offset > place.first_offset for at, offset in self._offsets.items())

    def _of(self, name: str) -> Iterator[tuple[Partition, tuple[int, int]]]:
        topics = {at.topic for at in self._offsets}
        for topic in (name, f"{FEED}{name}"):
            if topic in topics:
                yield from self._of_topic(topic)
                return
        places = [place for place in self._files_called(name) if self._is_landed(place)]
        if not places:
            raise ConfigError(f"--of {name}: {self._nothing()}")
        for place in places:
            if self.is_begun(place):
                raise ConfigError(
                    f"--of {name}: {place.name} is landed in part: let that backfill come to its end first"
                )
            for at, offset in self._offsets.items():
                if origin(at.topic) == place.topic:
                    yield at, (place.first_offset, min(place.next_offset, offset))

    def _of_topic(self, topic: str) -> Iterator[tuple[Partition, tuple[int, int]]]:
        """A topic, what backfills landed of its past, and what was a reject of it."""
        for at, offset in self._offsets.items():
            if topic in (at.topic, origin(at.topic)):
                yield at, (0, offset)

    def _files_called(self, name: str) -> list[FeedFile]:
        path = Path(name)
        if path.is_file():
            try:
                sha256 = sha256_of_file(path)
            except OSError as error:
                raise ConfigError(f"--of {name}: {error.strerror}") from error
            return [place for place in self._places if place.of.sha256 == sha256]
        by_hash = len(name) >= _HASH_SHOWN_MIN and re.fullmatch("[0-9a-f]+", name)
        return [
            place
            for place in self._places
            if place.name == name or Path(place.name).name == name or (by_hash and place.of.sha256.startswith(name))
        ]

    def _nothing(self) -> str:
        known = sorted({place.name for place in self._places if self._is_landed(place)})
        known += sorted(
            {at.topic.removeprefix(FEED) for at in self._offsets} - {_bare(place) for place in self._places}
        )
        shown = ", ".join(known[:_NAMED_MAX]) + (
            f" and {len(known) - _NAMED_MAX} more" if len(known) > _NAMED_MAX else ""
        )
        return (
            "nothing of that name is landed: name a file by its path, its SHA-256 or what it was called, a feed, or a "
            f"topic. There is {shown or 'nothing'}"
        )


def _bare(place: FeedFile) -> str:
    return place.topic.removeprefix(FEED) if place.is_alone else ""
