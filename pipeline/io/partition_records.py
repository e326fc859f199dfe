"""The columnar stand-in for kafka-python's `Fetcher.PartitionRecords`: what one fetch returned for one partition.

Corrupt bytes are judged by kafka-python alone: batches that `pipeline.io.record_batches` does not find regular go
through its own record iterators.  On purpose not like stock kafka-python 3.0:

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
from kafka.record.memory_records import MemoryRecords

from pipeline.batch import Partition, Records
from pipeline.io.columnar import SLAB_BYTES_MAX
from pipeline.io.record_batches import RECORD_COLUMN_BYTES, GatheredBatches, IrregularBatchError
from pipeline.io.records import to_records

_CODECS: Final = {1: codec.gzip_decode, 2: codec.snappy_decode, 3: codec.lz4_decode, 4: codec.zstd_decode}
_MAGIC_V2: Final = 2


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
            while (batch := records.next_batch()) is not None:
                self._check_crc(batch, batch.base_offset)
                if batch.magic == _MAGIC_V2:
                    yield from self._gather(batch)
                else:
                    yield from self._gathered_slabs()
                    yield from self._row_slabs(batch)
        except Exception:
            yield from self._pending_slabs()  # all that came before the failure is good
            raise
        yield from self._pending_slabs()
        self.drain()

    def _gather(self, batch: Any) -> Iterator[Records]:
        """Keep a batch's records for the next slab; hand that slab out first if it is full."""
        if not self._is_passed_over(batch):
            payload, records = _payload(batch), batch.records_count
            if records or len(payload):  # compaction leaves empty batches: they only move the position
                if self._rows or not self._gathered.has_room(len(payload), records, self._slab_bytes_max):
                    yield from self._pending_slabs()
                self._gathered.add(batch, records, payload, self._floor)
                batch._buffer = bytearray()
        self._read_past(batch)

    def _is_passed_over(self, batch: Any) -> bool:
        """Whether nobody should see this batch: transaction markers, and what an aborted transaction wrote."""
        if self.isolation_level == IsolationLevel.READ_COMMITTED and batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if batch.is_control_batch:
                if batch.records_count and self._contains_abort_marker(batch):
                    self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return True
        return bool(batch.is_control_batch)

    def _read_past(self, batch: Any) -> None:
        """Note that a batch was read to its end, which may lie beyond its last record."""
        self._floor = max(self._floor, batch.next_offset)
        self._epoch = batch.leader_epoch

    def _pending_slabs(self) -> Iterator[Records]:
        """Hand out all that was read so far, and move the position past it."""
        yield from self._gathered_slabs()
        if self._rows:
            yield self._row_slab()
        self._move_position()

    def _gathered_slabs(self) -> Iterator[Records]:
        """Decode the gathered batches at once, or record by record if they are not regular."""
        gathered, self._gathered = self._gathered, GatheredBatches()
        if not gathered.frames:
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
        self._floor = gathered.frames[0].floor
        for frame in gathered.frames:
            batch: Any = frame.batch
            batch._buffer = bytearray(gathered.payload(frame))
            batch._pos = 0
            batch._decompressed = True
            self._floor = max(self._floor, frame.floor)
            self._epoch = batch.leader_epoch
            yield from self._row_slabs(batch)
            self._read_past(batch)
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
            message = f"what {self._partition} holds at offset {offset} fails its checksum"
            raise CorruptRecordError(message)

    def _row_slab(self) -> Records:
        """The pending rows as a slab."""
        rows, self._rows, self._rows_bytes = self._rows, [], 0
        self._move_position()
        return to_records(self._partition, rows, self.next_fetch_offset)

    def _move_position(self) -> None:
        """Let the fetcher go on after what is handed out now."""
        self.next_fetch_offset = max(self.next_fetch_offset, self._floor)
        self.leader_epoch = self._epoch


def _payload(batch: Any) -> bytes | memoryview:
    """The uncompressed records of a batch; kafka-python's own `_maybe_uncompress` copies them once more."""
    stored = memoryview(batch._buffer)[batch._pos :]
    if not batch.compression_type:
        return stored
    batch._assert_has_codec(batch.compression_type)
    payload: bytes = _CODECS[batch.compression_type](stored.tobytes())
    return payload


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
