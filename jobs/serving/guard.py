"""What every request must pass before any page sees it, and what every answer carries."""

from __future__ import annotations

import asyncio
import hmac
import time
import traceback
import urllib.parse
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobs.serving.access import Key, Proxy, Session, Sessions, name_of

BODY_BYTES_MAX: Final = 160 * 1024
"""No form is as long; an account's id of 10 kB is three times as long once it is encoded."""

BODY_S_MAX: Final = 10.0
FIELDS_MAX: Final = 40

HEADERS: Final = {
    # No script, no style in the page, no frame, no form to elsewhere: a value that slipped through would do nothing.
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not `no-referrer`: browsers would say `Origin: null` of the page's own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")
OPEN_PATHS: Final = ("/login", "/static/")
CSRF_FIELD: Final = "csrf"

log = structlog.get_logger()


@dataclass(slots=True)
class Asked:
    """What the guard knows of a request.

    Attributes:
        session: of who asks; None only on pages that are open to all.
        cookie: that names it.
        form: fields of a POST; of a name that stands twice the last.
    """

    session: Session | None = None
    cookie: str = ""
    form: Mapping[str, str] = field(default_factory=dict)

    @property
    def person(self) -> str:
        """Who asks; empty: nobody that is known."""
        return self.session.person if self.session else ""


class RefusedError(Exception):
    """A request that gets a page which says why not.

    Attributes:
        status: of HTTP.
        title: of the page.
        words: what is wrong, and what to do.
    """

    def __init__(self, status: int, title: str, words: str) -> None:
        super().__init__(title)
        self.status, self.title, self.words = status, title, words


@dataclass(frozen=True, slots=True)
class Gate:
    """Who is let in.

    Attributes:
        sessions: of those who are in.
        hosts: names that the page may be asked by, besides those of this machine for itself; in lower case.
        secure: browsers reach it by HTTPS only.
        key: lets people log in; None: a proxy says who they are.
        proxy: that is believed; None: none is.
        cookie_name: tells two of these pages on one host apart.
    """

    sessions: Sessions
    hosts: Collection[str]
    secure: bool
    key: Key | None
    proxy: Proxy | None
    cookie_name: str

    def check_host(self, host: str) -> None:
        """Refuse to be asked by another name: a stranger's page could have its own name lead here (DNS rebinding).

        Raises:
            RefusedError: it is another.
        """
        name = host.lower()
        bare = name.rpartition(":")[0] if name.rpartition(":")[2].isdigit() else name
        if bare not in LOOPBACK_NAMES and name not in self.hosts:
            raise RefusedError(
                421, "Unknown host name", "This page was asked for by a name that it does not answer to. "
                "If the name is right, start stillwatch serve with --public-url.",
            )  # fmt: skip

    def who(self, headers: Headers, peer: str, cookies: Mapping[str, str]) -> tuple[str, Session | None, bool]:
        """The cookie, the session, and whether the cookie is new.

        Raises:
            RefusedError: only a proxy is believed here, and this request does not come by it or names nobody.
        """
        cookie = cookies.get(self.cookie_name, "")
        session = self.sessions.of(cookie) if cookie else None
        if self.proxy is None:
            return cookie, session, False
        if not self.proxy.vouches(peer, headers.get("authorization", "")):
            raise RefusedError(
                403, "Not by this way", "This page is reached through a reverse proxy that says who is asking, "
                "and this request did not come through it.",
            )  # fmt: skip
        said = headers.getlist(self.proxy.header)
        person = name_of(said[0]) if len(said) == 1 else ""
        if not person:
            raise RefusedError(
                403, "Nobody is named", f"The reverse proxy must name who is asking in one header {self.proxy.header}."
            )
        if session is not None and session.person == person:
            return cookie, session, False
        cookie = self.sessions.begin(person)
        return cookie, self.sessions.of(cookie), True

    def set_cookie(self, response: Response, cookie: str) -> None:
        """Let the browser keep a session's cookie: never shown to scripts, never sent along by other sites' forms."""
        response.set_cookie(
            self.cookie_name, cookie, path="/", secure=self.secure, httponly=True, samesite="lax"
        )  # fmt: skip


def asked(request: Request) -> Asked:
    """What the guard knows of a request."""
    found: Asked = request.scope["stillwatch.asked"]
    return found


Refuse = Callable[[Request, RefusedError], Response]


class Guard:
    """The outermost layer of the page."""

    def __init__(self, app: ASGIApp, gate: Gate, refuse: Refuse) -> None:
        """Put a guard before an app.

        Args:
            app: the routes.
            gate: who is let in.
            refuse: makes the page that says why not.
        """
        self._app, self._gate, self._refuse = app, gate, refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let a page answer it."""
        if scope["type"] != "http":
            return
        began_s, status = time.monotonic(), 0
        is_static = scope["path"].startswith("/static/")
        fresh: list[str] = []  # a cookie to be set

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(message, is_static=is_static and status < 400)  # noqa: PLR2004  # an error is not kept
                for cookie in fresh:
                    self._add_cookie(message, cookie)
            await send(message)

        request = Request(scope, receive)
        scope["stillwatch.asked"] = Asked()
        try:
            answer = await self._admit(request, fresh)
            await (answer or self._app)(scope, receive, send_guarded)
        except RefusedError as refused:
            await self._refuse(request, refused)(scope, receive, send_guarded)
        except Exception as error:  # noqa: BLE001  # the last boundary: said once, without what the error quotes
            _log_failure(error)
            if not status:
                await self._refuse(request, BROKEN)(scope, receive, send_guarded)
        finally:
            self._log(scope, status, time.monotonic() - began_s)

    async def _admit(self, request: Request, fresh: list[str]) -> Response | None:
        """Check a request; returns an answer that no page is needed for.

        Raises:
            RefusedError: it is not let in.
        """
        headers, path = request.headers, request.url.path
        if len(headers.getlist("host")) != 1:
            raise RefusedError(400, "Bad request", "A request must name one host.")
        self._gate.check_host(headers["host"])
        if request.method not in {"GET", "HEAD", "POST"}:
            raise RefusedError(405, "Not that method", "This page answers GET and POST.")
        if path.startswith("/static/"):
            return None
        peer = request.client.host if request.client else ""
        cookie, session, is_new = self._gate.who(headers, peer, request.cookies)
        if is_new:
            fresh.append(cookie)
        known = Asked(session, cookie)
        request.scope["stillwatch.asked"] = known
        is_open = path.startswith(OPEN_PATHS)
        if request.method == "POST":
            _check_same_origin(headers)
            known.form = await _form_of(request)
            if session is not None and not is_open:
                _check_csrf(session, known.form.get(CSRF_FIELD, ""))
        if session is None and not is_open:
            where = urllib.parse.urlencode({"next": path})
            return RedirectResponse(f"/login?{where}" if request.method == "GET" else "/login?over=1", 303)
        return None

    def _add_cookie(self, message: Message, cookie: str) -> None:
        response = Response()
        self._gate.set_cookie(response, cookie)
        MutableHeaders(scope=message).append("set-cookie", response.headers["set-cookie"])

    @staticmethod
    def _log(scope: Scope, status: int, took_s: float) -> None:
        """One line: which page by its kind, never by its address; nobody's name, id or word is in it."""
        route = scope.get("stillwatch.route", "static" if scope["path"].startswith("/static/") else "-")
        say = log.debug if route == "static" else log.info
        say("request", method=scope["method"], page=route, status=status, took_ms=round(took_s * 1000))


BROKEN: Final = RefusedError(
    500, "Something broke", "This is a fault of Stillwatch's. What it was stands in the log of stillwatch serve."
)


def _add_headers(message: Message, *, is_static: bool) -> None:
    headers = MutableHeaders(scope=message)
    for name, value in HEADERS.items():
        if not (is_static and name == "Cache-Control"):
            headers[name] = value


def _check_same_origin(headers: Headers) -> None:
    """Refuse forms of other sites, by what the browser itself says of where a request comes from."""
    site = headers.get("sec-fetch-site", "same-origin")
    origin = headers.get("origin")
    netloc = None if origin is None else urllib.parse.urlsplit(origin).netloc.lower()
    if site not in {"same-origin", "none"} or (origin is not None and netloc != headers["host"].lower()):
        raise RefusedError(
            403, "Not from here", "This form was sent from another site, so nothing was done. Open this page itself."
        )


def _check_csrf(session: Session, given: str) -> None:
    if not hmac.compare_digest(given.encode("utf-8", "surrogatepass"), session.csrf.encode()):
        raise RefusedError(
            403, "This form is too old", "It belongs to another log-in, so nothing was done. "
            "Go back, reload the page, and send it again.",
        )  # fmt: skip


async def _form_of(request: Request) -> dict[str, str]:
    """The fields of a POST.

    Raises:
        RefusedError: it is too long, too slow, or no form.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise RefusedError(415, "Not a form", "Forms are sent as application/x-www-form-urlencoded.")
    too_long = RefusedError(413, "Too long", f"A form may have {BODY_BYTES_MAX:,} bytes; shorten what you wrote.")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > BODY_BYTES_MAX:
        raise too_long
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S_MAX):
            async for part in request.stream():
                body += part
                if len(body) > BODY_BYTES_MAX:
                    raise too_long
        fields = urllib.parse.parse_qsl(
            body.decode("ascii"), keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="strict"
        )
    except TimeoutError:
        raise RefusedError(408, "Too slow", "The form did not arrive in time; send it again.") from None
    except ValueError:
        raise RefusedError(400, "Not a form", "What was sent cannot be read as a form.") from None
    return dict(fields)


def _log_failure(error: BaseException) -> None:
    """Where it happened and of which kind it is; not what it says, which may quote an account or its words."""
    frames = traceback.extract_tb(error.__traceback__)
    where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-12:]]
    log.error("a page failed", error=type(error).__name__, where=where)


Endpoint = Callable[[Request], Response | Awaitable[Response]]
