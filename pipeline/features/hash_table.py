"""A set of hashes in which many are looked up at once: open addressing, a few NumPy calls for all of them.

A search of an ordered array takes as many looks into memory as its length has bits, and keeping it in order takes a
copy; here it is one or two looks, whatever the length.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.features.hashing import Hashes

Places = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Moved = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]

_SECRET: Final = np.uint64(secrets.randbits(64) | 1)
_BITS_MIN: Final = 10
_FULL: Final = 0.6
"""Share of the places that may be taken, so that one look or two are enough."""

_GROWTH: Final = 2
"""Bits that a table grows by: memory that is touched for the first time costs more than what is done with it."""


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

    def __len__(self) -> int:
        return self._taken

    @property
    def places(self) -> int:
        """How many there are, empty ones too."""
        return len(self.keys)

    def find(self, keys: Hashes) -> tuple[Places, Mask]:
        """Where each of some hashes is, and whether it is here at all; 0 is not."""
        place = self._home(keys)
        there = self.keys[place]
        known = there == keys
        ahead = np.flatnonzero(~known & (there != 0))
        while len(ahead):
            wanted = keys[ahead]
            place[ahead] = at = self._next(place[ahead], wanted)
            there = self.keys[at]
            hit = there == wanted
            known[ahead[hit]] = True
            ahead = ahead[~hit & (there != 0)]
        return place, known & (keys != 0)

    def put(self, keys: Hashes) -> Places:
        """Put hashes for which there is room, no two alike and none of them here; the place of each.

        Those in the order of `spread` are put fastest, for their places are near each other.
        """
        place = self._home(keys)
        self._taken += len(keys)
        ahead = np.arange(len(keys))
        at, wanted = place, keys
        while len(ahead):
            empty = self.keys[at] == 0
            self.keys[at[empty]] = wanted[empty]
            ahead = ahead[self.keys[at] != wanted]
            wanted = keys[ahead]
            place[ahead] = at = self._next(place[ahead], wanted)
        return place

    def clear(self) -> None:
        """Empty all places."""
        self.keys[:] = 0
        self._taken = 0

    def make_room(self, more: int) -> Moved | None:
        """Grow if need be, so that so many more hashes can be put.

        Returns:
            What moves an array kept by place to the new places; None if all places are as they were.
        """
        bits = _bits_for(self._taken + more)
        if bits <= self._bits:
            return None
        bits = max(bits, self._bits + _GROWTH)
        old = np.flatnonzero(self.keys)
        kept = self.keys[old]
        self.keys, self._bits, self._taken = np.zeros(1 << bits, np.uint64), bits, 0
        new = self.put(kept)

        def moved(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
            made = np.zeros(self.places, values.dtype)
            made[new] = values[old]
            return made

        return moved

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


def distinct(hashes: Hashes) -> tuple[Places, Places]:
    """Where each different hash is among some, in the order of `spread`, and how many of it there are."""
    scattered = spread(hashes)
    order = np.argsort(scattered)
    ascending = scattered[order]
    heads = np.flatnonzero(np.append(True, ascending[1:] != ascending[:-1])) if len(order) else order
    return order[heads], np.diff(heads, append=len(order))
