"""Every record lands exactly once, whatever is killed, frozen or fenced while events flow."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.io.catalog import sqlite_url
from tests.integration.kills import campaign, plan
from tests.integration.scored import assert_as_by_backtest
from tests.integration.workers import Producer, Reader, Site, Worker, ends_of, site_of
from tests.rule_files import rule_text
from tests.servers import KafkaServer
from tests.waiting import wait_until

KILLS = 50


@pytest.mark.timeout(600)
def test_kill_9_at_fifty_moments_loses_nothing_and_doubles_nothing(
    tmp_path: Path, kafka: KafkaServer, topic: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Thirty random moments, and four kills right after each of the five steps of a commit; a restart after each."""
    rules, config = tmp_path / "rules.toml", tmp_path / "stillwatch.toml"
    rules.write_text(rule_text(state="live", condition="exchanges >= 64", suppress_hours=1), encoding="utf-8")
    config.write_text(f'rules = "{rules}"\n', encoding="utf-8")
    # By default a worker that lives for a second takes no snapshot, and the next one replays all that was ever landed.
    with site_of(tmp_path, kafka.bootstrap, topic(3), snapshot_events=20_000, rules=str(rules)) as site:
        result = campaign(site, plan(seed=7, at_steps=4, at_random=30), seed=7)
        scores, alerts = assert_as_by_backtest(site, tmp_path / "again", "--config", str(config))
    assert scores > result.landed / 200
    assert alerts > 0
    assert result.kills == KILLS
    assert result.landed == result.produced
    with capsys.disabled():
        print(f"\n{result}; {scores:,} scores and {alerts:,} alerts, those of a backtest")


@pytest.fixture
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty catalog."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "catalog.db")
    return str(request.getfixturevalue("postgres_url"))


@pytest.mark.parametrize(
    ("catalog", "workers"),
    (
        ("sqlite", 2),
        ("sqlite", 3),
        ("postgresql", 3),
        pytest.param("postgresql", 2, marks=pytest.mark.soak),  # between them, the others show all that this one does
    ),
    indirect=["catalog"],
)
@pytest.mark.timeout(300)
def test_a_killed_worker_and_a_zombie_leave_the_lake_right(
    tmp_path: Path, kafka: KafkaServer, topic: Callable[..., str], catalog: str, workers: int
) -> None:
    """One worker is killed; another is frozen past its session time-out, loses its partitions, and wakes up again."""
    with site_of(tmp_path, kafka.bootstrap, topic(6), catalog=catalog) as site, Reader(site) as reader:
        with Producer(kafka.bootstrap, site.topic, rate=2_000) as producer:
            group = [site.worker(f"w{number}") for number in range(workers)]
            for worker in group:
                worker.wait_for("reading")
            zombie, victim = group[0], group[-1]
            _freeze(zombie, site)
            frozen_at = site.landed()
            victim.kill()
            heir = site.worker("heir")
            wait_until(lambda: _partitions_read_by(heir, *group[1:-1]) == 6, "the heirs have every partition")
            wait_until(lambda: site.landed() > frozen_at + 4_000, "the heirs land on")
            zombie.process.send_signal(signal.SIGCONT)
            zombie.wait_for("partitions gone")
        ends = ends_of(site.bootstrap, site.topic)
        wait_until(lambda: site.landed() >= sum(ends.values()), "everything landed")
        living = [*group[:-1], heir]
        assert [worker.stop() for worker in living] == [0] * len(living)
        assert site.assert_exactly_once(ends) == producer.sent
        assert not list((site.lake / "_staging").rglob("*.parquet"))
    assert reader.queries > 10


def _freeze(worker: Worker, site: Site) -> None:
    """Stop a process where it is; with SQLite not inside a transaction, for then nobody else could write."""
    while True:
        worker.process.send_signal(signal.SIGSTOP)
        if not site.catalog_url.startswith("sqlite") or _is_unlocked(site.root / "catalog.db"):
            return
        worker.process.send_signal(signal.SIGCONT)


def _is_unlocked(database: Path) -> bool:
    with contextlib.closing(sqlite3.connect(database, timeout=0.5, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        connection.execute("ROLLBACK")
        return True


def _partitions_read_by(*workers: Worker) -> int:
    return len({line["partition"] for worker in workers for line in worker.logged("reading")})
