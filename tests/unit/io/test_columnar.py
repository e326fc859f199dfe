"""The columnar path gives what kafka-python gives, for all that a broker may store or a disk may corrupt."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import CompletedFetch, Fetcher
from kafka.errors import CorruptRecordError
from kafka.protocol.consumer import FetchResponse, IsolationLevel
from kafka.record.memory_records import MemoryRecords
from kafka.serializer import Deserializer

from pipeline.batch import Partition, Records
from pipeline.errors import ConfigError
from pipeline.io import columnar
from pipeline.io.partition_records import ColumnarPartitionRecords, read_batches
from pipeline.io.record_batches import zigzag_varints
from pipeline.io.records import to_records
from pipeline.text_views import INLINE_BYTES_MAX
from tests.unit.io import kafka_log
from tests.unit.io.kafka_log import Batch, Log, Row, encode_batch, encode_record, encode_records, logs

TOPIC = TopicPartition("topic", 0)
COMMITTED, UNCOMMITTED = IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED
ISOLATION = st.sampled_from((COMMITTED, UNCOMMITTED))
SLAB_BYTES_MAX = st.sampled_from((1, 500, 5_000, 4 << 20))
OUT_OF_ORDER = "comes after offset"

thorough = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
RowTuple = tuple[int, int, bytes | None]


def row_tuples(slab: Records) -> list[RowTuple]:
    return list(zip(slab.offsets.tolist(), slab.timestamps.tolist(), slab.values.to_pylist(), strict=True))


@dataclass
class Reading:
    """What one path made of a fetch."""

    slabs: list[Records] = field(default_factory=list)
    error: Exception | None = None
    next_offset: int = -1
    leader_epoch: int = -1
    metrics: list[tuple[int, int]] = field(default_factory=list)  # bytes and records, once per drained fetch

    @property
    def rows(self) -> list[RowTuple]:
        return [row for slab in self.slabs for row in row_tuples(slab)]

    def record(self, _: TopicPartition, bytes_read: int, records_read: int) -> None:
        self.metrics.append((bytes_read, records_read))


def read(path: Any, log: Log, fetch_offset: int = 0, **options: Any) -> Reading:
    """Take everything, as the fetcher would, until the end or the first error."""
    reading = Reading()
    options.setdefault("isolation_level", UNCOMMITTED)
    options |= {"aborted_transactions": log.aborted, "metric_aggregator": reading}
    fetched = path(fetch_offset, TOPIC, MemoryRecords(log.buffer), **options)
    stock = path is Fetcher.PartitionRecords
    try:
        while fetched:
            taken = fetched.take(3 if stock else 1)
            if stock and taken:
                taken = [to_records(Partition("topic", 0), taken, fetched.next_fetch_offset)]
            reading.slabs += taken
    except Exception as error:  # noqa: BLE001  # which one it is, is compared
        reading.error = error
    reading.next_offset, reading.leader_epoch = fetched.next_fetch_offset, fetched.leader_epoch
    return reading


def read_both(log: Log, fetch_offset: int = 0, slab_bytes_max: int = 1000, **options: Any) -> tuple[Reading, Reading]:
    return (
        read(Fetcher.PartitionRecords, log, fetch_offset, **options),
        read(ColumnarPartitionRecords, log, fetch_offset, slab_bytes_max=slab_bytes_max, **options),
    )


def check_slabs(reading: Reading, fetch_offset: int) -> None:
    """What `Records` promises, for each slab and from one to the next."""
    position = fetch_offset
    for slab in reading.slabs:
        slab.values.validate(full=True)
        assert slab.values.type == pa.binary_view()
        assert slab.offsets.dtype == slab.timestamps.dtype == np.int64
        assert len(slab) == len(slab.values) == len(slab.timestamps) > 0
        assert slab.offsets[0] >= position
        assert (np.diff(slab.offsets) > 0).all()
        assert slab.next_offset > slab.offsets[-1]
        position = slab.next_offset
    assert reading.next_offset >= position


class RegularOnly(ColumnarPartitionRecords):
    """Fails where the fast path gives up."""

    def _irregular_slabs(self, gathered: Any) -> Iterator[Records]:
        raise AssertionError(gathered)


@thorough
@given(log=logs(), place=st.floats(0, 1.2), isolation_level=ISOLATION, slab_bytes_max=SLAB_BYTES_MAX, data=st.data())
def test_both_paths_give_the_same_rows_and_position(
    log: Log, place: float, isolation_level: int, slab_bytes_max: int, data: st.DataObject
) -> None:
    fetch_offset = int(place * log.end)
    log.buffer = log.buffer[: len(log.buffer) - data.draw(st.sampled_from((0, 0, 1, 30)))]  # a fetch may end in a batch
    stock, columns = read_both(log, fetch_offset, slab_bytes_max, isolation_level=isolation_level)
    assert stock.error is columns.error is None
    assert columns.rows == stock.rows
    assert columns.next_offset == max(stock.next_offset, fetch_offset)
    assert columns.leader_epoch == stock.leader_epoch
    assert columns.metrics == stock.metrics
    check_slabs(columns, fetch_offset)
    if columns.slabs and slab_bytes_max > len(log.buffer) * 1000:  # one slab: what follows its last row is known
        assert columns.slabs[-1].next_offset == columns.next_offset


@thorough
@given(log=logs(), isolation_level=ISOLATION, slab_bytes_max=SLAB_BYTES_MAX)
def test_reading_resumes_after_any_slab_without_loss_or_repetition(
    log: Log, isolation_level: int, slab_bytes_max: int
) -> None:
    options = {"isolation_level": isolation_level, "slab_bytes_max": slab_bytes_max}
    whole = read(ColumnarPartitionRecords, log, **options)
    for number, slab in enumerate(whole.slabs[:5], start=1):
        rest = read(ColumnarPartitionRecords, log, slab.next_offset, **options)
        assert rest.rows == [row for later in whole.slabs[number:] for row in row_tuples(later)]


@thorough
@given(
    log=logs(),
    place=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
    check_crcs=st.booleans(),
    isolation_level=ISOLATION,
)
def test_a_flipped_bit_has_the_same_outcome_on_both_paths(
    log: Log, place: float, bit: int, check_crcs: bool, isolation_level: int
) -> None:
    flipped = bytearray(log.buffer)
    flipped[int(place * len(flipped))] ^= 1 << bit
    log.buffer = bytes(flipped)
    check_same_outcome(*read_both(log, isolation_level=isolation_level, check_crcs=check_crcs))


def check_same_outcome(stock: Reading, columns: Reading) -> None:
    check_slabs(columns, 0)
    if OUT_OF_ORDER in str(columns.error):  # stock hands these out; neither loses nor changes what comes before
        assert isinstance(columns.error, CorruptRecordError)
        assert columns.rows == stock.rows[: len(columns.rows)]
        return
    assert type(columns.error) is type(stock.error), (stock.error, columns.error)
    assert columns.rows == stock.rows
    assert columns.next_offset >= stock.next_offset


@settings(thorough, max_examples=400)
@given(
    batch=st.builds(
        Batch, rows=st.lists(kafka_log.ROWS | kafka_log.ODD_ROWS, min_size=1, max_size=6), codec=kafka_log.CODECS
    ),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=2),
    cut=st.integers(-3, 3),
    miscount=st.sampled_from((0, 0, 0, -1, 1, -7, 2**31 - 9)),
    good_batches=st.sampled_from((0, 1, 2, 200)),  # 200: read side by side
)
def test_a_corrupt_structure_under_a_valid_checksum_has_the_same_outcome_on_both_paths(
    batch: Batch, edits: list[tuple[float, int]], cut: int, miscount: int, good_batches: int
) -> None:
    records = bytearray(encode_records(batch.rows))
    for place, byte in edits:
        records[int(place * len(records))] = byte
    records = records[: len(records) + cut] if cut < 0 else records + b"\1" * cut
    good = b"".join(encode_batch(Batch([Row(b"good")] * 3, base_offset=3 * n)) for n in range(good_batches))
    batch.base_offset = 3 * good_batches
    corrupt = encode_batch(batch, bytes(records), len(batch.rows) + miscount)
    last = encode_batch(Batch([Row(b"last")], base_offset=10_000))
    check_same_outcome(*read_both(Log(good + corrupt + last), slab_bytes_max=1 << 20))


def framed(body: bytes, length: int | None = None) -> bytes:
    return kafka_log.varint(len(body) if length is None else length) + body


HEAD = b"\0\0\2\1"  # attributes, timestamp, the batch's second offset, no key
CORRUPT_RECORDS = {
    "value beyond the record": framed(HEAD + b"\x40abc\0"),
    "negative length": framed(HEAD + b"\2v\0", length=-1),
    "length one short": framed(HEAD + b"\2v\0", length=6),
    "length one long": framed(HEAD + b"\2v\0", length=8),
    "header count without headers": framed(HEAD + b"\2v\2"),
    "negative header count": framed(HEAD + b"\2v\1"),
    "header name beyond the record": framed(HEAD + b"\2v\2\x7ehv"),
    "negative header name": framed(HEAD + b"\2v\2\1\2v"),
    "negative header name at the end": framed(HEAD + b"\2v\2\1"),
    "header name not UTF-8": framed(HEAD + b"\2v\2\2\xff\2v"),
    "bytes after no headers": framed(HEAD + b"\2v\0\0"),
    "bytes after a header": framed(HEAD + b"\2v\2\2h\2v\0"),
    "negative length of three bytes": framed(HEAD + b"\2v\0", length=-9000),
    "endless varint": framed(HEAD + b"\xff" * 12 + b"\0\0"),
}


@pytest.mark.parametrize("name", CORRUPT_RECORDS)
def test_good_rows_come_before_the_error(name: str) -> None:
    """As on the stock path: the rows before a corrupt record are handed out, and then the error is raised."""
    good = encode_batch(Batch([Row(b"a"), Row(b"b")]))
    records = encode_record(Row(b"c"), 0) + CORRUPT_RECORDS[name] + encode_record(Row(b"d"), 2)
    corrupt = encode_batch(Batch([Row(b"")] * 3, base_offset=2), records)
    stock, columns = read_both(Log(good + corrupt), slab_bytes_max=1 << 20)
    assert isinstance(columns.error, CorruptRecordError)
    assert [value for *_, value in columns.rows] == [b"a", b"b", b"c"]
    assert columns.next_offset == 3
    check_same_outcome(stock, columns)


@thorough
@given(log=logs(kafka_log.USUAL), slab_bytes_max=SLAB_BYTES_MAX)
def test_what_brokers_store_is_read_without_the_record_by_record_path(log: Log, slab_bytes_max: int) -> None:
    assert read(RegularOnly, log, slab_bytes_max=slab_bytes_max).error is None


@given(rows=st.lists(kafka_log.ROWS, min_size=1, max_size=8), base_offset=st.integers(0, 2**40))
def test_the_encoder_of_these_tests_agrees_with_kafka_python(rows: list[Row], base_offset: int) -> None:
    rows = [Row(row.value, row.key, row.headers, timestamp_delta=max(row.timestamp_delta, 0) if n else 0)
            for n, row in enumerate(rows)]  # fmt: skip
    theirs = bytearray(kafka_log.encode_with_kafka_python(rows, kafka_log.NONE, base_offset))
    theirs[43:57] = bytes(14)  # producer: theirs says -1
    ours = bytearray(encode_batch(Batch(rows, base_offset=base_offset)))
    ours[43:57] = bytes(14)
    assert ours[21:] == theirs[21:]
    assert ours[:17] == theirs[:17]


@given(st.lists(st.integers(-(2**55), 2**55 - 1), min_size=1))
def test_varints_up_to_eight_bytes_are_decoded(numbers: list[int]) -> None:
    encoded = [kafka_log.varint(number) for number in numbers]
    words = np.array([int.from_bytes(code.ljust(8, b"\xff"), "little") for code in encoded], dtype=np.uint64)
    values, sizes = zigzag_varints(words)
    assert values.tolist() == numbers
    assert sizes.tolist() == [len(code) for code in encoded]


@given(st.lists(st.none() | st.binary(max_size=2 * INLINE_BYTES_MAX), min_size=1, max_size=40))
def test_short_values_are_equal_to_what_arrow_itself_builds(values: list[bytes | None]) -> None:
    (slab,) = read_batches(encode_batch(Batch([Row(value) for value in values])))
    assert slab.values.equals(pa.array(values, pa.binary_view()))


def test_records_with_more_headers_than_the_fast_path_counts_are_read() -> None:
    many: kafka_log.Headers = [("h", None)] * 1000
    check_same_outcome(*read_both(Log(encode_batch(Batch([Row(b"a"), Row(b"b", headers=many)])))))
    assert len(read_batches(encode_batch(Batch([Row(b"a"), Row(b"b", headers=many)])))[0]) == 2


def test_a_long_header_list_and_names_beyond_ascii_stay_on_the_fast_path() -> None:
    rows = [Row(b"v", headers=[("größe", b"1"), ("\N{CJK UNIFIED IDEOGRAPH-4E00}" * 9, None)] * n) for n in range(9)]
    assert len(read(RegularOnly, Log(encode_batch(Batch(rows)))).rows) == 9


A, B = Row(b"a"), Row(b"b")
OVERLAPS = {
    "the next batch": encode_batch(Batch([A, B])) + encode_batch(Batch([A], base_offset=1)),
    "a record beyond its batch": encode_batch(Batch([A]), encode_records([A, B]), 2) + encode_batch(Batch([A], 1)),
    "a record before its batch": encode_batch(Batch([A, B])) + encode_batch(Batch([A], 2), encode_record(A, -1)),
    "a record again": encode_batch(Batch([A, B, A]), encode_records([A, B]) + encode_record(A, 1)),
}


@pytest.mark.parametrize("slab_bytes_max", (1, 1 << 20))
@pytest.mark.parametrize("name", OVERLAPS)
def test_offsets_that_do_not_increase_are_corruption(name: str, slab_bytes_max: int) -> None:
    """A job that keeps only its next offset would count such records twice."""
    columns = read(ColumnarPartitionRecords, Log(OVERLAPS[name]), slab_bytes_max=slab_bytes_max)
    assert OUT_OF_ORDER in str(columns.error)
    assert [(offset, value) for offset, _, value in columns.rows] == [(0, b"a"), (1, b"b")]
    assert columns.next_offset == 2


def test_a_negative_record_count_over_no_bytes_is_an_empty_batch() -> None:
    log = Log(encode_batch(Batch([A])) + encode_batch(Batch([], 1, tail=1), count=-1) + encode_batch(Batch([B], 2)))
    check_same_outcome(*read_both(log, slab_bytes_max=1 << 20))
    assert len(read(ColumnarPartitionRecords, log).rows) == 2


def test_a_producer_is_seen_again_after_its_abort_marker() -> None:
    ours: dict[str, Any] = {"producer_id": 7, "flags": kafka_log.TRANSACTIONAL}
    marker: dict[str, Any] = ours | {"flags": kafka_log.TRANSACTIONAL | kafka_log.CONTROL}
    batches = (
        Batch([A], 0, **ours), Batch([Row(b"", kafka_log.ABORT)], 1, **marker),
        Batch([B], 2, **ours), Batch([Row(b"", kafka_log.COMMIT)], 3, **marker),
    )  # fmt: skip
    log = Log(b"".join(map(encode_batch, batches)), aborted=[kafka_log.Aborted(7, 0)])
    stock, columns = read_both(log, isolation_level=COMMITTED)
    assert columns.rows == stock.rows == [(2, kafka_log.FIRST_TIMESTAMP, b"b")]
    assert [slab.next_offset for slab in columns.slabs] == [4]  # past the marker


def test_the_position_never_goes_back() -> None:
    """A batch wholly below the offset asked for: stock sets the position back and later hands records out again."""
    stock, columns = read_both(Log(encode_batch(Batch([Row(b"a")] * 3))), fetch_offset=5)
    assert (stock.next_offset, columns.next_offset) == (3, 5)
    assert not columns.rows


def test_a_marker_emptied_by_compaction_is_passed_over() -> None:
    """Kafka keeps the empty batch of a producer's last marker; kafka-python fails on it."""
    flags = kafka_log.TRANSACTIONAL | kafka_log.CONTROL
    log = Log(encode_batch(Batch([], tail=1, flags=flags, producer_id=7)) + encode_batch(Batch([Row(b"a")], 1)))
    columns = read(ColumnarPartitionRecords, log, isolation_level=COMMITTED)
    assert columns.error is None
    assert columns.rows == [(1, kafka_log.FIRST_TIMESTAMP, b"a")]


def test_a_slab_holds_no_more_than_its_bound_or_one_batch() -> None:
    batch_rows, bound = 10, 8_000
    batches = [encode_batch(Batch([Row(b"x" * 100)] * batch_rows, base_offset=batch_rows * n)) for n in range(60)]
    large = encode_batch(Batch([Row(b"y" * 9_000)] * 3, base_offset=batch_rows * 60))
    slabs = read_batches(b"".join(batches) + large, slab_bytes_max=bound)
    sizes = [slab.values.get_total_buffer_size() + slab.offsets.nbytes + slab.timestamps.nbytes for slab in slabs]
    assert max(sizes[:-1]) <= bound
    assert len(slabs) == 16  # four batches of 1,080 bytes and 640 for columns fit, so does none of the large one
    assert len(slabs[-1]) == 3


def test_slabs_are_decoded_only_when_taken() -> None:
    good = b"".join(encode_batch(Batch([Row(b"x")] * 3, base_offset=3 * n)) for n in range(4))
    fetched = ColumnarPartitionRecords(0, TOPIC, MemoryRecords(good), slab_bytes_max=1)
    assert fetched.next_fetch_offset == 0
    for taken in range(1, 5):
        (slab,) = fetched.take(1)
        assert slab.next_offset == fetched.next_fetch_offset == 3 * taken
        assert fetched.records_read == 3 * taken


@contextmanager
def offline_consumer(**config: Any) -> Iterator[KafkaConsumer]:
    """A consumer at offset 0 of a partition, connected to what never answers: nothing here needs a broker."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        consumer = KafkaConsumer(bootstrap_servers=address, api_version=(3, 9), enable_auto_commit=False, **config)
        try:
            consumer.assign([TOPIC])
            consumer.seek(TOPIC, 0)
            yield consumer
        finally:
            consumer.close(autocommit=False, timeout_ms=0)


def deliver(consumer: KafkaConsumer, records: bytes, fetch_offset: int) -> None:
    """Put a fetch response where the consumer's network thread would put it."""
    partition = FetchResponse.FetchableTopicResponse.PartitionData(
        partition_index=0, error_code=0, high_watermark=-1, records=records, aborted_transactions=None,
        preferred_read_replica=-1,
    )  # fmt: skip
    consumer._fetcher._completed_fetches.append(CompletedFetch(TOPIC, fetch_offset, 12, partition, None))


def test_an_installed_consumer_polls_slabs_and_moves_its_position() -> None:
    batches = [encode_batch(Batch([Row(b"x")] * 3, base_offset=3 * n, tail=1 if n else 0)) for n in range(2)]
    with offline_consumer() as consumer, offline_consumer() as other:
        columnar.install(consumer, slab_bytes_max=1, slabs_per_poll_max=1)
        deliver(consumer, b"".join(batches), 0)
        positions = []
        for _ in batches:
            (slab,) = consumer._fetcher.fetched_records()[0][TOPIC]
            assert isinstance(slab, Records)
            positions.append((slab.next_offset, consumer.position(TOPIC)))
        assert positions == [(3, 3), (7, 7)]
        deliver(other, batches[0], 0)
        assert other._fetcher.fetched_records()[0][TOPIC][0].value == b"x"


def test_an_error_is_raised_after_the_good_slabs_and_again_by_the_next_fetch() -> None:
    corrupt = bytearray(encode_batch(Batch([Row(b"x")], base_offset=3)))
    corrupt[-1] ^= 1
    with offline_consumer() as consumer:
        columnar.install(consumer)
        fetcher = consumer._fetcher
        deliver(consumer, encode_batch(Batch([Row(b"x")] * 3)) + corrupt, 0)
        assert [len(slab) for slab in fetcher.fetched_records()[0][TOPIC]] == [3]
        for _ in range(2):  # the fetch that failed, then the one after it
            assert consumer.position(TOPIC) == 3
            with pytest.raises(CorruptRecordError):
                fetcher.fetched_records()
            assert fetcher.fetched_records() == ({}, False)
            deliver(consumer, bytes(corrupt), 3)


class Decoded(Deserializer):
    def deserialize(self, topic: str, headers: Any, data: bytes) -> str:  # noqa: ARG002
        return data.decode()


def test_a_deserializer_is_refused() -> None:
    with offline_consumer(value_deserializer=Decoded()) as consumer, pytest.raises(ConfigError, match="value_des"):
        columnar.install(consumer)


def test_the_installed_kafka_python_is_supported() -> None:
    assert columnar.supported() is None


MOVES = {
    "class gone": ("del Fetcher.PartitionRecords", "PartitionRecords"),
    "method gone": ("del Fetcher.PartitionRecords._is_batch_aborted", "_is_batch_aborted"),
    "other parameters": ("Fetcher.PartitionRecords.take = lambda self, n, more: []", "take takes"),
    "attribute gone": ("del DefaultRecordBatch.validate_crc", "validate_crc"),
    "class not used": ("Fetcher._parse_fetched_data = lambda self: None", "does not use PartitionRecords"),
    "transport reads elsewhere": (
        "KafkaTCPTransport._sock_recv = KafkaTCPTransport._read_from_sock = read_all",
        "_sock_recv",
    ),
    "parser keeps its frame elsewhere": ("KafkaProtocol.receive_bytes = receive_elsewhere", "large pieces"),
    "values changed": ("DefaultRecordBatch._read_msg = upper(DefaultRecordBatch._read_msg)", "does not give the rows"),
}


@pytest.mark.parametrize("name", MOVES)
def test_a_release_that_moves_the_seam_is_noticed_and_said(name: str) -> None:
    move, expected = MOVES[name]
    program = f"""
from kafka.consumer.fetcher import Fetcher
from kafka.net.transport import KafkaTCPTransport
from kafka.protocol.parser import KafkaProtocol
from kafka.record.default_records import DefaultRecordBatch
def read_all(self):
    pass
def receive_elsewhere(self, data):
    return []
def upper(read):
    def read_upper(self):
        record = read(self)
        record._value = record._value and record._value.upper()
        return record
    return read_upper
{move}
from pipeline.io import columnar
print(columnar.supported())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert expected in done.stdout


def test_stock_records_become_records() -> None:
    log = Log(kafka_log.encode_legacy([Row(b"a"), Row(None)], 0, kafka_log.NONE, 5))
    (records,) = read(Fetcher.PartitionRecords, log).slabs
    assert row_tuples(records) == [(5, -1, b"a"), (6, -1, None)]
    assert (records.partition, records.next_offset) == (Partition("topic", 0), 7)
