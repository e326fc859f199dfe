"""The routes of the triage page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from jobs.serving import (
    account_pages,
    alert_pages,
    audit_pages,
    delivery_pages,
    exception_pages,
    login_pages,
    queue_pages,
    words,
)
from jobs.serving.guard import BROKEN, Guard, RefusedError
from jobs.serving.serving import Serving
from pipeline.errors import ConfigError, NoRightError, RetryableError, SchemaError

log = structlog.get_logger()

Page = Callable[[Serving, Request], Response]

ALERT = "/alerts/{alert_id:str}"
ACCOUNT = "/accounts/{sha256:str}"


def make(serving: Serving) -> ASGIApp:
    """The whole page: the guard before the routes."""
    found: Sequence[tuple[str, str, Page]] = (
        ("GET", "/", queue_pages.show),
        ("GET", "/login", login_pages.show),
        ("POST", "/login", login_pages.log_in),
        ("POST", "/logout", login_pages.log_out),
        ("GET", ALERT, alert_pages.show),
        ("POST", f"{ALERT}/claim", alert_pages.claim),
        ("POST", f"{ALERT}/release", alert_pages.release),
        ("POST", "/accounts", account_pages.find),
        ("GET", ACCOUNT, account_pages.show),
        ("POST", f"{ACCOUNT}/texts", account_pages.show_texts),
        ("POST", f"{ACCOUNT}/verdict", account_pages.judge_it),
        ("POST", f"{ACCOUNT}/exception", account_pages.add_exception),
        ("GET", "/exceptions", exception_pages.show),
        ("POST", "/exceptions", exception_pages.add),
        ("POST", "/exceptions/{exception_id:str}/end", exception_pages.end),
        ("GET", "/deliveries", delivery_pages.show),
        ("GET", "/audit", audit_pages.show),
    )
    routes = [Route(path, _endpoint(serving, path, page), methods=[method]) for method, path, page in found]
    routes += [Route(path, _style(content)) for path, content in (words.style_sheet(), words.dossier_sheet())]
    handlers: dict[Any, Any] = {
        HTTPException: partial(_not_found, serving),
        RefusedError: serving.refuse,
        RetryableError: partial(_away, serving),
        SchemaError: partial(_damaged, serving),
        ConfigError: partial(_wrong, serving),
        NoRightError: partial(_not_granted, serving),
        Exception: lambda request, _error: serving.refuse(request, BROKEN),
    }
    return Guard(Starlette(routes=routes, exception_handlers=handlers), serving.gate, serving.refuse)


_KEPT = {"Cache-Control": "public, max-age=31536000, immutable"}  # its path changes with what is in it


def _style(content: bytes) -> Callable[[Request], Response]:
    return lambda _request: Response(content, media_type="text/css", headers=_KEPT)


def _endpoint(serving: Serving, path: str, page: Page) -> Callable[[Request], Response]:
    """A page as Starlette calls it, in a thread of its pool, since the catalog is waited for."""

    def endpoint(request: Request) -> Response:
        request.scope["stillwatch.route"] = path
        return page(serving, request)

    return endpoint


def _not_found(serving: Serving, request: Request, error: HTTPException) -> Response:
    titles = {404: "There is no such page", 405: "Not that way"}
    words = {404: "Nothing is at this address.", 405: "This address takes forms, or shows a page, and not the other."}
    refused = RefusedError(
        error.status_code, titles.get(error.status_code, "Bad request"), words.get(error.status_code, "")
    )
    return serving.refuse(request, refused)


def _away(serving: Serving, request: Request, error: RetryableError) -> Response:
    said = f"Nothing was put on record. Try again in a moment; if it stays so, tell whoever runs Stillwatch: {error}"
    return serving.refuse(request, RefusedError(503, "The catalog does not answer", said))


def _damaged(serving: Serving, request: Request, error: SchemaError) -> Response:
    said = f"Something that Stillwatch stored is not as it should be. Tell whoever runs it: {error}"
    return serving.refuse(request, RefusedError(500, "The lake is damaged", said))


def _wrong(serving: Serving, request: Request, error: ConfigError) -> Response:
    return serving.refuse(request, RefusedError(400, "That cannot be done", f"Nothing was put on record: {error}"))


def _not_granted(serving: Serving, request: Request, error: NoRightError) -> Response:
    """What to grant is for whoever runs the page, and not for whoever looks at it: it stands in the log alone."""
    log.error("the catalog's role lacks a right", reason=str(error))
    said = (
        "The role by which this page uses the catalog's database lacks a right. Tell whoever runs Stillwatch: the log "
        "of stillwatch serve says which."
    )
    return serving.refuse(request, RefusedError(500, "Stillwatch may not do that", said))
