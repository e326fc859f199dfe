"""Are kafka-python's private seams what `partition_records` and `frame_reader` were written for?"""
# ruff: noqa: SLF001  # private names are what is looked at

from __future__ import annotations

import inspect
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.net.connection import KafkaConnection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport
from kafka.protocol.consumer import FetchRequest, FetchResponse
from kafka.protocol.parser import KafkaProtocol
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder

from pipeline.batch import Partition, Records
from pipeline.io.frame_reader import READ_BYTES, FrameReader
from pipeline.io.partition_records import read_batches
from pipeline.io.records import to_records

_PARAMETERS: Final = {
    "__init__": "self fetch_offset tp records key_deserializer value_deserializer check_crcs isolation_level"
    " aborted_transactions metric_aggregator on_drain",
    "_unpack_records": "self tp records key_deserializer value_deserializer",
    "_maybe_skip_record": "self record",
    "take": "self n",
    "drain": "self",
    "_consume_aborted_transactions_up_to": "self offset",
    "_contains_abort_marker": "self batch",
    "_is_batch_aborted": "self batch",
}
_FETCH_ATTRIBUTES: Final = (
    "topic_partition fetch_offset next_fetch_offset leader_epoch bytes_read records_read check_crcs isolation_level"
    " aborted_producer_ids aborted_transactions record_iterator"
)
_BATCH_ATTRIBUTES: Final = "validate_crc base_offset leader_epoch is_control_batch"
_USES: Final = (
    (Fetcher._parse_fetched_data, "PartitionRecords"),
    (KafkaConsumer.__init__, "_fetcher _manager"),
    (KafkaConnectionManager.__init__, "_conns"),
    (KafkaConnectionManager._connect, "_build_transport connection_made"),
    (KafkaConnection.connection_made, "transport parser resume_reading"),
    (KafkaConnection.data_received, "parser receive_bytes"),
    (KafkaTCPTransport._read_from_sock, "_sock_recv _protocol _sensors bytes_received data_received"),
)
_FETCH_VERSION: Final = 12
_PIECE_BYTES: Final = 4096  # every socket's buffer holds so much
_GZIP: Final = 1  # the one codec that is always there
_VALUES: Final = (b"{}", None, b"", b"two\nlines" * 20, b"123456789012", b"\xff" * 9000)


def difference() -> str | None:
    """Compare the installed kafka-python with what the columnar path expects.

    Returns:
        The first difference, in words; None if there is none.
    """
    return _missing_name() or _missing_use() or _different_rows() or _different_frame()


def _missing_name() -> str | None:
    """A private name or signature that is gone or different."""
    unpacker = Fetcher.PartitionRecords
    for name, expected in _PARAMETERS.items():
        found = " ".join(inspect.signature(getattr(unpacker, name)).parameters)
        if found != expected:
            return f"Fetcher.PartitionRecords.{name} takes ({found}), not ({expected})"
    fetched = unpacker(0, TopicPartition("topic", 0), MemoryRecords(b""))
    for owner, names in ((fetched, _FETCH_ATTRIBUTES), (DefaultRecordBatch, _BATCH_ATTRIBUTES)):
        for name in names.split():
            if not hasattr(owner, name):
                return f"{owner} has no {name}"
    return None


def _missing_use() -> str | None:
    """A private name that kafka-python does not look up any more where it has to find ours."""
    for user, names in _USES:
        for name in names.split():
            if not _mentions(user, name):
                return f"{user} does not use {name}"
    if KafkaSSLTransport._read_from_sock is not KafkaTCPTransport._read_from_sock:
        return "a TLS transport reads in a way of its own"
    return None


def _mentions(function: Callable[..., Any], name: str) -> bool:
    """Whether a function's code uses this attribute."""
    return name in inspect.unwrap(function).__code__.co_names


def _different_rows() -> str | None:
    """Rows of batches made here that are not the same both ways."""
    batches = MemoryRecordsBuilder(2, _GZIP, batch_size=1 << 20)
    for number, value in enumerate(_VALUES):
        batches.append(1_700_000_000_000 - number, b"key", value, [("header", b"1")] * number)
    batches.close()
    buffer = bytes(batches.buffer())
    stock = Fetcher.PartitionRecords(1, TopicPartition("topic", 0), MemoryRecords(buffer))
    expected = to_records(Partition("topic", 0), stock.take(), stock.next_fetch_offset)
    slabs = read_batches(buffer, fetch_offset=1)
    if len(slabs) == 1 and _same(slabs[0], expected):
        return None
    return "a batch read in columns does not give the rows that kafka-python gives"


def _different_frame() -> str | None:
    """A response that is not the same when a `FrameReader` takes it from a socket."""
    records = bytes(range(256)) * (READ_BYTES // 256 + 1)
    partition = FetchResponse.FetchableTopicResponse.PartitionData(partition_index=0, error_code=0, records=records)
    topic = FetchResponse.FetchableTopicResponse(topic="topic", partitions=[partition])
    response = FetchResponse[_FETCH_VERSION](responses=[topic])
    parser = KafkaProtocol()
    response.with_header(correlation_id=parser.send_request(FetchRequest[_FETCH_VERSION](topics=[])))
    sent = response.encode(header=True, framed=True)
    received: list[Any] = []
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        read = FrameReader(SimpleNamespace(_sock=ours, _protocol=SimpleNamespace(parser=parser, _sensors=None)))
        for begin in range(0, len(sent), _PIECE_BYTES):
            theirs.sendall(sent[begin : begin + _PIECE_BYTES])
            received += parser.receive_bytes(read()[0])
    if [found.responses[0].partitions[0].records for _, found in received] == [records]:
        return None
    return "a response read in large pieces is not the one that was sent"


def _same(one: Records, other: Records) -> bool:
    """Whether both hold the same rows."""
    return (
        one.values.to_pylist() == other.values.to_pylist()
        and np.array_equal(one.offsets, other.offsets)
        and np.array_equal(one.timestamps, other.timestamps)
        and one.next_offset == other.next_offset
    )
