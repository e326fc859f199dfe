"""One worker whose disk, catalog or broker fails, or that dies, or is fenced."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import structlog

from pipeline.batch import Partition
from pipeline.commits import Claim, LogMark
from pipeline.errors import RetryableError
from pipeline.io.catalog import Catalog
from pipeline.io.inspection import inspect
from tests.fakes import FakeKafka
from tests.simulation.sites import P0, Site, rounds
from tests.simulation.worlds import CrashError, event

STEPS = ("staged", "committed", "placed", "published", "hinted")


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
