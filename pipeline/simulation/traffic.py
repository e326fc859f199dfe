"""A whole simulation: who takes part, and everything they send, in the order of time.

Read `Simulation.events` first: each account is a stream of its own, and the streams are merged.  An account depends on
the seed and its own number only, so the traffic is the same however it is read; memory grows with the number of
accounts and not with the number of events.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import cycle, islice

from pipeline.errors import ConfigError
from pipeline.simulation import attack
from pipeline.simulation.attack import (
    POOL_SIZES,
    SINGLE_VARIANTS,
    TIES,
    VARIANTS,
    Operation,
    Span,
    draw_operation,
)
from pipeline.simulation.benign import POPULATIONS, Population
from pipeline.simulation.events import Event, Sender
from pipeline.simulation.harvest import FAMILIES
from pipeline.simulation.identity import (
    Account,
    Label,
    Origin,
    Shared,
    chance,
    draw_account,
    draw_country,
    draw_network,
    draw_origin,
    pick,
    randomness,
    token,
)
from pipeline.simulation.rhythm import HOUR_MS
from pipeline.simulation.sessions import Behaviour, Request, Session, interleave

ACCOUNTS_MIN = 10
_WORTH_RETRYING = frozenset({429, 500, 503})
_LAUNCH_SHARE = 0.6
"""When in the simulated time a new model comes out, and some customers and harvesters move to it."""


@dataclass(frozen=True, slots=True)
class Role:
    """What one account is there to do: a customer of some population, or a member of an operation."""

    population: Population
    shared: Shared
    operation: Operation | None = None
    member: int = 0


@dataclass(frozen=True, slots=True)
class _Part:
    """A role with its account made up."""

    account: Account
    label: Label
    origin: Origin
    habit: str
    behaviour: Behaviour
    answer_tokens: int
    pivot_ms: int | None


class Simulation:
    """Labelled traffic, the same for the same arguments.

    Args:
        seed: chooses everything that is left to chance.
        accounts: number of accounts.
        start: time of the first event at the earliest; must know its time zone.
        hours: length of the traffic; None goes on without end, as a limit on the number of events needs.
        attack_share: share of the accounts that harvest.
        variants: how harvesters may hide; none means all ways.
        span_hours: the time over which operations with a plan spread it; `hours` by default, 48 without.

    Raises:
        ConfigError: an argument is out of range.
    """

    def __init__(  # noqa: PLR0913 - each is named where it is given
        self,
        *,
        seed: int = 0,
        accounts: int = 1400,
        start: datetime,
        hours: float | None = 48,
        attack_share: float = 0.15,
        variants: Sequence[str] = (),
        span_hours: float | None = None,
    ) -> None:
        _check(accounts, start, hours, attack_share, variants)
        self.seed = seed
        self.start = start.astimezone(UTC)
        self.hours = hours
        self._span = Span(int(self.start.timestamp() * 1000), span_hours or hours or 48)
        self._roles = assign_roles(seed, accounts, attack_share, variants or VARIANTS)
        self.accounts: list[Account] = []
        self.labels: list[Label] = []
        self.events_per_day = 0.0
        """How many events a day to expect."""
        for number in range(len(self._roles)):
            part = self._cast(number)
            self.accounts.append(part.account)
            self.labels.append(part.label)
            self.events_per_day += part.behaviour.per_day

    def events(self) -> Iterator[Event]:
        """Every event, in the order of `event_time`; each call begins again and gives the same ones."""
        until_ms = self._span.start_ms + int(self.hours * HOUR_MS) if self.hours else 1 << 62
        streams = [self._stream(number, until_ms) for number in range(len(self._roles))]
        for _, _, event in heapq.merge(*streams):
            yield event

    def _stream(self, number: int, until_ms: int) -> Iterator[tuple[int, int, Event]]:
        part = self._cast(number)
        rng = randomness(self.seed, "sender", number)
        sender = Sender(rng, part.account, part.origin, part.habit, part.answer_tokens, part.pivot_ms)
        requests = interleave(part.behaviour.sessions(self._span.start_ms), until_ms)
        for at_ms, event in _with_retries(rng, sender, requests):
            if at_ms >= until_ms:
                return
            # The number makes the key unique, so that a merge never compares two events.
            yield at_ms, number, event

    def _cast(self, number: int) -> _Part:
        role = self._roles[number]
        rng = randomness(self.seed, "account", number)
        personal, operation = role.population.personal, role.operation
        origin = draw_origin(rng, personal=personal, shared=role.shared)
        fresh = 0.12 if operation is None else 0.4
        account = draw_account(rng, origin, self.start, personal=personal, fresh=fresh, shared=role.shared)
        if operation is None:
            label = Label(account.account_id, "benign", role.population.name)
            behaviour = role.population.behave(rng, origin)
        else:
            label = Label(
                account.account_id,
                "attack",
                "attack",
                operation.harvest.family,
                operation.variant,
                operation.pool_id,
            )
            behaviour = attack.behave(rng, origin, operation, role.member, self._span)
        pivots = 0.35 if operation else 0.3 if role.population.name == "eval_harness" else 0.08
        delay_h = rng.expovariate(1 / 8)
        pivot_ms = self._span.at(_LAUNCH_SHARE) + int(delay_h * HOUR_MS) if chance(rng, pivots) else None
        # A relay keeps its product's limits; whoever harvests openly wants whole answers.
        wanted = operation.harvest.answer_tokens if operation and operation.variant not in ("mixed", "faint") else 0
        return _Part(account, label, origin, role.population.name, behaviour, wanted, pivot_ms)


def _with_retries(rng: random.Random, sender: Sender, requests: Session) -> Iterator[tuple[int, Event]]:
    """The events of an account's requests; most that fail for the server's reasons are sent again after a pause."""
    retries: list[tuple[int, int, Request]] = []

    def attempt(at_ms: int, number: int, request: Request) -> tuple[int, Event]:
        event = sender.event(at_ms, request)
        if event["status"] in _WORTH_RETRYING and chance(rng, 0.7):
            pause_ms = event["latency_ms"] + 400 + int(rng.expovariate(1 / 4000))
            heapq.heappush(retries, (at_ms + pause_ms, number, request))
        return at_ms, event

    for number, (request_ms, request) in enumerate(requests):
        while retries and retries[0][0] <= request_ms:
            yield attempt(*heapq.heappop(retries))
        yield attempt(request_ms, number, request)
    while retries:
        yield attempt(*heapq.heappop(retries))


def assign_roles(seed: int, accounts: int, attack_share: float, variants: Sequence[str]) -> list[Role]:
    """A role for each account, benign and attack in no particular order."""
    rng = randomness(seed, "roles")
    attackers = round(accounts * attack_share)
    roles = _benign_roles(rng, accounts - attackers)
    roles += _attack_roles(rng, attackers, variants)
    rng.shuffle(roles)
    return roles


def _benign_roles(rng: random.Random, accounts: int) -> list[Role]:
    counts = [int(population.share * accounts) for population in POPULATIONS]
    if accounts >= len(POPULATIONS):
        counts = [max(1, size) for size in counts]
    counts[0] += accounts - sum(counts)
    roles = [Role(pop, Shared()) for pop, size in zip(POPULATIONS, counts, strict=True) for _ in range(size)]
    # Honest twins of a pool: resellers, universities and firms whose accounts share payment, domain and network.
    grouped = int(accounts * 0.12)
    at = 0
    while at < grouped:
        size = 3 + int(rng.random() ** 2 * 25)
        shared = _customer_group(rng)
        for place in rng.sample(range(accounts), min(size, accounts)):
            roles[place] = Role(roles[place].population, shared)
        at += size
    return roles


def _customer_group(rng: random.Random) -> Shared:
    country = draw_country(rng)
    hosting = chance(rng, 0.4)
    networks = tuple(draw_network(rng, country, hosting=hosting) for _ in range(1 + int(rng.random() * 3)))
    payments = (token(rng, "pay_", 12),)
    return Shared(
        payments=payments if chance(rng, 0.7) else (),
        networks=networks if chance(rng, 0.6) else (),
        email_domain=f"campus{int(rng.random() * 900) + 100}.example" if chance(rng, 0.6) else "",
        org_id=token(rng, "org_", 10) if chance(rng, 0.5) else "",
    )


def _attack_roles(rng: random.Random, accounts: int, variants: Sequence[str]) -> list[Role]:
    """Three quarters of the attackers in pools, the rest on their own; small casts get small pools."""
    families = cycle(rng.sample(FAMILIES, len(FAMILIES)))
    ties = cycle(rng.sample(TIES, len(TIES)))
    single = [variant for variant in SINGLE_VARIANTS if variant in variants]
    pooled = [variant for variant in POOL_SIZES if variant in variants]
    sizes = _pools(int(accounts * 0.75) if single else accounts, pooled)
    left = accounts - sum(size for _, size in sizes)
    if single:
        sizes += [(variant, 1) for variant in islice(cycle(single), left)]
    elif left:
        sizes.append((pooled[0], left))
    roles = []
    for variant, size in sizes:
        operation = draw_operation(
            rng, variant, next(families), size, next(ties) if variant in POOL_SIZES else "nothing"
        )
        roles += [Role(_dress(rng, variant), operation.shared, operation, member) for member in range(size)]
    return roles


def _pools(accounts: int, variants: Sequence[str]) -> list[tuple[str, int]]:
    """As many pools as so many accounts make: how each hides, and its size."""
    sizes: list[tuple[str, int]] = []
    for variant in cycle(variants):
        room = accounts - sum(size for _, size in sizes)
        whole = POOL_SIZES[variant]
        if len(sizes) < len(variants):
            whole = min(whole, accounts // len(variants))
        if room < whole or whole < 1:
            break
        sizes.append((variant, whole))
    return sizes


def _dress(rng: random.Random, variant: str) -> Population:
    """The population that a harvester passes for, in its parameters, clients, networks and plan."""
    kinds = {
        "loud": ("qa_app", "etl", "eval_harness", "platform"),
        "paced": ("people", "qa_app", "judge"),
        "mixed": ("platform", "chat_app"),
        "faint": ("platform", "chat_app"),
        "hydra": ("people", "qa_app", "etl"),
        "drip": ("people", "people", "qa_app"),
    }
    name = pick(rng, kinds[variant])
    return next(population for population in POPULATIONS if population.name == name)


def _check(accounts: int, start: datetime, hours: float | None, attack_share: float, variants: Sequence[str]) -> None:
    if accounts < ACCOUNTS_MIN:
        msg = f"a simulation needs at least {ACCOUNTS_MIN} accounts, not {accounts}"
        raise ConfigError(msg)
    if start.tzinfo is None:
        msg = f"the start {start.isoformat()} has no time zone: add Z or an offset such as +02:00"
        raise ConfigError(msg)
    if hours is not None and not 0 < hours <= 24 * 3650:
        msg = f"the length must be more than 0 and at most {24 * 3650} hours, not {hours:g}"
        raise ConfigError(msg)
    if not 0 <= attack_share <= 1:
        msg = f"the attack share must lie between 0 and 1, not {attack_share:g}"
        raise ConfigError(msg)
    unknown = sorted(set(variants) - set(VARIANTS))
    if unknown:
        msg = f"no harvester hides as {unknown[0]!r}: the variants are {', '.join(VARIANTS)}"
        raise ConfigError(msg)
