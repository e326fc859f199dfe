"""Who is asking: sessions of people who gave the key, or the word of a reverse proxy.

Nothing of it outlasts the process: a restart logs everybody out.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final

from pipeline.errors import ConfigError

IDLE_S_MAX: Final = 4 * 3600.0
"""A session that was not used for so long is over."""

AGE_S_MAX: Final = 12 * 3600.0
"""So is one that is this old: a day's work."""

SESSIONS_MAX: Final = 1_000
KEY_CHARS_MIN: Final = 24
"""Of a key that an operator chooses: nobody guesses 24 characters, so attempts need no counting."""

NAME_CHARS_MAX: Final = 80

Clock = Callable[[], float]


@dataclass(slots=True)
class Session:
    """One person's log-in in one browser.

    Attributes:
        person: their name, as verdicts and the audit log have it.
        csrf: what each of their forms must carry.
        began_s: by the process's own clock.
        used_s: last.
    """

    person: str
    began_s: float
    used_s: float
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32))


class Sessions:
    """Sessions by what their cookies hold.  Safe to use from several threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_digest: dict[bytes, Session] = {}
        self._lock = threading.Lock()

    def begin(self, person: str) -> str:
        """Begin one; returns what the cookie is to hold."""
        cookie, now_s = secrets.token_urlsafe(32), self._clock()
        with self._lock:
            for digest in [key for key, one in self._by_digest.items() if self._is_over(one, now_s)]:
                del self._by_digest[digest]
            if len(self._by_digest) >= SESSIONS_MAX:
                del self._by_digest[min(self._by_digest, key=lambda key: self._by_digest[key].used_s)]
            self._by_digest[_digest(cookie)] = Session(person, now_s, now_s)
        return cookie

    def of(self, cookie: str) -> Session | None:
        """The session of a cookie; None if there is none, or it is over."""
        now_s = self._clock()
        with self._lock:
            session = self._by_digest.get(_digest(cookie))
            if session is None or self._is_over(session, now_s):
                return None
            session.used_s = now_s
            return session

    def end(self, cookie: str) -> None:
        """End one."""
        with self._lock:
            self._by_digest.pop(_digest(cookie), None)

    @staticmethod
    def _is_over(session: Session, now_s: float) -> bool:
        return now_s - session.used_s > IDLE_S_MAX or now_s - session.began_s > AGE_S_MAX


def _digest(cookie: str) -> bytes:
    """Sessions are looked up by a hash, so that how long a look takes says nothing of other cookies."""
    return hashlib.sha256(cookie.encode("utf-8", "surrogatepass")).digest()


class Key:
    """What lets a person log in: the operator's, for as long as the process runs, or one for each log-in."""

    def __init__(self, chosen: str = "", on_new: Callable[[str], None] = lambda _key: None) -> None:
        """Take the operator's key, or make the first of those for one log-in.

        Args:
            chosen: by the operator; empty: keys are made here, each good for one log-in.
            on_new: is told of each that is made.

        Raises:
            ConfigError: the chosen one is too short.
        """
        if chosen and len(chosen) < KEY_CHARS_MIN:
            raise ConfigError(
                f"the key has {len(chosen)} characters and must have {KEY_CHARS_MIN} or more; "
                "`openssl rand -hex 24` makes one"
            )
        self._on_new, self._once = on_new, not chosen
        self._lock = threading.Lock()
        self._key = chosen or secrets.token_urlsafe(24)

    def announce(self) -> None:
        """Tell of the key, if it was made here."""
        if self._once:
            self._on_new(self._key)

    def opens(self, given: str) -> bool:
        """Whether a key is the right one, without letting it be used."""
        return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), self._key.encode())

    def use(self, given: str) -> bool:
        """Let somebody in; a key for one log-in is used up by it, and the next one is told of."""
        with self._lock:
            if not self.opens(given):
                return False
            if self._once:
                self._key = secrets.token_urlsafe(24)
        self.announce()
        return True


@dataclass(frozen=True, slots=True)
class Proxy:
    """A reverse proxy that knows who is asking.

    Attributes:
        header: in which it says so; in lower case.
        addresses: that it connects from; nobody else is believed.
        token: that it sends as `Authorization: Bearer …`; empty: it need not.
    """

    header: str
    addresses: Collection[ipaddress.IPv4Network | ipaddress.IPv6Network]
    token: str = ""

    def vouches(self, peer: str, authorization: str) -> bool:
        """Whether a request comes from the proxy."""
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        if not any(address in network for network in self.addresses):
            return False
        expected = f"Bearer {self.token}".encode()
        return not self.token or hmac.compare_digest(authorization.encode("utf-8", "surrogatepass"), expected)


def name_of(said: str) -> str:
    """A person's name as it is kept: spaces tidied, nothing in it that cannot be seen; empty if it is none."""
    name = " ".join(said.split())
    return name if name.isprintable() and len(name) <= NAME_CHARS_MAX else ""


def networks_of(said: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """Addresses and networks, with commas between.

    Raises:
        ConfigError: one is none.
    """
    parts = [part.strip() for part in said.split(",") if part.strip()]
    try:
        return tuple(ipaddress.ip_network(part) for part in parts)
    except ValueError as error:
        raise ConfigError(
            f"--proxy-from {said[:100]}: {error}; expected addresses or networks such as 10.0.0.5,10.1.0.0/24"
        ) from None
