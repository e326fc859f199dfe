"""One worker that scores: whatever happens to it, it finds what it would have found if nothing had."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog

from pipeline import restoring
from pipeline.batch import Partition
from pipeline.decisions import AllowEntry, Verdict
from pipeline.errors import RetryableError
from pipeline.io.catalog import Catalog, sqlite_url
from pipeline.io.catalog_alerts import UNCLEAR
from pipeline.io.desk import copies
from pipeline.io.inspection import inspect
from pipeline.io.rebuild import plan_of, rebuild
from pipeline.watching import WatchLimits
from tests.findings import Found, found_in, uninterrupted
from tests.simulation.sites import P0, Site, rounds
from tests.simulation.worlds import CrashError
from tests.stages import stand_ins

STEPS = ("staged", "committed", "placed", "published", "swept", "hinted")
OFTEN = WatchLimits(alert_age_s=1e9, snapshot_events=25, snapshot_age_s=1e9)
NEVER = WatchLimits(alert_age_s=1e9, snapshot_events=10**9, snapshot_age_s=1e9)


def event(offset: int) -> bytes:
    rng = random.Random(offset)
    row = {
        "event_time": f"2026-05-01T{9 + offset // 60 % 12:02d}:{offset % 60:02d}:00.{rng.randint(0, 999):03d}Z",
        "request_id": f"r{offset}",
        "account_id": f"account-{rng.randint(1, 5)}",
        "model": "large-4",
        "output_tokens": rng.randint(0, 500),
        "temperature": rng.choice([None, 0.1, 1.0]),
        "prompt": rng.choice(["héllo", "", None, "x" * 30]),
        "unknown": rng.choice([None, rng.random()]),
    }
    return orjson.dumps({name: value for name, value in row.items() if value is not None})


class ScoredSite(Site):
    def produce(self, count: int) -> None:
        for _ in range(count):
            if self.log.end % 11 == 5:
                self.log.append_marker()
            else:
                self.log.append(b"{broken" if self.log.end % 17 == 3 else event(self.log.end), 1_777_633_200_000)
        self.records = dict(self.log.records)

    def worker(self, **options: Any) -> Any:
        names = [field.name for field in dataclasses.fields(WatchLimits)]
        limits = {name: options.pop(name) for name in names if name in options}
        watched = dataclasses.replace(options.pop("watch_limits", OFTEN), **limits)
        return super().worker(**{"watch": stand_ins(), "watch_limits": watched, **options})

    def found(self) -> Found:
        return found_in(self.lake, self.catalog)

    def wanted(self) -> Found:
        """With every verdict where the catalog says that it was taken in."""
        judged, before = [], 0
        for offset, seq in self.catalog.desk.verdicts.marks(P0):
            known = self.catalog.desk.verdicts.after(before, 1000)
            judged.append((offset, [verdict for verdict in known if verdict.seq <= seq]))
            before = seq
        records = {P0: {at: (value, ms) for at, (value, ms) in self.records.items()}}
        return uninterrupted(records, stand_ins(), {P0: judged})

    def judge(self, number: int) -> None:
        verdict = Verdict(f"{number:032x}", f"account-{number % 5}", "benign", "seen", "ana", number)
        self.catalog.desk.verdicts.give(verdict)

    def snapshots(self) -> list[int]:
        return [entry.next_offset for entry in self.catalog.snapshots(P0)]

    def land_more(self, count: int, **options: Any) -> None:
        """Land some more with a worker of its own, which then is killed."""
        self.produce(count)
        stream, member = self.worker(file_age_s=0.0, **options)
        rounds(stream, lambda: stream.caught_up() and self.catalog.offsets()[P0] == self.log.end)
        self.kafka.leave(member)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[ScoredSite]:
    site = ScoredSite(tmp_path)
    yield site
    assert inspect(site.lake, site.catalog).errors == []
    assert len(site.snapshots()) <= 2
    site.catalog.close()


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


def said(logged: list[Any], event: str) -> list[Any]:
    return [line for line in logged if line["event"].startswith(event)]


# ---- nothing that happens is seen in what is found


def test_what_is_found_is_that_of_one_step_over_all_events(site: ScoredSite) -> None:
    site.produce(300)
    site.land(file_rows_max=20)
    wanted = site.wanted()
    assert site.found() == wanted
    assert len(wanted.windows) > 50
    assert len(wanted.alerts) > len(wanted.outbox) > 5, "shadow alerts are kept and not sent"


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("limits", (OFTEN, NEVER), ids=("snapshots", "replay"))
def test_a_crash_after_any_step_of_a_commit_is_not_seen(site: ScoredSite, step: str, limits: WatchLimits) -> None:
    if step == "swept" and limits is NEVER:
        step = "published"
    crashes = 0
    for number in range(6):
        site.produce(40)
        countdown = number % 3 + 1

        def crash(name: str) -> None:
            nonlocal countdown
            countdown -= name == step
            if countdown == 0:
                raise CrashError

        stream, member = site.worker(step=crash, file_rows_max=13, watch_limits=limits)
        try:
            rounds(stream, lambda: site.catalog.offsets().get(P0) == site.log.end, most=60)
        except (CrashError, AssertionError):
            crashes += 1
        site.kafka.leave(member)
    site.land(watch_limits=limits)
    assert crashes >= 2
    assert site.found() == site.wanted()


@pytest.mark.parametrize("seed", range(4))
def test_rebalances_at_any_moment_are_not_seen(site: ScoredSite, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers, and the partition goes to and fro, in the midst of replays, too."""
    monkeypatch.setattr(restoring, "PIECE_EVENTS", 10)
    rng = random.Random(seed)
    (one, first), (two, second) = site.worker(file_rows_max=15), site.worker(file_rows_max=15)
    workers = [(one, first), (two, second)]
    for _ in range(40):
        site.produce(10)
        site.kafka.assign({P0: rng.choice([first, second])})
        for _ in range(rng.randint(1, 12)):
            for stream, _ in workers:
                stream.round()
    for _, member in workers:
        site.kafka.leave(member)
    site.land()
    assert site.found() == site.wanted()


@pytest.mark.parametrize("limits", (OFTEN, NEVER), ids=("snapshots", "replay"))
@pytest.mark.parametrize("seed", range(3))
def test_verdicts_count_from_where_they_were_taken_in_whatever_happens(
    site: ScoredSite, seed: int, limits: WatchLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers, crashes after any step, the partition goes to and fro, and verdicts come at any moment."""
    monkeypatch.setattr(restoring, "PIECE_EVENTS", 10)
    rng = random.Random(seed)

    def crash(_name: str) -> None:
        if rng.random() < 0.08:
            raise CrashError

    workers = [site.worker(file_rows_max=15, watch_limits=limits, step=crash) for _ in range(2)]
    crashes = 0
    for number in range(50):
        site.produce(10)
        if rng.random() < 0.4:
            site.judge(number)
        at = rng.randrange(2)
        site.kafka.assign({P0: workers[at][1]})
        for _ in range(rng.randint(1, 12)):
            for place, (stream, member) in enumerate(workers):
                try:
                    stream.round()
                except CrashError:
                    crashes += 1
                    site.kafka.leave(member)
                    workers[place] = site.worker(file_rows_max=15, watch_limits=limits, step=crash)
                    site.kafka.assign({P0: workers[at][1]})
    for _, member in workers:
        site.kafka.leave(member)
    site.judge(99)
    site.land(watch_limits=limits)
    marks = site.catalog.desk.verdicts.marks(P0)
    assert crashes > 3
    assert len(marks) > 4
    assert marks[-1][1] == max(verdict.seq for verdict in site.catalog.desk.verdicts.find())
    assert site.found() == site.wanted()
    assert site.wanted() != uninterrupted({P0: dict(site.records)}, stand_ins()), "verdicts would do nothing"


def test_a_catalog_that_was_lost_and_rebuilt_replays_to_the_same_scores(site: ScoredSite, tmp_path: Path) -> None:
    """What was learned up to where comes back from the copy, which every act adds to."""
    for number in range(12):
        site.judge(number)
        site.land_more(10, file_rows_max=10, watch_limits=NEVER)
        copies.copy(site.lake.root, site.catalog, every_table=False)
    before, marks = site.found(), site.catalog.desk.verdicts.marks(P0)
    assert len([offset for offset, _ in marks if offset > max(site.snapshots(), default=0)]) > 4, "they are replayed"
    site.catalog.close()
    url = sqlite_url(tmp_path / "rebuilt.db")
    rebuild(site.lake, url, plan_of(site.lake), 1)
    site.catalog = Catalog.open(url, create=False)
    assert site.catalog.desk.verdicts.marks(P0) == marks
    site.catalog.desk.delivery_records.release([UNCLEAR], "", "ana", 1)
    assert site.found() == before
    site.land_more(50, watch_limits=NEVER)
    assert site.found() == site.wanted()
    assert len(site.found().windows) > len(before.windows)


def test_a_failing_lake_and_catalog_are_not_seen(site: ScoredSite) -> None:
    class Failing:
        def __init__(self, behind: Any) -> None:
            self._behind, self._rng = behind, random.Random(1)

        def __getattr__(self, name: str) -> Any:
            if self._rng.random() < 0.3:
                raise RetryableError(f"{name} fails")
            return getattr(self._behind, name)

    for _ in range(3):
        site.produce(60)
        stream, member = site.worker(
            storage=Failing(site.lake), ledger=Failing(site.catalog), file_rows_max=15, retry_s=1e9
        )
        rounds(stream, lambda: site.catalog.offsets().get(P0, 0) > site.log.end - 30, most=2000)
        site.kafka.leave(member)
    site.land()
    assert site.found() == site.wanted()


def test_a_fenced_workers_findings_are_dropped_with_its_rows(site: ScoredSite) -> None:
    site.produce(100)
    zombie, member = site.worker()
    rounds(zombie, lambda: zombie.progress.records > 60)
    member.told = set()
    site.kafka.leave(member)
    site.land()
    assert zombie.flush(site.clock.elapsed_s() + 10)
    assert zombie.progress.fenced == 1
    assert site.found() == site.wanted()


def test_a_worker_that_was_overtaken_while_it_opened_knows_no_more_than_where_it_reads_on(site: ScoredSite) -> None:
    """It took the partition and then froze; another takes it over and lands more before it looks for snapshots."""
    site.land_more(50, file_rows_max=10)

    class Slow:
        def __getattr__(self, name: str) -> Any:
            return getattr(site.catalog, name)

        def snapshots(self, partition: Partition) -> Any:
            self.snapshots = site.catalog.snapshots  # type: ignore[method-assign]  # only the first time
            site.kafka.members.clear()
            site.land_more(100, file_rows_max=10)
            return site.catalog.snapshots(partition)

    slow, _ = site.worker(ledger=Slow())
    rounds(slow, lambda: slow.progress.fenced == 1, most=500)
    site.kafka.members.clear()
    site.land()
    assert site.found() == site.wanted()


def test_polling_goes_on_between_the_pieces_of_a_replay(site: ScoredSite, monkeypatch: pytest.MonkeyPatch) -> None:
    site.land_more(200, watch_limits=NEVER, file_rows_max=10)
    monkeypatch.setattr(restoring, "PIECE_EVENTS", 10)
    stream, member = site.worker()
    polls = 0
    poll = member.poll

    def counted(timeout_s: float) -> Any:
        nonlocal polls
        polls += 1
        return poll(timeout_s)

    member.poll = counted
    began_s = site.clock.elapsed_s()
    rounds(stream, lambda: bool(stream.owned))
    assert polls > 5
    assert site.clock.elapsed_s() - began_s < 1, "and no poll waits for records that cannot come"


# ---- alerts do not wait


def test_an_alert_is_committed_within_its_age_though_the_file_is_not_full(site: ScoredSite) -> None:
    site.produce(60)
    stream, _ = site.worker(file_age_s=1e6, alert_age_s=1.0)
    rounds(stream, stream.caught_up)
    read_s = site.clock.elapsed_s()
    rounds(stream, lambda: bool(site.catalog.alerts()))
    assert site.clock.elapsed_s() - read_s <= 0.5 + 1.0 + 0.4, "the wait for a step, the alert's age, and two polls"
    assert site.catalog.offsets()[P0] == site.log.end


def test_a_partition_without_alerts_waits_for_a_full_file(site: ScoredSite) -> None:
    site.log.append(event(1), 1)
    stream, _ = site.worker(file_age_s=50.0, alert_age_s=1.0)
    rounds(stream, stream.caught_up)
    rounds(stream, lambda: site.clock.elapsed_s() > 30, most=500)
    assert stream.progress.commits == 0


# ---- snapshots


def test_snapshots_are_taken_every_so_many_events_and_two_are_kept(site: ScoredSite) -> None:
    site.produce(400)
    site.land(snapshot_events=50, file_rows_max=10)
    newest, before = site.snapshots()
    assert 40 <= newest - before <= 130
    assert site.lake.snapshot_paths(P0) == sorted(entry.path for entry in site.catalog.snapshots(P0))


def test_a_snapshot_is_taken_when_the_last_is_old_and_only_if_anything_moved(site: ScoredSite) -> None:
    site.produce(10)
    stream, _ = site.worker(watch_limits=NEVER, snapshot_age_s=60.0, file_age_s=1.0)
    rounds(stream, lambda: site.clock.elapsed_s() > 30, most=500)
    assert site.snapshots() == []
    rounds(stream, lambda: site.clock.elapsed_s() > 100, most=500)
    assert site.snapshots() == [], "nothing moved"
    site.produce(10)
    rounds(stream, lambda: site.catalog.offsets()[P0] == 20, most=500)
    assert site.snapshots() == [20]


def test_a_clean_stop_leaves_a_snapshot_so_that_nothing_is_replayed(site: ScoredSite, logged: list[Any]) -> None:
    site.produce(30)
    site.land(watch_limits=NEVER)
    assert site.snapshots() == [30]
    site.produce(30)
    site.land(watch_limits=NEVER)
    assert [(line["snapshot"], line["replayed"]) for line in said(logged, "analysis restored")] == [(30, 0)]
    assert site.found() == site.wanted()


@pytest.mark.parametrize("damaged", (1, 2))
@pytest.mark.parametrize("damage", ("flip", "cut", "gone"))
def test_a_snapshot_that_cannot_be_read_is_made_up_for(
    site: ScoredSite, logged: list[Any], damaged: int, damage: str
) -> None:
    site.land_more(120, file_rows_max=10)
    entries = site.catalog.snapshots(P0)
    assert len(entries) == 2
    for entry in entries[:damaged]:
        path = site.lake.root / entry.path
        body = bytearray(path.read_bytes())
        body[len(body) // 2] ^= 1
        path.write_bytes(body if damage == "flip" else body[:-1])
        if damage == "gone":
            path.unlink()
    assert {error.kind for error in inspect(site.lake, site.catalog).errors} == {"snapshot"}
    site.produce(50)
    site.land()
    warned = said(logged, "a snapshot cannot be used")
    assert [line["path"] for line in warned] == [entry.path for entry in entries[:damaged]]
    assert all("\n" not in line["reason"] for line in warned)
    bases = [line["snapshot"] for line in said(logged, "analysis restored")]
    assert bases == [None if damaged == 2 else entries[1].next_offset]
    site.produce(1)
    site.land()  # two newer ones, and the damaged are forgotten
    assert site.found() == site.wanted()


def test_other_models_are_said_and_the_analysis_is_rebuilt_from_the_lake(site: ScoredSite, logged: list[Any]) -> None:
    site.land_more(100, file_rows_max=10)
    site.produce(50)
    site.land(watch=stand_ins("stand-in 2"))
    reasons = {line["reason"] for line in said(logged, "a snapshot cannot be used")}
    assert reasons == {"the snapshot is of models stand-in 1, this job is of models stand-in 2"}
    assert site.found() == site.wanted(), "these stand-ins only say that they are others"
    assert site.catalog.snapshots(P0)[0].next_offset == site.log.end, "a new base is made at once"


def test_a_lake_that_was_only_landed_is_replayed_for_as_many_events_as_may_be(
    site: ScoredSite, logged: list[Any]
) -> None:
    site.land_more(100, watch=None, file_rows_max=10)
    assert site.found() == Found([], [], [], [])
    site.produce(60)
    site.land(replay_events_max=40)
    (line,) = said(logged, "not all events are replayed")
    assert (line["log_level"], line["replay_events_max"]) == ("warning", 40)
    (restored,) = said(logged, "analysis restored")
    assert 20 < restored["replayed"] <= 40
    assert line["left_out"] + restored["replayed"] == sum(commit.events for commit in site.catalog.commits()[:-1])
    site.records = {at: record for at, record in site.records.items() if at >= line["from_offset"]}
    wanted = site.wanted()
    assert site.found().windows == [row for row in wanted.windows if offset_of(row) >= 100]


def test_events_that_are_gone_are_said_and_the_others_replayed(site: ScoredSite, logged: list[Any]) -> None:
    site.land_more(100, watch_limits=NEVER, file_rows_max=50)
    gone = site.catalog.live_files("content")
    aside = site.lake.root.parent / "aside"
    (site.lake.root / "content").rename(aside)
    stream, _ = site.worker()
    rounds(stream, stream.caught_up)
    warned = said(logged, "events that are replayed are not all there")
    assert {path for line in warned for path in line["missing"].split(", ")} == {file.path for file in gone}
    aside.rename(site.lake.root / "content")


def test_snapshots_that_the_catalog_forgot_are_removed_by_the_next_owner(site: ScoredSite) -> None:
    site.land_more(60, file_rows_max=10)
    orphan = site.lake.root / site.lake.snapshot_paths(P0)[0].replace("0000", "0001", 1)
    orphan.write_bytes(b"left over")
    assert {note.kind for note in inspect(site.lake, site.catalog).notes} == {"snapshot"}
    site.produce(1)
    site.land()
    assert not orphan.exists()


def offset_of(row: str) -> int:
    return int(row.rpartition("'offset': ")[2].rstrip("}"))


def test_an_exception_on_an_organisation_holds_for_accounts_whose_events_or_feed_name_it(site: ScoredSite) -> None:
    named, by_feed = "org_of_events", "org_of_feed"
    at_us = site.clock.now_us()
    for number, org in enumerate((named, by_feed)):
        entry = AllowEntry(
            f"{number:032x}", "organisation", org, "", "sales", "why", at_us, "ana", at_us + 3600 * 10**6
        )
        site.catalog.desk.exceptions.add(entry)
    for _ in range(200):
        payload = orjson.loads(event(site.log.end))
        if payload["account_id"] == "account-4":
            payload["org_id"] = named
        site.log.append(orjson.dumps(payload), 1_777_633_200_000)
    watch = dataclasses.replace(stand_ins(), org_of={"account-2": by_feed}.get)
    stream, _ = site.worker(watch=watch, file_age_s=0.0)
    rounds(stream, lambda: stream.caught_up() and site.catalog.offsets().get(P0) == site.log.end)
    states = site.catalog.outbox()
    alerts = [alert for alert in site.catalog.alerts() if alert.state == "live"]
    covered = {alert.entity_id for alert in alerts if states[alert.alert_id] == "suppressed"}
    others = {alert.entity_id for alert in alerts if states[alert.alert_id] == "new"}
    assert (covered, others) == ({"account-2", "account-4"}, {"account-5"})
