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

from pipeline.features.hash_table import HashTable, distinct
from pipeline.features.hashing import Hashes, joined, mixed

Ints = npt.NDArray[np.int64]

BLOCK: Final = 1 << 13
"""Default of `Sharing.block`."""

PAIRS_MAX: Final = 1 << 19
"""Default of the pairs that are kept: up to 33 MB, with room to look them up."""

_ONE: Final = np.uint64(1)
_NO_HASHES: Final[Hashes] = np.zeros(0, np.uint64)


class Sharing:
    """The things that accounts of one partition have sent.

    Args:
        block: events of the partition whose pairs become visible together.
        pairs_max: pairs that are kept.
    """

    def __init__(self, block: int = BLOCK, pairs_max: int = PAIRS_MAX) -> None:
        self.block: Final = block
        self._pairs_max = pairs_max
        self._kept = _Pairs()
        self._new: list[tuple[Hashes, Hashes]] = []
        """Pairs and things of the block that is not whole yet."""

    def others(self, things: Hashes, accounts: Hashes) -> Ints:
        """How many other accounts have sent each thing, and note that these have: seen once the block is whole.

        Args:
            things: hashes; 0 is nothing, which nobody else has sent.
            accounts: the hash of who sent each.
        """
        pairs = _pairs_of(things, accounts)
        some = things != 0
        self._new.append((pairs, things) if some.all() else (pairs[some], things[some]))
        return np.where(some, self._kept.others(things, pairs), 0)

    def close(self, block: int) -> None:
        """The block is whole: what was noted is seen from now on."""
        new, self._new = self._new, []
        for pairs, things in new:
            self._kept.see(pairs, things, block)
        if len(self._kept) > self._pairs_max:
            self._kept.drop_to(self._pairs_max // 2)

    def tables(self) -> dict[str, pa.Table]:
        """All of it as plain tables."""
        new = self._new or [(_NO_HASHES, _NO_HASHES)]
        pairs, things, stamps = self._kept.ascending()
        return {
            "sharing": pa.table({"pair": pairs, "thing": things, "stamp": stamps}),
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
        self._kept = _Pairs(len(kept))
        self._kept.put(*(kept[name].to_numpy() for name in ("pair", "thing", "stamp")))
        self._new = [(new["pair"].to_numpy(), new["thing"].to_numpy())] if len(new) else []


def thing(kind: int, hashes: Hashes) -> Hashes:
    """A hash of one kind of thing, so that an opening is never taken for an ending; 0 stays 0."""
    return np.where(hashes == 0, np.uint64(0), mixed(hashes + np.uint64(kind)))


def _pairs_of(things: Hashes, accounts: Hashes) -> Hashes:
    return np.maximum(joined(things, accounts), _ONE)  # 0 is an empty place


class _Pairs:
    """Pairs of a thing and an account by their hashes, and how many there are of each thing.

    Args:
        room: pairs for which there is room from the start.
    """

    def __init__(self, room: int = 0) -> None:
        self._pairs, self._things = HashTable(room), HashTable()
        self._thing = np.zeros(self._pairs.places, np.uint64)
        """The thing of each pair, by the pair's place, …"""
        self._stamp = np.zeros(self._pairs.places, np.int32)
        """… the block in which it was seen last, …"""
        self._count = np.zeros(self._things.places, np.int32)
        """… and the pairs of each thing, by the thing's place."""

    def __len__(self) -> int:
        return len(self._pairs)

    def others(self, things: Hashes, pairs: Hashes) -> Ints:
        """How many accounts have sent each thing, but for the one that the pair is of."""
        place, known = self._things.find(things)
        some = np.flatnonzero(known)
        counts = np.zeros(len(things), np.int64)
        counts[some] = self._count[place[some]] - self._pairs.find(pairs[some])[1]
        return counts

    def see(self, pairs: Hashes, things: Hashes, block: int) -> None:
        """Take in pairs, some of which may be here, or come twice.

        Args:
            pairs: hashes, none of them 0.
            things: of each pair.
            block: in which they are seen.
        """
        place, known = self._pairs.find(pairs)
        self._stamp[place[known]] = block
        new = np.flatnonzero(~known)
        new = new[distinct(pairs[new])[0]]
        self.put(pairs[new], things[new], np.full(len(new), block))

    def put(self, pairs: Hashes, things: Hashes, stamps: npt.NDArray[Any]) -> None:
        """Take in pairs, no two alike and none of them here, with their things and when they were seen last."""
        if moved := self._pairs.make_room(len(pairs)):
            self._thing, self._stamp = moved(self._thing), moved(self._stamp)
        place = self._pairs.put(pairs)
        self._thing[place], self._stamp[place] = things, stamps
        first, counts = distinct(things)
        place, known = self._things.find(things[first])
        self._count[place[known]] += counts[known]
        first, counts = first[~known], counts[~known]
        if moved := self._things.make_room(len(first)):
            self._count = moved(self._count)
        self._count[self._things.put(things[first])] = counts

    def ascending(self) -> tuple[Hashes, Hashes, Ints]:
        """All pairs in order, the thing of each, and the block in which it was seen last."""
        place = np.flatnonzero(self._pairs.keys)
        place = place[np.argsort(self._pairs.keys[place])]
        return self._pairs.keys[place], self._thing[place], self._stamp[place].astype(np.int64)

    def drop_to(self, size: int) -> None:
        """Keep the pairs that were seen last; of those of one block that not all may stay, the first by pair."""
        place = np.flatnonzero(self._pairs.keys)
        seen = self._stamp[place]
        oldest = int(seen.min())
        newer = np.cumsum(np.bincount(seen - oldest)[::-1])[::-1]  # pairs of each block or a later one
        whole = int(np.searchsorted(-newer, -size))  # the first block of which all pairs may stay
        kept = place[seen >= oldest + whole]
        if whole:
            some = place[seen == oldest + whole - 1]
            by_pair = np.argsort(self._pairs.keys[some])  # nobody chose the hashes
            kept = np.append(kept, some[by_pair[: size - len(kept)]])
        pairs, things, stamps = self._pairs.keys[kept], self._thing[kept], self._stamp[kept]
        self._pairs.clear()  # in place: memory that is new costs more
        self._things.clear()
        self._count[:] = 0
        self.put(pairs, things, stamps)
