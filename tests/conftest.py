"""Fixtures for tests that need real servers: Kafka and PostgreSQL, started once for a whole run.

The closing report says which servers they were: tests on the embedded broker show less than tests on Apache Kafka.
"""

import contextlib
import uuid
from collections.abc import Callable, Iterator, Mapping

import pytest
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from tests.servers import (
    ADMIN_TIMEOUT_MS,
    HOW_TO_GET_KAFKA,
    ApacheKafka,
    KafkaServer,
    MissingServerError,
    PostgresServer,
    choose_kafka,
    create_topic,
    is_ci,
    own_apache_kafka,
)

TopicFactory = Callable[..., str]

_SERVER_LINES = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SERVER_LINES] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash[_SERVER_LINES]:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def kafka(pytestconfig: pytest.Config) -> Iterator[KafkaServer]:
    """The broker of this test run; shared, so never stop it (`own_kafka` is for that)."""
    server = choose_kafka()
    try:
        server.start()
        _report(pytestconfig, "Kafka", f"{server.describe()}, at {server.bootstrap}", server.start_seconds)
        yield server
    finally:
        server.close()


@pytest.fixture
def full_kafka(kafka: KafkaServer) -> KafkaServer:
    """The broker of this test run, for tests of what the embedded broker does not do as Apache Kafka does.

    Seen with Tansu 0.6.0: it shows aborted records to `read_committed` and writes no transaction markers; it hangs up
    on DeleteRecords; its answer to ListOffsets(latest) is the last batch's first offset + 1, whatever the batch holds.
    """
    if kafka.kind == "embedded":
        pytest.skip(f"the embedded broker has no transactions nor DeleteRecords; to run this test, {HOW_TO_GET_KAFKA}")
    return kafka


@pytest.fixture(scope="session")
def kafka_admin(kafka: KafkaServer) -> Iterator[KafkaAdminClient]:
    """An admin client on the broker of this test run."""
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=kafka.bootstrap)) as admin:
        yield admin


@pytest.fixture
def topic(kafka_admin: KafkaAdminClient) -> Iterator[TopicFactory]:
    """`topic(partitions=1, config=None)` makes a topic and returns its name, which no other test has."""
    names: list[str] = []

    def make(partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        name = f"stillwatch-test-{uuid.uuid4().hex}"
        create_topic(kafka_admin, name, partitions, config)
        names.append(name)
        return name

    yield make
    if names:
        # A test is judged by what it checked, not by whether its topics could be tidied away.
        with contextlib.suppress(KafkaError):
            kafka_admin.delete_topics(names, timeout_ms=ADMIN_TIMEOUT_MS)


@pytest.fixture
def own_kafka() -> Iterator[Callable[[], ApacheKafka]]:
    """`own_kafka()` starts an Apache Kafka node that this test may stop, kill and restart; each call a new one."""
    with contextlib.ExitStack() as servers:

        def make() -> ApacheKafka:
            with _skipping_outside_ci():
                server = own_apache_kafka()
            servers.callback(server.close)
            server.start()
            return server

        yield make


@pytest.fixture(scope="session")
def postgres(pytestconfig: pytest.Config) -> Iterator[PostgresServer]:
    """The PostgreSQL server of this test run."""
    server = PostgresServer()
    try:
        with _skipping_outside_ci():
            server.start()
        _report(pytestconfig, "PostgreSQL", server.describe(), server.start_seconds)
        yield server
    finally:
        server.stop()


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """The SQLAlchemy URL of an empty database that only this test sees."""
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)


@contextlib.contextmanager
def _skipping_outside_ci() -> Iterator[None]:
    try:
        yield
    except MissingServerError as missing:
        if is_ci():
            raise
        pytest.skip(str(missing))


def _report(config: pytest.Config, what: str, which: str, start_s: float | None) -> None:
    config.stash[_SERVER_LINES].append(f"{what} for these tests: {which} (ready after {start_s:.1f} s)")
