"""`stillwatch serve`: the triage page."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import signal
import socket
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Final

import structlog
import typer
import uvicorn

from jobs import logs, options
from jobs.serving import routes, words
from jobs.serving.access import Key, Proxy, Sessions, networks_of
from jobs.serving.guard import Gate
from jobs.serving.serving import Serving
from pipeline.config import Settings, read_settings
from pipeline.errors import ConfigError
from pipeline.io.catalog import Catalog
from pipeline.io.clock import SystemClock
from pipeline.io.lake import Lake
from pipeline.watch import load_rules

TOKEN_VARIABLE: Final = "STILLWATCH_SERVE_TOKEN"  # noqa: S105  # the name of the variable
CONNECTIONS_MAX: Final = 200
HEADER_BYTES_MAX: Final = 32 * 1024
STOP_S: Final = 5
_TOKEN_BYTES_MAX: Final = 4096

log = structlog.get_logger()


def serve(  # noqa: PLR0913, PLR0917  # one argument per flag is how Typer reads a command
    lake: options.LakeFolder = None,
    catalog: options.CatalogUrl = None,
    config: options.ConfigFile = None,
    rules: options.Rules = None,
    accounts: options.AccountsFeed = None,
    models: options.ModelsFolder = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port; 0: any that is free.")] = 8477,
    public_url: Annotated[
        str,
        typer.Option(metavar="URL", help="How browsers reach it through a reverse proxy: https://triage.example.org."),
    ] = "",
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=f"Holds the key that people log in with; else {TOKEN_VARIABLE} does."),
    ] = None,
    trust_proxy_user: Annotated[
        str, typer.Option(metavar="HEADER", help="A reverse proxy says in this header who is asking; nobody logs in.")
    ] = "",
    proxy_from: Annotated[
        str, typer.Option(metavar="ADDRESS,…", help="Where that proxy connects from; nobody else is believed.")
    ] = "127.0.0.1,::1",
) -> None:
    """Serve the triage page: alerts, accounts, verdicts, exceptions and the audit log, in a browser.

    Listens on this machine alone, and prints an address that lets one person log in; after each log-in it prints the
    next.  On another address it needs a key (--token-file) or a reverse proxy that says who is asking.

    Exit codes: 0 stopped by SIGTERM or Ctrl-C; 2 a wrong setting, no catalog, or the port is taken; 4 the catalog does
    not answer; 5 it is of another version.
    """
    settings = read_settings(
        config,
        lake=lake,
        catalog=catalog,
        rules=rules,
        accounts=None if accounts is None else str(accounts),
        models=models,
    )
    token = _token(token_file)
    logs.configure("info")
    proxy = _proxy(trust_proxy_user, proxy_from, token)
    _check_reach(host, has_guard=bool(token) or proxy is not None)
    _serve(settings, _Entrance(host, port, public_url, token, proxy))
    _say("stopped")


@dataclass(frozen=True, slots=True)
class _Entrance:
    """How people get in.

    Attributes:
        host: to listen on.
        port: 0: any that is free.
        public_url: how browsers reach it; empty: directly.
        token: the operator's key; empty: there is none.
        proxy: that says who is asking; None: people log in.
    """

    host: str
    port: int
    public_url: str
    token: str
    proxy: Proxy | None

    def address(self, bound: int) -> str:
        """Where the page is, when it listens on a port."""
        return self.public_url.rstrip("/") or f"http://{_in_url(self.host)}:{bound}"

    def gate(self, bound: int) -> Gate:
        """Who is let in, when it listens on a port."""
        address = self.address(bound)
        own = None if self.proxy else Key(self.token, lambda made: _say(f"log in at {address}/login?key={made}"))
        return Gate(
            sessions=Sessions(SystemClock().elapsed_s),
            hosts=_names(self.host, bound, self.public_url),
            secure=self.public_url.startswith("https://"),
            key=own,
            proxy=self.proxy,
            cookie_name=f"stillwatch_{bound}",
        )


def _serve(settings: Settings, entrance: _Entrance) -> None:
    """Listen, and answer until it is to stop."""
    known_rules = {rule.name: rule for rule in load_rules(settings)}
    Lake.open(settings.lake, create=False)
    with (
        contextlib.closing(Catalog.open(settings.catalog_url, create=False)) as ledger,
        _listening(entrance.host, entrance.port) as ear,
    ):
        bound = int(ear.getsockname()[1])
        gate = entrance.gate(bound)
        serving = Serving(
            settings=settings,
            catalog=ledger,
            gate=gate,
            rules=known_rules,
            read_only=ledger.read_only,
            style=words.style_sheet()[0],
        )

        def greet() -> None:
            _say(f"the triage page of {settings.lake} is at {entrance.address(bound)}")
            if gate.key is not None:
                gate.key.announce()

        _run(serving, ear, greet)


def _run(serving: Serving, ear: socket.socket, greet: Callable[[], None]) -> None:
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    config = uvicorn.Config(
        routes.make(serving), http="h11", ws="none", loop="asyncio", lifespan="off", log_config=None, access_log=False,
        proxy_headers=False,  # who connects is who connects
        server_header=False, limit_concurrency=CONNECTIONS_MAX, h11_max_incomplete_event_size=HEADER_BYTES_MAX,
        timeout_keep_alive=30, timeout_graceful_shutdown=STOP_S,
    )  # fmt: skip
    _Server(config, greet).run(sockets=[ear])


class _Server(uvicorn.Server):
    """Ends in good order on SIGTERM and Ctrl-C; uvicorn's own would end the process by the signal once more."""

    def __init__(self, config: uvicorn.Config, greet: Callable[[], None]) -> None:
        super().__init__(config)
        self._greet = greet

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer from now on, and say so."""
        await super().startup(sockets)
        self._greet()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        former = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.handle_exit(number, frame)


def _token(file: Path | None) -> str:
    """The operator's key; empty: there is none."""
    if file is None:
        return os.environ.get(TOKEN_VARIABLE, "").strip()
    try:
        with file.open(encoding="utf-8") as stream:
            token = stream.read(_TOKEN_BYTES_MAX).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--token-file {file}: {getattr(error, 'strerror', None) or 'not text'}") from None
    if not token:
        raise ConfigError(f"--token-file {file} is empty; `openssl rand -hex 24 > {file}` makes a key")
    return token


def _proxy(header: str, addresses: str, token: str) -> Proxy | None:
    if not header:
        return None
    if not header.replace("-", "").isalnum() or not header.isascii():
        raise ConfigError(f"--trust-proxy-user {header[:80]}: no name of a header; for example X-Forwarded-User")
    networks = networks_of(addresses)
    if not networks:
        raise ConfigError("--proxy-from names no address, so nobody would be believed")
    if not token:
        log.warning("whoever connects from the proxy's addresses can claim to be anybody; a key keeps others out")
    return Proxy(header.lower(), networks, token)


def _check_reach(host: str, *, has_guard: bool) -> None:
    """Refuse to listen where others can reach it, with nothing that keeps them out."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--host {host[:100]}: {getattr(error, 'strerror', None) or 'no address'}") from None
    is_loopback = all(ipaddress.ip_address(str(one[4][0]).partition("%")[0]).is_loopback for one in found)
    if is_loopback:
        return
    if not has_guard:
        raise ConfigError(
            f"--host {host}: others can reach this address, so it needs a key (--token-file FILE, or {TOKEN_VARIABLE}) "
            "or a reverse proxy that says who is asking (--trust-proxy-user HEADER --proxy-from ADDRESS)"
        )
    log.warning("the page is not encrypted by itself: let a reverse proxy with TLS stand before it", host=host)


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        ear = socket.create_server((host, port), family=family, backlog=128)
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"cannot listen on {host} port {port}: {getattr(error, 'strerror', None) or error}; --port names another"
        ) from None
    with contextlib.closing(ear):
        yield ear


def _names(host: str, port: int, public_url: str) -> frozenset[str]:
    """Names, with the port where there is one, that browsers may ask by."""
    names = {f"{_in_url(host)}:{port}".lower(), _in_url(host).lower()}
    if public_url:
        parts = urllib.parse.urlsplit(public_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ConfigError(f"--public-url {public_url[:200]}: expected http(s)://NAME[:PORT] and nothing more")
        names.add(parts.netloc.rpartition("@")[2].lower())
    return frozenset(names)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _say(line: str) -> None:
    typer.echo(f"stillwatch serve: {line}")
