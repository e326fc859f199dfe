"""A set of hashes in which many are looked up at once: open addressing, a few NumPy calls for all of them.

A search of an ordered array takes as many looks into memory as its length has bits, and keeping it in order takes a
copy; here it is one or two looks, whatever the length.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.features.hashing import Hashes

Places = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_SECRET: Final = np.uint64(secrets.randbits(64) | 1)
_BITS_MIN: Final = 10
_FULL: Final = 0.6
"""Share of the places that may be taken, so that one look or two are enough."""

_GROWTH: Final = 2
"""Bits that a table grows by: memory that is touched for the first time costs more than what is done with it."""


@dataclass(frozen=True, slots=True)
class Moves:
    """Where hashes went when their table grew: from the places `old` to the places `new`."""

    old: Places
    new: Places
    places_before: int
    places: int

    def of(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """An array kept by place, by the new places."""
        made = np.zeros(self.places, values.dtype)
        made[self.new] = values[self.old]
        return made

    def to(self, places: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """New places in the place of old ones; where nothing was, any."""
        found = np.zeros(self.places_before, places.dtype)
        found[self.old] = self.new
        moved: npt.NDArray[Any] = found[places]
        return moved


class HashTable:
    """Hashes, each in a place of its own.

    What belongs to a hash is kept by its place, in arrays of `places` values beside the table; they must be moved when
    the table grows (`make_room`).  0 is an empty place and cannot be put.

    What is hashed was written by strangers, who may look for hashes that begin alike.  So where a hash is looked for
    depends on a secret; whoever goes by places in order sees another order in each process.

    Args:
        room: hashes for which there is room from the start.
    """

    def __init__(self, room: int = 0) -> None:
        self._bits = _bits_for(room)
        self.keys: Hashes = np.zeros(1 << self._bits, np.uint64)
        """By place; 0: empty."""
        self._taken = 0
        """Places that are taken, at most."""

    def __len__(self) -> int:
        return int(np.count_nonzero(self.keys))

    @property
    def places(self) -> int:
        """How many there are, empty ones too."""
        return len(self.keys)

    def find(self, keys: Hashes) -> tuple[Places, Mask]:
        """Where each of some hashes is, and whether it is here at all; 0 is not."""
        place = self._home(keys)
        there = self.keys.take(place, mode="clip")
        known = there == keys
        ahead = np.flatnonzero(~known & (there != 0))
        while len(ahead):
            wanted = keys[ahead]
            place[ahead] = at = self._next(place[ahead], wanted)
            there = self.keys.take(at, mode="clip")
            hit = there == wanted
            known[ahead[hit]] = True
            ahead = ahead[~hit & (there != 0)]
        return place, known & (keys != 0)

    def put(self, keys: Hashes) -> tuple[Places, Mask]:
        """Put hashes, those that are not here yet; there must be room for all of them.

        Those in the order of `spread` are put fastest, for their places are near each other.

        Returns:
            The place of each, and whether it was not here: equal ones have one place, and are all new or none of them.
        """
        place, is_new = self._home(keys), np.zeros(len(keys), np.bool_)
        self._taken += len(keys)
        ahead, at, wanted = np.arange(len(keys)), place, keys
        while len(ahead):
            there = self.keys.take(at, mode="clip")
            empty = np.flatnonzero(there == 0)
            spot = at[empty]
            self.keys[spot] = wanted[empty]
            there[empty] = self.keys[spot]  # of several that want one place, one has it
            missed = there != wanted
            is_new[ahead[empty]] = ~missed[empty]
            missed = np.flatnonzero(missed)
            ahead, wanted = ahead[missed], wanted[missed]
            place[ahead] = at = self._next(at[missed], wanted)
        return place, is_new

    def clear(self) -> None:
        """Empty all places."""
        self.keys[:] = 0
        self._taken = 0

    def make_room(self, more: int) -> Moves | None:
        """Grow if need be, so that so many more hashes can be put.

        Returns:
            Where they went; None if all are where they were.
        """
        if _bits_for(self._taken + more) <= self._bits:
            return None
        self._taken = len(self)  # those that were put twice counted twice
        bits = _bits_for(self._taken + more)
        if bits <= self._bits:
            return None
        before, old = self.places, np.flatnonzero(self.keys)
        kept, self._bits = self.keys[old], max(bits, self._bits + _GROWTH)
        self.keys, self._taken = np.zeros(1 << self._bits, np.uint64), 0
        return Moves(old, self.put(kept)[0], before, self.places)

    def _home(self, keys: Hashes) -> Places:
        return (spread(keys) >> np.uint64(64 - self._bits)).view(np.int64)

    def _next(self, place: Places, keys: Hashes) -> Places:
        step = (spread(keys) >> np.uint64(8)).view(np.int64) | 1  # an odd one comes by all places
        return place + step & (self.places - 1)


def _bits_for(hashes: int) -> int:
    return max(_BITS_MIN, int(hashes / _FULL).bit_length())


def spread(keys: Hashes) -> Hashes:
    """Hashes as this process scatters them; different ones stay different."""
    return keys * _SECRET
