"""How harvesters hide: six variants, alone or in pools, each dressed as some kind of customer."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

from pipeline.simulation.benign import chat_app, people, platform
from pipeline.simulation.harvest import Harvest
from pipeline.simulation.identity import Origin, Shared, chance, draw_client, draw_country, draw_network, pick, token
from pipeline.simulation.rhythm import FLAT, HOUR_MS, HUMAN, arrivals, clustered
from pipeline.simulation.sessions import (
    Behaviour,
    Request,
    Run,
    Session,
    Sessions,
    batches,
    combine,
    lognormal,
    singles,
)

SINGLE_VARIANTS = ("loud", "paced", "mixed", "faint")
POOL_SIZES = {"hydra": 40, "drip": 50}
VARIANTS = (*SINGLE_VARIANTS, *POOL_SIZES)
TIES = ("payments", "client", "network", "nothing")


@dataclass(frozen=True, slots=True)
class Operation:
    """Who harvests: one account, or the pool that it belongs to.

    Attributes:
        variant: how it hides.
        harvest: the data set that it collects.
        shared: what gives a pool away.
        pool_id: empty for an account on its own.
        size: number of accounts.
        relayed: members start one after the other, as those before are shut down.
        hurried: each member of a pool asks all it has to ask in one run.
    """

    variant: str
    harvest: Harvest
    shared: Shared
    pool_id: str
    size: int
    relayed: bool
    hurried: bool


@dataclass(frozen=True, slots=True)
class Span:
    """The simulated time, for operations that plan ahead in it."""

    start_ms: int
    hours: float

    def at(self, share: float) -> int:
        """The time at a share of the span."""
        return self.start_ms + int(share * self.hours * HOUR_MS)


def draw_operation(rng: random.Random, variant: str, family: str, size: int, tie: str) -> Operation:
    """An operation of `size` accounts; `tie` (one of `TIES`) is what a pool's accounts have in common."""
    frames_max = 6 if variant in ("faint", "drip") else 4
    harvest = Harvest(family, rng.getrandbits(48), frames_max)
    pool_id = token(rng, "pool_", 6) if variant in POOL_SIZES else ""
    return Operation(
        variant,
        harvest,
        _shared(rng, tie),
        pool_id,
        size,
        relayed=chance(rng, 0.4),
        hurried=variant == "hydra" and chance(rng, 0.25),
    )


def _shared(rng: random.Random, tie: str) -> Shared:
    if tie == "payments":
        return Shared(payments=tuple(token(rng, "pay_", 12) for _ in range(2 + int(rng.random() * 4))))
    if tie == "client":
        return Shared(clients=(draw_client(rng, app=False),))
    if tie == "network":
        country = draw_country(rng)
        return Shared(networks=tuple(draw_network(rng, country, hosting=True) for _ in range(3)))
    return Shared()


def behave(rng: random.Random, origin: Origin, operation: Operation, member: int, span: Span) -> Behaviour:
    """How account number `member` of an operation acts."""
    numbers = count(member, operation.size)
    harvest = operation.harvest

    def take() -> Request:
        messages = 1 + (harvest.system is not None)
        answer = 1 + int(lognormal(rng, harvest.answer_tokens, 0.55))
        return Request(harvest.prompt(next(numbers)), harvest.system, messages, 0, answer)

    if operation.variant == "loud":
        return _loud(rng, take, span)
    if operation.variant == "paced":
        return _paced(rng, take, origin, span)
    if operation.variant in ("mixed", "faint"):
        cover = pick(rng, (chat_app, platform, platform))(rng, origin)
        return _hidden(rng, cover, take, origin, 0.25 if operation.variant == "mixed" else 0.05)
    return _pooled(rng, take, origin, operation, member, span)


def _loud(rng: random.Random, take: Callable[[], Request], span: Span) -> Behaviour:
    """As much as the plan allows, day and night: at random, evenly, or in runs as fast as the API answers."""
    per_day = lognormal(rng, 420, 0.7)
    begin_ms = span.at(rng.random() * 0.5)
    manner = pick(rng, (_random, _evenly, _in_runs, _in_runs))

    def sessions(from_ms: int) -> Sessions:
        return manner(rng, take, per_day, max(from_ms, begin_ms))

    return Behaviour(per_day, sessions)


def _random(rng: random.Random, take: Callable[[], Request], per_day: float, from_ms: int) -> Sessions:
    return singles(arrivals(rng, FLAT, per_day, 0, from_ms), take)


def _evenly(rng: random.Random, take: Callable[[], Request], per_day: float, from_ms: int) -> Sessions:
    return singles(_metronome(rng, per_day, from_ms), take)


def _metronome(rng: random.Random, per_day: float, from_ms: int) -> Iterator[int]:
    gap_ms = 24 * HOUR_MS / per_day
    at_ms = float(from_ms)
    while True:
        at_ms += gap_ms * (0.8 + 0.4 * rng.random())
        yield int(at_ms)


def _in_runs(rng: random.Random, take: Callable[[], Request], per_day: float, from_ms: int) -> Sessions:
    """A script that is started now and then, and sends its share of a data set with some workers side by side."""
    runs_per_day = pick(rng, (1, 2, 4, 12))
    run = Run(per_day / runs_per_day, _hurried_s(rng), lambda _: take())
    return batches(rng, run, arrivals(rng, FLAT, runs_per_day, 0, from_ms))


def _hurried_s(rng: random.Random) -> float:
    """Seconds between the requests of a script: an answer's time, over one to some ten workers."""
    return lognormal(rng, 1.5, 1.2)


def _paced(rng: random.Random, take: Callable[[], Request], origin: Origin, span: Span) -> Behaviour:
    """A program that keeps the hours of a person."""
    per_day = lognormal(rng, 110, 0.5)
    begin_ms = span.at(rng.random() * 0.3)
    rhythm = pick(rng, HUMAN)

    def sessions(from_ms: int) -> Sessions:
        return singles(arrivals(rng, rhythm, per_day, origin.home.utc_offset_h, max(from_ms, begin_ms)), take)

    return Behaviour(per_day, sessions)


def _hidden(
    rng: random.Random, cover: Behaviour, take: Callable[[], Request], origin: Origin, share: float
) -> Behaviour:
    """A relay: a share of its requests is harvesting, single questions between the conversations of real users.

    They look as its gateway lets all its requests look: with an id of a conversation if the others have one.  It
    harvests nothing before its users have asked anything.
    """
    per_day = cover.per_day * share / (1 - share)
    crowd = rng.random() * 0.5
    names: bool | None = None

    def noting(session: Session) -> Session:
        nonlocal names
        for at_ms, request in session:
            names = request.conversation is not None
            yield at_ms, request

    def covering(from_ms: int) -> Sessions:
        return ((start_ms, noting(session)) for start_ms, session in cover.sessions(from_ms))

    def ask(start_ms: int) -> Session:
        if names is None:
            return
        request = take()
        request.conversation = token(rng, "conv_", 12) if names else None
        yield start_ms, request

    def harvesting(from_ms: int) -> Sessions:
        rhythm = pick(rng, (*HUMAN, FLAT))
        starts = arrivals(rng, rhythm, per_day * (1 - crowd), origin.home.utc_offset_h, from_ms)
        for start_ms in clustered(rng, starts, crowd, decay_s=90):
            yield start_ms, ask(start_ms)

    return combine(Behaviour(cover.per_day, covering), Behaviour(per_day, harvesting))


def _pooled(
    rng: random.Random, take: Callable[[], Request], origin: Origin, operation: Operation, member: int, span: Span
) -> Behaviour:
    """A few requests from each of many accounts; over a longer span than two days, proportionally more."""
    low, high = (6, 40) if operation.variant == "hydra" else (6, 12)
    total = int((low + int(rng.random() * (high - low + 1))) * max(1.0, span.hours / 48))
    if operation.relayed:
        first = member / operation.size * 0.7
        last = first + 0.3
    else:
        first, last = rng.random() * 0.15, 1 - rng.random() * 0.15
    times = _times(rng, total, origin, span.at(first), span.at(last))
    if operation.hurried:
        times = _at_once(rng, total, times[0])

    def sessions(from_ms: int) -> Sessions:
        return singles((start_ms for start_ms in times if start_ms >= from_ms), take)

    harvesting = Behaviour(total * 24 / span.hours, sessions)
    if operation.variant == "drip" and chance(rng, 0.7):
        return combine(harvesting, people(rng, origin))
    return harvesting


def _at_once(rng: random.Random, total: int, from_ms: int) -> list[int]:
    """`total` times as a script has them that is run once."""
    pause_ms = 1000 * _hurried_s(rng)
    times = [from_ms]
    while len(times) < total:
        times.append(times[-1] + int(rng.expovariate(1) * pause_ms))
    return times


def _times(rng: random.Random, total: int, origin: Origin, from_ms: int, to_ms: int) -> list[int]:
    """`total` times between two moments: by day and by night as people do, or evenly."""
    if chance(rng, 0.5):
        return sorted(from_ms + int(rng.random() * (to_ms - from_ms)) for _ in range(total))
    rhythm = pick(rng, HUMAN)
    steps = 96
    marks = [from_ms + (to_ms - from_ms) * step // steps for step in range(steps)]
    offset = origin.home.utc_offset_h
    weights = [rhythm.rate(mark, offset) for mark in marks]
    chosen = rng.choices(marks, weights, k=total)
    return sorted(mark + int(rng.random() * (to_ms - from_ms) / steps) for mark in chosen)
