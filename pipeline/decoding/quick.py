"""Payloads → typed columns, thousands at a time, for those payloads of which it can be proven what they say.

Never of another mind than `pipeline.decoding.exact`, and silent about whatever it cannot prove.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.decoding import exact
from pipeline.decoding.extra import extra
from pipeline.decoding.shapes import Members, Objects
from pipeline.decoding.texts import Texts, texts
from pipeline.decoding.values import Floats, Values, booleans, integers
from pipeline.events import ACCESS_FIELDS, DECODED_SCHEMA, EXTRA, TIME, Field
from pipeline.text_views import Mask, Positions, kept, moved, nulls, taken

PAYLOAD_BYTES_MAX: Final = 1 << 20
"""Longer payloads are left alone: one must not size what is done for thousands of others."""

_PAYLOAD_BYTES_MIN: Final = 16
"""No payload this short holds the required fields."""

_PIECE_BYTES: Final = 4 << 20
"""Bytes looked at together: thousands of events, so that NumPy's cost per call vanishes, and near the CPU's cache."""

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
_SCHEMA: Final = pa.schema([DECODED_SCHEMA.field(name) for name in (*_FIELDS, EXTRA.name)])
_LAST: Final = pa.array([Objects.NULL], pa.binary_view())

Places = Mapping[str, tuple[Positions, Positions]]


class Proven(NamedTuple):
    """Events that were proven.

    Attributes:
        rows: which payloads.
        events: their fields, and `extra`: the columns of `pipeline.events.DECODED_SCHEMA` but lineage.
    """

    rows: Positions
    events: pa.Table


class QuickDecoder:
    """Decodes what it can prove.  Keeps numbers that it has seen; not to be shared between threads."""

    def __init__(self, rows_min: int = _ROWS_MIN) -> None:
        """Make one.

        Args:
            rows_min: leave alone what is of a shape that fewer payloads have.
        """
        self._floats = Floats()
        self._rows_min = rows_min
        self._piece_bytes = _PIECE_BYTES

    def decode(self, values: pa.Array, timestamps: npt.NDArray[np.int64]) -> Proven:
        """Decode payloads.

        Args:
            values: `binary_view`.
            timestamps: Kafka's, in milliseconds; negative where there is none.
        """
        length = _lengths(values)
        fit = np.flatnonzero((length >= _PAYLOAD_BYTES_MIN) & (length <= PAYLOAD_BYTES_MAX))
        found = [Proven(fit[:0], _SCHEMA.empty_table())]
        for rows in _pieces(fit, length, self._piece_bytes):
            whole = len(rows) == rows[-1] + 1 - rows[0]
            piece = values.slice(rows[0], len(rows)) if whole else taken(values, rows)
            at, events = self._decode_piece(piece, timestamps[rows])
            found.append(Proven(rows[at], events))
        if len(found) == 1 + 1:
            return found[1]
        return Proven(np.concatenate([part.rows for part in found]), pa.concat_tables([part.events for part in found]))

    def _decode_piece(self, values: pa.Array, timestamps: npt.NDArray[np.int64]) -> Proven:
        """Decode payloads that are few enough to be looked at together, none of them null."""
        rows = np.arange(len(values))
        joined = pa.concat_arrays([values, _LAST]).cast(pa.large_binary())
        readable, ok = converted(joined, lambda array: array.cast(pa.large_string()))
        if not ok.all():
            rows, readable = np.flatnonzero(ok[:-1]), readable.filter(pa.array(ok))
        _, offsets, data = readable.buffers()
        objects = Objects(data, np.frombuffer(offsets, dtype=np.int64)[: len(rows) + 1])
        members = objects.members(_is_wanted, self._rows_min)
        # Each shape costs something, however few have it: where there are many, look at more payloads together.
        self._piece_bytes = _PIECE_BYTES * min(max(len(members.shapes), 1), _PIECES_MAX)
        if not len(members.rows):
            return Proven(rows[:0], _SCHEMA.empty_table())
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
                columns[name], possible = _checked(_FIELDS[name], self._read(_FIELDS[name], objects, start, end))
                proven &= possible
        proven &= _as_many_quotes(objects, members.rows, quotes, proven)
        count = len(members.rows)
        arrays = [columns[field.name] if field.name in columns else nulls(count, field.type) for field in _SCHEMA]
        return pa.table(arrays, schema=_SCHEMA), proven

    def _read(self, field: Field, objects: Objects, start: Positions, end: Positions) -> Values:
        """Values that are no texts."""
        if field.arrow == pa.int64():
            return integers(objects.words, start, end - start)
        if field.arrow == pa.bool_():
            return booleans(objects.words, start, end - start)
        return self._floats.read(objects.words, start, end - start)


def converted(array: pa.Array, convert: Callable[[pa.Array], pa.Array]) -> tuple[pa.Array, Mask]:
    """Convert an array whose conversion may fail; halve it until the culprits stand alone.

    Returns:
        The converted array with null for each culprit, and which elements were converted.
    """
    try:
        return convert(array), np.ones(len(array), dtype=np.bool_)
    except pa.ArrowInvalid:
        if len(array) == 1:
            return convert(pa.nulls(1, array.type)), np.zeros(1, dtype=np.bool_)
        half = len(array) // 2
        parts = [converted(part, convert) for part in (array.slice(0, half), array.slice(half))]
        return pa.concat_arrays([part for part, _ in parts]), np.concatenate([ok for _, ok in parts])


def _lengths(values: pa.Array) -> npt.NDArray[np.int64]:
    """Bytes of each payload; 0 for null."""
    _, views, *_ = values.buffers()
    sizes = np.frombuffer(views, dtype=np.int32).reshape(-1, 4)[values.offset : values.offset + len(values), 0]
    if values.null_count:
        sizes = np.where(values.is_valid().to_numpy(zero_copy_only=False), sizes, 0)
    return sizes.astype(np.int64)


def _pieces(rows: Positions, length: npt.NDArray[np.int64], piece_bytes: int) -> Iterator[Positions]:
    """Cut rows into pieces of about so many bytes."""
    if not len(rows):
        return
    piece = np.cumsum(length[rows]) // piece_bytes
    yield from np.split(rows, np.flatnonzero(np.diff(piece)) + 1)


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
    """Event times, and which are written in full and possible: see `exact.TIME_MIN_US` and `exact.AHEAD_MAX_MS`."""
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
    possible = (times >= exact.TIME_MIN_US) & (times < exact.TIME_MAX_US)
    possible &= (timestamps < 0) | (times <= (timestamps + exact.AHEAD_MAX_MS) * 1000)
    return column, np.asarray(full & ok & possible)


def _checked(field: Field, found: Values) -> tuple[pa.Array, Mask]:
    """A column of other values, and which rows are sure and allowed by the schema."""
    values, valid, sure = found
    allowed = np.ones(len(values), dtype=np.bool_) if sure is None else sure
    if field.minimum is not None and values.min(initial=field.minimum) < field.minimum:
        allowed &= values >= field.minimum if valid is None else (values >= field.minimum) | ~valid
    if field.maximum is not None and values.max(initial=field.maximum) > field.maximum:
        allowed &= values <= field.maximum if valid is None else (values <= field.maximum) | ~valid
    return pa.array(values, field.arrow, mask=None if valid is None else ~valid), allowed
