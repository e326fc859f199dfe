"""What backfills ask of the catalog; one suite, run on SQLite and on PostgreSQL."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from pipeline.backfilling.slices import Slice
from pipeline.batch import Partition
from pipeline.commits import Commit
from pipeline.errors import ConfigError, FencedError
from pipeline.io.catalog import Catalog
from pipeline.sources import FeedFile, PastRange, SourceFile, Span, again, own_feed

FEED = "file:feed"


def file(name: str, rows: int = 10) -> SourceFile:
    return SourceFile(Path(name), f"sha256 of {name}", 1 << 40, rows)


def placed(name: str, first: int, rows: int = 10, topic: str = FEED) -> FeedFile:
    return FeedFile(f"sha256 of {name}", name, topic, first, rows, 1)


def land_to(catalog: Catalog, partition: Partition, offset: int) -> None:
    claim = catalog.start_at(partition, 0)
    commit = Commit(f"{partition} {offset}", partition, claim.next_offset, offset, 0, 0, 0, "test:1")
    catalog.commit(commit, claim.epoch, [])


def test_files_get_their_places_one_after_the_other_and_keep_them(catalog: Catalog) -> None:
    book = catalog.sources
    assert book.feed_of(FEED) is None
    first = book.place(FEED, 2, [file("a"), file("b", 5)], 1)
    assert first == [placed("a", 0), placed("b", 10, 5)]
    land_to(catalog, Partition(FEED, 1), 15)
    assert book.place(FEED, 2, [file("c")], 1) == [placed("c", 15)]
    assert book.feed_of(FEED) == 2
    assert book.files_of(FEED) == [*first, placed("c", 15)]
    assert book.known(["sha256 of b", "sha256 of another"]) == {"sha256 of b": [first[1]]}


def test_files_that_nobody_has_begun_lose_their_places_to_the_next_backfill(catalog: Catalog) -> None:
    """Those that one partition has reached keep them, though the others have not."""
    places = catalog.sources.place(FEED, 2, [file("a"), file("b"), file("c")], 1)
    land_to(catalog, Partition(FEED, 0), 11)
    catalog.sources.check_placed(places)
    assert catalog.sources.place(FEED, 2, [file("d"), file("c")], 1) == [placed("d", 20), placed("c", 30)]
    with pytest.raises(ConfigError, match=r"^c: another backfill has begun in the same feed"):
        catalog.sources.check_placed(places)


def test_a_file_has_one_place_in_all_feeds(catalog: Catalog) -> None:
    catalog.sources.place(FEED, 1, [file("a")], 1)
    with pytest.raises(ConfigError, match=r"^a: it has its place in the feed feed already"):
        catalog.sources.place("file:other", 1, [file("a")], 1)
    assert catalog.sources.files_of("file:other") == []


def test_slices_of_a_file_have_places_of_their_own_as_long_as_they_share_no_row(catalog: Catalog) -> None:
    early, late = Slice(((0, 10),), timeless=True), Slice(((10, 20),), timeless=False)
    first = replace(file("a"), part=early)
    catalog.sources.place(own_feed(first.identity), 1, [first], 1)
    with pytest.raises(ConfigError, match=r"^a: it has its place"):
        catalog.sources.place(FEED, 1, [replace(file("a"), part=Slice(((9, 20),), timeless=False))], 1)
    second = replace(file("a"), part=late)
    catalog.sources.place(own_feed(second.identity), 1, [second], 1)
    found = catalog.sources.known(["sha256 of a"])["sha256 of a"]
    assert {place.of.part for place in found} == {early, late}
    assert all(place.is_alone for place in found)


def test_a_place_that_nobody_has_begun_is_taken_from_whoever_is_about_to(catalog: Catalog) -> None:
    part = replace(file("a"), part=Slice(((0, 10),), timeless=True))
    topic = own_feed(part.identity)
    placed = catalog.sources.place(topic, 1, [part], 1)
    claim = catalog.start_at(Partition(topic, 0), 0)
    catalog.sources.drop_unbegun([topic])
    with pytest.raises(FencedError):
        catalog.commit(Commit("c", Partition(topic, 0), 0, 5, 0, 0, 0, "test:1"), claim.epoch, [])
    with pytest.raises(ConfigError, match="another backfill"):
        catalog.sources.check_placed(placed)
    catalog.sources.place(topic, 1, [part], 1)
    land_to(catalog, Partition(topic, 0), 5)
    catalog.sources.drop_unbegun([topic])
    assert catalog.sources.files_of(topic)


def test_a_feed_does_not_see_the_offsets_of_another(catalog: Catalog) -> None:
    catalog.sources.place("file:other", 1, [file("a"), file("b")], 1)
    land_to(catalog, Partition(FEED, 0), 500)
    assert catalog.sources.place("file:other", 1, [file("c")], 1) == [placed("c", 0, topic="file:other")]


def test_past_ranges_do_not_overlap_but_of_another_log(catalog: Catalog) -> None:
    book = catalog.sources
    made = book.add_ranges("t", "id", [Span(0, 0, 10), Span(1, 5, 10)])
    assert made == [PastRange("t", 0, 0, 10, "past:1:t", "id"), PastRange("t", 1, 5, 10, "past:1:t", "id")]
    assert book.add_ranges("t", "id", [Span(1, 0, 5)]) == [PastRange("t", 1, 0, 5, "past:2:t", "id")]
    with pytest.raises(ConfigError, match="offsets 5 to 9 of t-1: run again"):
        book.add_ranges("t", "id", [Span(0, 10, 11), Span(1, 9, 12)])
    assert book.add_ranges("t", "made anew", [Span(1, 9, 12)])[0].landed_as == "past:3:t"
    assert [(past.partition, past.first_offset) for past in book.ranges_of("t")] == [(0, 0), (1, 0), (1, 5), (1, 9)]


def test_what_the_live_job_has_read_is_told_by_its_commits_and_its_offset(catalog: Catalog) -> None:
    land_to(catalog, Partition("t", 0), 30)
    catalog.start_at(Partition("t", 1), 7)
    land_to(catalog, Partition("past:1:t", 0), 99)
    assert catalog.sources.live_spans("t") == {0: Span(0, 0, 30), 1: Span(1, 7, 7)}


def test_a_replay_of_rejects_goes_on_until_it_is_ended(catalog: Catalog) -> None:
    book = catalog.sources
    assert book.begin_replay() == book.begin_replay() == 1
    book.end_replay(1, 5)
    assert book.begin_replay() == 2


def test_a_catalog_that_was_made_anew_counts_replays_on(catalog: Catalog) -> None:
    catalog.start_at(Partition(again(7, "past:1:t"), 0), 0)
    assert catalog.sources.begin_replay() == 8


def test_what_is_put_back_leaves_what_is_there(catalog: Catalog) -> None:
    catalog.sources.place(FEED, 2, [file("a")], 1)
    past = PastRange("t", 0, 0, 10, "past:1:t", "")
    for _ in range(2):
        catalog.sources.fill({FEED: 9, "file:b": 3}, [placed("b", 10)], [past])
    assert (catalog.sources.feed_of(FEED), catalog.sources.feed_of("file:b")) == (2, 3)
    assert catalog.sources.files_of(FEED) == [placed("a", 0), placed("b", 10)]
    assert catalog.sources.ranges_of("t") == [past]


def test_a_catalog_of_version_3_gets_the_new_tables(url: str, catalog: Catalog) -> None:
    land_to(catalog, Partition("t", 0), 30)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for table in ("feeds", "files", "ranges", "replays"):
            connection.exec_driver_sql(f"DROP TABLE backfill_{table}")
        connection.exec_driver_sql("UPDATE meta SET value = '3' WHERE key = 'schema_version'")
    engine.dispose()
    with contextlib.closing(Catalog.open(url, create=True)) as migrated:
        assert migrated.offsets() == {Partition("t", 0): 30}
        assert len(migrated.sources.place(FEED, 1, [file("a")], 1)) == 1


def test_a_catalog_is_looked_for_and_not_made(url: str, tmp_path: Path) -> None:
    assert Catalog.open_if_made(url) is None
    assert list(tmp_path.iterdir()) == []
    Catalog.open(url, create=True).close()
    found = Catalog.open_if_made(url)
    assert found is not None
    found.close()
