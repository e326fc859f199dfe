"""When requests come: daily and weekly rhythm, clusters of arrivals, and scheduled jobs."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from itertools import count

from pipeline.simulation.identity import chance

HOUR_MS = 3_600_000
_THURSDAY_H = 72  # the epoch began on a Thursday; hour 0 of the week below is Monday's first

_OFFICE = (1, 1, 0, 0, 0, 1, 3, 8, 16, 20, 20, 18, 12, 15, 19, 18, 15, 10, 6, 4, 3, 3, 2, 1)
_EVENING = (5, 2, 1, 0, 0, 0, 1, 4, 6, 6, 7, 7, 9, 8, 7, 8, 9, 11, 12, 15, 18, 19, 16, 10)
_PRODUCT = (6, 5, 4, 4, 4, 4, 6, 9, 13, 15, 16, 16, 15, 15, 15, 15, 14, 14, 14, 15, 16, 15, 12, 9)
_FLAT = (1,) * 24


class Rhythm:
    """A weekly rhythm: how fast things happen in each local hour of the week, one on average."""

    def __init__(self, hours: tuple[int, ...], saturday: float, sunday: float) -> None:
        week = [weight * day for day in (1.0,) * 5 + (saturday, sunday) for weight in hours]
        mean = sum(week) / len(week)
        self.rates = tuple(max(weight / mean, 0.004) for weight in week)

    def rate(self, at_ms: int, utc_offset_h: int) -> float:
        """How fast things happen at a time."""
        return self.rates[(at_ms // HOUR_MS + utc_offset_h + _THURSDAY_H) % 168]

    def after(self, at_ms: int, wait_h: float, utc_offset_h: int) -> int:
        """The time when `wait_h` hours at average speed have passed since `at_ms`: slow by night, fast by day."""
        shift = utc_offset_h + _THURSDAY_H
        rates = self.rates
        while True:
            hour, into_ms = divmod(at_ms, HOUR_MS)
            rate = rates[(hour + shift) % 168]
            room = (HOUR_MS - into_ms) / HOUR_MS * rate
            if wait_h <= room:
                return at_ms + int(wait_h / rate * HOUR_MS)
            wait_h -= room
            at_ms = (hour + 1) * HOUR_MS


OFFICE = Rhythm(_OFFICE, 0.15, 0.1)
EVENING = Rhythm(_EVENING, 1.2, 1.3)
PRODUCT = Rhythm(_PRODUCT, 0.9, 0.85)
FLAT = Rhythm(_FLAT, 1.0, 1.0)
HUMAN = (OFFICE, EVENING, EVENING, PRODUCT)


def arrivals(rng: random.Random, rhythm: Rhythm, per_day: float, utc_offset_h: int, from_ms: int) -> Iterator[int]:
    """Poisson arrivals, `per_day` on average, bent by a rhythm; endless."""
    at_ms = from_ms
    mean_h = 24 / per_day
    while True:
        at_ms = rhythm.after(at_ms, rng.expovariate(1) * mean_h, utc_offset_h)
        yield at_ms


def clustered(rng: random.Random, parents: Iterator[int], branching: float, decay_s: float) -> Iterator[int]:
    """Self-exciting arrivals (a Hawkes process by its branching): each one brings `branching` more on average.

    Hawkes and Oakes, "A cluster process representation of a self-exciting process", 1974.  For `branching` < 1 the
    rate is that of `parents` divided by `1 - branching`.
    """
    children: list[int] = []
    for parent_ms in parents:
        while children and children[0] <= parent_ms:
            child_ms = heapq.heappop(children)
            if chance(rng, branching):
                heapq.heappush(children, child_ms + int(rng.expovariate(1 / decay_s) * 1000))
            yield child_ms
        if chance(rng, branching):
            heapq.heappush(children, parent_ms + int(rng.expovariate(1 / decay_s) * 1000))
        yield parent_ms


def schedule(rng: random.Random, every_h: int, utc_offset_h: int, from_ms: int) -> Iterator[int]:
    """Starts of a job that runs every `every_h` hours at a fixed local minute, some seconds late; endless."""
    minute_ms = int(rng.random() * 4) * 15 * 60_000
    phase_h = int(rng.random() * every_h)
    first_h = from_ms // HOUR_MS
    first_h += (phase_h - first_h - utc_offset_h) % every_h
    for run in count():
        at_ms = (first_h + run * every_h) * HOUR_MS + minute_ms + int(rng.expovariate(1 / 4000))
        if at_ms >= from_ms:
            yield at_ms
