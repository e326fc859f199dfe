"""One message over HTTP, to a server that may do anything: answer never, slowly, without end, or with nonsense.

A time-out is for the whole exchange, from the look-up of the name to the end of the answer, so that a server which
sends a byte now and then holds nobody up.  No redirect is followed: neither an alert nor a secret goes to another
host than the one in the settings.  Of an answer a few kilobytes are read, and nothing of it is repeated in a log: who
answers may say back what it was sent.
"""

from __future__ import annotations

import asyncio
import email.utils
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from pipeline.delivery.parcels import Later, Outcome, Refused, Sent
from pipeline.delivery.rate import US_PER_S
from pipeline.errors import ConfigError
from pipeline.ports import Clock

ANSWER_MAX: Final = 16_384
"""Bytes of an answer that are read."""

_BUSY: Final = (408, 425, 429, 502, 503, 504)
"""What a server says that is down or has too much to do, or a proxy before it."""

_HEADERS: Final = {"content-type": "application/json", "user-agent": "stillwatch", "accept-encoding": "identity"}
_HEAD_MAX: Final = 8_190

_BODY_S: Final = 1.0
"""A body that follows its head has this long, also where the head took all the time there was."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said.

    Attributes:
        status: of HTTP.
        body: its beginning; None: it did not come in time, or was cut off.
        after_s: how long it asked to be left alone.
    """

    status: int
    body: bytes | None
    after_s: float | None = None


class Http:
    """Connections to one server.  For one thread."""

    def __init__(self, name: str, url: str, timeout_s: float, clock: Clock, ca_file: str = "") -> None:
        self._url, self._timeout_s, self._clock = url, timeout_s, clock
        self._tls = _tls(name, ca_file)
        self._proxy = _proxy(url)
        self._runner = asyncio.Runner()
        self._session: aiohttp.ClientSession | None = None

    def close(self) -> None:
        """Let go of connections."""
        if self._session is not None:
            self._runner.run(self._session.close())
        self._runner.close()

    def post(self, body: bytes, headers: Mapping[str, str]) -> Answer | Later:
        """Send JSON, and hear the answer; a `Later` where there is none."""
        return self._runner.run(self._post(body, headers))

    async def _post(self, body: bytes, headers: Mapping[str, str]) -> Answer | Later:
        sent = {**_HEADERS, **headers}
        end_s = asyncio.get_running_loop().time() + self._timeout_s
        try:
            async with asyncio.timeout_at(end_s):
                answer = await self._opened().post(self._url, data=body, headers=sent, allow_redirects=False)
        except TimeoutError:
            return Later(f"no answer within {self._timeout_s:g} s", unreachable=True)
        except (aiohttp.ClientError, OSError, ValueError) as error:  # aiohttp's parser lets ValueErrors through
            return _no_answer(error)
        return await self._heard(answer, end_s)

    async def _heard(self, answer: aiohttp.ClientResponse, end_s: float) -> Answer:
        """The status counts, whatever becomes of the body."""
        after_s = _after_s(answer.headers.get("retry-after", ""), self._clock.now_us())
        said: bytes | None = None
        now_s = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(max(end_s, now_s + _BODY_S)):
                said = await _beginning(answer.content)
        except (aiohttp.ClientError, OSError, ValueError):  # a TimeoutError is an OSError
            said = None
        if said is None or not answer.content.at_eof():
            answer.close()  # else the rest would be read, however much it is
        else:
            answer.release()
        return Answer(answer.status, said, after_s)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._tls, limit=1),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                max_line_size=_HEAD_MAX,
                max_field_size=_HEAD_MAX,
                timeout=aiohttp.ClientTimeout(total=None),  # `asyncio.timeout` around it all
                proxy=self._proxy,
                trust_env=False,  # else aiohttp would send passwords of ~/.netrc, too
            )
        return self._session


def _no_answer(error: Exception) -> Later:
    """Why there was none, in words that hold no part of the URL but its host."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return Later(f"its certificate is not trusted: {error.certificate_error}", unreachable=True)
    if isinstance(error, aiohttp.ClientConnectorError):
        return Later(f"no connection: {_why(error.os_error)}", unreachable=True)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return Later("it closed the connection without an answer")
    if isinstance(error, (aiohttp.ClientConnectionError, OSError)):
        return Later(f"the connection broke: {type(error).__name__}")
    return Later(f"its answer is no HTTP: {type(error).__name__}")


def _why(error: OSError) -> str:
    """The system's own words: asyncio puts its own in their place."""
    known = error.errno is not None and error.errno > 0
    return os.strerror(error.errno) if known and error.errno else str(error.strerror or type(error).__name__)


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for a URL: HTTPS_PROXY, HTTP_PROXY, and NO_PROXY for exceptions."""
    parts = urlsplit(url)
    if proxy_bypass(parts.hostname or ""):
        return None
    return getproxies().get(parts.scheme)


def _tls(name: str, ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise ConfigError(f"sinks.{name}.ca_file: {ca_file}: {error.strerror or 'holds no certificates'}") from None


async def _beginning(content: aiohttp.StreamReader) -> bytes:
    said = b""
    while len(said) < ANSWER_MAX and (part := await content.read(ANSWER_MAX - len(said))):
        said += part
    return said


def _after_s(header: str, now_us: int) -> float | None:
    """`Retry-After`: seconds, or a moment."""
    if header.strip().isdecimal():
        return float(header[:10])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - now_us / US_PER_S)
    except (ValueError, TypeError, OverflowError):
        return None


def judge(answer: Answer | Later) -> Outcome:
    """What an answer means by its status alone."""
    if isinstance(answer, Later):
        return answer
    if answer.status // 100 == 2:  # noqa: PLR2004  # HTTP's own classes
        return Sent()
    if answer.status // 100 == 3:  # noqa: PLR2004
        return Refused(f"it answered {answer.status}, a redirect, which is not followed: correct the URL")
    if answer.status in _BUSY:
        return Later(f"it answered {answer.status}", unreachable=True, after_s=answer.after_s)
    if answer.status >= 500:  # noqa: PLR2004
        return Later(f"it answered {answer.status}", after_s=answer.after_s)
    return Refused(f"it answered {answer.status}")
