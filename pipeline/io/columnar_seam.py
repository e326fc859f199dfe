"""Is kafka-python's private seam what `pipeline.io.partition_records` was written for?"""
# ruff: noqa: SLF001  # private names are what is looked at

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder

from pipeline.batch import Partition, Records
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
_BATCH_ATTRIBUTES: Final = (
    "_buffer _pos _decompressed _assert_has_codec compression_type validate_crc has_producer_id producer_id"
    " is_control_batch magic base_offset last_offset next_offset leader_epoch records_count first_timestamp"
    " max_timestamp timestamp_type"
)
_GZIP: Final = 1  # the one codec that is always there
_VALUES: Final = (b"{}", None, b"", b"two\nlines" * 20, b"123456789012", b"\xff" * 9000)


def difference() -> str | None:
    """Compare the installed kafka-python with what the columnar path expects.

    Returns:
        The first difference, in words; None if there is none.
    """
    return _missing_name() or _different_rows()


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
    for user, name in ((Fetcher._parse_fetched_data, "PartitionRecords"), (KafkaConsumer.__init__, "_fetcher")):
        if not _mentions(user, name):
            return f"{user} does not use {name}"
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


def _same(one: Records, other: Records) -> bool:
    """Whether both hold the same rows."""
    return (
        one.values.to_pylist() == other.values.to_pylist()
        and np.array_equal(one.offsets, other.offsets)
        and np.array_equal(one.timestamps, other.timestamps)
        and one.next_offset == other.next_offset
    )
