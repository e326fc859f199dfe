"""Sharing: how many accounts of a partition have lately sent the same thing - an opening, an ending, a system prompt.

Harvesters of one data set, and the members of a pool, share frames that no customer of theirs has seen.  What is
kept is pairs of a thing and an account, by their hashes, exactly, until there are `pairs_max`: then the half that was
longest not seen is dropped.

Law: a look-up sees the pairs of all whole blocks of `block` events of the partition before the event that asks, so that
no batch plays a part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

_LATE_MIN: Final = 1 << 15
"""Late pairs are put to the others when they are more than this, …"""

_LATE_SHARE: Final = 4
"""… and more than this part of them."""

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
        self._old = _Run.empty()
        self._late = _Run.empty()
        """Pairs that came since `_old` was made: small, so that a block costs little to take in."""
        self._new: list[tuple[Hashes, Hashes]] = []
        """Pairs and things of the block that is not whole yet."""

    def others(self, things: Hashes, accounts: Hashes) -> Ints:
        """How many other accounts have sent each thing; 0 for the hash 0, which is nothing."""
        found = np.zeros(len(things), np.int64)
        order = np.argsort(things)  # a search for ascending values finds them in the cache
        ascending = things[order]
        counts = self._old.count(ascending) + self._late.count(ascending)
        some = np.flatnonzero((counts > 0) & (ascending != 0))
        pairs = joined(ascending[some], accounts[order[some]])
        by_pair = np.argsort(pairs)
        some, pairs = some[by_pair], pairs[by_pair]
        found[order[some]] = counts[some] - (self._old.has(pairs) | self._late.has(pairs))
        return found

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
        at = np.argsort(pairs)
        at = at[np.diff(pairs[at], prepend=~pairs[at[:1]]) != 0]  # one of each
        pairs = pairs[at]
        known = self._old.stamp(pairs, block) | self._late.stamp(pairs, block)
        stamps = np.full(len(pairs) - np.count_nonzero(known), block)
        self._late = self._late.with_others(_Run.of_pairs(pairs[~known], things[at][~known], stamps))
        if len(self._old) + len(self._late) > self._pairs_max:
            self._whole().drop_to(self._pairs_max // 2)
        elif len(self._late) > max(_LATE_MIN, len(self._old) // _LATE_SHARE):
            self._whole()

    def _whole(self) -> _Run:
        """All pairs in one."""
        if len(self._late):
            self._old, self._late = self._old.with_others(self._late), _Run.empty()
        return self._old

    def tables(self) -> dict[str, pa.Table]:
        """All of it as plain tables."""
        new = self._new or [(_NO_HASHES, _NO_HASHES)]
        kept = self._whole()
        return {
            "sharing": pa.table({"pair": kept.pairs, "thing": kept.of, "stamp": kept.stamps}),
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
        self._old, self._late = _Run.of_pairs(*(_own(kept[name]) for name in ("pair", "thing", "stamp"))), _Run.empty()
        self._new = [(_own(new["pair"]), _own(new["thing"]))] if len(new) else []


def thing(kind: int, hashes: Hashes) -> Hashes:
    """A hash of one kind of thing, so that an opening is never taken for an ending; 0 stays 0."""
    return np.where(hashes == 0, np.uint64(0), mixed(hashes + np.uint64(kind)))


def _own(column: Any) -> Any:
    return np.array(column.to_numpy())  # Arrow's memory cannot be written to


class _Run:
    """Pairs by their hashes, and the things that are in them.

    Attributes:
        pairs: uint64[n], hashes of a thing and an account, ascending, …
        of: uint64[n], … the thing of each, …
        stamps: int64[n], … and the block in which it was seen last.
        things: uint64[m], the different things, ascending.
        counts: int64[m], pairs of each.
    """

    def __init__(self, pairs: Hashes, of: Hashes, stamps: Ints, things: tuple[Hashes, Ints]) -> None:
        self.pairs, self.of, self.stamps = pairs, of, stamps
        self.things, self.counts = things

    @classmethod
    def empty(cls) -> _Run:
        """Nothing."""
        return cls.of_pairs(_NO_HASHES, _NO_HASHES, _NO_STAMPS)

    @classmethod
    def of_pairs(cls, pairs: Hashes, of: Hashes, stamps: Ints) -> _Run:
        """Of ascending pairs."""
        things, counts = np.unique(of, return_counts=True)
        return cls(pairs, of, stamps, (things, counts.astype(np.int64)))

    def __len__(self) -> int:
        return len(self.pairs)

    def count(self, things: Hashes) -> Ints:
        """Pairs of each thing; they had better be ascending."""
        place, known = _found(self.things, things)
        return np.where(known, self.counts[place], 0) if len(self.counts) else place

    def has(self, pairs: Hashes) -> Mask:
        """Which pairs are here."""
        return _found(self.pairs, pairs)[1]

    def stamp(self, pairs: Hashes, block: int) -> Mask:
        """Which pairs are here; those were seen again."""
        place, known = _found(self.pairs, pairs)
        self.stamps[place[known]] = block
        return known

    def with_others(self, other: _Run) -> _Run:
        """These pairs and others, of which none is here."""
        at = np.searchsorted(self.pairs, other.pairs)
        columns = ((self.pairs, other.pairs), (self.of, other.of), (self.stamps, other.stamps))
        pairs, of, stamps = _inserted(at, columns)
        place, known = _found(self.things, other.things)
        self.counts[place[known]] += other.counts[known]
        at = np.searchsorted(self.things, other.things[~known])
        things = ((self.things, other.things[~known]), (self.counts, other.counts[~known]))
        return _Run(pairs, of, stamps, (*_inserted(at, things),))

    def drop_to(self, size: int) -> None:
        """Keep the pairs that were seen last."""
        stamps, counts = np.unique(self.stamps, return_counts=True)
        newer = np.cumsum(counts[::-1])[::-1]  # pairs of each stamp or a later one
        last = int(np.searchsorted(-newer, -size))  # the first stamp of which not all pairs may stay, and those before
        kept = self.stamps >= stamps[last] if last < len(stamps) else np.zeros(len(self), np.bool_)
        if last:
            room = size - (int(newer[last]) if last < len(stamps) else 0)
            kept[np.flatnonzero(self.stamps == stamps[last - 1])[:room]] = True  # by pair: nobody chose the hashes
        newest = np.flatnonzero(kept)
        self.pairs, self.of, self.stamps = self.pairs[newest], self.of[newest], self.stamps[newest]
        self.things, counts = np.unique(self.of, return_counts=True)
        self.counts = counts.astype(np.int64)


def _found(ascending: Hashes, wanted: Hashes) -> tuple[Ints, Mask]:
    """Where each value is, and whether it is there at all."""
    if not len(ascending):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), np.bool_)
    place = np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)
    return place, np.asarray(ascending[place] == wanted)


def _inserted(at: Ints, columns: Sequence[tuple[Any, Any]]) -> list[Any]:
    """Columns with more values, each before the one that is at a place now; places ascend."""
    size = len(columns[0][0]) + len(at)
    there = at + np.arange(len(at))
    is_old = np.ones(size, np.bool_)
    is_old[there] = False
    made = []
    for old, more in columns:
        both = np.empty(size, old.dtype)
        both[there] = more
        both[is_old] = old
        made.append(both)
    return made
