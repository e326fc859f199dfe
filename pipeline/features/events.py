"""What families see of a slice: its events by account, column by column, each made only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.features.clock import Ordered
from pipeline.features.flat import flat
from pipeline.features.folding import Columns
from pipeline.features.hashing import Hashes, hashes, mixed
from pipeline.features.launches import Launches
from pipeline.features.sharing import Sharing, thing
from pipeline.text_views import one_chunk

if TYPE_CHECKING:
    import polars as pl
else:
    from pipeline.late import polars as pl

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

SAMPLE_WHOLE: Final = 8
"""Of an account's life, this many first events are in the sample of texts,"""
SAMPLE_EVERY: Final = 4
"""and every so many after them."""

_THIN_BITS: Final = 12

_WIDE: Final = 0xE0
"""The first byte of a character of three bytes or more in UTF-8 is at least this, and no other byte is."""


def is_sampled(seq: Ints) -> Mask:
    """Whether an event's text is looked at closely, by its number in its account's life: no batch plays a part."""
    return np.asarray((seq < SAMPLE_WHOLE) | (seq % SAMPLE_EVERY == 0))


def is_thinned(seq: Ints) -> Mask:
    """Whether an event counts in a mix: all of the first 4,096 of a life, then every 2nd, from 8,192 on every 4th, ...

    So that 16-bit cells do not fill up, and shares stay right, however loud an account is.
    """
    if not len(seq) or int(seq.max()) < 1 << _THIN_BITS:
        return np.ones(len(seq), np.bool_)
    doublings = np.maximum((np.maximum(seq, 1).astype(np.float64).view(np.int64) >> 52) - 1023 - (_THIN_BITS - 1), 0)
    return np.asarray((seq & ((np.int64(1) << doublings) - 1)) == 0)


def length_of(texts: pl.Series) -> Ints:
    """How much each text says, int64[n], -1 for none: its characters, those of three bytes or more as three.

    Counted in bytes of UTF-8, a text in Cyrillic, Greek or Arabic letters is twice as long as the same in Latin ones;
    in characters, Chinese is a third as long.
    """
    characters = texts.str.len_chars().cast(pl.Int64)
    is_plain = (texts.str.len_bytes() == characters).fill_null(value=True).to_numpy()
    length = characters.fill_null(-1).to_numpy(writable=True)
    other = np.flatnonzero(~is_plain)
    if len(other):
        data, ends = flat(texts.gather(other))
        length[other] += 2 * np.diff(np.searchsorted(np.flatnonzero(data >= _WIDE), ends))
    return length


@dataclass(frozen=True, slots=True)
class Partitioned:
    """What families see beyond a slice.

    Attributes:
        columns: of the accounts' rows.
        sharing: what the partition's accounts share.
        launches: when the partition's models came.
        seen: events of the partition before the slice.
        late: int64[n], the partition's time at each event of the slice, in stream order.
    """

    columns: Columns
    sharing: Sharing
    launches: Launches
    seen: int
    late: Ints


class Events:
    """The events of one slice in the order of `Ordered`: by account, and within an account in stream order.

    Args:
        table: the slice, `pipeline.events.DECODED_SCHEMA`, in stream order.
        ordered: its order, clocks and numbers.
        state: where the accounts' last events are, and what the partition's accounts share.
        known: whether a column had a value by each event (see `filled`); in stream order.
    """

    def __init__(self, table: pa.Table, ordered: Ordered, state: Partitioned, known: Callable[[str], Mask]) -> None:
        self._table = table
        self._ordered = ordered
        self._state = state
        self._known = known
        self._made: dict[object, Any] = {}
        self.made: Final[dict[str, Hashes]] = {}
        """What a family made for those after it, by a name of its choice."""
        self.settings: Hashes = np.zeros(len(table), np.uint64)
        """The combination of an event's settings; the family of parameters sets it."""
        self.clock: Final = ordered.clock
        """Milliseconds since the epoch."""
        self.gap: Final = ordered.gap
        """Milliseconds since the account's event before; -1 at the first of a life."""
        self.seq: Final = ordered.seq
        """Number in the account's present life, from 0."""
        self.thinned: Final = is_thinned(ordered.seq)
        """Whether the event counts in mixes."""
        self.sampled: Final = np.flatnonzero(is_sampled(ordered.seq))
        """Which events (indices into the arrays given here) are in the sample of texts."""

    def __len__(self) -> int:
        return len(self.clock)

    def before(self, name: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What each event's account had at its event before; 0 at the first of a life.  To be asked once a slice.

        Args:
            name: one of the family's `carried`.
            values: at each event.
        """
        column = self._state.columns[f"last_{name}"]
        prior = np.empty(len(values), column.dtype)
        prior[1:] = values[:-1]
        heads = np.flatnonzero(self._ordered.first)
        rows = self._ordered.row[heads]
        prior[heads] = column[rows]
        prior[self._ordered.reborn] = 0
        column[rows] = values[np.append(heads[1:], len(values)) - 1]
        return prior

    def latest(self, name: str, values: Ints) -> Ints:
        """The largest of what an account had at its events before, in all its lives; 0 before there was any.

        Args:
            name: one of the family's `carried`, `i8`.
            values: at each event, below 2^43; 0 where there is none.
        """
        column = self._state.columns[f"last_{name}"]
        heads = np.flatnonzero(self._ordered.first)
        rows = self._ordered.row[heads]
        lift = (np.cumsum(self._ordered.first) - 1) << 43
        prior = np.zeros(len(values), np.int64)
        prior[1:] = values[:-1]
        prior[heads] = column[rows]
        prior = np.maximum.accumulate(prior + lift) - lift
        ends = np.append(heads[1:], len(values)) - 1
        column[rows] = np.maximum(prior[ends], values[ends])
        return np.asarray(prior)

    def others(self, of: Mapping[str, tuple[Hashes, Mask]]) -> dict[str, Ints]:
        """How many other accounts have sent the same lately, and note that these have.  To be asked once a slice.

        Args:
            of: kind of thing → its hash at each event, 0 where there is none, and whether to ask and note.

        Returns:
            By kind, other accounts at each event; 0 where not asked.
        """
        sharing, seen = self._state.sharing, self._state.seen
        size = sharing.block
        keys = self._state.columns["key"][self._ordered.row]
        picked = {kind: np.flatnonzero(asked & (hashed != 0)) for kind, (hashed, asked) in of.items()}
        things = [thing(index, of[kind][0][at]) for index, (kind, at) in enumerate(picked.items())]
        events, whats = np.concatenate([*picked.values()]), np.concatenate(things)
        block = (seen + self._ordered.order[events]) // size - seen // size
        by_block = np.argsort(block.astype(np.uint16), kind="stable")
        counts = np.zeros(len(events), np.int64)
        blocks = np.arange((seen + len(self)) // size - seen // size + 1)
        ends = np.searchsorted(block[by_block], blocks, side="right").tolist()
        for number, (start, stop) in enumerate(pairwise([0, *ends]), seen // size):
            at = by_block[start:stop]
            counts[at] = sharing.others(whats[at], keys[events[at]])
            if (number + 1) * size <= seen + len(self):
                sharing.close(number)
        found, start = {}, 0
        for kind, at in picked.items():
            found[kind] = np.zeros(len(self), np.int64)
            found[kind][at] = counts[start : start + len(at)]
            start += len(at)
        return found

    def launched(self, models: Hashes) -> tuple[Mask, Mask]:
        """Whether it can be told of each event if its model is new, and whether it is.  To be asked once a slice.

        Args:
            models: hash of each event's model; 0 where there is none.
        """
        order = self._ordered.order
        streamed = np.empty_like(models)
        streamed[order] = models
        told, new = self._state.launches.look(streamed, self._state.late)
        return told[order], new[order]

    def is_absent(self, name: str) -> bool:
        """Whether no event of the slice has this column: then nothing need be counted of it."""
        return bool(self._table[name].null_count == len(self._table))

    def _once(self, key: object, make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def _stream(self, name: str) -> pl.Series:
        """A column in stream order; Arrow's memory, not a copy."""
        series = self._once(("series", name), lambda: pl.Series(pl.from_arrow(self._table[name])))
        return pl.Series(series)

    def integers(self, name: str) -> Ints:
        """A column of integers or flags; -1 where there is none."""

        def make() -> Ints:
            if self.is_absent(name):
                return np.full(len(self), -1, np.int64)
            return _filled(one_chunk(self._table[name]), pa.int64(), -1).take(self._ordered.order)

        return np.asarray(self._once(("integers", name), make))

    def hashed(self, name: str) -> Hashes:
        """XXH3-64 of a column of text, or a mixed number of a column of numbers; 0 where there is none."""

        def make() -> Hashes:
            if self.is_absent(name):
                return np.zeros(len(self), np.uint64)
            column = one_chunk(self._table[name])
            is_text = pa.types.is_string_view(column.type) or pa.types.is_string(column.type)
            found = hashes(self._stream(name)) if is_text else _of_numbers(column)
            return found.take(self._ordered.order)

        return np.asarray(self._once(("hashed", name), make))

    def hashed_either(self, name: str, fingerprint: str) -> Hashes:
        """Hash of a text, or of the fingerprint that the gateway sent in its place."""
        if self.is_absent(fingerprint):
            return self.hashed(name)
        own = self.hashed(name)
        return np.where(own != 0, own, self.hashed(fingerprint))

    def hashed_as(self, name: str, what: str, cut: Callable[[pl.Series], pl.Series]) -> Hashes:
        """XXH3-64 of what is made of a column of text.

        Args:
            name: column.
            what: a name for what is made, unique for the column: it is made once a slice.
            cut: makes it, row by row: String or Binary; null where there is none.
        """

        def make() -> Hashes:
            if self.is_absent(name):
                return np.zeros(len(self), np.uint64)
            return hashes(cut(self._stream(name))).take(self._ordered.order)

        return np.asarray(self._once((name, what), make))

    def texts(self, name: str, events: Ints) -> pl.Series:
        """The texts of a column at some events: indices into the arrays given here."""
        return self._stream(name).gather(self._ordered.order[events])

    def sampled_texts(self, name: str) -> pl.Series:
        """The texts of a column at the events `sampled`."""
        return self.texts(name, self.sampled)

    def lengths(self, name: str) -> Ints:
        """Lengths of a column of text, see `length_of`; -1 where there is none."""

        def make() -> Ints:
            if self.is_absent(name):
                return np.full(len(self), -1, np.int64)
            return length_of(self._stream(name)).take(self._ordered.order)

        return np.asarray(self._once(("lengths", name), make))

    def has(self, name: str) -> Mask:
        """Whether the column has a value, whatever it is."""
        return np.asarray(self._table[name].is_valid().to_numpy())[self._ordered.order]

    @property
    def is_first_turn(self) -> Mask:
        """Whether nothing was said before: one message beside the system prompt; false where that is not logged."""

        def make() -> Mask:
            count = self.integers("message_count")
            system = self.hashed_either("system_prompt", "system_prompt_hash") != 0
            return np.asarray((count >= 0) & (count <= 1 + system))

        return np.asarray(self._once("first turn", make))

    def filled(self, name: str) -> Mask:
        """Whether the partition had any value in this column by then: if so, a null means "none", not "not logged"."""
        return np.asarray(self._once(("filled", name), lambda: self._known(name)[self._ordered.order]))


def _filled(column: pa.Array, kind: pa.DataType, absent: float) -> npt.NDArray[Any]:
    """A column of numbers or flags as `kind`, with a value where there is none."""
    found = column if column.type == kind else column.cast(kind)
    if found.null_count:
        found = pc.fill_null(found, absent)
    return np.asarray(found.to_numpy())


def _of_numbers(column: pa.Array) -> Hashes:
    if pa.types.is_floating(column.type):
        words = (_filled(column, pa.float64(), 0.0) + 0.0).view(np.uint64)  # minus zero is zero
    else:
        words = _filled(column, pa.int64(), 0).view(np.uint64)
    found = mixed(words)
    found[found == 0] = 1
    if column.null_count:
        found[~column.is_valid().to_numpy(zero_copy_only=False)] = 0
    return found
