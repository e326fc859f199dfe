"""Hypothesis strategies for what a broker may store in a partition, as the bytes of one fetch response."""

import struct
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from hypothesis import strategies as st
from kafka import codec
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.memory_records import MemoryRecordsBuilder
from kafka.record.util import calc_crc32c, encode_varint

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
ENCODERS = {GZIP: codec.gzip_encode, SNAPPY: codec.snappy_encode, LZ4: codec.lz4_encode, ZSTD: codec.zstd_encode}
APPEND_TIME, TRANSACTIONAL, CONTROL = 0x08, 0x10, 0x20
ABORT, COMMIT = struct.pack(">hh", 0, 0), struct.pack(">hh", 0, 1)
FIRST_TIMESTAMP = 1_700_000_000_000

Headers = list[tuple[str, bytes | None]]


class Aborted(NamedTuple):
    """An aborted transaction, as a fetch response names it."""

    producer_id: int
    first_offset: int


@dataclass
class Row:
    """One record to write."""

    value: bytes | None
    key: bytes | None = None
    headers: Headers = field(default_factory=list)
    gap: int = 0  # offsets that compaction removed before this record
    timestamp_delta: int = 0


@dataclass
class Batch:
    """One v2 batch to write; kafka-python's own builder has no gaps, tails, markers, or broker's clock."""

    rows: list[Row]
    base_offset: int = 0
    tail: int = 0  # offsets that compaction removed after the last record
    codec: int = NONE
    flags: int = 0
    producer_id: int = -1
    leader_epoch: int = 0
    first_timestamp: int = FIRST_TIMESTAMP

    def __len__(self) -> int:
        """Offsets taken."""
        return sum(row.gap + 1 for row in self.rows) + self.tail


@dataclass
class Log:
    """A fetch response's bytes, and what is known about them."""

    buffer: bytes = b""
    end: int = 0  # the offset after the last
    aborted: list[Aborted] = field(default_factory=list)


def varint(value: int) -> bytes:
    out = bytearray()
    encode_varint(value, out.append)
    return bytes(out)


def sized(data: bytes | None) -> bytes:
    return varint(-1) if data is None else varint(len(data)) + data


def encode_record(row: Row, offset_delta: int) -> bytes:
    headers = b"".join(sized(name.encode()) + sized(value) for name, value in row.headers)
    body = b"".join(
        (
            *(b"\0", varint(row.timestamp_delta), varint(offset_delta), sized(row.key), sized(row.value)),
            *(varint(len(row.headers)), headers),
        )
    )
    return varint(len(body)) + body


def encode_records(rows: list[Row]) -> bytes:
    records, offset_delta = b"", 0
    for row in rows:
        offset_delta += row.gap
        records += encode_record(row, offset_delta)
        offset_delta += 1
    return records


def encode_batch(batch: Batch, records: bytes | None = None, count: int | None = None) -> bytes:
    """A batch's bytes; `records` and `count` in place of its own make it corrupt under a valid checksum."""
    records = encode_records(batch.rows) if records is None else records
    payload = ENCODERS[batch.codec](records) if batch.codec else records
    latest = max((row.timestamp_delta for row in batch.rows), default=0)
    latest = min(batch.first_timestamp + latest, 2**63 - 1)
    attributes = batch.codec | batch.flags
    after_crc = struct.pack(">hiqqqhii", attributes, len(batch) - 1, batch.first_timestamp, latest, batch.producer_id,
                            *(0, 0, len(batch.rows) if count is None else count)) + payload  # fmt: skip
    head = struct.pack(">qiibI", batch.base_offset, len(after_crc) + 9, batch.leader_epoch, 2, calc_crc32c(after_crc))
    return head + after_crc


def encode_with_kafka_python(rows: list[Row], codec_number: int, base_offset: int) -> bytes:
    builder = MemoryRecordsBuilder(2, codec_number, batch_size=1 << 30)
    for row in rows:
        builder.append(FIRST_TIMESTAMP + row.timestamp_delta, row.key, row.value, row.headers)
    builder.close()
    return (
        struct.pack(">q", base_offset) + bytes(builder.buffer())[8:]
    )  # as the broker does: the checksum leaves it out


def encode_legacy(rows: list[Row], magic: int, codec_number: int, base_offset: int) -> bytes:
    relative = magic == 1 and codec_number != NONE  # inside a v1 wrapper offsets count from 0, the wrapper has the last
    builder = MemoryRecordsBuilder(magic, codec_number, batch_size=1 << 30, offset=0 if relative else base_offset)
    for row in rows:
        builder.append(FIRST_TIMESTAMP + row.timestamp_delta, row.key, row.value)
    builder.close()
    data = bytes(builder.buffer())
    return struct.pack(">q", base_offset + len(rows) - 1) + data[8:] if codec_number else data


VALUES = st.one_of(
    st.none(),
    st.just(b""),
    st.binary(max_size=14),  # around the 12 bytes that fit into a view
    st.binary(max_size=300),
    st.sampled_from((b'{"account_id":"a"}', b"two\nlines\r\n", b"not JSON", b"\0" * 63, b"\x80" * 64, b"\xff" * 130)),
    st.integers(8150, 8250).map(lambda n: b"x" * n),  # where a length becomes three bytes
)
HEADERS: st.SearchStrategy[Headers] = st.lists(
    st.tuples(st.text(max_size=15), st.none() | st.binary(max_size=70)), max_size=3
)
DELTAS = st.one_of(st.just(0), st.integers(-100, 100), st.integers(-(2**55), 2**55 - 1))
HUGE_DELTAS = st.integers(-(2**62), 2**62)  # varints of nine bytes: nothing that a clock could cause
ROWS = st.builds(
    Row,
    value=VALUES,
    key=st.none() | st.binary(max_size=80),
    headers=st.just([]) | HEADERS,
    gap=st.sampled_from((0, 0, 0, 1, 70)),
    timestamp_delta=DELTAS,
)
ODD_ROWS = st.builds(Row, value=VALUES, timestamp_delta=HUGE_DELTAS)
PLAIN_ROWS = ROWS.map(lambda row: replace(row, gap=0, timestamp_delta=row.timestamp_delta % 2**40))
CODECS = st.sampled_from((NONE, GZIP, SNAPPY, LZ4, ZSTD))
BATCHES = st.builds(
    Batch,
    rows=st.lists(ROWS, min_size=1, max_size=8),
    tail=st.sampled_from((0, 0, 3)),
    codec=CODECS,
    flags=st.sampled_from((0, 0, APPEND_TIME)),
    leader_epoch=st.integers(0, 5),
    first_timestamp=st.sampled_from((FIRST_TIMESTAMP, 0, 2**63 - 50)),
)
ODD_BATCHES = st.builds(Batch, rows=st.lists(ROWS | ODD_ROWS, min_size=1, max_size=4), codec=CODECS)
USUAL = ("batch", "batch", "same", "empty", "builder", "transaction")


@st.composite
def logs(draw: st.DrawFn, kinds: tuple[str, ...] = (*USUAL, "legacy", "odd")) -> Log:
    """Any sequence of batches, markers and old messages."""
    log = Log()
    for kind in draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=6)):
        log.end += draw(st.sampled_from((0, 0, 5)))  # batches that compaction removed
        if kind == "transaction":
            _add_transaction(draw, log)
        elif kind == "empty":  # what compaction leaves of a producer's last batch
            _add(log, replace(draw(BATCHES), rows=[], tail=2, codec=NONE))
        elif kind == "same":  # small batches of one producer, many enough to be read side by side
            batch = draw(BATCHES)
            for _ in range(draw(st.integers(2, 70))):
                _add(log, batch)
        elif kind in {"batch", "odd"}:
            _add(log, draw(BATCHES if kind == "batch" else ODD_BATCHES))
        else:
            rows = draw(st.lists(PLAIN_ROWS, min_size=1, max_size=5))
            if kind == "legacy":
                format_ = draw(st.sampled_from([(m, c) for m in (0, 1) for c in (NONE, GZIP, SNAPPY, LZ4)]))
                log.buffer += encode_legacy(rows, *format_, log.end)
            else:
                log.buffer += encode_with_kafka_python(rows, draw(CODECS), log.end)
            log.end += len(rows)
    return log


def _add(log: Log, batch: Batch) -> None:
    batch = replace(batch, base_offset=log.end)
    log.buffer += encode_batch(batch)
    log.end += len(batch)


def _add_transaction(draw: st.DrawFn, log: Log) -> None:
    """Batches of a transaction among others, then its marker; the producer may have more than one of them."""
    producer_id, first_offset = draw(st.sampled_from((7, 8))), log.end
    for mine in draw(st.lists(st.booleans(), min_size=1, max_size=3)):
        batch = draw(BATCHES)
        _add(log, replace(batch, flags=batch.flags | TRANSACTIONAL, producer_id=producer_id) if mine else batch)
    marker = draw(st.sampled_from((ABORT, COMMIT)))
    _add(log, Batch([Row(b"\0" * 6, marker)], flags=TRANSACTIONAL | CONTROL, producer_id=producer_id))
    if marker == ABORT:
        log.aborted.append(Aborted(producer_id, first_offset))


assert DefaultRecordBatch.HEADER_STRUCT.size == len(encode_batch(Batch([])))
