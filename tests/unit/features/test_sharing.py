"""What others sent is counted as sets of pairs would count it, and the pairs that were seen last are kept."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.features.hash_table import HashTable
from pipeline.features.hashing import grouped, joined, mixed
from pipeline.features.sharing import Sharing

SENT = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 6)), max_size=60)
"""Things, of which 0 is none, and who sent each."""

ROOM = 24


class Pairs:
    """The same by the book: who sent each thing, and in which block last."""

    def __init__(self) -> None:
        self.seen: dict[int, tuple[int, int]] = {}

    def others(self, thing: int, pair: int) -> int:
        return sum(of == thing and other != pair for other, (of, _) in self.seen.items())

    def close(self, sent: list[tuple[int, int]], block: int) -> None:
        self.seen |= {pair: (thing, block) for thing, pair in sent}
        if len(self.seen) > ROOM:
            latest = sorted(self.seen, key=lambda pair: (-self.seen[pair][1], pair))
            self.seen = {pair: self.seen[pair] for pair in latest[: ROOM // 2]}


@settings(deadline=None, max_examples=150)
@given(st.lists(SENT, max_size=8), st.integers(0, 8))
def test_others_are_counted_by_the_book(blocks: list[list[tuple[int, int]]], restored: int) -> None:
    sharing, book = Sharing(pairs_max=ROOM), Pairs()
    for block, sent in enumerate(blocks):
        things = np.array([thing for thing, _ in sent], np.uint64)
        things = np.where(things == 0, things, mixed(things))
        accounts = mixed(np.array([account for _, account in sent], np.uint64))
        pairs = joined(things, accounts).tolist()
        found = sharing.others(things, accounts)
        some = [(thing, pair) for thing, pair in zip(things.tolist(), pairs, strict=True) if thing]
        assert found.tolist() == [
            book.others(thing, pair) if thing else 0 for thing, pair in zip(things.tolist(), pairs, strict=True)
        ]
        if block == restored:  # in the middle of a block
            tables, sharing = sharing.tables(), Sharing(pairs_max=ROOM)
            sharing.restore(tables)
        sharing.close(block)
        book.close(some, block)
        kept = sharing.tables()["sharing"].to_pylist()
        assert [(row["pair"], row["thing"], row["stamp"]) for row in kept] == [
            (pair, *book.seen[pair]) for pair in sorted(book.seen)
        ]


@settings(deadline=None)
@given(st.lists(st.sets(st.integers(1, 2**64 - 1), max_size=900), max_size=5))
def test_a_table_finds_what_was_put_and_nothing_else(lots: list[set[int]]) -> None:
    table, values, known = HashTable(), np.zeros(1 << 10, np.int64), {}
    for lot in lots:
        coming = np.array([*lot, *sorted(lot)[::2]], np.uint64)  # some of which are here, and some come twice
        if moves := table.make_room(len(coming)):
            values = moves.of(values)
            assert (moves.to(moves.old) == moves.new).all()
        place, is_new = table.put(coming)
        assert is_new.tolist() == [key not in known for key in coming.tolist()]
        values[place] = coming.view(np.int64)
        known |= dict.fromkeys(coming.tolist())
        asked = np.array([0, *known, *(key ^ 1 for key in known)], np.uint64)
        place, found = table.find(asked)
        assert found.tolist() == [key in known for key in asked.tolist()]
        assert (values[place[found]].view(np.uint64) == asked[found]).all()
        assert len(table) == len(known)


def test_hashes_that_begin_alike_find_their_places() -> None:
    table, keys = HashTable(500), np.arange(1, 500, dtype=np.uint64)
    table.put(keys)
    assert table.find(keys)[1].all()
    assert not table.find(keys + np.uint64(1000))[1].any()


@given(st.lists(st.integers(0, 5)))
def test_groups_are_those_of_a_sort(numbers: list[int]) -> None:
    hashed = np.array(numbers, np.uint64)
    _, first, group = np.unique(hashed, return_index=True, return_inverse=True)
    assert [part.tolist() for part in grouped(hashed)] == [first.tolist(), group.tolist()]
