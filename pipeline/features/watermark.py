"""The partition's watermark: what its time is, by the clocks of many accounts, so that no account's clock decides.

Every `EVERY` records the last event times of the `VOTERS` accounts that were seen last, among the last `WINDOW`
records, are put in order; a quarter of the way up stands the time that the watermark moves on to, if it is later.  So
time moves on when three quarters of the accounts that are active have reached it.  However many records an account
sends, and whatever they are dated, it has one vote.  Fewer than `VOTERS_MIN` accounts are believed once they alone have
filled the window.  Of up to four accounts all must have reached a time: there the slowest clock decides for the others,
who may then be a day ahead of it.

Event time is clipped to [watermark - `LATENESS`, watermark + `AHEAD`]: an account that is alone for hours may go on,
and one whose clock is years ahead is not lost.  No event is dropped for being late.

All of it is a function of an event's place in the partition, never of where a batch ends.  Times are in milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from pipeline.errors import SchemaError
from pipeline.features.clock import DAY, LATEST, NEVER, SECOND
from pipeline.features.hashing import neighbours

Ints = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]

EVERY: Final = 32
WINDOW: Final = 512
VOTERS: Final = 16
VOTERS_MIN: Final = 4
LATENESS: Final = 120 * SECOND
AHEAD: Final = DAY

DEFINITION: Final = (
    f"quartile of {VOTERS} accounts among {WINDOW} records, every {EVERY}, {LATENESS} ms late, {AHEAD} ms ahead"
)
"""Part of `FEATURES_HASH`: another time would be other features."""

_GLANCE: Final = 64
"""Where many accounts are active all voters are among so many records, and the rest of the window need not be read."""


@dataclass(slots=True)
class Watermark:
    """What a partition's time is known from.

    Attributes:
        mark: the watermark; `-NEVER` before it is known.
        keys: uint64[at most WINDOW], the accounts of the last records.
        times: int64 of the same, their event times.
        seen: events so far.
    """

    mark: int
    keys: Keys
    times: Ints
    seen: int

    @classmethod
    def start(cls) -> Self:
        """That of a partition nothing was read of."""
        return cls(-NEVER, np.empty(0, np.uint64), np.empty(0, np.int64), 0)

    @property
    def late(self) -> int:
        """No later event can be older than this: where the time of accounts without events is."""
        return self.mark - LATENESS

    def advance(self, keys: Keys, times: Ints) -> tuple[Ints, Ints]:
        """Take the next events.

        Args:
            keys: uint64[n], n > 0, of their accounts.
            times: int64[n], milliseconds since the epoch, as logged.

        Returns:
            Per event, `late` as of it, and its clipped time: its own while no time is known.
        """
        count, before = len(keys), len(self.keys)
        own = np.clip(times, 0, LATEST)
        known, dated = np.concatenate([self.keys, keys]), np.concatenate([self.times, own])
        ends = np.arange(EVERY - self.seen % EVERY, count + 1, EVERY)
        votes = _votes(known, dated, ends + before, ends + before >= WINDOW)
        marks = np.maximum.accumulate(np.concatenate([[self.mark], votes]))
        mark = marks[np.searchsorted(ends, np.arange(count), side="right")]
        near = np.where(mark == -NEVER, own, mark)
        self.mark, self.seen = int(marks[-1]), self.seen + count
        self.keys, self.times = known[-WINDOW:].copy(), dated[-WINDOW:].copy()
        return mark - LATENESS, np.clip(own, np.maximum(near - LATENESS, 0), near + AHEAD)

    def scalars(self) -> dict[str, Any]:
        """The watermark as plain values."""
        return {"mark": self.mark, "keys": self.keys.tolist(), "times": self.times.tolist(), "seen": self.seen}

    @classmethod
    def of(cls, scalars: Mapping[str, Any]) -> Self:
        """The watermark of such values.

        Raises:
            SchemaError: they are not of this version.
        """
        if set(scalars) != {"mark", "keys", "times", "seen"} or len(scalars["keys"]) != len(scalars["times"]):
            raise SchemaError("the snapshot's watermark is not of this version: replay from an older offset")
        keys, times = np.array(scalars["keys"], np.uint64), np.array(scalars["times"], np.int64)
        return cls(int(scalars["mark"]), keys, times, int(scalars["seen"]))


def _votes(keys: Keys, times: Ints, ends: Ints, filled: npt.NDArray[np.bool_]) -> Ints:
    """The time that three quarters of the voters have reached, as of the record before each of `ends`; int64[ends].

    Args:
        keys: uint64[n], accounts of records.
        times: int64[n].
        ends: positions in the records, from 1 to n.
        filled: bool[ends], whether a whole window is known by then.
    """
    order = neighbours(keys)
    again = np.full(len(keys), len(keys) + 1)  # where each record's account is seen next
    same = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
    again[order[same]] = order[same + 1]
    voices = _voices(again, times, ends, _GLANCE)
    few = np.flatnonzero(voices[:, -1] == NEVER)
    voices[few] = _voices(again, times, ends[few], WINDOW)
    voices.sort(axis=1)
    number = (voices != NEVER).sum(axis=1)
    vote = voices[np.arange(len(ends)), (number - 1) // 4]
    return np.where((number >= VOTERS_MIN) | filled, vote, -NEVER)


def _voices(again: Ints, times: Ints, ends: Ints, width: int) -> Ints:
    """Last event times of the last accounts among `width` records before each end, int64[ends, VOTERS]; else NEVER."""
    at = ends[:, np.newaxis] - 1 - np.arange(width)  # from the last record backwards
    is_last = (at >= 0) & (again[np.maximum(at, 0)] >= ends[:, np.newaxis])
    place = np.cumsum(is_last, axis=1)
    row, column = np.nonzero(is_last & (place <= VOTERS))
    voices = np.full((len(ends), VOTERS), NEVER)
    voices[row, place[row, column] - 1] = times[at[row, column]]
    return voices
