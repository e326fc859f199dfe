"""What the job does while broker, catalog or disk is away: nothing is lost, and it says what it waits for."""

from __future__ import annotations

import contextlib
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka.admin import KafkaAdminClient

from tests import mounts
from tests.integration.workers import Producer, Reader, ends_of, site_of
from tests.servers import ApacheKafka, KafkaServer, create_topic
from tests.waiting import BOUND_S, wait_until


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


def test_a_broker_that_goes_away_in_mid_run_is_waited_for_aloud(
    tmp_path: Path, own_kafka: Callable[[], ApacheKafka]
) -> None:
    """One line says that no broker answers, one that one does again; then everything is landed."""
    broker = own_kafka()
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=broker.bootstrap)) as admin:
        create_topic(admin, "logs", 2, None)
    with site_of(tmp_path, broker.bootstrap, "logs") as site:
        with Producer(broker.bootstrap, "logs", rate=500) as producer:
            worker = site.worker()
            wait_until(lambda: site.landed() > 500, "the first rows")
            assert not worker.logged("no Kafka broker answers")
            broker.kill()
            worker.wait_for("no Kafka broker answers")
            broker.restart()
            worker.wait_for("Kafka answers again")
        ends = ends_of(broker.bootstrap, "logs")
        wait_until(lambda: site.landed() >= sum(ends.values()), "everything landed")
        said = worker.logged("no Kafka broker answers")[0]
        assert (said["level"], said["bootstrap"]) == ("warning", broker.bootstrap)
        assert 10 <= said["silent_s"] < 20
        assert "nothing is lost" in said["meanwhile"]
        assert len(worker.logged("Kafka answers again")) == 1
        assert worker.stop() == 0
        assert site.assert_exactly_once(ends) >= producer.sent


def test_a_broker_that_stays_away_ends_the_job_and_a_signal_ends_it_sooner(
    tmp_path: Path, own_kafka: Callable[[], ApacheKafka]
) -> None:
    """Past `retry_s` the job gives up with exit code 4; one that is patient still obeys SIGTERM at once."""
    broker = own_kafka()
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=broker.bootstrap)) as admin:
        create_topic(admin, "logs", 2, None)
    with site_of(tmp_path, broker.bootstrap, "logs") as site:
        with Producer(broker.bootstrap, "logs", rate=500):
            hasty, patient = site.command("--config", str(_config(tmp_path, "retry_s = 12.0"))), site.worker("patient")
            for worker in (hasty, patient):
                worker.wait_for("reading")
            wait_until(lambda: site.landed() > 500, "the first rows")
        broker.kill()
        patient.wait_for("no Kafka broker answers")
        before_s = time.monotonic()
        assert patient.stop() == 0
        assert time.monotonic() - before_s < 10
        assert hasty.process.wait(60) == 4
        last = hasty.log()[-1]["event"]
        assert "gave up after 12 s" in last
        assert f"no Kafka broker at {broker.bootstrap} has answered since" in last
        broker.restart()
        ends = ends_of(broker.bootstrap, "logs")
        assert site.command("--once").process.wait(60) == 0
        site.assert_exactly_once(ends)


@pytest.fixture
def mute_server() -> Iterator[socket.socket]:
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(BOUND_S)
        yield server


@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGINT))
def test_a_signal_ends_the_start_at_once_though_no_broker_answers(
    tmp_path: Path, mute_server: socket.socket, number: signal.Signals
) -> None:
    with site_of(tmp_path, f"127.0.0.1:{mute_server.getsockname()[1]}", "logs") as site:
        worker = site.command()
        connection, _ = mute_server.accept()  # it is in the middle of its start now
        with connection:
            before_s = time.monotonic()
            assert worker.kill(number) == 0
            assert time.monotonic() - before_s < 2
        assert worker.log()[-1]["event"] == "stopped before it had started; nothing was read"
        assert worker.log()[-1]["why"] == number.name


def test_a_signal_ends_the_start_at_once_though_the_catalog_is_locked(tmp_path: Path, kafka: KafkaServer) -> None:
    with site_of(tmp_path, kafka.bootstrap, "logs") as site, _locked(tmp_path / "catalog.db"):
        worker = site.command()
        worker.wait_for("waiting for the catalog")  # for five seconds again, soon
        before_s = time.monotonic()
        assert worker.stop() == 0
        assert time.monotonic() - before_s < 2


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
