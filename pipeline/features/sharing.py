"""Sharing: how many accounts of a partition have lately sent the same thing - an opening, an ending, a system prompt.

Harvesters of one data set, and the members of a pool, share frames that no customer of theirs has seen.  What is
kept is pairs of a thing and an account, by their hashes, exactly, until there are `pairs_max`: then the half that was
longest not seen is dropped.

Law: a look-up sees the pairs of all whole blocks of `block` events of the partition before the event that asks, so that
no batch plays a part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.features.hashing import Hashes, joined, mixed

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

BLOCK: Final = 1 << 13
"""Default of `Sharing.block`."""

PAIRS_MAX: Final = 1 << 19
"""Default of the pairs that are kept: about 20 MB."""

_NO_HASHES: Final[Hashes] = np.zeros(0, np.uint64)
_NO_STAMPS: Final = np.zeros(0, np.int64)


class Sharing:
    """The things that accounts of one partition have sent.

    Args:
        block: events of the partition whose pairs become visible together.
        pairs_max: pairs that are kept.
    """

    def __init__(self, block: int = BLOCK, pairs_max: int = PAIRS_MAX) -> None:
        self.block: Final = block
        self._pairs_max = pairs_max
        self._pairs: Hashes = _NO_HASHES
        """Hashes of a thing and an account, ascending, …"""
        self._of: Hashes = _NO_HASHES
        """… the thing of each, …"""
        self._stamps: Ints = _NO_STAMPS
        """… and the block in which it was seen last."""
        self._things: Hashes = _NO_HASHES
        self._counts: Ints = _NO_STAMPS
        self._new: list[tuple[Hashes, Hashes]] = []
        """Pairs and things of the block that is not whole yet."""

    def others(self, things: Hashes, accounts: Hashes) -> Ints:
        """How many other accounts have sent each thing; 0 for the hash 0, which is nothing."""
        if not len(self._things) or not len(things):
            return np.zeros(len(things), np.int64)
        counts = np.where(_is_in(self._things, things), self._counts[_place(self._things, things)], 0)
        own = _is_in(self._pairs, joined(things, accounts))
        return np.where(things != 0, counts - own, 0)

    def note(self, things: Hashes, accounts: Hashes) -> None:
        """Note what accounts sent in the block that is not whole yet; 0 is nothing."""
        some = things != 0
        self._new.append((joined(things[some], accounts[some]), things[some]))

    def close(self, block: int) -> None:
        """The block is whole: what was noted is seen from now on."""
        if not self._new:
            return
        pairs = np.concatenate([pair for pair, _ in self._new])
        things = np.concatenate([thing for _, thing in self._new])
        self._new = []
        if not len(pairs):
            return
        pairs, at = np.unique(pairs, return_index=True)
        known = _is_in(self._pairs, pairs)
        if known.any():
            self._stamps[_place(self._pairs, pairs[known])] = block
        pairs, things = pairs[~known], things[at][~known]
        place = np.searchsorted(self._pairs, pairs)
        self._pairs = np.insert(self._pairs, place, pairs)
        self._of = np.insert(self._of, place, things)
        self._stamps = np.insert(self._stamps, place, block)
        if len(self._pairs) > self._pairs_max:
            self._drop_half()
        else:
            self._count(things)

    def _count(self, things: Hashes) -> None:
        things, more = np.unique(things, return_counts=True)
        known = _is_in(self._things, things)
        self._counts[_place(self._things, things[known])] += more[known]
        place = np.searchsorted(self._things, things[~known])
        self._things = np.insert(self._things, place, things[~known])
        self._counts = np.insert(self._counts, place, more[~known])

    def _drop_half(self) -> None:
        newest = np.lexsort((self._pairs, -self._stamps))[: self._pairs_max // 2]
        newest.sort()
        self._pairs, self._of, self._stamps = self._pairs[newest], self._of[newest], self._stamps[newest]
        self._things, counts = np.unique(self._of, return_counts=True)
        self._counts = counts.astype(np.int64)

    def tables(self) -> dict[str, pa.Table]:
        """All of it as plain tables."""
        new = self._new or [(_NO_HASHES, _NO_HASHES)]
        return {
            "sharing": pa.table({"pair": self._pairs, "thing": self._of, "stamp": self._stamps}),
            "sharing_new": pa.table(
                {
                    "pair": np.concatenate([pair for pair, _ in new]),
                    "thing": np.concatenate([thing for _, thing in new]),
                }
            ),
        }

    def restore(self, tables: Mapping[str, pa.Table]) -> None:
        """Take the place of what `tables` was made of."""
        kept, new = tables["sharing"], tables["sharing_new"]
        self._pairs, self._of, self._stamps = (_own(kept[name]) for name in ("pair", "thing", "stamp"))
        self._things, counts = np.unique(self._of, return_counts=True)
        self._counts = counts.astype(np.int64)
        self._new = [(_own(new["pair"]), _own(new["thing"]))] if len(new) else []


def thing(kind: int, hashes: Hashes) -> Hashes:
    """A hash of one kind of thing, so that an opening is never taken for an ending; 0 stays 0."""
    return np.where(hashes == 0, np.uint64(0), mixed(hashes + np.uint64(kind)))


def _own(column: Any) -> Any:
    return np.array(column.to_numpy())  # Arrow's memory cannot be written to


def _place(ascending: Hashes, wanted: Hashes) -> Ints:
    return np.minimum(np.searchsorted(ascending, wanted), max(len(ascending) - 1, 0))


def _is_in(ascending: Hashes, wanted: Hashes) -> Mask:
    if not len(ascending):
        return np.zeros(len(wanted), np.bool_)
    return np.asarray(ascending[_place(ascending, wanted)] == wanted)
