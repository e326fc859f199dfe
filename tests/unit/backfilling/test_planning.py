"""Files are landed once, finished as they were begun, and dealt out evenly."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.backfilling.planning import BEGUN, DONE, EMPTY, NEW, TWICE, dealt, plan_files, unfinished
from pipeline.backfilling.slices import OPEN_HIGH, OPEN_LOW, FilePart, Slice
from pipeline.batch import Partition
from pipeline.errors import ConfigError
from pipeline.sources import FeedFile, SourceFile, own_feed

FEED = "file:feed"


def file(name: str, rows: int = 10) -> SourceFile:
    return SourceFile(Path(name), f"{name:0<64}", 7, rows)


def place(name: str, first: int, topic: str = FEED) -> FeedFile:
    return FeedFile(f"{name:0<64}", name, topic, first, 10, 1)


@pytest.mark.parametrize(
    ("stands", "states"),
    (
        ({}, [NEW, NEW, NEW]),
        ({0: 0, 1: 0}, [NEW, NEW, NEW]),
        ({0: 4, 1: 0}, [BEGUN, NEW, NEW]),
        ({0: 14, 1: 10}, [DONE, BEGUN, NEW]),
        ({0: 20, 1: 20}, [DONE, DONE, NEW]),
    ),
)
def test_what_is_left_of_a_file_is_told_by_its_partitions(stands: dict[int, int], states: list[str]) -> None:
    known = {it.sha256: [it] for it in (place("a", 0), place("b", 10))}
    offsets = {Partition(FEED, number): offset for number, offset in stands.items()}
    plan = plan_files([file("a"), file("b"), file("c")], known, offsets, FEED)
    assert [one.state for one in plan.found] == states
    begun = [it.name for it in unfinished([it for places in known.values() for it in places], offsets, FEED)]
    assert begun == [name for name, state in zip("ab", states, strict=False) if state == BEGUN]


def test_files_without_rows_and_those_named_twice_are_passed_over() -> None:
    plan = plan_files([file("a"), file("a"), file("b", 0)], {}, {}, None)
    assert [one.state for one in plan.found] == [NEW, TWICE, EMPTY]
    assert [one.file for one in plan.to_land] == [file("a")]


def test_a_file_alone_is_not_finished_in_a_feed_nor_the_other_way_round() -> None:
    alone = place("a", 0, own_feed(f"{'a':0<64}"))
    offsets = {Partition(alone.topic, 0): 3, Partition(FEED, 0): 3}
    with pytest.raises(ConfigError, match="without scores, and must be finished so: run with --no-score"):
        plan_files([file("a")], {alone.sha256: [alone]}, offsets, FEED)
    in_feed = place("a", 0)
    with pytest.raises(ConfigError, match="in the feed feed, and must be finished so: run with --score --feed feed"):
        plan_files([file("a")], {in_feed.sha256: [in_feed]}, offsets, None)


def sliced(low: int, high: int, stands: int) -> tuple[FeedFile, dict[Partition, int]]:
    """A slice of the file a, ten rows long, in a feed of its own."""
    identity = str(FilePart(f"{'a':0<64}", Slice(((low, high),), timeless=True)))
    of = FeedFile(identity, "a", own_feed(identity), 0, 10, 1)
    return of, ({Partition(of.topic, 0): stands} if stands else {})


def test_of_another_range_only_what_is_not_there_is_landed() -> None:
    there, offsets = sliced(0, 10, stands=10)
    known = {f"{'a':0<64}": [there]}
    [found] = plan_files([file("a")], known, offsets, None, Slice(((5, 20),), timeless=True)).found
    assert (found.state, found.file.part) == (NEW, Slice(((10, 20),), timeless=False))
    [found] = plan_files([file("a")], known, offsets, None, Slice(((5, 9),), timeless=True)).found
    assert found.state == DONE
    [found] = plan_files([file("a")], known, offsets, FEED).found
    assert found.file.part == Slice(((OPEN_LOW, 0), (10, OPEN_HIGH)), timeless=False)


def test_a_slice_that_was_begun_is_finished_and_not_cut() -> None:
    there, offsets = sliced(0, 10, stands=4)
    known = {f"{'a':0<64}": [there]}
    begun, new = plan_files([file("a")], known, offsets, None, Slice(((0, 20),), timeless=True)).found
    assert (begun.state, begun.place, new.state) == (BEGUN, there, NEW)
    with pytest.raises(ConfigError, match=r"run with --from 1970-01-01T00:00:00Z --to 1970-01-01T00:00:00\.000010Z"):
        plan_files([file("a")], known, offsets, None, Slice(((5, 20),), timeless=True))
    apart = plan_files([file("a")], known, offsets, None, Slice(((10, 20),), timeless=False)).found
    assert [one.state for one in apart] == [NEW]


def test_a_slice_that_nobody_has_begun_gives_way() -> None:
    there, offsets = sliced(0, 10, stands=0)
    plan = plan_files([file("a")], {f"{'a':0<64}": [there]}, offsets, None, Slice(((5, 20),), timeless=True))
    assert [one.file.part.spans for one in plan.found] == [((5, 20),)]
    assert plan.dropped == [there.topic]


@given(st.lists(st.integers(0, 1000), max_size=30), st.integers(1, 8))
def test_files_are_dealt_out_once_and_evenly(sizes: list[int], hands: int) -> None:
    found = dealt(list(enumerate(sizes)), hands)
    assert sorted(key for hand in found for key in hand) == list(range(len(sizes)))
    assert all(hand == sorted(hand) and hand for hand in found)
    loads = [sum(sizes[key] for key in hand) for hand in found] + [0] * (hands - len(found))
    assert max(loads) - min(loads) <= max(sizes, default=0)
