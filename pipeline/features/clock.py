"""Time: the account's own clock, its sequence numbers, and the panes they are cut into.

All of it is a function of an event's place in the partition, never of where a batch ends.  Times are in milliseconds.

* Event time is clipped to what the partition's watermark (`watermark.py`) allows.
* The account's clock is the running maximum of its clipped times.
* An account that was silent for `HORIZON` begins a new life: so whoever has been silent for that long can be forgotten
  at any time, and nobody will know.
* A *pane* is one account, life, half hour of its own clock plus phase, and stretch between two counts that emit.  The
  phase is its key modulo a day, so that the hours and days of a million accounts do not end together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.features import emission

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

SECOND: Final = 1000
HOUR: Final = 3600 * SECOND
HALF: Final = HOUR // 2
DAY: Final = 24 * HOUR
HORIZON: Final = 7 * DAY

NEVER: Final = 1 << 62
LATEST: Final = (1 << 43) - 1  # the year 2248: `lift` below needs 43 bits


@dataclass(frozen=True, slots=True)
class Ordered:
    """The events of a slice by account, and within an account in stream order.

    Attributes:
        order: int64[n], each event's position in the slice.
        row: int64[n], its account's row in the state.
        first: whether it is its account's first in the slice.
        clock: its account's clock at it, milliseconds.
        gap: milliseconds since the account's clock before; -1 at the first event of a life.
        reborn: whether a life begins with it.
        seq: its number in that life, from 0.
    """

    order: Ints
    row: Ints
    first: Mask
    clock: Ints
    gap: Ints
    reborn: Mask
    seq: Ints


def by_account(code: npt.NDArray[np.int64], row_of_code: Ints, times: Ints, clocks: Ints, seqs: Ints) -> Ordered:
    """Order a slice's events by account and give each its account's clock and its number.

    Args:
        code: number of each event's account in the slice, below 65,536.
        row_of_code: the state's row of each such account.
        times: clipped event times.
        clocks: the state's column of clocks; `-NEVER` where a row is new.
        seqs: the state's column of numbers of events.
    """
    count = len(code)
    order = np.argsort(code.astype(np.uint16), kind="stable")
    code = code[order]
    row = row_of_code[code]
    first = np.ones(count, np.bool_)
    np.not_equal(code[1:], code[:-1], out=first[1:])
    heads = np.flatnonzero(first)
    prior = clocks[row[heads]]
    own = times[order]
    own[heads] = np.maximum(own[heads], prior)
    lift = code << 43  # makes one running maximum restart at each account
    clock = np.maximum.accumulate(own + lift) - lift
    gap = np.empty(count, np.int64)
    gap[1:] = clock[1:] - clock[:-1]
    gap[heads] = clock[heads] - prior
    reborn = gap >= HORIZON
    gap[reborn] = -1
    base = np.zeros(count, np.int64)
    base[heads] = seqs[row[heads]]
    base[reborn] = 0
    start = np.maximum.accumulate(np.where(first | reborn, np.arange(count), 0))
    seq = np.arange(count) - start + base[start]
    return Ordered(order, row, first, clock, gap, reborn, seq)


@dataclass(frozen=True, slots=True)
class Cut:
    """The panes of a slice by stretch, and within it all accounts' first ones, then their second ones, and so on.

    Attributes:
        heads: int64[events in order of panes by account], where each pane begins among the ordered events.
        by_rank: int64[panes], the order of panes described above, as indices into `heads`.
        of_event: int64[n], each ordered event's pane, in the order described above.
        begin: int64[panes], first ordered event of each pane.
        last: int64[panes], last ordered event of each pane.
        half: int64[panes], its half hour, of the account's clock plus phase.
        opens: bool[n], whether an ordered event is its account's first in its stretch of the slice.
        stretch: int64[n], the number of each ordered event's stretch.
        rounds: for each stretch, slices of panes of which no two are of one account.
    """

    heads: Ints
    by_rank: Ints
    of_event: Ints
    begin: Ints
    last: Ints
    half: Ints
    opens: Mask
    stretch: Ints
    rounds: list[list[slice]]


def panes(events: Ordered, phases: Ints, stops: Sequence[int] = ()) -> Cut:
    """Cut ordered events into panes.

    Args:
        events: of a slice.
        phases: the state's column of phases.
        stops: positions in the slice, ascending, at which no pane may go on: what comes before one is folded before
            what comes after it.
    """
    count = len(events.row)
    half = (events.clock + phases[events.row]) // HALF
    bucket = emission.bucket(events.seq)
    stretch, opens = np.zeros(count, np.int64), events.first
    if stops:
        stretch = np.searchsorted(stops, events.order, side="right")
        opens = opens.copy()
        opens[1:] |= stretch[1:] != stretch[:-1]
    edge = opens | events.reborn
    edge[1:] |= (half[1:] != half[:-1]) | (bucket[1:] != bucket[:-1])
    heads = np.flatnonzero(edge)
    size = np.diff(heads, append=count)
    numbers = np.arange(len(heads))
    rank = numbers - np.maximum.accumulate(np.where(opens[heads], numbers, 0))
    by_rank = np.argsort(rank.astype(np.uint16), kind="stable")
    if stops:
        by_rank = by_rank[np.argsort(stretch[heads][by_rank].astype(np.uint16), kind="stable")]
    place = np.empty(len(heads), np.int64)
    place[by_rank] = numbers
    begin = heads[by_rank]
    last = begin + size[by_rank] - 1
    of_pane = stretch[begin]
    ends = [0, *(np.flatnonzero(np.diff(rank[by_rank]) | np.diff(of_pane)) + 1).tolist(), len(heads)]
    rounds: list[list[slice]] = [[] for _ in range(len(stops) + 1)]
    for a, b in pairwise(ends):
        rounds[of_pane[a]].append(slice(a, b))
    return Cut(heads, by_rank, np.repeat(place, size), begin, last, half[last], opens, stretch, rounds)
