"""The fast way to read a topic: kafka-python fetches, and thousands of records become columns at once.

kafka-python builds one Python object per record, and that is where a consumer written in Python spends its time.  Its
fetcher has one seam for it, `Fetcher.PartitionRecords`, the class that unpacks what a fetch returned for a partition;
`pipeline.io.partition_records` takes its place in one consumer.  All around it (connections, group, rebalances,
positions, pause and seek) stays kafka-python's own.

The seam is private to kafka-python.  So `supported()` looks at it closely, and the job reads the stock way where a
release has moved it::

    reason = columnar.supported()
    if reason is None:
        columnar.install(consumer)  # consumer.poll() now returns {TopicPartition: [Records, ...]}
"""
# ruff: noqa: PLC0415, SLF001  # modules that reach into kafka-python are imported where a failure to do so can be survived

from __future__ import annotations

import functools
from typing import Final

from kafka import KafkaConsumer

from pipeline.errors import ConfigError
from pipeline.io import heap

SLAB_BYTES_MAX: Final = 4 * 1024 * 1024
"""Thousands of records, so that numpy's cost per call vanishes, and still near the CPU's cache."""

SLABS_PER_POLL_MAX: Final = 8
"""Bounds what one `poll()` returns: 32 MiB; more than one slab, because those of quiet partitions are small."""


def supported() -> str | None:
    """Look whether the installed kafka-python has the seam exactly as the columnar path expects it.

    Compares names and signatures, then reads a batch made here both ways.  Takes some milliseconds: for the start.

    Returns:
        None if it has; else what is different, in words: the job then reads the stock way.
    """
    try:
        from pipeline.io import columnar_seam

        return columnar_seam.difference()
    except Exception as error:  # noqa: BLE001  # whatever a moved seam raises, it is the answer and not a failure
        return f"{type(error).__name__}: {error}"


def install(
    consumer: KafkaConsumer, slab_bytes_max: int = SLAB_BYTES_MAX, slabs_per_poll_max: int = SLABS_PER_POLL_MAX
) -> None:
    """Make `poll()` of this one consumer return slabs: `{TopicPartition: [Records, ...]}`.

    `max_records` of `poll()` counts slabs from now on.  Iterating over the consumer does not work any more.

    Args:
        consumer: not polled yet.
        slab_bytes_max: a slab takes at most this much memory, or holds a single batch.
        slabs_per_poll_max: becomes the consumer's `max_poll_records`.

    Raises:
        ConfigError: the consumer has a deserialiser, which would be ignored.
    """
    from pipeline.io import frame_reader
    from pipeline.io.partition_records import ColumnarPartitionRecords

    for name in ("key_deserializer", "value_deserializer"):
        if consumer.config[name] is not None:
            raise ConfigError(f"{name}: the columnar path hands out values as they are")
    heap.keep_freed_memory()
    frame_reader.install(consumer._manager)
    fetcher = consumer._fetcher
    consumer.config["max_poll_records"] = fetcher.config["max_poll_records"] = slabs_per_poll_max
    fetcher.PartitionRecords = functools.partial(ColumnarPartitionRecords, slab_bytes_max=slab_bytes_max)
