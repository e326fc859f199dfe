"""One worker on a fake source, a real lake and a real catalog: what it does at the edges of the log and at its limits."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import structlog

from pipeline.batch import Partition
from pipeline.commits import REPLACED, Claim, Hole, LogMark
from pipeline.errors import OffsetGapError, RetryableError
from pipeline.io.catalog import Catalog, sqlite_url
from pipeline.io.inspection import inspect
from pipeline.io.lake import Lake
from pipeline.stream import Limits, Stream
from tests.fakes import FakeClock, FakeKafka, FakeMember
from tests.simulation.worlds import CrashError, event

P0 = Partition("access", 0)
LIMITS = Limits(file_rows_max=1000, file_bytes_max=1 << 30, file_age_s=5.0, buffer_bytes_max=1 << 30, retry_s=60.0)
STEPS = ("staged", "committed", "placed", "published", "hinted")


class Site:
    """A broker, a lake and a catalog."""

    def __init__(self, folder: Path) -> None:
        self.clock, self.kafka = FakeClock(), FakeKafka()
        self.lake = Lake.open(str(folder / "lake"), create=True)
        self.catalog = Catalog.open(sqlite_url(folder / "catalog.db"), create=True)
        self.log = self.kafka.logs[P0]

    def produce(self, count: int) -> None:
        for _ in range(count):
            self.log.append(event(P0, self.log.end, random.Random(self.log.end)))

    def worker(self, **options: Any) -> tuple[Stream, FakeMember]:
        """A worker that is assigned everything; options of `Stream`, and of its limits."""
        limits = {
            field.name: options.pop(field.name)
            for field in dataclasses.fields(Limits)
            if field.name in options and field.name != "watch"
        }
        limits["watch"] = options.pop("watch_limits", LIMITS.watch)
        member = self.kafka.join(self.clock, random.Random(0))
        self.kafka.assign(dict.fromkeys(self.kafka.logs, member))
        parts = {"source": member, "storage": self.lake, "ledger": self.catalog, "clock": self.clock, **options}
        return Stream(**parts, limits=dataclasses.replace(LIMITS, **limits), worker="test"), member

    def land(self, **options: Any) -> Stream:
        """Let a worker land all that is there."""
        stream, _ = self.worker(**options)
        rounds(stream, stream.caught_up)
        assert stream.flush(self.clock.elapsed_s() + 10)
        return stream

    def offsets(self) -> list[int]:
        """Offsets that landed, as the catalog's files have them."""
        files = [file for file in self.catalog.live_files() if file.table_name in ("access", "rejects")]
        tables = [pq.read_table(self.lake.root / file.path, columns=["offset"], partitioning=None) for file in files]
        return sorted(offset for table in tables for offset in table["offset"].to_pylist())


def rounds(stream: Stream, until: Callable[[], bool], most: int = 200) -> None:
    for _ in range(most):
        stream.round()
        if until():
            return
    raise AssertionError(f"not so after {most} rounds")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    assert inspect(site.lake, site.catalog).errors == []
    site.catalog.close()


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


# ---- crashes and failures


@pytest.mark.parametrize("step", STEPS)
def test_a_crash_after_any_step_of_a_commit_neither_loses_nor_doubles(site: Site, step: str) -> None:
    site.produce(20)

    def crash(name: str) -> None:
        if name == step:
            raise CrashError

    stream, member = site.worker(step=crash)
    with pytest.raises(CrashError):
        rounds(stream, lambda: False)
    site.kafka.leave(member)
    before = inspect(site.lake, site.catalog)
    assert before.errors == []
    assert {note.kind for note in before.notes} == {
        "staged": {"staged"},
        "committed": {"pending"},
        "placed": {"pending"},
        "published": set(),
        "hinted": set(),
    }[step], "verify explains what a crash leaves, and calls it no error"
    site.land()
    assert site.offsets() == list(range(20))
    assert inspect(site.lake, site.catalog).notes == []


def test_a_full_disk_pauses_reading_and_then_all_is_landed(site: Site) -> None:
    class Full:
        full = True

        def __getattr__(self, name: str) -> Any:
            if name == "stage" and self.full:
                raise RetryableError("no space left")
            return getattr(site.lake, name)

    disk = Full()
    site.produce(30)
    stream, member = site.worker(storage=disk, file_rows_max=10)
    rounds(stream, lambda: bool(stream.progress.failing))
    read = stream.progress.records
    site.produce(30)
    for _ in range(20):
        stream.round()
    assert stream.progress.records == read, "nothing more is read than what can be kept"
    assert all(place.paused for place in member._places.values())
    disk.full = False
    rounds(stream, lambda: stream.progress.records == 60)
    assert stream.flush(site.clock.elapsed_s() + 10)
    assert site.offsets() == list(range(60))


def test_a_catalog_that_stays_away_ends_the_job_after_retry_s(site: Site) -> None:
    class Away:
        def __getattr__(self, name: str) -> Any:
            raise RetryableError("database is locked")

    stream, _ = site.worker(ledger=Away(), retry_s=30.0)
    with pytest.raises(RetryableError, match=r"gave up after 3\d s: database is locked"):
        rounds(stream, lambda: False)
    assert 30 <= site.clock.elapsed_s() <= 36


def test_a_broker_that_fails_and_works_again_costs_nothing(site: Site) -> None:
    site.produce(5)
    stream, member = site.worker()
    rounds(stream, stream.caught_up)
    member.failing = True
    for _ in range(30):
        stream.round()
    assert "the broker fails" in stream.progress.waits_for
    member.failing = False
    site.produce(5)
    rounds(stream, lambda: stream.progress.records == 10)
    assert stream.progress.waits_for == ""
    assert stream.flush(site.clock.elapsed_s() + 10)
    assert site.offsets() == list(range(10))


def test_silence_of_the_broker_is_said_after_ten_seconds_then_ever_more_rarely_and_so_is_its_end(site: Site) -> None:
    site.produce(5)
    stream, member = site.worker(retry_s=1e9)
    rounds(stream, stream.caught_up)
    began_s = site.clock.elapsed_s()
    member.down = True
    with structlog.testing.capture_logs() as logged:
        rounds(stream, lambda: site.clock.elapsed_s() > began_s + 9)
        assert logged == [line for line in logged if line["log_level"] == "debug"], "what restarts is not worth a line"
        assert stream.progress.waits_for == ""
        rounds(stream, lambda: site.clock.elapsed_s() > began_s + 3_000, most=20_000)
        said = [line for line in logged if line["event"] == "no Kafka broker answers"]
        assert [line["silent_s"] for line in said[:4]] == pytest.approx([10, 20, 40, 80], rel=0.05)
        assert 5 < len(said) < 16, "at most every five minutes in the end"
        assert {line["bootstrap"] for line in said} == {"fake:9092"}
        assert len({line["since"] for line in said}) == 1
        assert "no Kafka broker at fake:9092 has answered since 2026-" in stream.progress.waits_for
        member.down = False
        site.produce(5)
        rounds(stream, lambda: stream.progress.records == 10)
        assert stream.progress.waits_for == ""
    assert [line["after_s"] for line in logged if line["event"] == "Kafka answers again"] == [
        pytest.approx(3_000, abs=2)
    ]
    assert stream.flush(site.clock.elapsed_s() + 10)
    assert site.offsets() == list(range(10))


@pytest.mark.parametrize(("retry_s", "gives_up_s"), ((30.0, 30), (0.0, 10)))
def test_a_broker_that_stays_silent_ends_the_job_after_retry_s(site: Site, retry_s: float, gives_up_s: int) -> None:
    stream, member = site.worker(retry_s=retry_s)
    rounds(stream, stream.caught_up)
    member.down = True
    began_s = site.clock.elapsed_s()
    with pytest.raises(
        RetryableError, match=rf"gave up after {gives_up_s} s: no Kafka broker at fake:9092 has answered"
    ):
        rounds(stream, lambda: False)
    assert gives_up_s <= site.clock.elapsed_s() - began_s <= gives_up_s + 2


def test_a_partition_whose_broker_does_not_answer_holds_up_no_other(tmp_path: Path) -> None:
    """It is asked for again and again, aloud after a while, and read once it answers; the others are landed meanwhile."""
    site = Site(tmp_path)
    site.kafka = FakeKafka(partitions=3)
    for partition, log in site.kafka.logs.items():
        for _ in range(10):
            log.append(event(partition, log.end, random.Random(0)))
    stream, member = site.worker(file_age_s=1.0, retry_s=1e9)
    member.mute = {P0}
    with structlog.testing.capture_logs() as logged:
        rounds(stream, lambda: stream.progress.commits >= 2)
        assert P0 not in stream.owned
        assert site.offsets() == sorted([*range(10)] * 2)
        assert site.clock.elapsed_s() < 5, "nobody waited for it"
        rounds(stream, lambda: site.clock.elapsed_s() > 100, most=1000)
        said = [line for line in logged if line["event"].startswith("partitions wait for their broker")]
        assert [line["partitions"] for line in said] == ["access-0"] * 4, "after 10, 20, 40 and 80 seconds"
        assert not stream.caught_up()
        member.mute = set()
        rounds(stream, stream.caught_up)
    assert [line["log_level"] for line in logged if line["event"] == "all partitions are opened"] == ["info"]
    assert stream.flush(site.clock.elapsed_s() + 10)
    assert site.offsets() == sorted([*range(10)] * 3)
    site.catalog.close()


def test_a_partition_that_cannot_be_opened_ends_the_job_after_retry_s(site: Site) -> None:
    stream, member = site.worker(retry_s=30.0)
    member.mute = {P0}
    with pytest.raises(
        RetryableError, match=r"gave up after 3\d s: access-0 cannot be opened: the broker does not ans"
    ):
        rounds(stream, lambda: False)
    assert 30 <= site.clock.elapsed_s() <= 36


def test_an_outage_of_the_catalog_does_not_count_as_silence_of_the_broker(site: Site) -> None:
    """Else a broker that is mute for a moment right after would end the job."""
    site.produce(5)

    class Away:
        """The catalog, but for a while."""

        def __init__(self) -> None:
            self.is_away = True

        def __getattr__(self, name: str) -> object:
            return getattr(site.catalog, name)

        def take(self, partition: Partition) -> object:
            if self.is_away:
                raise RetryableError("the catalog is away")
            return site.catalog.take(partition)

    catalog = Away()
    stream, member = site.worker(ledger=catalog, retry_s=60.0)
    rounds(stream, lambda: site.clock.elapsed_s() > 55, most=5_000)
    catalog.is_away, member.mute, mute_at_s = False, {P0}, site.clock.elapsed_s()
    with pytest.raises(RetryableError, match="cannot be opened"):
        rounds(stream, lambda: False, most=5_000)
    assert site.clock.elapsed_s() - mute_at_s >= 60


def test_what_kafka_said_before_another_worker_began_the_partition_is_not_held_against_it(site: Site) -> None:
    """Both open a partition that was never read; the other is quicker and lands records that our answer knows not of."""
    site.produce(5)

    class Slow(Catalog):
        def start_at(self, partition: Partition, offset: int, mark: LogMark) -> Claim:
            self.start_at = super().start_at  # type: ignore[method-assign]  # only the first time
            site.produce(5)
            site.land()
            return super().start_at(partition, offset, mark)

    stream, member = site.worker(ledger=Slow(site.catalog._engine))
    member.survey_waits = (0,)
    with structlog.testing.capture_logs() as logged:
        rounds(stream, lambda: any(line["event"] == "partitions gone" for line in logged))
        site.kafka.assign({P0: member})
        rounds(stream, stream.caught_up)
    assert "fenced while opening" in [line["event"] for line in logged]
    assert site.offsets() == list(range(10))
    assert stream.owned == {P0: 10}


def test_flush_writes_even_while_the_broker_is_away(site: Site) -> None:
    site.produce(5)
    stream, member = site.worker()
    rounds(stream, lambda: stream.progress.records == 5)
    member.down = True
    assert stream.flush(site.clock.elapsed_s() + 10)
    assert site.offsets() == list(range(5))


def test_flush_gives_up_when_its_time_is_over_and_nothing_is_lost(site: Site) -> None:
    site.produce(5)

    class Full:
        def __getattr__(self, name: str) -> Any:
            if name == "stage":
                raise RetryableError("no space left")
            return getattr(site.lake, name)

    stream, member = site.worker(storage=Full())
    rounds(stream, lambda: stream.progress.records == 5)
    member.down = True  # both at once
    assert not stream.flush(site.clock.elapsed_s() + 8)
    assert site.clock.elapsed_s() <= 20
    site.kafka.leave(member)
    site.land()
    assert site.offsets() == list(range(5))


def test_a_fenced_worker_drops_its_rows_and_lets_the_owner_go_on(site: Site) -> None:
    site.produce(10)
    zombie, zombie_member = site.worker()
    rounds(zombie, lambda: zombie.progress.records == 10)
    zombie_member.told = set()  # the group has given it up, but it has not heard of it
    site.kafka.leave(zombie_member)
    site.land()
    assert zombie.flush(site.clock.elapsed_s() + 10)
    assert zombie.progress.fenced == 1
    assert site.offsets() == list(range(10))
    assert list(site.lake.staged_files()) == []


def test_a_worker_that_sweeps_late_spares_what_the_next_owner_has_staged(site: Site) -> None:
    """It took the partition over and then froze; meanwhile another did the same, staged, committed, and died."""
    site.produce(10)

    class Frozen:
        def __getattr__(self, name: str) -> Any:
            return getattr(site.lake, name)

        def sweep(self, *arguments: Any) -> int:
            self.sweep = site.lake.sweep  # only the first time
            die_after_commit()
            return site.lake.sweep(*arguments)

    def die_after_commit() -> None:
        def crash(name: str) -> None:
            if name == "committed":
                raise CrashError

        other, member = site.worker(step=crash, file_rows_max=1)
        with pytest.raises(CrashError):
            rounds(other, lambda: False)
        site.kafka.leave(member)

    late, late_member = site.worker(storage=Frozen())
    rounds(late, lambda: bool(site.catalog.pending()))  # swept; the other's commit is made, its files not placed
    site.kafka.leave(late_member)
    site.land()
    assert site.offsets() == list(range(10))


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
