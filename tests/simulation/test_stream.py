"""One worker at the edges of the log and at its limits."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest

from pipeline.commits import REPLACED, Hole
from pipeline.errors import OffsetGapError
from pipeline.io.catalog import Catalog
from pipeline.stream import Stream
from tests.fakes import FakeKafka
from tests.simulation.sites import LIMITS, P0, Site, rounds
from tests.simulation.worlds import event

# ---- the edges of the log


def test_a_start_that_moved_past_the_stored_offset_stops_the_job_and_names_the_range(site: Site) -> None:
    site.produce(10)
    site.land()
    site.produce(30)
    site.log.delete_before(25)
    stream, _ = site.worker()
    with pytest.raises(
        OffsetGapError, match=r"access-0: .* offsets 10 to 24 \(15 in all\).*--accept-hole access:0:10-24"
    ):
        rounds(stream, stream.caught_up)
    assert site.catalog.holes() == [Hole(P0, 10, 25, accepted=False)]
    assert site.catalog.offsets() == {P0: 10}, "nothing was skipped"


def test_an_accepted_hole_is_stepped_over_and_on_record(site: Site) -> None:
    site.produce(10)
    site.land()
    site.produce(30)
    site.log.delete_before(25)
    site.land(accepted_holes=frozenset(["access:0:10-24"]))
    assert site.offsets() == [*range(10), *range(25, 40)]
    assert site.catalog.holes() == [Hole(P0, 10, 25, accepted=True)]


def test_accepting_one_hole_does_not_accept_a_larger_one(site: Site) -> None:
    site.produce(10)
    site.land()
    site.produce(30)
    site.log.delete_before(26)
    stream, _ = site.worker(accepted_holes=frozenset(["access:0:10-24"]))
    with pytest.raises(OffsetGapError, match="access:0:10-25"):
        rounds(stream, stream.caught_up)


def test_a_hole_that_opens_while_the_job_reads_is_noticed(site: Site) -> None:
    site.produce(10)
    stream, _ = site.worker(file_age_s=0.0)
    rounds(stream, stream.caught_up)
    site.produce(30)
    site.log.delete_before(25)
    with pytest.raises(OffsetGapError, match="offsets 10 to 24"):
        rounds(stream, lambda: False)


@pytest.mark.parametrize("new", (0, 3, 25))
def test_a_topic_that_was_made_anew_is_not_taken_for_the_old_one(site: Site, new: int) -> None:
    """Whether it is shorter than what was landed or longer: all that was landed is on record as replaced."""
    site.produce(10)
    site.land()
    site.log.make_anew()
    site.produce(new)
    for _ in range(2):
        stream, member = site.worker()
        with pytest.raises(OffsetGapError, match=rf"lake is at offset 10, the topic ends at {new}. Offsets 0 to 9 "):
            rounds(stream, stream.caught_up)
        site.kafka.leave(member)
    assert site.catalog.holes() == [Hole(P0, 0, 10, accepted=False, kind=REPLACED)]
    assert site.offsets() == list(range(10))


def test_a_log_that_was_cut_back_below_what_was_landed_is_not_read_on_until_that_is_accepted(site: Site) -> None:
    """Offsets 6 to 9 are landed; other records stand there now, and the topic has grown past them unnoticed."""
    site.produce(10)
    site.land()
    site.log.elect(cut_back_to=6)
    site.produce(20)
    for accepted in (frozenset[str](), frozenset(["access:0:6-8"])):
        stream, member = site.worker(accepted_holes=accepted)
        with pytest.raises(
            OffsetGapError, match=r"access-0: .* Offsets 6 to 9 \(4 in all\).*--accept-hole access:0:6-9"
        ):
            rounds(stream, stream.caught_up)
        site.kafka.leave(member)
    assert site.catalog.holes() == [Hole(P0, 6, 10, accepted=False, kind=REPLACED)]
    assert site.offsets() == list(range(10))
    site.land(accepted_holes=frozenset(["access:0:6-9"]))
    assert site.catalog.holes() == [Hole(P0, 6, 10, accepted=True, kind=REPLACED)]
    assert site.offsets() == list(range(26))
    site.produce(3)
    site.land()
    assert site.offsets() == list(range(29)), "accepted once and for all"


def test_a_log_that_is_cut_back_while_it_is_read_stops_the_job_too(site: Site) -> None:
    site.produce(10)
    stream, _ = site.worker(file_age_s=0.0)
    rounds(stream, lambda: site.catalog.offsets()[P0] == 10 if site.catalog.offsets() else False)
    site.log.elect(cut_back_to=6)
    site.produce(20)
    with pytest.raises(OffsetGapError, match=r"Offsets 6 to 9 \(4 in all\)"):
        rounds(stream, lambda: False)
    assert site.catalog.holes() == [Hole(P0, 6, 10, accepted=False, kind=REPLACED)]


def test_what_is_on_record_as_replaced_is_refused_though_the_log_tells_no_more(site: Site) -> None:
    """The new leader's log has lost what came before, and with it the epochs that told of the cut."""
    site.produce(10)
    site.land()
    site.log.elect(cut_back_to=6)
    site.produce(20)
    for _ in range(2):
        stream, member = site.worker()
        with pytest.raises(OffsetGapError, match="access:0:6-9"):
            rounds(stream, stream.caught_up)
        site.kafka.leave(member)
        site.log.delete_before(10)
        site.log.epochs = [(1, 10)]


def test_a_log_that_was_cut_back_no_further_than_it_was_landed_is_simply_read_anew(site: Site) -> None:
    """What was read beyond and not written yet is dropped: the log as it is now is what counts."""
    site.produce(10)
    site.land()
    stream, _ = site.worker(file_age_s=1e6)
    rounds(stream, lambda: bool(stream.owned))
    site.produce(10)
    rounds(stream, lambda: stream.progress.records == 10)
    site.log.elect(cut_back_to=15)
    site.produce(20)
    rounds(stream, lambda: stream.owned == {P0: 35})
    assert stream.flush(site.clock.elapsed_s() + 10)
    assert site.offsets() == list(range(35))
    assert site.catalog.holes() == []


@pytest.mark.parametrize("elections", (1, 3))
def test_an_election_that_loses_nothing_is_not_noticed(site: Site, elections: int) -> None:
    for _ in range(elections):
        site.produce(10)
        site.land()
        site.log.elect()
    site.produce(10)
    site.land()
    assert site.offsets() == list(range(10 * elections + 10))
    assert site.catalog.holes() == []


def test_a_log_that_ends_below_what_was_landed_has_nothing_to_go_on_from_even_if_that_is_accepted(site: Site) -> None:
    site.produce(10)
    site.land()
    site.log.elect(cut_back_to=6)
    for new in (0, 2):
        site.produce(new)
        stream, member = site.worker(accepted_holes=frozenset(["access:0:6-9"]))
        with pytest.raises(OffsetGapError, match="only once the topic has passed offset 10"):
            rounds(stream, stream.caught_up)
        site.kafka.leave(member)
    assert site.catalog.holes() == [Hole(P0, 6, 10, accepted=False, kind=REPLACED)]
    site.produce(5)
    site.land(accepted_holes=frozenset(["access:0:6-9"]))
    assert site.offsets() == list(range(13))


def test_the_hole_of_another_workers_choice_ends_no_job(site: Site) -> None:
    """Two workers open one partition with the same --accept-hole; the second finds the offset moved."""
    site.produce(10)
    site.land()
    site.produce(30)
    site.log.delete_before(25)
    accepted = frozenset(["access:0:10-24"])

    class Slow(Catalog):
        def accept_hole(self, hole: Hole, now_us: int) -> None:
            site.catalog.accept_hole(hole, now_us)  # another worker is first
            super().accept_hole(hole, now_us)

    slow = Slow(site.catalog._engine)
    stream, _ = site.worker(ledger=slow, accepted_holes=accepted)
    rounds(stream, stream.caught_up)
    assert stream.flush(site.clock.elapsed_s() + 10)
    assert site.offsets() == [*range(10), *range(25, 40)]


@pytest.mark.parametrize(("latest", "landed"), ((False, 10), (True, 4)))
def test_start_latest_begins_at_the_end_of_a_partition_never_read(site: Site, latest: bool, landed: int) -> None:
    site.produce(6)
    stream, _ = site.worker(start_latest=latest)
    rounds(stream, lambda: bool(stream.owned))
    site.produce(4)
    rounds(stream, lambda: stream.progress.records == landed)
    stream.flush(site.clock.elapsed_s() + 10)
    assert len(site.offsets()) == landed


def test_markers_alone_move_the_offset_without_a_file(site: Site) -> None:
    for _ in range(5):
        site.log.append_marker()
    site.land()
    assert site.catalog.offsets() == {P0: 5}
    assert site.catalog.live_files() == []


# ---- limits


@pytest.mark.parametrize("most", (1, 2, 9, 10, 11, 37))
@pytest.mark.parametrize("seed", range(5))
def test_records_max_is_exact_and_what_follows_is_read_by_the_next_job(site: Site, most: int, seed: int) -> None:
    site.produce(40)
    member = site.kafka.join(site.clock, random.Random(seed))
    site.kafka.assign({P0: member})
    limits = dataclasses.replace(LIMITS, records_max=most)
    stream = Stream(member, site.lake, site.catalog, site.clock, limits, worker="test")
    rounds(stream, lambda: stream.exhausted)
    rounds(stream, lambda: True)  # one more must not hurt
    assert stream.flush(site.clock.elapsed_s() + 10)
    assert site.offsets() == list(range(most))
    site.kafka.leave(member)
    site.land()
    assert site.offsets() == list(range(40))


def test_rows_are_written_when_the_first_of_them_is_old_enough(site: Site) -> None:
    site.produce(1)
    stream, _ = site.worker(file_age_s=5.0)
    rounds(stream, stream.caught_up)
    read_s = site.clock.elapsed_s()
    rounds(stream, lambda: stream.progress.commits == 1)
    assert 4.0 <= site.clock.elapsed_s() - read_s <= 6.0


def test_rows_are_written_when_there_are_enough_of_them(site: Site) -> None:
    site.produce(100)
    stream, _ = site.worker(file_rows_max=30, file_age_s=1e6)
    rounds(stream, stream.caught_up)
    sizes = [commit.events for commit in site.catalog.commits()]
    assert len(sizes) in (2, 3)
    assert all(30 <= size <= 30 + 3 * 12 for size in sizes), "no more than one poll above the limit"
    stream.flush(site.clock.elapsed_s() + 10)
    assert site.offsets() == list(range(100))


def test_the_buffer_stays_bounded_over_all_partitions(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.kafka = FakeKafka(partitions=4)
    for partition, log in site.kafka.logs.items():
        for _ in range(60):
            log.append(event(partition, log.end, random.Random(0)))
    stream, _ = site.worker(buffer_bytes_max=12_000, file_age_s=1e6)
    held = []

    def done() -> bool:
        held.append(sum(own.bytes for own in stream._owned.values()))
        return stream.caught_up()

    rounds(stream, done)
    assert max(held) <= 12_000
    assert stream.progress.commits > 0
    site.catalog.close()


@pytest.mark.parametrize("most", (1, 7, 20))
def test_records_max_over_several_partitions_passes_nothing_over(tmp_path: Path, most: int) -> None:
    """The limit is reached in one partition while records of another are already there."""
    site = Site(tmp_path)
    site.kafka = FakeKafka(partitions=3)
    for partition, log in site.kafka.logs.items():
        for _ in range(20):
            log.append(event(partition, log.end, random.Random(0)))
    stream, member = site.worker(records_max=most)
    rounds(stream, lambda: stream.exhausted)
    rounds(stream, lambda: True)
    assert stream.flush(site.clock.elapsed_s() + 10)
    assert len(site.offsets()) == most
    site.kafka.leave(member)
    site.land()
    assert site.offsets() == sorted([*range(20)] * 3)
    site.catalog.close()
