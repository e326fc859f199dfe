"""Events of a file go where the topic's producer would have sent them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from kafka.partitioner import DefaultPartitioner

from pipeline.backtesting.partitioning import Partitioner
from pipeline.batch import Partition, Records
from pipeline.decode import Decoder

KEYS = ("acct_1", "acct_2", "21", "foobar", "ÿé", "", "名前", "a" * 10_000)


class Cluster:
    """A topic of some partitions, as the client's partitioner asks for it."""

    def __init__(self, partitions: int) -> None:
        self._partitions = set(range(partitions))

    def topics(self) -> set[str]:
        return {"t"}

    def partitions_for_topic(self, _topic: str) -> set[int]:
        return self._partitions

    available_partitions_for_topic = partitions_for_topic


@pytest.mark.parametrize("partitions", (1, 4, 7, 64))
def test_keys_go_where_the_client_sends_them(partitions: int) -> None:
    ours, theirs = Partitioner("t", partitions), DefaultPartitioner()
    assert [ours.number_of(key) for key in KEYS] == [
        theirs.partition("t", key, key.encode(), None, None, Cluster(partitions)) for key in KEYS
    ]


@pytest.mark.parametrize(
    ("key", "murmur2"), (("21", -973932308), ("foobar", -790332482), ("a-little-bit-long-string", -985981536))
)
def test_the_hash_is_that_of_the_java_client(key: str, murmur2: int) -> None:
    """Values of Kafka's own UtilsTest.testMurmur2."""
    assert Partitioner("t", 1000).number_of(key) == (murmur2 & 0x7FFFFFFF) % 1000


def decoded(accounts: list[str], first: int = 0) -> pa.Table:
    lines = [
        b'{"event_time":"2026-03-01T00:00:00Z","model":"m","account_id":"%b"}' % name.encode() for name in accounts
    ]
    values = pa.array(lines, pa.binary()).cast(pa.binary_view())
    offsets = np.arange(first, first + len(lines))
    return (
        Decoder()
        .decode(Records(Partition("f", 0), values, offsets, np.full(len(lines), -1), first + len(lines)))
        .events
    )


def test_events_are_numbered_in_their_partition_with_room_for_rejects() -> None:
    partitioner = Partitioner("t", 2)
    here = [name for name in map(str, range(20)) if partitioner.number_of(name) == 0]
    there = [name for name in map(str, range(20)) if partitioner.number_of(name) == 1]
    keys = [here[0], there[0], None, here[1], there[1]]
    events = decoded([name for name in keys if name is not None])

    parts = list(partitioner.divide(events, np.array([0, 1, 3, 4]), keys))  # type: ignore[arg-type]
    again = list(partitioner.divide(events, np.array([0, 1, 3, 4]), keys))  # type: ignore[arg-type]

    assert (
        [
            (part["partition"][0].as_py(), part["offset"].to_pylist(), part["account_id"].to_pylist())
            for part in parts + again
        ]
        == [
            (0, [0, 2], here[:2]),  # the record without a key took offset 1
            (1, [0, 1], there[:2]),
            (0, [3, 5], here[:2]),
            (1, [2, 3], there[:2]),
        ]
    )
    assert set(parts[0]["topic"].to_pylist()) == {"t"}
    assert parts[0].schema == events.schema
