"""Who sends the traffic: accounts, and the clients and networks they come from.

Everything that could point at somebody is made up so that it can point at nobody.  Addresses lie in 240.0.0.0/4, which
is reserved and never routed (RFC 1112); network numbers in the private range 64512-65534 (RFC 6996); company domains
under `.example` (RFC 2606).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypeVar

Item = TypeVar("Item")


class Country(NamedTuple):
    """Where people live: code, offset from UTC in hours, their other language, share of accounts."""

    code: str
    utc_offset_h: int
    language: str | None
    weight: int


COUNTRIES = (
    Country("US", -5, None, 22),
    Country("GB", 0, None, 9),
    Country("IN", 5, None, 9),
    Country("DE", 1, "de", 9),
    Country("FR", 1, "fr", 7),
    Country("BR", -3, "pt", 7),
    Country("ES", 1, "es", 5),
    Country("MX", -6, "es", 4),
    Country("JP", 9, "ja", 7),
    Country("CN", 8, "zh", 6),
    Country("SG", 8, "zh", 4),
    Country("CA", -5, None, 4),
    Country("RU", 3, "ru", 4),
    Country("AU", 10, None, 3),
)
_COUNTRY_WEIGHTS = tuple(country.weight for country in COUNTRIES)

_HOSTING_ASNS = tuple(range(64512, 64526))
_ACCESS_ASNS = tuple(range(64600, 64720))

_SDKS = (
    "openai-python/1.59.9",
    "openai-python/1.66.3",
    "openai-node/4.85.1",
    "python-requests/2.32.4",
    "python-httpx/0.28.1",
    "Go-http-client/1.1",
    "okhttp/4.12.0",
    "langchain/0.3.21",
    "litellm/1.63.2",
    "curl/8.9.1",
    "node-fetch/3.3.2",
    "axios/1.7.9",
)
_APPS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Firefox/136.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_6) Safari/17.6",
    "Mozilla/5.0 (X11; Linux x86_64) Chrome/134.0",
    "librechat/0.7.7",
    "open-webui/0.5.20",
    "Raycast/1.93",
)
_FREE_MAIL = ("gmail.com", "outlook.com", "proton.me", "qq.com", "163.com", "yandex.ru", "gmx.de", "icloud.com")
_COMPANY_WORDS = (
    "nord",
    "vela",
    "tern",
    "oro",
    "kite",
    "mosa",
    "alba",
    "wren",
    "juni",
    "sable",
    "fern",
    "loft",
    "bolt",
)


class Client(NamedTuple):
    """A program and its TLS fingerprint."""

    user_agent: str
    tls_ja4: str


class Network(NamedTuple):
    """A /24 and the network that announces it."""

    asn: int
    prefix: str
    country: str


@dataclass(frozen=True, slots=True)
class Account:
    """One record of the accounts feed (`schemas/accounts.v1.json`)."""

    account_id: str
    created_at: str
    org_id: str
    plan: str
    payment_fingerprint: str | None
    email_domain: str
    country: str
    verified: bool


@dataclass(frozen=True, slots=True)
class Label:
    """What an account really is; never an input to the pipeline."""

    account_id: str
    label: str
    population: str
    family: str = ""
    variant: str = ""
    pool_id: str = ""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an account's requests come from.

    Attributes:
        home: the country whose clock the account lives by.
        clients: programs in use; one is drawn for each session or request.
        networks: /24 networks in use.
        hosts: how many addresses of each network appear.
        keys: API keys.
    """

    home: Country
    clients: tuple[Client, ...]
    networks: tuple[Network, ...]
    hosts: int
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shared:
    """What the accounts of a pool or of one customer have in common; an empty field is not shared."""

    payments: tuple[str, ...] = ()
    clients: tuple[Client, ...] = ()
    networks: tuple[Network, ...] = ()
    email_domain: str = ""
    org_id: str = ""


def seed_of(*parts: object) -> int:
    """A 64-bit seed from anything printable: the same in every process and on every machine."""
    digest = hashlib.blake2b("/".join(str(part) for part in parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def randomness(*parts: object) -> random.Random:
    """A source of randomness of its own for whatever the parts name."""
    return random.Random(seed_of(*parts))  # noqa: S311 - traffic must be repeatable, and guards nothing


def chance(rng: random.Random, probability: float) -> bool:
    """Whether something happens that does so with a probability."""
    return rng.random() < probability


def pick(rng: random.Random, items: Sequence[Item]) -> Item:
    """One of `items`, each as likely."""
    return items[int(rng.random() * len(items))]


def token(rng: random.Random, prefix: str, digits: int) -> str:
    """An identifier such as `acct_5f2c…`: a prefix and hexadecimal digits."""
    return f"{prefix}{rng.getrandbits(digits * 4):0{digits}x}"


def draw_country(rng: random.Random) -> Country:
    """A country, as frequent as its accounts are."""
    return rng.choices(COUNTRIES, _COUNTRY_WEIGHTS)[0]


def draw_network(rng: random.Random, country: Country, *, hosting: bool) -> Network:
    """A /24 of a hosting company, or of an access provider of the country."""
    if hosting:
        asn = pick(rng, _HOSTING_ASNS)
    else:
        size = len(_ACCESS_ASNS) // len(COUNTRIES)
        asn = _ACCESS_ASNS[COUNTRIES.index(country) * size + int(rng.random() * size)]
    second, third = asn * 37 % 256, int(rng.random() * 256)
    return Network(asn, f"{240 + asn % 15}.{second}.{third}.", country.code)


def draw_client(rng: random.Random, *, app: bool) -> Client:
    """A program as people (`app`) or programmers use it; a few builds of each have their own TLS fingerprint."""
    agent = pick(rng, _APPS if app else _SDKS)
    build = int(rng.random() ** 2 * 4)
    digest = hashlib.blake2b(f"{agent}/{build}".encode(), digest_size=14).hexdigest()
    return Client(
        agent, f"t13d{15 + int(digest[24], 16):02}{8 + int(digest[25], 16) % 9:02}h2_{digest[:12]}_{digest[12:24]}"
    )


def draw_origin(rng: random.Random, *, personal: bool, shared: Shared) -> Origin:
    """Clients, networks and keys: of a person at home and on the road, or of a company's servers."""
    home = draw_country(rng)
    app = personal and chance(rng, 0.6)
    clients = shared.clients or tuple(draw_client(rng, app=app) for _ in range(1 + (chance(rng, 0.25))))
    count = 1 + int(rng.random() ** 3 * (4 if personal else 9))
    hosted = 0.15 if personal else 0.85
    networks = shared.networks or tuple(draw_network(rng, home, hosting=chance(rng, hosted)) for _ in range(count))
    hosts = 1 + int(rng.random() ** 2 * (3 if personal else 24))
    keys = tuple(token(rng, "key_", 10) for _ in range(1 + int(rng.random() ** 4 * 5)))
    return Origin(home, clients, networks, hosts, keys)


def draw_account(
    rng: random.Random, origin: Origin, start: datetime, *, personal: bool, fresh: float, shared: Shared
) -> Account:
    """The feed's record of an account; with probability `fresh` it was made in the week before `start`."""
    age_days = rng.random() * 7 if chance(rng, fresh) else 7 + rng.expovariate(1 / 240)
    created_at = (start - timedelta(days=age_days)).astimezone(UTC).isoformat(timespec="milliseconds")
    plan = rng.choices(("free", "payg", "team", "enterprise"), (30, 50, 15, 5) if personal else (4, 42, 32, 22))[0]
    payment = pick(rng, shared.payments) if shared.payments else token(rng, "pay_", 12)
    if personal and chance(rng, 0.85):
        domain = pick(rng, _FREE_MAIL)
    else:
        domain = f"{pick(rng, _COMPANY_WORDS)}{pick(rng, _COMPANY_WORDS)}{int(rng.random() * 90) or ''}.example"
    return Account(
        account_id=token(rng, "acct_", 12),
        created_at=created_at.replace("+00:00", "Z"),
        org_id=shared.org_id or token(rng, "org_", 10),
        plan=plan,
        payment_fingerprint=payment if shared.payments or plan != "free" else None,
        email_domain=shared.email_domain or domain,
        country=origin.home.code if chance(rng, 0.92) else draw_country(rng).code,
        verified=plan != "free" or chance(rng, 0.5),
    )
