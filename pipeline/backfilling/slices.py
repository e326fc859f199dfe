"""Which rows of a file are landed, by their event time: half-open spans, so that what two slices share is plain to see.

The same file may be given with one range today and another tomorrow.  Each time a slice of it is landed that holds
nothing of those before, as a log of its own in which a row's offset is its number in the file: so a row is landed once.

Pure.  A time is in microseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError
from pipeline.moments import micros_of, parsed, rfc3339

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

OPEN_LOW: Final = -(1 << 62)
OPEN_HIGH: Final = 1 << 62
"""Ends of a slice that has none."""

_MARK: Final = "@"
_TIMELESS: Final = "+"
_EDITION: Final = "~"


@dataclass(frozen=True, slots=True)
class Slice:
    """Some rows of a file.

    Attributes:
        spans: of event time, half-open, in order; they neither overlap nor touch.
        timeless: whether rows whose event time cannot be told are among them: rejects.
    """

    spans: tuple[tuple[int, int], ...]
    timeless: bool

    @property
    def is_whole(self) -> bool:
        """Whether it holds every row."""
        return self == WHOLE

    @property
    def is_empty(self) -> bool:
        """Whether it can hold no row."""
        return not (self.spans or self.timeless)

    @property
    def ends(self) -> tuple[int, int]:
        """The first moment of it, and the one after its last; of one without a span, every moment."""
        return (self.spans[0][0], self.spans[-1][1]) if self.spans else (OPEN_LOW, OPEN_HIGH)

    def holds(self, times: Ints, known: Bools) -> Bools:
        """Which rows are in it.

        Args:
            times: event time of each row.
            known: whether it is known.
        """
        inside = np.zeros(len(times), dtype=np.bool_)
        for low, high in self.spans:
            inside |= (times >= low) & (times < high)
        return np.where(known, inside, self.timeless)

    def without(self, other: Slice) -> Slice:
        """What of it another one does not hold."""
        spans = list(self.spans)
        for low, high in other.spans:
            cut = [part for first, last in spans for part in ((first, min(last, low)), (max(first, high), last))]
            spans = [(first, last) for first, last in cut if first < last]
        return Slice(tuple(spans), self.timeless and not other.timeless)

    def meets(self, other: Slice) -> bool:
        """Whether a row may be in both."""
        return self.without(other) != self

    def within(self, other: Slice) -> bool:
        """Whether the other one holds all that this one does."""
        return self.without(other).is_empty

    def in_words(self) -> str:
        """As flags and pages say it."""
        if self.is_whole:
            return "whole"
        spans = [f"{_shown(low)} to {_shown(high)}" for low, high in self.spans]
        return ", ".join([*spans, *(["rows without a time"] if self.timeless and not self.spans else [])])


WHOLE: Final = Slice(((OPEN_LOW, OPEN_HIGH),), timeless=True)
TIMELESS: Final = Slice((), timeless=True)


def between(low: str | None, high: str | None) -> Slice:
    """The slice of `--from` and `--to`; whole without either.

    Raises:
        ConfigError: one is no time, or they are the wrong way round.
    """
    first = OPEN_LOW if low is None else micros_of(moment_of("--from", low))
    following = OPEN_HIGH if high is None else micros_of(moment_of("--to", high))
    if first >= following:
        raise ConfigError(f"--from {low} --to {high}: nothing lies between; --to is the first moment that is left out")
    return Slice(((first, following),), timeless=True)


def moment_of(flag: str, text: str) -> datetime:
    """Read a day or a time, in UTC where it names no zone.

    Raises:
        ConfigError: it is neither.
    """
    if not text.isdecimal():
        try:
            return parsed(text).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise ConfigError(f"{flag} {text}: expected a day or a time, such as 2026-03-02 or 2026-03-02T06:00Z")


@dataclass(frozen=True, slots=True)
class FilePart:
    """Rows of a file that are landed as one log.

    Attributes:
        sha256: of the file's bytes, in hex.
        part: which rows.
        edition: names the replacement that lands them; empty otherwise.
    """

    sha256: str
    part: Slice = WHOLE
    edition: str = ""

    def __str__(self) -> str:
        """As catalogs and notes keep it: the hash alone for a whole file."""
        if self.part.is_whole and not self.edition:
            return self.sha256
        spans = ";".join(f"{_end(low)},{_end(high)}" for low, high in self.part.spans)
        timeless = _TIMELESS if self.part.timeless else ""
        edition = f"{_EDITION}{self.edition}" if self.edition else ""
        return f"{self.sha256}{_MARK}{spans}{timeless}{edition}"

    @classmethod
    def parse(cls, text: str) -> FilePart:
        """Read what `str` wrote."""
        sha256, marked, rest = text.partition(_MARK)
        if not marked:
            return cls(sha256)
        said, _, edition = rest.partition(_EDITION)
        pairs = [pair.split(",") for pair in said.rstrip(_TIMELESS).split(";") if pair]
        spans = tuple((int(low or OPEN_LOW), int(high or OPEN_HIGH)) for low, high in pairs)
        return cls(sha256, Slice(spans, timeless=said.endswith(_TIMELESS)), edition)


def left_of(wanted: Slice, landed: Iterable[Slice]) -> Slice:
    """What of a slice none of others holds."""
    for other in landed:
        wanted = wanted.without(other)
    return wanted


def _end(moment: int) -> str:
    return "" if moment in (OPEN_LOW, OPEN_HIGH) else str(moment)


def _shown(moment: int) -> str:
    return {OPEN_LOW: "the beginning", OPEN_HIGH: "the end"}.get(moment) or flag_of(moment)


def flag_of(moment: int) -> str:
    """A moment as a flag takes it."""
    return rfc3339(moment, "auto")
