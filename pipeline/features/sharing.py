"""Sharing: how many accounts of a partition have lately sent the same thing - an opening, an ending, a system prompt.

Harvesters of one data set, and the members of a pool, share frames that no customer of theirs has seen.  What is
kept is pairs of a thing and an account, by their hashes, exactly, until there are `pairs_max`: then the half that was
longest not seen is dropped.

Law: a look-up sees the pairs of all whole blocks of `block` events of the partition before the event that asks, so that
no batch plays a part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.features.hash_table import HashTable
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
        self._kept.see(*(kept[name].to_numpy() for name in ("pair", "thing", "stamp")))
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
        self._size = 0
        self._pairs, self._things = HashTable(room), HashTable()
        self._thing = np.zeros(self._pairs.places, np.int32)
        """The place of each pair's thing, by the pair's place, …"""
        self._stamp = np.zeros(self._pairs.places, np.int32)
        """… the block in which it was seen last, …"""
        self._count = np.zeros(self._things.places, np.int32)
        """… and the pairs of each thing, by the thing's place."""

    def __len__(self) -> int:
        return self._size

    def others(self, things: Hashes, pairs: Hashes) -> Ints:
        """How many accounts have sent each thing, but for the one that the pair is of."""
        place, known = self._things.find(things)
        some = np.flatnonzero(known)
        counts = np.zeros(len(things), np.int64)
        counts[some] = self._count[place[some]] - self._pairs.find(pairs[some])[1]
        return counts

    def see(self, pairs: Hashes, things: Hashes, blocks: int | Ints) -> None:
        """Take in pairs, some of which may be here, or come twice.

        Args:
            pairs: hashes, none of them 0.
            things: of each pair, none of them 0.
            blocks: in which they are seen, or were last.
        """
        if moves := self._pairs.make_room(len(pairs)):
            self._thing, self._stamp = moves.of(self._thing), moves.of(self._stamp)
        place, is_new = self._pairs.put(pairs)
        self._stamp[place] = blocks
        new = np.flatnonzero(is_new)
        self._count_new(place[new], things[new])

    def _count_new(self, place: Ints, things: Hashes) -> None:
        """Note the things of pairs that were put just now, some of them twice."""
        if moves := self._things.make_room(len(place)):
            self._count, self._thing = moves.of(self._count), moves.to(self._thing)
        numbers = np.arange(len(place), dtype=np.int32)
        self._thing[place] = numbers  # of those that have one place, one stays
        once = np.flatnonzero(self._thing[place] == numbers)
        of_things, _ = self._things.put(things[once])
        self._thing[place[once]] = of_things
        np.add.at(self._count, of_things, np.ones(len(once), np.int32))
        self._size += len(once)

    def ascending(self) -> tuple[Hashes, Hashes, Ints]:
        """All pairs in order, the thing of each, and the block in which it was seen last."""
        place = np.flatnonzero(self._pairs.keys)
        place = place[np.argsort(self._pairs.keys[place])]
        return self._pairs.keys[place], self._things.keys[self._thing[place]], self._stamp[place].astype(np.int64)

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
        self._keep(kept)

    def _keep(self, kept: Ints) -> None:
        """Keep the pairs of some places, and the things that they are of; the tables stay as large as they are."""
        pairs, of_thing, stamps = self._pairs.keys[kept], self._thing[kept], self._stamp[kept]
        counts = np.bincount(of_thing, minlength=self._things.places)
        alive = np.flatnonzero(counts)
        things = self._things.keys[alive]
        self._pairs.clear()  # in place: memory that is new costs more
        self._things.clear()
        self._count[:] = 0
        moved = np.zeros(len(counts), np.int32)
        moved[alive], _ = self._things.put(things)
        self._count[moved[alive]] = counts[alive]
        place, _ = self._pairs.put(pairs)
        self._thing[place], self._stamp[place] = moved[of_thing], stamps
        self._size = len(kept)
