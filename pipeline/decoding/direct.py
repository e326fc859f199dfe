"""Payloads → typed columns in one pass of compiled code, for flat objects of known fields, however they are written.

Never of another mind than `pipeline.decoding.exact`, and silent about whatever it cannot prove; `compiled/events.c`
says what it takes.  Unknown fields, numbers written at length and damaged payloads go the ways behind it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.compiled import FIELD, KINDS, EventColumns, Loops
from pipeline.decoding.pieces import SCHEMA, Piece, Proven, can_be, checked, pieces
from pipeline.decoding.values import Floats
from pipeline.events import ACCESS_FIELDS, TIME, Field
from pipeline.text_views import Mask, array_of, kept, nulls, words_of

_KIND_OF: Final = {
    pa.string(): "text", pa.int64(): "integer", pa.bool_(): "boolean", pa.float64(): "number", TIME: "time",
}  # fmt: skip
_NOTHING: Final = Proven(np.zeros(0, np.int64), SCHEMA.empty_table())

_FEW: Final = 0.25
_MANY: Final = 256
_PASSED_OVER: Final = 15
"""Of so many payloads at least, fewer than this share was proven: most of this log is of another kind, and to read it
in vain costs a third of what it costs to read it.  So many times it is left alone, and then looked at again."""

_SHARED: Final = {"time": "integer"}
"""Times are written among the integers."""


class _Slot(NamedTuple):
    """Where a field's values are among those of its kind."""

    field: Field
    kind: str
    slot: int


def _slots() -> tuple[tuple[_Slot, ...], dict[str, int]]:
    """The fields' slots, and how many there are of each kind, times among the integers."""
    taken = dict.fromkeys(KINDS, 0)
    made = []
    for field in ACCESS_FIELDS:
        kind = _KIND_OF[field.arrow]
        shared = _SHARED.get(kind, kind)
        made.append(_Slot(field, kind, taken[shared]))
        taken[shared] += 1
    return tuple(made), taken


def _described(slots: tuple[_Slot, ...]) -> npt.NDArray[np.void]:
    """The fields as `compiled/events.c` wants them."""
    described = np.zeros(len(slots), FIELD)
    bounds = np.iinfo(np.int64)
    for (field, kind, slot), one in zip(slots, described, strict=True):
        name = f'{field.name}"'.encode()
        one["name"].view(np.uint8)[: len(name)] = np.frombuffer(name, np.uint8)
        one["mask"].view(np.uint8)[: len(name)] = 0xFF
        least = field.length_min if kind == "text" else field.minimum
        one["minimum"] = bounds.min if least is None else least
        one["maximum"] = bounds.max if field.maximum is None else field.maximum
        one["name_bytes"], one["kind"], one["slot"] = len(field.name), KINDS.index(kind), slot
        one["required"] = field.required
    return described


class DirectDecoder:
    """Decodes what it can prove.  Keeps numbers that it has seen, and room; not to be shared between threads.

    Args:
        loops: compiled code.
    """

    def __init__(self, loops: Loops) -> None:
        self._loops = loops
        self._floats = Floats()
        self._passed_over = 0
        """So many times more the payloads are left to other ways unread."""
        self._slots, taken = _slots()
        self._described = _described(self._slots)
        self._room = EventColumns(taken)

    def decode(self, values: pa.Array, timestamps: npt.NDArray[np.int64]) -> Proven:
        """Decode payloads.

        Args:
            values: `binary_view`.
            timestamps: Kafka's, in milliseconds; negative where there is none.
        """
        if self._passed_over:
            self._passed_over -= 1
            return _NOTHING
        found = Proven.joined([self._decode_piece(piece, timestamps[piece.rows]) for piece in pieces(values)])
        if len(values) >= _MANY and len(found.rows) < _FEW * len(values):
            self._passed_over = _PASSED_OVER
        return found

    def _decode_piece(self, piece: Piece, timestamps: npt.NDArray[np.int64]) -> Proven:
        read = self._loops.events(piece.buffer, piece.starts, self._described, self._room)
        proven, columns = read.proven, {}
        for number, slot in enumerate(self._slots):
            if read.counts[number]:
                valid = None if read.counts[number] == len(proven) else read.valid[number]
                columns[slot.field.name], possible = self._column(piece, slot, valid, timestamps)
                if possible is not None:
                    proven &= possible
        arrays = [columns.get(field.name, nulls(len(proven), field.type)) for field in SCHEMA]
        events = pa.table(arrays, schema=SCHEMA)
        if proven.all():
            return Proven(piece.rows, events)
        return Proven(piece.rows[proven], kept(events, proven))

    def _column(
        self, piece: Piece, slot: _Slot, valid: Mask | None, timestamps: npt.NDArray[np.int64]
    ) -> tuple[pa.Array, Mask | None]:
        """A field's column, and which rows the schema allows; None for all that were read."""
        if slot.kind == "text":
            return self._texts(piece, self._room.views[slot.slot], valid), None
        mask = None if valid is None else ~valid
        if slot.kind == "time":
            times = self._room.integers[slot.slot].copy()
            return pa.array(times, mask=mask).view(TIME), can_be(times, timestamps)
        if slot.kind == "integer":
            return pa.array(self._room.integers[slot.slot].copy(), mask=mask), None
        if slot.kind == "boolean":
            return pa.array(self._room.booleans[slot.slot], mask=mask), None
        start, length = self._room.numbers[slot.slot]
        words = words_of(np.frombuffer(piece.buffer, np.uint8))
        return checked(slot.field, self._floats.read(words, start, length))

    def _texts(self, piece: Piece, views: npt.NDArray[np.uint64], valid: Mask | None) -> pa.Array:
        """Texts in a buffer of their own: what they came in can be freed, and they are near each other."""
        moved, heap = self._loops.moved(views, [piece.buffer, pa.py_buffer(self._room.unescaped)])
        return array_of(pa.string_view(), moved, [heap] if heap.size else [], valid)
