"""Fixtures for tests that need real servers: Kafka and PostgreSQL, started once for a whole run.

The closing report says which servers they were: tests on the embedded broker show less than tests on Apache Kafka.

A run does not depend on how it was started, and ends even where a test does not.
"""

import contextlib
import faulthandler
import os
import signal
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import hypothesis
import pytest
import pytest_timeout
import structlog
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError
from playwright.sync_api import Browser

from tests import browser as browsers
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

hypothesis.settings.register_profile("stillwatch", deadline=None)  # how long an example takes says what else runs
hypothesis.settings.load_profile("stillwatch")

TopicFactory = Callable[..., str]

_SERVER_LINES = pytest.StashKey[list[str]]()
_STDERR = pytest.StashKey[int]()
_SERVERS = "stillwatch_servers"


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """A command that a test runs in this process sets the level of its logs; tests after it look for theirs."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("watchdog_s", "Seconds after its timeout at which a test that still runs ends the whole run.")


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: much of a test's time is spent waiting for servers and processes."""
    return (os.cpu_count() or 1) + 1


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SERVER_LINES] = []
    config.stash[_STDERR] = os.dup(sys.__stderr__.fileno())  # before pytest catches what is written there
    # A shell starts what it puts in the background with SIGINT ignored (as CI may), and children inherit that; tests
    # send SIGINT to themselves and to their children.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure(config: pytest.Config) -> None:
    os.close(config.stash[_STDERR])


def pytest_timeout_set_timer(item: pytest.Item, settings: pytest_timeout.Settings) -> None:
    """Beside pytest-timeout's own timer: a test stuck in C code, where no signal reaches it, ends the run with stacks."""
    limit_s = settings.timeout + float(item.config.getini("watchdog_s"))
    faulthandler.dump_traceback_later(limit_s, exit=True, file=item.config.stash[_STDERR])


def pytest_timeout_cancel_timer(item: pytest.Item) -> None:
    faulthandler.cancel_dump_traceback_later()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process that runs a part of the tests tells the one that was started which servers it had."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_SERVERS] = session.config.stash[_SERVER_LINES]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    del error
    for line in getattr(node, "workeroutput", {}).get(_SERVERS, ()):
        node.config.stash[_SERVER_LINES].append(line)


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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; for a module and no longer, see `tests.browser`."""
    with browsers.chromium() as running:
        yield running


@pytest.fixture
def watched(browser: Browser) -> Iterator[browsers.Watched]:
    """An empty page of a browser, with scripts on; what it does wrong is in its lists."""
    with browsers.watched_page(browser) as page:
        yield page


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
