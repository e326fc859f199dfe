"""Lines of NDJSON in and out: files plain, gzip or zstd, and topics.

A line travels as it is: its bytes are never parsed and written again, only looked at for the key.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, NamedTuple, NoReturn, cast

import orjson
import zstandard
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError, TopicAlreadyExistsError

from pipeline.counted import counted
from pipeline.errors import ConfigError, RetryableError

_READ_BYTES = 1 << 20
_ZSTD_CHUNK_BYTES = 128 << 10
_ZSTD_LEVEL = 3
_GZIP_LEVEL = 6
_TOPIC_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")

_IN_FLIGHT_BYTES_MAX = 64 << 20
_IN_FLIGHT_RECORDS_MAX = 50_000
_CLOSE_TIMEOUT_S = 30.0
_PRODUCER_DEFAULTS: Mapping[str, Any] = {
    "acks": "all",
    "batch_size": 256 << 10,
    "bootstrap_timeout_ms": 10_000,
    "compression_type": "lz4",
    "enable_idempotence": True,
    "linger_ms": 20,
    # Replayed lines may be larger than any event should be; the broker's own limit is the one that counts.
    "max_request_size": 16 << 20,
    "metrics_enabled": False,
}
# Set by flags of their own, or not expressible as text.
_FIXED_SETTINGS = frozenset(
    {"bootstrap_servers", "key_serializer", "value_serializer", "partitioner", "transactional_id"}
)


class KeyedLine(NamedTuple):
    """One record to be: its key, or None where it has none, and the line without its line break."""

    key: bytes | None
    value: bytes


def key_of(line: bytes) -> bytes | None:
    """The `account_id` of a line in UTF-8; None for a line that is not a JSON object with one."""
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    account = event.get("account_id") if isinstance(event, dict) else None
    if not isinstance(account, str):
        return None
    try:
        return account.encode()
    except UnicodeEncodeError:  # a lone surrogate, written as an escape
        return None


class Lines(Iterator[bytes]):
    r"""Lines of a file, without their `\n`."""

    def __init__(self, path: Path, source: BinaryIO, raw: BinaryIO) -> None:
        self._lines, self._raw = _lines(path, source), raw

    def __next__(self) -> bytes:
        return next(self._lines)

    @property
    def bytes_read(self) -> int:
        """How far the file itself is read, compressed as it may be."""
        return self._raw.tell()


@contextmanager
def open_lines(path: Path) -> Iterator[Lines]:
    r"""Open a file of lines for reading, whatever its compression (by `.gz` and `.zst`); lines come without `\n`.

    Raises:
        ConfigError: the file cannot be opened, or turns out not to be what its name says.
    """
    with _unpacked(path) as (source, raw):
        yield Lines(path, source, raw)


def head_of(path: Path, size: int) -> bytes:
    """What a file begins with, unpacked as by `open_lines`, and no more than so many bytes.

    Raises:
        ConfigError: as `open_lines`.
    """
    with _unpacked(path) as (source, _):
        try:
            return source.read(size)
        except _DAMAGED as error:
            raise _damaged(path, error) from error


@contextmanager
def _unpacked(path: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """A file's bytes without their compression, and as they are."""
    with ExitStack() as stack:
        try:
            raw: BinaryIO = stack.enter_context(path.open("rb"))
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error
        source: Any = raw
        if path.suffix == ".gz":
            source = stack.enter_context(gzip.open(raw))
        elif path.suffix == ".zst":
            source = _ZstdReader(raw)
        buffered = io.BufferedReader(source, _READ_BYTES) if source is not raw else raw
        yield cast("BinaryIO", buffered), raw


_DAMAGED: Final = (zstandard.ZstdError, zlib.error, gzip.BadGzipFile, EOFError)
"""What reading a packed file that is damaged ends in."""


def _damaged(path: Path, error: Exception) -> ConfigError:
    return ConfigError(f"{path} is damaged, or not compressed as its name says: {error}")


class _ZstdReader(io.RawIOBase):
    """Bytes of a zstd file of any number of frames; unlike the library's own reader, it notices a cut-off file."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._decoder: Any = None
        self._pending = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._ready:
            chunk = self._pending or self._raw.read(_ZSTD_CHUNK_BYTES)
            if not chunk:
                if self._decoder is not None:
                    raise zstandard.ZstdError("it ends in the middle of a frame")
                return 0
            if self._decoder is None:
                self._decoder = zstandard.ZstdDecompressor().decompressobj()
            self._ready = memoryview(self._decoder.decompress(chunk))
            self._pending = self._decoder.unused_data
            if self._decoder.eof:
                self._decoder = None
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size


def _lines(path: Path, source: BinaryIO) -> Iterator[bytes]:
    try:
        for line in source:
            yield line.removesuffix(b"\n")
    except _DAMAGED as error:
        raise _damaged(path, error) from error


class FileWriter(AbstractContextManager["FileWriter"]):
    """Writes lines to a file that appears under its name only once it is whole.

    Leaving the context because of an exception removes what was written.

    Args:
        path: the file; `.gz` and `.zst` are compressed.
        force: replace a file that exists.

    Raises:
        ConfigError: the file exists, or cannot be written there.
    """

    def __init__(self, path: Path, *, force: bool) -> None:
        refuse_existing([path], force=force)
        self.path = path
        self.sent = 0
        self.sent_bytes = 0
        self._force = force
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            self._raw: BinaryIO = self._partial.open("wb")
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror}") from error
        self._out: Any = self._raw
        if path.suffix == ".gz":
            # No name and no time in the header: the same lines give the same bytes.
            self._out = gzip.GzipFile("", "wb", _GZIP_LEVEL, self._raw, mtime=0)
        elif path.suffix == ".zst":
            self._out = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).stream_writer(self._raw, closefd=False)

    def send(self, line: KeyedLine) -> None:
        """Add a line."""
        try:
            self._out.write(line.value + b"\n")
        except OSError as error:
            raise _disk_error(self.path, error) from error
        self.sent += 1
        self.sent_bytes += len(line.value) + 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._raw.close()
            self._partial.unlink(missing_ok=True)
            return
        try:
            if self._out is not self._raw:
                self._out.close()
            self._raw.flush()
            os.fsync(self._raw.fileno())
            self._raw.close()
            refuse_existing([self.path], force=self._force)
            self._partial.replace(self.path)
        except OSError as disk:
            raise _disk_error(self.path, disk) from disk
        finally:
            self._raw.close()
            self._partial.unlink(missing_ok=True)


def refuse_existing(paths: Iterable[Path], *, force: bool) -> None:
    """Raise ConfigError for the first path that exists, or whose folder does not, or that is a folder."""
    for path in paths:
        if path.is_dir():
            raise ConfigError(f"{path} is a folder: name a file")
        if path.exists() and not force:
            raise ConfigError(f"{path} exists: choose another name, or replace it with --force")
        if not path.parent.is_dir():
            raise ConfigError(f"the folder {path.parent} does not exist")


def _disk_error(path: Path, error: OSError) -> RetryableError:
    return RetryableError(f"cannot write {path}: {error.strerror or error}")


def client_settings(pairs: Iterable[str]) -> dict[str, Any]:
    """Kafka client settings from `KEY=VALUE` texts, each with the type of the client's own default.

    Raises:
        ConfigError: no `=`, a setting that kafka-python does not have, or a value of the wrong type.
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise ConfigError(f"a Kafka setting is written KEY=VALUE, not {key!r}")
        if key in _FIXED_SETTINGS or key not in KafkaProducer.DEFAULT_CONFIG:
            # The key alone: the value may be a password.
            raise ConfigError(f"{key!r} is not a setting of the Kafka producer that can be given here")
        settings[key] = _typed(key, text, KafkaProducer.DEFAULT_CONFIG[key])
    return settings


def _typed(key: str, text: str, default: object) -> object:
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"the Kafka setting {key} is true or false")
        return text.lower() == "true"
    if default is None or isinstance(default, str):
        return int(text) if text.isdecimal() and key.endswith(("_bytes", "_ms")) else text
    if key == "acks" and text == "all":
        return text
    if isinstance(default, int | float):
        try:
            return int(text)
        except ValueError:
            raise ConfigError(f"the Kafka setting {key} is a whole number") from None
    raise ConfigError(f"the Kafka setting {key} cannot be given as text")


class TopicWriter(AbstractContextManager["TopicWriter"]):
    """Sends lines to a topic: idempotent, lz4, keyed, with every delivery checked and a bound on what is under way.

    Leaving the context waits for everything sent; leaving it because of an exception drops what is under way.

    Args:
        bootstrap: `host:port` of one or more brokers, separated by commas.
        topic: made with `partitions` partitions where it does not exist.
        partitions: for a new topic; None is 4, and takes an existing topic as it is.
        settings: further settings of the Kafka client, see `client_settings`.

    Raises:
        ConfigError: a setting, the topic's name or its number of partitions is wrong.
        RetryableError: no broker answers, or a record was not delivered.
    """

    PARTITIONS_DEFAULT = 4

    def __init__(self, bootstrap: str, topic: str, partitions: int | None, settings: Mapping[str, Any]) -> None:
        if not _TOPIC_NAME.fullmatch(topic) or topic in (".", ".."):
            raise ConfigError(f"{topic!r} is no topic name: letters, digits, '.', '_' and '-', at most 249")
        self.topic = topic
        self.sent = 0
        self.sent_bytes = 0
        self.failed = 0
        self._in_flight: deque[tuple[Any, int]] = deque()
        self._in_flight_bytes = 0
        options = {**_PRODUCER_DEFAULTS, **settings, "bootstrap_servers": bootstrap.split(",")}
        self._delivery_timeout_s = options.get("delivery_timeout_ms", 120_000) / 1000 + 10
        _create_topic(options, topic, partitions or self.PARTITIONS_DEFAULT)
        with _kafka_errors(f"cannot reach Kafka at {bootstrap}"):
            self._producer = KafkaProducer(**options)
            self.partitions = len(self._producer.partitions_for(topic))
        if partitions is not None and partitions != self.partitions:
            self._producer.close()
            raise ConfigError(f"topic {topic} exists with {self.partitions} partitions, not {partitions}")

    def send(self, line: KeyedLine) -> None:
        """Hand over a line; waits while too much is under way.

        Raises:
            RetryableError: this record, or one before it, was not delivered.
        """
        size = len(line.value) + len(line.key or b"")
        self._settle(_IN_FLIGHT_BYTES_MAX - size, _IN_FLIGHT_RECORDS_MAX - 1)
        with _kafka_errors(f"cannot send to {self.topic} after {counted(self.sent, 'record')}"):
            future = self._producer.send(self.topic, value=line.value, key=line.key)
        self._in_flight.append((future, size))
        self._in_flight_bytes += size

    def flush(self) -> None:
        """Wait until everything handed over is delivered; raises RetryableError if something is not."""
        self._settle(0, 0)

    def _settle(self, bytes_max: int, records_max: int) -> None:
        """Take delivered records off the list, oldest first; wait for as many as it takes to get below the limits."""
        waiting = self._in_flight
        while waiting:
            future, size = waiting[0]
            if not future.is_done and len(waiting) <= records_max and self._in_flight_bytes <= bytes_max:
                return
            try:
                future.get(timeout=self._delivery_timeout_s)
            except KafkaError as error:
                self._give_up(error)
            waiting.popleft()
            self._in_flight_bytes -= size
            self.sent += 1
            self.sent_bytes += size

    def _give_up(self, error: KafkaError) -> NoReturn:
        """Count what was not delivered, or not known to be, and say so."""
        delivered = [size for future, size in self._in_flight if future.is_done and future.exception is None]
        self.failed = len(self._in_flight) - len(delivered)
        self.sent += len(delivered)
        self.sent_bytes += sum(delivered)
        self._in_flight.clear()
        raise RetryableError(
            f"{counted(self.sent, 'record was', 'records were')} delivered to {self.topic}, "
            f"{counted(self.failed, 'was', 'were')} not: {error}"
        ) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            if self._in_flight or self.failed:
                # Closing would first wait, batch by batch, for what cannot be delivered; there is no public way around.
                self._producer._sender.force_close()  # noqa: SLF001
            with suppress(KafkaError):  # delivery was settled above: what is left to fail is tidying up
                self._producer.close(timeout=_CLOSE_TIMEOUT_S)


def _create_topic(options: Mapping[str, Any], topic: str, partitions: int) -> None:
    wanted = {key: value for key, value in options.items() if key in KafkaAdminClient.DEFAULT_CONFIG}
    with _kafka_errors(f"cannot create topic {topic} at {','.join(options['bootstrap_servers'])}"):
        admin = KafkaAdminClient(**wanted)
        try:
            if topic not in admin.list_topics():
                admin.create_topics({topic: {"num_partitions": partitions}}, wait_for_metadata=True)
        except TopicAlreadyExistsError:
            pass  # somebody was faster: the caller looks at what there is
        finally:
            admin.close()


@contextmanager
def _kafka_errors(doing: str) -> Iterator[None]:
    try:
        yield
    except KafkaError as error:
        raise RetryableError(f"{doing}: {error}") from error
    except (AssertionError, TypeError, ValueError) as error:
        raise ConfigError(f"{doing}: Kafka client setting refused: {error}") from error
    except OSError as error:
        raise RetryableError(f"{doing}: {error}") from error


def replayed(lines: Iterable[bytes]) -> Iterator[KeyedLine]:
    """Each line with its account as key."""
    for line in lines:
        yield KeyedLine(key_of(line), line)


def at_rate(lines: Iterable[KeyedLine], per_s: float, wait: Callable[[float], object]) -> Iterator[KeyedLine]:
    """Hold lines back so that no more than `per_s` come a second, counted from the first.

    Args:
        lines: what to send.
        per_s: lines a second, > 0.
        wait: waits for some seconds, or less when there is a reason to stop early.
    """
    began_s = time.monotonic()
    for number, line in enumerate(lines):
        ahead_s = number / per_s - (time.monotonic() - began_s)
        if ahead_s > 0.002:  # noqa: PLR2004 - below this, a sleep costs more than it corrects
            wait(ahead_s)
        yield line
