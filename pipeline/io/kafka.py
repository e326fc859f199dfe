"""Records and rebalances of one consumer group member, through kafka-python.

Offsets are the catalog's business: nothing here commits on its own or decides where to read.  kafka-python calls its
rebalance listener on the thread that also sends heartbeats, so the listener only notes what happened; the job acts on
it after `poll()` returned.  A partition that was just assigned stands paused until the job has said where to begin.
"""

from __future__ import annotations

import logging
import queue
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import structlog
from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.structs import OffsetAndMetadata

from pipeline.batch import Partition, Records
from pipeline.config import Settings
from pipeline.errors import ConfigError, RetryableError, UnreadableError
from pipeline.io import columnar
from pipeline.io.kafka_questions import KafkaSurvey, answered_at_s, ask_anything, finish_join
from pipeline.io.records import to_records
from pipeline.ports import Assigned, Gone, OutOfRange, Polled

OURS: Final = (
    "bootstrap_servers",
    "group_id",
    "group_instance_id",
    "enable_auto_commit",
    "auto_offset_reset",
    "allow_auto_create_topics",
    "partition_assignment_strategy",
    "session_timeout_ms",
    "isolation_level",
    "key_deserializer",
    "value_deserializer",
    "max_poll_records",
)
"""Client settings that the job's correctness hangs on."""

ANSWER_MS: Final = 15_000
"""How long the brokers may take to answer at start, before the job gives up."""

RECONNECT_MS_MAX: Final = 5_000
"""How long the client waits at most before it tries to reach a broker again: how much longer than the broker itself an
outage lasts.  Its own default is 30 s."""

ASK_AFTER_S: Final = 2.0
"""After so much silence the brokers are asked for something, and what they said of the lag counts as out of date.
Well above the half second after which a broker answers a fetch that finds nothing."""

_REFUSED: Final = (
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.TopicAuthorizationFailedError,
    kafka_errors.GroupAuthorizationFailedError,
    kafka_errors.KafkaConfigurationError,
    kafka_errors.UnsupportedVersionError,
)

_NOT_ASSIGNED: Final = (kafka_errors.IllegalStateError, AssertionError, KeyError, ValueError)
"""What kafka-python raises for a partition that a rebalance has taken away meanwhile, depending on where it notices."""

_HINT_AGAIN_S: Final = 2.0
"""How long a hint may stay without an answer before it is sent again."""

_PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")

log = structlog.get_logger("kafka")


class KafkaSource(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python is untyped
    """One member of the consumer group.  For one thread; the listener's methods are kafka-python's to call."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._events: queue.SimpleQueue[Assigned | Gone] = queue.SimpleQueue()
        self._consumer: Any = None
        self._answered_at_s = self._silent_s = 0.0
        self._unhinted: dict[TopicPartition, int] = {}
        self._hinted_at_s = 0.0
        self.columnar = False

    @property
    def address(self) -> str:
        """The brokers that are asked first."""
        return self._settings.bootstrap

    @property
    def silent_s(self) -> float:
        """How long polls have waited by now without an answer from any broker; 0 once one answers."""
        return self._silent_s

    def open(self, chosen: Sequence[Partition] | None = None) -> None:
        """Connect, check the topic, join the group.

        Args:
            chosen: read these partitions, in no group; None: those that the group gives this member.

        Raises:
            ConfigError: a setting is wrong, the broker refuses the client, or there is no such topic.
            RetryableError: no broker answers.
        """
        self._quieten()
        try:
            self._consumer = KafkaConsumer(**self._client_settings(in_group=chosen is None))
            self._consumer.bootstrap(timeout_ms=ANSWER_MS)
            topics = self._consumer.topics()
        except _REFUSED as error:
            raise self._in_words(error) from error
        except (kafka_errors.KafkaError, ValueError, AssertionError, OSError) as error:
            raise self._unreachable(error) from error
        if self._settings.topic not in topics:
            raise ConfigError(
                f"Kafka at {self._settings.bootstrap} has no topic {self._settings.topic} (or hides it): "
                "create it, or name another with --topic"
            )
        self._choose_path()
        if chosen is None:
            self._consumer.subscribe([self._settings.topic], listener=self)
        else:
            self._consumer.assign([TopicPartition(*partition) for partition in chosen])
            self.on_partitions_assigned([TopicPartition(*partition) for partition in chosen])

    @property
    def consumer(self) -> Any:
        """kafka-python's own, for questions about the topic."""
        return self._consumer

    def close(self) -> None:
        """Leave the group, within seconds."""
        if self._consumer is None:
            return
        try:
            self._consumer.close(autocommit=False, timeout_ms=2_000)
        except kafka_errors.KafkaError as error:  # why the job ends matters more than how the group is left
            log.warning(
                "left the group without a word: its partitions wait for the session time-out", reason=str(error)
            )

    def poll(self, timeout_s: float) -> Polled:
        """Wait for records.

        Returns:
            What happened to this member's partitions, in order, and records in offset order by partition.

        Raises:
            ConfigError: the broker refuses this client.
            UnreadableError: the broker sent a corrupt batch.
            RetryableError: the broker fails in another way.
        """
        out_of_range: list[OutOfRange] = []
        found: Mapping[TopicPartition, list[Any]] = {}
        began_s = time.monotonic()
        try:
            found = self._consumer.poll(timeout_ms=int(timeout_s * 1000))
        except kafka_errors.OffsetOutOfRangeError as error:
            out_of_range = [OutOfRange(Partition(*partition)) for partition in error.args[0]]
        except (
            kafka_errors.LogTruncationError
        ) as error:  # an unclean leader election cut the log back below the position
            out_of_range = [OutOfRange(Partition(*partition)) for partition in error.divergent_offsets]
        except kafka_errors.NoOffsetForPartitionError:
            pass  # polled between an assignment and its listener, which sets the position
        except kafka_errors.CorruptRecordError as error:  # not to be polled again: kafka-python may loop on it for ever
            raise UnreadableError(f"the broker sent records that cannot be read: {error}") from error
        except kafka_errors.KafkaError as error:
            raise self._in_words(error) from error
        finally:
            self._listen(began_s, timeout_s)
            finish_join(self._consumer)
        if self._unhinted and time.monotonic() - self._hinted_at_s >= _HINT_AGAIN_S:
            self._send_hints()
        self.pause(event.partition for event in out_of_range)  # else kafka-python says the same at every poll
        return Polled([*self._drain(), *out_of_range], list(self._records(found)))

    def survey(self, partition: Partition, leader_epoch: int) -> KafkaSurvey:
        """Ask what a partition's log holds; does not wait."""
        return KafkaSurvey(self._consumer, TopicPartition(*partition), leader_epoch, self._in_words)

    def read_from(self, partition: Partition, offset: int, leader_epoch: int) -> bool:
        """Begin, or begin again, to read a partition at an offset; false if it is no longer this member's.

        Args:
            partition: which.
            offset: where.
            leader_epoch: of the record before it: the broker compares, and a log with another one there is noticed.
        """
        where = TopicPartition(*partition)
        try:
            self._consumer.seek(where, offset)
            if leader_epoch >= 0:  # the public method takes no epoch
                position = OffsetAndMetadata(offset, "", leader_epoch)
                self._consumer._subscription.seek(where, position)  # noqa: SLF001
            self._consumer.resume(where)
        except _NOT_ASSIGNED:
            return False
        return True

    def position(self, partition: Partition) -> int | None:
        """Offset of the next record that `poll` would return; None if the partition is no longer this member's."""
        state = self._consumer._subscription.assignment.get(TopicPartition(*partition))  # noqa: SLF001  # position() may block
        return None if state is None or state.position is None else int(state.position.offset)

    def leader_epoch(self, partition: Partition, offset: int) -> int:
        """Leader epoch of the last record before an offset, if the position stands there; else -1: not known."""
        state = self._consumer._subscription.assignment.get(TopicPartition(*partition))  # noqa: SLF001
        position = None if state is None else state.position
        return int(position.leader_epoch) if position is not None and position.offset == offset else -1

    def pause(self, partitions: Iterable[Partition]) -> None:
        """Keep polling but fetch nothing of these partitions."""
        self._each(self._consumer.pause, partitions)

    def resume(self, partitions: Iterable[Partition]) -> None:
        """Fetch of these partitions again."""
        self._each(self._consumer.resume, partitions)

    def hint(self, offsets: Mapping[Partition, int]) -> None:
        """Tell Kafka how far the lake is, for its lag tools; nothing depends on it."""
        self._unhinted |= {TopicPartition(*partition): offset for partition, offset in offsets.items()}
        self._send_hints()

    def _send_hints(self) -> None:
        """Send what Kafka has not taken yet: in a rebalance, for one, it refuses what a member says of its offsets."""
        held = self._consumer.assignment()
        self._unhinted = {partition: offset for partition, offset in self._unhinted.items() if partition in held}
        if self._unhinted:
            said = {partition: OffsetAndMetadata(offset, "", -1) for partition, offset in self._unhinted.items()}
            self._hinted_at_s = time.monotonic()
            self._consumer.commit_async(said, callback=self._on_hinted)

    def _on_hinted(self, said: Mapping[TopicPartition, Any], answer: object) -> None:
        if isinstance(answer, Exception):
            log.debug("a hint was refused and is sent again", reason=str(answer))
            return
        for partition, position in said.items():
            if self._unhinted.get(partition) == position.offset:
                del self._unhinted[partition]

    def lag(self, partitions: Iterable[Partition]) -> int | None:
        """Records that the brokers hold beyond this member's positions.

        Returns:
            None where that is not known: before the first answer, while no broker answers, and of paused partitions.
        """
        if self._silent_s >= ASK_AFTER_S:
            return None
        total, paused = 0, self._consumer.paused()
        for partition in partitions:
            where = TopicPartition(*partition)
            if where in paused or where not in self._consumer.assignment():
                return None
            high, position = self._consumer.highwater(where), self.position(partition)
            if high is None or position is None:
                return None
            total += max(0, high - position)
        return total

    def _listen(self, began_s: float, timeout_s: float) -> None:
        """Count the silence after a poll."""
        heard_at_s = answered_at_s(self._consumer)
        if heard_at_s > self._answered_at_s:
            self._answered_at_s, self._silent_s = heard_at_s, 0.0
            return
        # Bounded: a process that was frozen itself, or a machine that was suspended, has not waited for any broker.
        self._silent_s += min(time.monotonic() - began_s, timeout_s + 1.0)
        if self._silent_s >= ASK_AFTER_S:
            ask_anything(self._consumer)

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Note new partitions; they stand paused, at an offset that is never read, until `read_from`."""
        for where in assigned:
            self._consumer.pause(where)
            self._consumer.seek(where, 0)
        self._events.put(Assigned([Partition(*where) for where in assigned]))

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Note partitions that another member gets."""
        self._events.put(Gone([Partition(*where) for where in revoked]))

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        """Note partitions that another member may have already: this one was silent for too long."""
        self._events.put(Gone([Partition(*where) for where in lost]))

    def _client_settings(self, *, in_group: bool) -> dict[str, Any]:
        settings = self._settings
        if not settings.bootstrap:
            raise ConfigError("no Kafka broker is named: give --bootstrap HOST:PORT, or set STILLWATCH_BOOTSTRAP")
        for broker in settings.bootstrap.split(","):
            if not re.fullmatch(r".+:\d{1,5}", broker.strip()):
                raise ConfigError(f"--bootstrap {settings.bootstrap}: expected HOST:PORT, with commas between several")
        session_timeout_ms = int(settings.session_timeout_s * 1000)
        return {
            "isolation_level": "read_committed",
            "max_partition_fetch_bytes": 8 << 20,
            "client_id": "stillwatch",
            "bootstrap_timeout_ms": ANSWER_MS,
            "reconnect_backoff_max_ms": RECONNECT_MS_MAX,
            "heartbeat_interval_ms": min(3_000, session_timeout_ms // 3),
            **passed_through(settings.kafka, KafkaConsumer.DEFAULT_CONFIG, OURS),
            "bootstrap_servers": settings.bootstrap.split(","),
            "group_id": settings.group if in_group else None,
            "group_instance_id": (settings.group_instance_id or None) if in_group else None,
            "enable_auto_commit": False,
            "auto_offset_reset": "none",
            "allow_auto_create_topics": False,
            "partition_assignment_strategy": (CooperativeStickyAssignor,),
            "session_timeout_ms": session_timeout_ms,
        }

    def _choose_path(self) -> None:
        wanted = self._settings.fetch
        reason = columnar.supported() if wanted != "stock" else "the setting `fetch` says so"
        if reason is None:
            columnar.install(self._consumer)
            self.columnar = True
        elif wanted == "columnar":
            raise ConfigError(f"the installed kafka-python has no columnar path: {reason}")
        else:
            level = log.info if wanted == "stock" else log.warning
            level("records are read the stock way, several times slower", reason=reason)
            self._consumer.config["max_poll_records"] = 20_000

    def _drain(self) -> Iterable[Assigned | Gone]:
        while True:
            try:
                yield self._events.get_nowait()
            except queue.Empty:
                return

    def _records(self, found: Mapping[TopicPartition, list[Any]]) -> Iterable[Records]:
        for where, batch in found.items():
            if self.columnar:
                yield from batch
            elif batch:
                partition = Partition(*where)
                position = self.position(partition)
                yield to_records(partition, batch, max(position or 0, batch[-1].offset + 1))

    def _each(self, act: Any, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            try:
                act(TopicPartition(*partition))
            except _NOT_ASSIGNED:
                log.debug("partition is no longer assigned", partition=str(partition))

    def _in_words(self, error: Exception) -> ConfigError | RetryableError:
        if isinstance(error, kafka_errors.FencedInstanceIdError):
            return ConfigError(
                f"another worker has joined group {self._settings.group} with the same group_instance_id "
                f"{self._settings.group_instance_id!r}: give each worker a name of its own"
            )
        if isinstance(error, _REFUSED):
            return ConfigError(f"Kafka at {self._settings.bootstrap} refuses this client: {error}")
        return RetryableError(f"Kafka at {self._settings.bootstrap}: {type(error).__name__}: {error}")

    def _unreachable(self, error: Exception) -> RetryableError | ConfigError:
        if isinstance(error, kafka_errors.KafkaError | OSError):
            return RetryableError(
                f"no Kafka broker answers at {self._settings.bootstrap}: {type(error).__name__}: {error}"
            )
        return ConfigError(f"Kafka client settings: {error}")

    @staticmethod
    def _quieten() -> None:
        """kafka-python logs every reconnect as an error; the job says itself what matters."""
        logging.getLogger("kafka").setLevel(logging.CRITICAL)


def passed_through(
    given: Mapping[str, Any], known: Mapping[str, Any], ours: Iterable[str], client: str = "consumer"
) -> dict[str, Any]:
    """Check client settings given by the user and give text from flags or environment its type.

    Args:
        given: by kafka-python's names.
        known: kafka-python's defaults.
        ours: names that the user may not set.
        client: which of kafka-python's.

    Raises:
        ConfigError: a name is unknown or not the user's to set.
    """
    typed: dict[str, Any] = {}
    for name, value in given.items():
        if name in ours:
            raise ConfigError(f"Kafka client setting {name} is Stillwatch's own to set")
        if name not in known:
            raise ConfigError(f"Kafka client setting {name} is unknown to kafka-python's {client}")
        typed[name] = _typed(name, value, known[name])
    check_security(typed)
    return typed


def check_security(settings: Mapping[str, Any]) -> None:
    """Refuse settings by which a client would speak in the clear though its user meant otherwise.

    Raises:
        ConfigError: kafka-python would take them, and send credentials nowhere or everything unencrypted.
    """
    protocol = settings.get("security_protocol", "PLAINTEXT")
    if protocol not in _PROTOCOLS:
        raise ConfigError(f"Kafka client setting security_protocol: {protocol!r} is none of {', '.join(_PROTOCOLS)}")
    for prefix, needed in (("sasl_", "SASL"), ("ssl_", "SSL")):
        given = sorted(name for name in settings if name.startswith(prefix))
        if given and needed not in protocol:
            raise ConfigError(f"Kafka client setting {given[0]} has no effect with security_protocol={protocol}")
    for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_crlfile"):
        if settings.get(name) and not Path(str(settings[name])).is_file():
            raise ConfigError(f"Kafka client setting {name}: there is no file {settings[name]}")


def _typed(name: str, value: Any, default: Any) -> Any:
    if not isinstance(value, str):
        return value
    if isinstance(default, bool):
        if value.lower() not in ("true", "false"):
            raise ConfigError(f"Kafka client setting {name}: expected true or false, got {value!r}")
        return value.lower() == "true"
    if isinstance(default, int):
        try:
            return int(value)
        except ValueError:
            raise ConfigError(f"Kafka client setting {name}: expected a whole number, got {value!r}") from None
    return value
