"""The columnar stand-in for kafka-python's `Fetcher.PartitionRecords`: what one fetch returned for one partition.

Corrupt bytes are judged by kafka-python alone: what `pipeline.io.batch_headers` and `pipeline.io.record_batches` do not
find regular goes through its own batches and record iterators.  On purpose not like stock kafka-python 3.0:

- offsets that do not increase are corruption (`CorruptRecordError`): a job that counts by offsets would lose or double
  records; stock hands them out, or drops them silently when they are below the offset fetched;
- the position never goes back, and is past all that is known to be empty, also when a later batch fails;
- after an error the fetch is dropped, so that the next poll fetches again; stock keeps a spent iterator, on which its
  next `poll()` spins for ever;
- a control batch emptied by compaction is passed over; under `read_committed` stock fails on it.
"""
# ruff: noqa: SLF001  # this seam is private to kafka-python: `pipeline.io.columnar` checks it at start

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from kafka import TopicPartition, codec
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.protocol.consumer import IsolationLevel
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.memory_records import MemoryRecords
from kafka.record.util import calc_crc32c

from pipeline.batch import Partition, Records
from pipeline.io.batch_headers import CHECKED_FROM, HEADER_BYTES, BatchHeader, stored_batches
from pipeline.io.columnar import SLAB_BYTES_MAX
from pipeline.io.record_batches import RECORD_COLUMN_BYTES, GatheredBatches
from pipeline.io.record_walk import IrregularBatchError
from pipeline.io.records import to_records

_NO_PRODUCER: Final = -1


def _decode_snappy(payload: memoryview) -> Any:
    """Decompress; this codec reads `bytes` alone."""
    return codec.snappy_decode(payload.tobytes())


_DECODERS: Final = {
    number: decode
    for number, decode, is_installed in (
        (1, codec.gzip_decode, codec.has_gzip()),
        (2, _decode_snappy, codec.has_snappy()),
        (3, codec.lz4_decode, codec.has_lz4()),
        (4, codec.zstd_decode, codec.has_zstd()),
    )
    if is_installed
}


class _Row(NamedTuple):
    """What is kept of a record that was read on its own."""

    offset: int
    timestamp: int | None
    value: bytes | None


class ColumnarPartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]  # kafka-python has no type hints
    """Hands out slabs (`pipeline.batch.Records`) where kafka-python's class hands out records.

    A slab is decoded when it is taken and not before: memory holds the fetched bytes, one slab, and one batch.
    `next_fetch_offset` and `leader_epoch` always belong to the last slab handed out.
    """

    def __init__(self, *args: Any, slab_bytes_max: int = SLAB_BYTES_MAX, **kwargs: Any) -> None:
        """Take over what one fetch returned.

        Args:
            args: as `Fetcher.PartitionRecords`; deserialisers are ignored.
            slab_bytes_max: a slab takes at most this much memory, or holds a single batch.
            kwargs: as `Fetcher.PartitionRecords`.
        """
        self.next_fetch_offset: int
        self.leader_epoch: int
        super().__init__(*args, **kwargs)
        self._partition = Partition(self.topic_partition.topic, self.topic_partition.partition)
        self._slab_bytes_max = slab_bytes_max
        self._gathered = GatheredBatches()
        self._rows: list[_Row] = []
        self._rows_bytes = 0
        self._floor = 0  # offsets below are read or known to be empty: what comes next must not lie there
        self._epoch = -1

    def take(self, n: int | None = None) -> list[Records]:
        """Decode and hand out the next slabs.

        Args:
            n: at most so many; None for all.

        Raises:
            CorruptRecordError: what follows the last slab is not what a broker stores.
        """
        try:
            slabs: list[Records] = super().take(n)
        except Exception:
            self.drain()
            raise
        return slabs

    def _maybe_skip_record(self, record: Records) -> bool:  # noqa: ARG002  # kafka-python's signature
        """Slabs never hold records below the offset fetched."""
        return False

    def _unpack_records(
        self,
        tp: Any,  # noqa: ARG002  # kafka-python's signature
        records: Any,
        key_deserializer: Any,  # noqa: ARG002
        value_deserializer: Any,  # noqa: ARG002
    ) -> Iterator[Records]:
        """Walk the batches of the fetch, in the steps of the method that this one replaces."""
        try:
            for header, stored in stored_batches(records._buffer):
                if header is None:
                    self._check_crc(stored, stored.base_offset)
                    yield from self._gathered_slabs()
                    yield from self._row_slabs(stored)
                else:
                    self._check_header_crc(header, stored)
                    if not self._is_passed_over(header, stored):
                        yield from self._gather(header, stored)
                    self._read_past(header)
        except Exception:
            yield from self._pending_slabs()  # all that came before the failure is good
            raise
        yield from self._pending_slabs()
        self.drain()

    def _gather(self, header: BatchHeader, stored: memoryview) -> Iterator[Records]:
        """Keep a batch's records for the next slab; hand that slab out first if it is full."""
        codec_number = header.codec
        if codec_number and codec_number not in _DECODERS:
            yield from self._gathered_slabs()
            yield from self._row_slabs(DefaultRecordBatch(stored))  # kafka-python says why it cannot read it
            return
        payload = stored[HEADER_BYTES:]
        if codec_number:
            payload = _DECODERS[codec_number](payload)
        if header.records or len(payload):  # compaction leaves empty batches: they only move the position
            if self._rows or not self._gathered.has_room(len(payload), header.records, self._slab_bytes_max):
                yield from self._pending_slabs()
            self._gathered.add(header, stored, payload, self._floor)

    def _is_passed_over(self, header: BatchHeader, stored: memoryview) -> bool:
        """Whether nobody should see this batch: transaction markers, and what an aborted transaction wrote."""
        if self.isolation_level == IsolationLevel.READ_COMMITTED and header.producer_id > _NO_PRODUCER:
            self._consume_aborted_transactions_up_to(header.last_offset)
            if header.is_control_batch:
                if header.records and self._contains_abort_marker(DefaultRecordBatch(stored)):
                    self.aborted_producer_ids.discard(header.producer_id)
            elif self._is_batch_aborted(header):
                return True
        return header.is_control_batch

    def _read_past(self, header: BatchHeader) -> None:
        """Note that a batch was read to its end, which may lie beyond its last record."""
        self._floor = max(self._floor, header.last_offset + 1)
        self._epoch = header.leader_epoch

    def _pending_slabs(self) -> Iterator[Records]:
        """Hand out all that was read so far, and move the position past it."""
        yield from self._gathered_slabs()
        if self._rows:
            yield self._row_slab()
        self._move_position()

    def _gathered_slabs(self) -> Iterator[Records]:
        """Decode the gathered batches at once, or record by record if they are not regular."""
        gathered, self._gathered = self._gathered, GatheredBatches()
        if not gathered.headers:
            return
        try:
            columns = gathered.columns(self.fetch_offset)
        except IrregularBatchError:
            yield from self._irregular_slabs(gathered)
            return
        self.records_read += columns.records_read
        self.bytes_read += columns.bytes_read
        self._move_position()
        if len(columns.offsets):
            yield Records(self._partition, columns.values, columns.offsets, columns.timestamps, self.next_fetch_offset)

    def _irregular_slabs(self, gathered: GatheredBatches) -> Iterator[Records]:
        """Give gathered batches back to kafka-python's iterator."""
        floor, epoch = self._floor, self._epoch
        self._floor = gathered.floors[0]
        for header, stored, batch_floor in zip(gathered.headers, gathered.stored, gathered.floors, strict=True):
            self._floor = max(self._floor, batch_floor)
            self._epoch = header.leader_epoch
            yield from self._row_slabs(DefaultRecordBatch(stored))
            self._read_past(header)
        self._floor, self._epoch = max(self._floor, floor), epoch

    def _row_slabs(self, batch: Any) -> Iterator[Records]:
        """Read a batch with kafka-python's own iterator; the rows stay pending until they fill a slab."""
        try:
            for record in batch:
                self._add_row(record)
                if self._rows_bytes >= self._slab_bytes_max:
                    yield self._row_slab()
        except Exception:
            yield from self._pending_slabs()
            raise

    def _add_row(self, record: Any) -> None:
        """Keep a record for the next slab, if it is due."""
        self._check_crc(record, record.offset)
        self.records_read += 1
        self.bytes_read += record.size_in_bytes
        if record.offset < self._floor:
            message = f"offset {record.offset} of {self._partition} comes after offset {self._floor - 1}"
            raise CorruptRecordError(message)
        self._floor = record.offset + 1
        if record.offset >= self.fetch_offset:
            self._rows.append(_Row(record.offset, record.timestamp, record.value))
            self._rows_bytes += RECORD_COLUMN_BYTES + len(record.value or b"")

    def _check_crc(self, stored: Any, offset: int) -> None:
        """Compare the checksum of a batch or of a record in an old format."""
        if self.check_crcs and not stored.validate_crc():
            raise self._failed_checksum(offset)

    def _check_header_crc(self, header: BatchHeader, stored: memoryview) -> None:
        """The same for a batch whose header was taken apart here."""
        if self.check_crcs and calc_crc32c(stored[CHECKED_FROM:]) != header.crc:
            raise self._failed_checksum(header.base_offset)

    def _failed_checksum(self, offset: int) -> CorruptRecordError:
        return CorruptRecordError(f"what {self._partition} holds at offset {offset} fails its checksum")

    def _row_slab(self) -> Records:
        """The pending rows as a slab."""
        rows, self._rows, self._rows_bytes = self._rows, [], 0
        self._move_position()
        return to_records(self._partition, rows, self.next_fetch_offset)

    def _move_position(self) -> None:
        """Let the fetcher go on after what is handed out now."""
        self.next_fetch_offset = max(self.next_fetch_offset, self._floor)
        self.leader_epoch = self._epoch


def read_batches(
    buffer: bytes,
    fetch_offset: int = 0,
    isolation: IsolationLevel = IsolationLevel.READ_UNCOMMITTED,
    aborted: Iterable[Any] = (),
    **options: Any,
) -> list[Records]:
    """Decode the record batches of a fetch response, without a broker.

    Args:
        buffer: batches as a broker stores them; an incomplete one at the end is ignored, as in any fetch.
        fetch_offset: records below are dropped.
        isolation: whether aborted transactions are seen.
        aborted: the response's aborted transactions, with `producer_id` and `first_offset`.
        options: more for `ColumnarPartitionRecords`.

    Raises:
        CorruptRecordError: a checksum or the structure of a batch is wrong.
    """
    fetched = ColumnarPartitionRecords(
        fetch_offset,
        TopicPartition("topic", 0),
        MemoryRecords(buffer),
        isolation_level=isolation,
        aborted_transactions=list(aborted),
        **options,
    )
    slabs: list[Records] = []
    while fetched.record_iterator is not None:
        slabs += fetched.take(1)
    return slabs
