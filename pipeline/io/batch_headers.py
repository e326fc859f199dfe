"""The headers of the record batches that a fetch returned, each taken apart once.

kafka-python makes an object with a copy of the bytes for each batch and takes its header apart field by field; with
thirty records a batch that costs more than the records do.  What does not look like a whole batch of format v2 is left
to kafka-python, with whatever it says to it.

Format: https://kafka.apache.org/documentation/#recordbatch.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from kafka.record.memory_records import MemoryRecords

MAGIC: Final = 2
"""The message format that is read here."""

CHECKED_FROM: Final = 21
"""A batch's checksum is made of its bytes from here on."""

_STRUCT: Final = struct.Struct(">qiibIhiqqqhii")
_LENGTH_END: Final = 12  # a batch's length counts what follows it
HEADER_BYTES: Final = _STRUCT.size
"""The records follow, compressed or not."""

APPEND_TIME: Final = 0x08
"""The attribute that says that the broker's clock counts: then all records have the batch's greatest timestamp."""

_CODEC, _TRANSACTIONAL, _CONTROL = 0x07, 0x10, 0x20


class BatchHeader(NamedTuple):  # not a dataclass: one is made per batch, in a third of the time
    """A batch's header as it is stored."""

    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    first_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    records: int

    @property
    def last_offset(self) -> int:
        """The batch's last offset, whether or not that record is still there."""
        return self.base_offset + self.last_offset_delta

    @property
    def codec(self) -> int:
        """How its records are compressed; 0 if they are not."""
        return self.attributes & _CODEC

    @property
    def is_transactional(self) -> bool:
        """Whether it is part of a transaction; kafka-python's `_is_batch_aborted` asks."""
        return bool(self.attributes & _TRANSACTIONAL)

    @property
    def is_control_batch(self) -> bool:
        """Whether it is a transaction's marker."""
        return bool(self.attributes & _CONTROL)


def stored_batches(buffer: bytes) -> Iterator[tuple[BatchHeader | None, Any]]:
    """Go from batch to batch; an incomplete one at the end is none.

    Args:
        buffer: what a fetch returned for a partition.

    Yields:
        A batch's header and all its bytes; or None and kafka-python's own batch, where it is in another format.

    Raises:
        CorruptRecordError: kafka-python sees no batch where one should begin; it may raise something else instead.
    """
    view = memoryview(buffer)
    position, end = 0, len(view)
    while end - position >= _LENGTH_END:
        header = BatchHeader._make(_STRUCT.unpack_from(view, position)) if end - position >= HEADER_BYTES else None
        if header is not None and header.magic == MAGIC and header.length >= HEADER_BYTES - _LENGTH_END:
            following = position + _LENGTH_END + header.length
            if following > end:
                return
            yield header, view[position:following]
        else:
            stock = MemoryRecords(view[position:]).next_batch()
            if stock is None:
                return
            following = position + _LENGTH_END + int.from_bytes(view[position + 8 : position + _LENGTH_END], "big")
            yield None, stock
        position = following
