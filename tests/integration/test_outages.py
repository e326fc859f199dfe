"""What the job does while broker, catalog or disk is away: nothing is lost, and it says what it waits for."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka.admin import KafkaAdminClient

from tests import mounts
from tests.integration.workers import Producer, Reader, ends_of, site_of, wait_until
from tests.servers import ApacheKafka, KafkaServer, create_topic


def test_a_broker_that_stops_and_comes_back_costs_nothing(tmp_path: Path, own_kafka: Callable[[], ApacheKafka]) -> None:
    """The broker is stopped and started, then killed and started, in the middle of the traffic."""
    broker = own_kafka()
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=broker.bootstrap)) as admin:
        create_topic(admin, "logs", 3, None)
    with site_of(tmp_path, broker.bootstrap, "logs") as site, Reader(site) as reader:
        with Producer(broker.bootstrap, "logs", rate=2_000) as producer:
            worker = site.worker()
            wait_until(lambda: site.landed() > 2_000, "the first rows")
            broker.stop()
            broker.restart()
            landed = site.landed()
            wait_until(lambda: site.landed() > landed + 4_000, "rows after the restart")
            broker.kill()
            broker.restart()
            landed = site.landed()
            wait_until(lambda: site.landed() > landed + 4_000, "rows after the kill")
        ends = ends_of(broker.bootstrap, "logs")
        wait_until(lambda: site.landed() >= sum(ends.values()), "everything landed")
        assert worker.stop() == 0
        assert site.assert_exactly_once(ends) >= producer.sent
    assert reader.queries > 10


def test_a_locked_catalog_is_waited_for(tmp_path: Path, kafka: KafkaServer, topic: Callable[..., str]) -> None:
    """Somebody holds the catalog's lock for some seconds: the job waits, says so, and goes on."""
    with site_of(tmp_path, kafka.bootstrap, topic(3)) as site, Reader(site):
        with Producer(kafka.bootstrap, site.topic, rate=2_000) as producer:
            worker = site.worker()
            wait_until(lambda: site.landed() > 2_000, "the first rows")
            with _locked(tmp_path / "catalog.db"):
                worker.wait_for("waiting to try again")
                landed = site.landed()
            wait_until(lambda: site.landed() > landed + 4_000, "rows after the lock")
        ends = ends_of(kafka.bootstrap, site.topic)
        wait_until(lambda: site.landed() >= sum(ends.values()), "everything landed")
        assert "locked" in worker.logged("waiting to try again")[0]["reason"]
        assert worker.logged("works again")
        assert worker.stop() == 0
        assert site.assert_exactly_once(ends) == producer.sent


def test_a_catalog_that_stays_locked_ends_the_job_and_loses_nothing(
    tmp_path: Path, kafka: KafkaServer, topic: Callable[..., str]
) -> None:
    """Past `retry_s` the job gives up with exit code 4; the next one lands everything."""
    with site_of(tmp_path, kafka.bootstrap, topic(2)) as site:
        with Producer(kafka.bootstrap, site.topic, rate=2_000) as producer:
            worker = site.command("--file-age", "0.3", "--config", str(_config(tmp_path, "retry_s = 1.0")))
            wait_until(lambda: site.landed() > 1_000, "the first rows")
            with _locked(tmp_path / "catalog.db"):
                assert worker.process.wait(60) == 4
        assert "gave up after" in worker.log()[-1]["event"]
        ends = ends_of(kafka.bootstrap, site.topic)
        assert site.command("--once").process.wait(60) == 0
        assert site.assert_exactly_once(ends) == producer.sent


def test_a_full_disk_is_waited_for(
    tmp_path: Path, kafka: KafkaServer, topic: Callable[..., str], small_disk: Path
) -> None:
    """The lake's disk fills up while rows are written: the job says so and goes on once there is room."""
    with site_of(tmp_path, kafka.bootstrap, topic(3), lake=small_disk / "lake", file_age_s=0.1) as site, Reader(site):
        with Producer(kafka.bootstrap, site.topic, rate=3_000) as producer:
            worker = site.worker()
            worker.wait_for("waiting to try again")
            assert "No space left on device" in worker.logged("waiting to try again")[0]["reason"]
            mounts.remount(small_disk, "size=200m")
            landed = site.landed()
            wait_until(lambda: site.landed() > landed + 4_000, "rows after there was room")
        ends = ends_of(kafka.bootstrap, site.topic)
        wait_until(lambda: site.landed() >= sum(ends.values()), "everything landed")
        assert worker.stop() == 0
        assert site.assert_exactly_once(ends) == producer.sent


def test_a_full_disk_that_holds_the_catalog_too_is_waited_for(
    tmp_path: Path, kafka: KafkaServer, topic: Callable[..., str], small_disk: Path
) -> None:
    """As above, with the embedded catalog on the disk that fills up."""
    catalog = f"sqlite:///{small_disk}/catalog.db"
    with site_of(
        tmp_path, kafka.bootstrap, topic(3), lake=small_disk / "lake", catalog=catalog, file_age_s=0.1
    ) as site:
        with Producer(kafka.bootstrap, site.topic, rate=3_000) as producer:
            worker = site.worker()
            worker.wait_for("waiting to try again")
            mounts.remount(small_disk, "size=200m")
            landed = site.landed()
            wait_until(lambda: site.landed() > landed + 4_000, "rows after there was room")
        ends = ends_of(kafka.bootstrap, site.topic)
        wait_until(lambda: site.landed() >= sum(ends.values()), "everything landed")
        assert worker.stop() == 0
        assert site.assert_exactly_once(ends) == producer.sent


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB."""
    with mounts.small_disk(tmp_path / "disk", megabytes=4) as disk:
        yield disk


@contextlib.contextmanager
def _locked(database: Path) -> Iterator[None]:
    """Hold SQLite's write lock."""
    with contextlib.closing(sqlite3.connect(database, timeout=30, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def _config(folder: Path, text: str) -> Path:
    file = folder / "stillwatch.toml"
    file.write_text(text)
    return file
