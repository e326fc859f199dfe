"""Records that are read again are those that are landed, or nothing may be changed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.backfilling.runs import Runs
from pipeline.backfilling.slices import WHOLE
from pipeline.batch import Partition
from pipeline.errors import ConfigError, FencedError
from pipeline.io.rewriting.chosen import Chosen
from pipeline.io.rewriting.same_records import Landed, SameRecords, landed_records
from tests.catalogs import new_catalog_url
from tests.lake_maker import LakeMaker
from tests.rewrites import content_of

TOPIC, COMES = "llm-access", "past:77:llm-access"
FIRST, LAST = 2, 9
NOON_MS = 1_772_366_400_000


def payload(at: int) -> dict[str, str]:
    return {"event_time": f"2026-03-01T12:00:{at:02}Z", "account_id": "a", "model": "m"}


@pytest.fixture(params=("sqlite", pytest.param("postgresql")))
def maker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LakeMaker]:
    """Twelve records in three commits; one is a reject, and an event too, since a replay of rejects."""
    with contextlib.closing(LakeMaker(tmp_path / "lake", new_catalog_url(request, tmp_path))) as maker:
        for first in (0, 4, 8):
            maker.append(
                [b"broken" if at == 5 else payload(at) for at in range(first, first + 4)], kafka_ms=NOON_MS + first
            )
        maker.append([payload(at) for at in range(5)], topic="another")
        yield maker


def records_of(maker: LakeMaker, ends: tuple[int, int] = (FIRST, LAST)) -> dict[int, Landed]:
    return landed_records(maker.root, maker.catalog.live_files(), TOPIC, ends, COMES)


def same(comes: Landed) -> SameRecords:
    runs = Runs.of(np.arange(FIRST, LAST))
    return SameRecords(TOPIC, Chosen({Partition(TOPIC, 0): runs}, WHOLE, COMES), {0: comes})


def test_landed_is_what_has_a_row_of_whatever_kind_and_from_wherever(maker: LakeMaker) -> None:
    maker.append([payload(at) for at in range(FIRST)], topic="again:1:llm-access", kafka_ms=NOON_MS)
    maker.append([payload(5)], topic=COMES, kafka_ms=NOON_MS + 4)
    found = records_of(maker, (0, 9))
    assert {number: landed.offsets.tolist() for number, landed in found.items()} == {0: list(range(9))}
    assert [time - NOON_MS * 1000 for time in found[0].times.tolist()] == [*[0] * 4, *[4000] * 4, 8000]


def test_the_same_records_may_change_places(maker: LakeMaker) -> None:
    same(records_of(maker)[0]).check(maker.root, maker.catalog.live_files())


@pytest.mark.parametrize(
    ("keep", "times", "words"),
    (
        ([2, 3, 6, 7, 8], 0, "Kafka no longer holds 2 of the 7 records .* the first at offset 4"),
        ([2, 3, 4, 5, 6, 7, 8], 1, "Kafka holds another record at offset 2 .* and 7 such in all"),
    ),
)
def test_others_may_not(maker: LakeMaker, keep: list[int], times: int, words: str) -> None:
    found = records_of(maker)[0]
    mine = np.isin(found.offsets, keep)
    with pytest.raises(ConfigError, match=words):
        same(Landed(found.offsets[mine], found.times[mine] + times)).check(maker.root, maker.catalog.live_files())


def test_what_is_gone_meanwhile_does_not_come(maker: LakeMaker) -> None:
    files = [file for file in maker.catalog.live_files() if file.table_name != "rejects"]
    with pytest.raises(ConfigError, match=r"rows of 1 record, the first at offset 5, were erased or grew too old"):
        same(records_of(maker)[0]).check(maker.root, files)


def test_rows_that_are_landed_after_the_look_are_noticed_and_replays_are_fenced(maker: LakeMaker) -> None:
    one, catalog = same(records_of(maker)[0]), maker.catalog
    replay = Partition("again:1:llm-access", 0)
    claim = catalog.start_at(replay, 0)
    with catalog.transaction() as tx:
        one.look(tx)
    maker.append([payload(at) for at in range(12, 14)])  # the live job goes on
    with catalog.transaction(write=True) as tx:
        one.hold(tx)
    taken = catalog.take(replay)
    assert taken is not None
    assert taken.epoch == claim.epoch + 2, "whoever has it cannot commit any more"
    before = content_of(maker.root, maker.catalog_url)
    maker.append([payload(at) for at in range(6)], topic=replay.topic, kafka_ms=NOON_MS)
    with pytest.raises(FencedError, match="rows of the same records"), catalog.transaction(write=True) as tx:
        one.hold(tx)
    assert content_of(maker.root, maker.catalog_url) != before
    with catalog.transaction() as tx:
        one.look(tx)
    maker.append([payload(6)], topic=replay.topic, kafka_ms=NOON_MS, publish=False)
    with catalog.transaction() as tx:
        one.look(tx)
    with pytest.raises(FencedError, match="rows of the same records"), catalog.transaction(write=True) as tx:
        one.hold(tx)
