"""Payloads → typed columns, thousands at a time, for those payloads of which it can be proven what they say.

Never of another mind than `pipeline.decoding.exact`, and silent about whatever it cannot prove.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.decoding.extra import extra
from pipeline.decoding.pieces import PIECE_BYTES, SCHEMA, Piece, Proven, can_be, checked, converted, pieces
from pipeline.decoding.shapes import Members, Objects
from pipeline.decoding.texts import Texts, texts
from pipeline.decoding.values import Floats, Values, booleans, integers
from pipeline.events import ACCESS_FIELDS, EXTRA, TIME, Field
from pipeline.text_views import Mask, Positions, kept, moved, nulls

_PIECES_MAX: Final = 8
"""So many times as much at most, where payloads have many shapes."""

_ROWS_MIN: Final = 24
"""Fewer payloads of one shape are quicker decoded one by one."""

_RFC3339: Final = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$"
_BEYOND_MICROSECONDS: Final = r"(\.\d{6})\d+"
_TIME_BYTES_MIN: Final = len("2026-01-01T00:00:00Z")
_TIME_BYTES_MAX: Final = len("2026-01-01T00:00:00.000000Z")
_FIELDS: Final = {field.name: field for field in ACCESS_FIELDS}
_REQUIRED: Final = {field.name for field in ACCESS_FIELDS if field.required}

Places = Mapping[str, tuple[Positions, Positions]]


class QuickDecoder:
    """Decodes what it can prove.  Keeps numbers that it has seen; not to be shared between threads."""

    def __init__(self, rows_min: int = _ROWS_MIN) -> None:
        """Make one.

        Args:
            rows_min: leave alone what is of a shape that fewer payloads have.
        """
        self._floats = Floats()
        self._rows_min = rows_min
        self._piece_bytes = PIECE_BYTES

    def decode(self, values: pa.Array, timestamps: npt.NDArray[np.int64]) -> Proven:
        """Decode payloads.

        Args:
            values: `binary_view`.
            timestamps: Kafka's, in milliseconds; negative where there is none.
        """
        return Proven.joined([self._decode_piece(piece, timestamps) for piece in pieces(values, self._piece_bytes)])

    def _decode_piece(self, piece: Piece, timestamps: npt.NDArray[np.int64]) -> Proven:
        rows = piece.rows
        objects = Objects(piece.buffer, piece.starts)
        members = objects.members(_is_wanted, self._rows_min)
        # Each shape costs something, however few have it: where there are many, look at more payloads together.
        self._piece_bytes = PIECE_BYTES * min(max(len(members.shapes), 1), _PIECES_MAX)
        if not len(members.rows):
            return Proven(rows[:0], SCHEMA.empty_table())
        events, proven = self._columns(objects, members, timestamps[rows[members.rows]])
        if proven.all():
            return Proven(rows[members.rows], events)
        return Proven(rows[members.rows[proven]], kept(events, proven))

    def _columns(self, objects: Objects, members: Members, timestamps: npt.NDArray[np.int64]) -> tuple[pa.Table, Mask]:
        """The columns of some objects, and which rows are proven."""
        places = members.values
        proven = np.ones(len(members.rows), dtype=np.bool_)
        quotes = 2 * members.keys
        columns = {}
        for name, found in _texts(objects, places).items():
            proven &= found.sure
            quotes += 2 * found.valid
            if found.quotes is not None:
                quotes += found.quotes
            columns[name], possible = _time(found, timestamps) if name == "event_time" else _text(_FIELDS[name], found)
            proven &= possible
        unknown = extra(objects, members, _FIELDS)
        if unknown is not None:
            columns[EXTRA.name] = unknown.array
            proven &= unknown.sure
            quotes += unknown.quotes
        for name, (start, end) in places.items():
            if name in _FIELDS and name not in columns:
                columns[name], possible = checked(_FIELDS[name], self._read(_FIELDS[name], objects, start, end))
                proven &= possible
        proven &= _as_many_quotes(objects, members.rows, quotes, proven)
        count = len(members.rows)
        arrays = [columns[field.name] if field.name in columns else nulls(count, field.type) for field in SCHEMA]
        return pa.table(arrays, schema=SCHEMA), proven

    def _read(self, field: Field, objects: Objects, start: Positions, end: Positions) -> Values:
        """Values that are no texts."""
        if field.arrow == pa.int64():
            return integers(objects.words, start, end - start)
        if field.arrow == pa.bool_():
            return booleans(objects.words, start, end - start)
        return self._floats.read(objects.words, start, end - start)


def _is_wanted(names: Sequence[str]) -> bool:
    """Whether objects with these keys may be events: none twice, and none missing."""
    return len(set(names)) == len(names) and _REQUIRED.issubset(names)


def _texts(objects: Objects, places: Places) -> dict[str, Texts]:
    """Read all text fields.  Escapes are looked for where they are likely, and then elsewhere if there are more."""
    names = [name for name in places if name in _FIELDS and _FIELDS[name].arrow in (pa.string(), TIME)]
    left = len(objects.backslashes)
    found = {}
    for name in sorted(names, key=lambda name: _FIELDS[name].table != "content"):
        found[name] = texts(objects, *places[name], escapes=left > 0 and _FIELDS[name].table == "content")
        left -= found[name].backslashes
    if left:  # or they are in rows that are not looked at
        for name in names:
            if _FIELDS[name].table != "content":
                found[name] = texts(objects, *places[name], escapes=True)
    return found


def _as_many_quotes(objects: Objects, rows: Positions, expected: npt.NDArray[np.int64], proven: Mask) -> Mask:
    """Which objects have no more quotes than expected; none can have fewer."""
    if len(rows) == len(objects) and proven.all() and objects.quotes_in_all() == expected.sum():
        return proven
    return np.asarray(objects.quotes[rows] == expected)


def _text(field: Field, found: Texts) -> tuple[pa.Array, Mask]:
    """A column of texts, and which rows the schema allows."""
    possible = found.valid if field.required else found.sure
    if field.length_min:
        possible = possible & ((found.length >= field.length_min) | ~found.valid)
    return moved(found.array), possible


def _time(found: Texts, timestamps: npt.NDArray[np.int64]) -> tuple[pa.Array, Mask]:
    """Event times, and which are written in full and can be."""
    texts = found.array.cast(pa.string())
    # What Arrow parses, ends in Z and is this long, holds all of it; most times are, and patterns cost more.
    full = found.valid
    ends_well = pc.all(pc.ends_with(texts, "Z"), skip_nulls=False, min_count=0).as_py()
    if not ends_well or found.length.min() < _TIME_BYTES_MIN:
        full = pc.fill_null(pc.match_substring_regex(texts, _RFC3339), False).to_numpy(zero_copy_only=False)
        texts = pc.if_else(pa.array(full), texts, pa.scalar(None, pa.string()))  # to look for culprits is slow
    if found.length.max() > _TIME_BYTES_MAX:  # nanoseconds, most likely, of which Arrow would refuse the last digits
        texts = pc.replace_substring_regex(texts, _BEYOND_MICROSECONDS, r"\1")
    column, ok = converted(texts, lambda array: array.cast(TIME))
    times = pc.fill_null(column.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
    return column, np.asarray(full & ok & can_be(times, timestamps))
