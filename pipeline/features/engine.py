"""The account states of one partition: events in, feature rows out.

The law: a row (its values, the record that triggered it, its place among rows) is a function of the partition's events
and not of how they were cut, replayed or restored.  What upholds it:

* state is integers under associative operations only (`fields.py`); floats appear once, when a row is made, by IEEE
  `+ - * / sqrt` and tables (`integers.py`), and are rounded to float32 at the very end;
* every decision is a function of an event's place in the partition (`clock.py`, `emission.py`);
* text enters as a published hash (`hashing.py`), and as a sample by the account's own sequence number (`events.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from pipeline.accounts import Accounts, Facts
from pipeline.errors import SchemaError
from pipeline.features import emission, typical
from pipeline.features.clock import HOUR, NEVER, Cut, Ordered, by_account, panes
from pipeline.features.events import Events, Partitioned
from pipeline.features.family import Family
from pipeline.features.fields import Layout
from pipeline.features.folding import Views, fold, views
from pipeline.features.launches import Launches
from pipeline.features.panes import Panes
from pipeline.features.rows import COUNT, TICK, FeatureRows
from pipeline.features.sharing import Sharing
from pipeline.features.state import AccountColumns
from pipeline.features.typical import Tokens, Typical
from pipeline.features.watermark import Watermark
from pipeline.text_views import one_chunk

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

ACCOUNTS_MAX: Final = 2_000_000
"""Default of the most accounts that a partition keeps."""

CHECK_EVERY: Final = 1 << 16
"""Events of the partition from one check of the number of accounts to the next."""

SLICE_MAX: Final = 50_000
"""Events worked on at a time: sort keys are 16 bits wide, and memory is bounded."""

_US: Final = 1000

_SMALL: Final = 2048
"""Rows emitted at once up to this number are put together before their generations are merged."""

Emitted = tuple[Ints, npt.NDArray[np.uint8], Views]
"""Positions in the slice, kinds, views."""


class AccountStates:
    """The states of one partition's accounts.

    Args:
        families: what is computed, in the order of the columns of `FeatureRows.values`.
        feed: what the sign-up system knows of accounts; looked up when a row is emitted.
        accounts_max: the most accounts that are kept.  After each `CHECK_EVERY`-th event of the partition, those silent
            past the horizon are dropped, which nobody can notice; if more than this are left, those whose last event is
            oldest (then by key) are dropped until so many are left.  Such an account begins a new life if it comes
            back.  Between two checks there can be `CHECK_EVERY` more.  The length of all ids is bounded likewise.
        sharing: what the accounts share, nothing yet; None: one of the default sizes.
    """

    def __init__(
        self,
        families: Sequence[Family],
        feed: Accounts | None = None,
        accounts_max: int = ACCOUNTS_MAX,
        sharing: Sharing | None = None,
    ) -> None:
        self._families = tuple(families)
        self._layout = Layout([field for family in families for field in family.fields])
        self._width = sum(len(family.features) for family in families)
        carried = {name: kind for family in families for name, kind in family.carried.items()}
        self._accounts = AccountColumns(self._layout, carried)
        self._sharing = sharing or Sharing()
        self._launches = Launches()
        self._typical = Typical()
        self._accounts_max = accounts_max
        self._feed = feed
        self._watermark = Watermark.start()
        self._filled: set[str] = set()
        self.dropped_for_room = 0
        """Accounts dropped because there were more than `accounts_max`, since this object was made."""

    def __len__(self) -> int:
        """Accounts that are kept."""
        return len(self._accounts)

    @property
    def bytes_per_account(self) -> int:
        """Bytes of state that each account takes; its id and its place in the map come to about 140 more."""
        return self._accounts.bytes_per_account

    def step(self, events: pa.Table) -> FeatureRows:
        """Take the next events of the partition.

        Args:
            events: `pipeline.events.DECODED_SCHEMA`, in offset order; any number.

        Returns:
            The rows that they trigger.
        """
        parts = [FeatureRows.empty(self._width)]
        start = 0
        while start < len(events):
            to_check = CHECK_EVERY - self._watermark.seen % CHECK_EVERY
            size = min(SLICE_MAX, len(events) - start)
            if to_check < size and self._may_lack_room(events.slice(start, size)):
                size = to_check
            rows = self._step(events.slice(start, size))
            if len(rows):
                parts.append(rows)
            start += size
            if size == to_check:
                self.dropped_for_room += self._accounts.check(self._watermark.late, self._accounts_max)
            elif size > to_check:
                self._accounts.drop_silent(self._watermark.late)
            if self._watermark.seen % typical.EVERY == 0:
                self._renew(self._watermark.late)
        return FeatureRows.concat(parts)

    def _may_lack_room(self, events: pa.Table) -> bool:
        """Whether accounts could have to be dropped for room among some events: if not, no slice need end there."""
        ids = pl.Series(pl.from_arrow(one_chunk(events["account_id"])))
        return not self._accounts.has_room(len(ids), int(ids.str.len_bytes().sum()), self._accounts_max)

    def snapshot(self) -> dict[str, Any]:
        """The state as plain tables and plain values; `restore` makes a state of them that continues the same.

        The accounts are many, and made as they are read: to be read before the next step.
        """
        state = {
            "watermark": self._watermark.scalars(),
            "filled": sorted(self._filled),
            "launches": self._launches.scalars(),
            "typical": self._typical.scalars(),
        }
        return {"state": state, "accounts": self._accounts.batches(), **self._sharing.tables()}

    def restore(self, parts: Mapping[str, Any]) -> None:
        """Take the place of the state that a snapshot was made of; this object must not have seen an event.

        Raises:
            SchemaError: the snapshot is not of this version, or this object is not new.
        """
        if self._watermark.seen or len(self._accounts):
            raise SchemaError("a snapshot can be restored only into a state that has seen nothing")
        if set(parts) != {"state", "accounts", "sharing", "sharing_new"}:
            raise SchemaError(f"the snapshot's account states have other parts than this version's: {sorted(parts)}")
        state = parts["state"]
        if set(state) != {"watermark", "filled", "launches", "typical"}:
            raise SchemaError(f"the snapshot's state has other parts than this version's: {sorted(state)}")
        self._watermark = Watermark.of(state["watermark"])
        self._filled = set(state["filled"])
        self._launches.restore(state["launches"])
        self._typical.restore(state["typical"])
        self._accounts.fill(parts["accounts"])
        self._sharing.restore(parts)

    def _step(self, table: pa.Table) -> FeatureRows:
        code, ids = _codes(table["account_id"])
        row_of_code = self._accounts.rows(ids)
        columns = self._accounts.columns
        times = one_chunk(table["event_time"]).cast(pa.int64()).to_numpy() // _US
        seen = self._watermark.seen
        late, clipped = self._watermark.advance(columns["key"][row_of_code][code], times)
        ordered = by_account(code, row_of_code, clipped, columns["clock"], columns["seq"])
        stops = self._renewals(seen, len(times))
        cut = panes(ordered, columns["phase"], stops)
        records = Panes(self._layout, cut)
        around = Partitioned(columns, self._sharing, self._launches, seen, late)
        events = Events(table, ordered, around, lambda name: self._known(table, name))
        for family in self._families:
            family.contribute(events, records)
        records.close()
        tokens = np.maximum(events.integers("output_tokens"), 0)
        folding = _Fold(self._layout, self._accounts, ordered, cut, late)
        folding.begin(tokens)
        shown = [self._typical.tokens]
        for number, stop in enumerate([*stops, len(times)]):
            folding.run(records, number, stop)
            if number < len(stops):
                self._renew(int(late[stop]))
                shown.append(self._typical.tokens)
        return self._rows(folding.emitted(), one_chunk(table["offset"]).to_numpy(), (stops, shown))

    def _renewals(self, seen: int, count: int) -> list[int]:
        """Where in a slice what is typical is renewed; not at its end, where `step` does it."""
        first = typical.EVERY - seen % typical.EVERY
        return list(range(first, count, typical.EVERY)) if self._feed is not None else []

    def _renew(self, late: int) -> None:
        if self._feed is not None:
            self._typical.renew(self._layout, self._accounts, self._feed, late)

    def _known(self, table: pa.Table, name: str) -> Mask:
        """Whether the partition had a value in a column by each event of a slice."""
        if name in self._filled:
            return np.ones(len(table), np.bool_)
        column = table[name]
        if column.null_count == len(table):
            return np.zeros(len(table), np.bool_)
        self._filled.add(name)
        return np.asarray(np.maximum.accumulate(column.is_valid().to_numpy()))

    def _rows(self, emitted: Emitted | None, offsets: Ints, typically: tuple[list[int], list[Tokens]]) -> FeatureRows:
        if emitted is None:
            return FeatureRows.empty(self._width)
        position, kind, seen = emitted
        order = self._emission_order(position, kind, seen)
        ids = self._accounts.ids_of(seen.row)
        seen = seen.with_facts(self._facts(ids, position, *typically))
        values = np.empty((len(order), self._width), np.float32)
        column = 0
        for family in self._families:
            numbers = family.compute(seen)
            for feature in family.features:
                values[:, column] = numbers[feature.name]
                column += 1
        return FeatureRows(
            offset=offsets[position[order]],
            kind=kind[order],
            account_id=[ids[row] for row in order.tolist()],
            key=seen.key[order],
            scored_at=seen.clock[order] * _US,
            first_seen=seen.born[order] * _US,
            exchanges=seen.seq[order],
            output_tokens=seen.tokens[order],
            values=values[order],  # numbers are put in order, of which there are fewer bytes than of what they are of
        )

    def _facts(self, ids: list[str], position: Ints, stops: list[int], shown: list[Tokens]) -> Facts | None:
        """What the feed says of accounts, and where it says nothing what was typical by then.

        Args:
            ids: n accounts.
            position: int64[n], of the event in the slice that each is looked at by.
            stops: where in the slice that was renewed.
            shown: what was typical before the first of them, after it, after the second, ...
        """
        if self._feed is None:
            return None
        facts = self._feed.facts(ids)
        plans = self._feed.plan_numbers(ids)
        stretch = np.searchsorted(stops, position, side="right")
        found = np.array([self._feed.by_plan(tokens) for tokens in shown])
        named = facts.plan_tokens
        return replace(facts, plan_tokens=np.where(np.isnan(named), found[stretch, plans], named))

    def _emission_order(self, position: Ints, kind: npt.NDArray[np.uint8], seen: Views) -> Ints:
        """By the record that triggered them; at one record ticks first, by key, and by id where two keys are alike."""
        order = np.lexsort((seen.key, kind, position))
        near = np.flatnonzero(
            (np.diff(position[order]) == 0)
            & (np.diff(kind[order]) == 0)
            & (seen.key[order][1:] == seen.key[order][:-1])
        )
        if len(near):  # two ids of one hash: somebody looked for them
            row = seen.row.tolist()
            by = [(position[i], kind[i], seen.key[i], self._accounts.id_of(row[i])) for i in range(len(row))]
            order = np.array(sorted(range(len(row)), key=by.__getitem__), np.int64)
        return order


class _Fold:
    """Panes of one slice folded into the rows, and what is emitted on the way."""

    def __init__(self, layout: Layout, accounts: AccountColumns, events: Ordered, cut: Cut, late: Ints) -> None:
        self._layout = layout
        self._columns = accounts.columns
        self._rows_used = accounts.rows_used
        self._events = events
        self._cut = cut
        self._late = late
        self._large: list[Emitted] = []
        self._small: list[Emitted] = []

    def begin(self, tokens: Ints) -> None:
        """Look ahead from each pane, once for the whole slice.

        Args:
            tokens: int64[n], output tokens of each ordered event.
        """
        events, cut, count = self._events, self._cut, len(self._late)
        self._tokens = np.add.reduceat(tokens, cut.heads)[cut.by_rank]
        self._row = events.row[cut.begin]
        self._full = emission.is_full(events.seq[cut.last])
        after = np.minimum(cut.last + 1, count - 1)
        self._more = (cut.last + 1 < count) & ~cut.opens[after]  # the account has a later event in this stretch
        self._next_clock, self._next_position = events.clock[after], events.order[after]
        self._opens = np.flatnonzero(cut.opens)

    def run(self, records: Panes, stretch: int, stop: int) -> None:
        """Fold all panes of a stretch of the slice.

        Args:
            records: of all panes.
            stretch: which.
            stop: position in the slice of the first event after it.
        """
        events, cut = self._events, self._cut
        late = int(self._late[stop - 1])
        heads = self._opens[cut.stretch[self._opens] == stretch]
        self._tick(events.row[heads], events.clock[heads], events.order[heads])
        for pane in cut.rounds[stretch]:
            row, last = self._row[pane], cut.last[pane]
            fold(self._layout, self._columns, row, cut.half[pane], (records.records, pane))
            self._count(pane, self._tokens[pane])
            done = self._full[pane]
            self._emit(COUNT, row[done], events.order[last[done]])
            self._set_due(row)
            more = self._more[pane]
            clock = np.where(more, self._next_clock[pane], late)
            self._tick(row, clock, np.where(more, self._next_position[pane], stop))
        idle = np.flatnonzero(self._columns["due"][: self._rows_used] <= late)
        self._tick(idle, np.full(len(idle), late), np.full(len(idle), stop))

    def _count(self, pane: slice, tokens: Ints) -> None:
        """Set the rows' own columns as of the last events of panes."""
        events, columns = self._events, self._columns
        begin, last = self._cut.begin[pane], self._cut.last[pane]
        row, reborn = events.row[begin], events.reborn[begin]
        columns["born"][row] = np.where(reborn, events.clock[begin], columns["born"][row])
        columns["tokens"][row] = np.where(reborn, 0, columns["tokens"][row]) + tokens
        columns["fresh"][row] = np.where(reborn, 0, columns["fresh"][row]) + last - begin + 1
        columns["clock"][row] = events.clock[last]
        columns["seq"][row] = events.seq[last] + 1

    def _set_due(self, row: Ints) -> None:
        columns = self._columns
        fresh, phase = columns["fresh"][row], columns["phase"][row]
        clock = self._columns["clock"][row]
        shifted = clock + phase
        hour = shifted - shifted % HOUR + HOUR - phase
        is_quiet_due = (fresh >= emission.QUIET_EVENTS_MIN) & (columns["seq"][row] >= emission.QUIET_LIFE_MIN)
        quiet = np.where(is_quiet_due, clock + emission.QUIET, NEVER)
        columns["due"][row] = np.where(fresh >= emission.HOUR_EVENTS_MIN, hour, quiet)

    def _tick(self, row: Ints, clock: Ints, position: Ints) -> None:
        """Emit rows that are due before their next event, or before the watermark.

        Args:
            row: no two alike.
            clock: of each row's next event, or the watermark.
            position: of that event in the slice, or the slice's length.
        """
        due = self._columns["due"][row]
        passed = due <= clock
        if passed.any():
            row, due = row[passed], due[passed]
            self._emit(TICK, row, np.minimum(position[passed], np.searchsorted(self._late, due)))
            self._columns["due"][row] = NEVER

    def _emit(self, kind: int, row: Ints, position: Ints) -> None:
        if len(row):
            kinds, seen = np.full(len(row), kind, np.uint8), views(self._layout, self._columns, row)
            if len(row) < _SMALL:
                self._small.append((position, kinds, seen))
            else:
                self._large.append((position, kinds, seen.merged()))
            self._columns["fresh"][row] = 0

    def emitted(self) -> Emitted | None:
        """All that was emitted, in no order; None for nothing."""
        parts = self._large
        if self._small:
            position, kind, seen = _joined(self._small)
            parts = [*parts, (position, kind, seen.merged())]
        return _joined(parts) if parts else None


def _joined(parts: Sequence[Emitted]) -> Emitted:
    return (
        np.concatenate([part[0] for part in parts]),
        np.concatenate([part[1] for part in parts]),
        Views.concat([part[2] for part in parts]),
    )


def _codes(column: pa.ChunkedArray) -> tuple[Ints, pa.LargeStringArray]:
    """Number the accounts of a slice: each event's number, and the account of each number."""
    coded = one_chunk(column).cast(pa.large_string()).dictionary_encode()
    return coded.indices.to_numpy().astype(np.int64), coded.dictionary
