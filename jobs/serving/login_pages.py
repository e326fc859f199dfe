"""Logging in and out."""

from __future__ import annotations

import re
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from jobs.serving.access import NAME_CHARS_MAX, name_of
from jobs.serving.guard import RefusedError, asked
from jobs.serving.serving import Serving, to

_PATHS: Final = re.compile(r"/|/exceptions|/audit|/alerts/[0-9a-f]{32}|/accounts/[0-9a-f]{64}")
"""Where a log-in may lead on to: pages of this program and nothing else."""

OVER: Final = "Your log-in is over, so nothing was done. Log in, and do it again."


def show(serving: Serving, request: Request) -> Response:
    """The form that asks for key and name."""
    if serving.gate.key is None or asked(request).session is not None:
        return to("/")
    query = request.query_params
    said = OVER if query.get("over") else ""
    return _form(serving, request, key=query.get("key", ""), where=query.get("next", "/"), said=said)


def log_in(serving: Serving, request: Request) -> Response:
    """Let somebody in who has the key, under the name that they give."""
    gate, known = serving.gate, asked(request)
    if gate.key is None:
        raise RefusedError(404, "There is no such page", "The reverse proxy says who is asking; nobody logs in here.")
    key, said_name = known.form.get("key", "").strip(), known.form.get("name", "")
    where = known.form.get("next", "/")
    person = name_of(said_name)
    if not person:
        said = f"Give your name as verdicts are to show it: up to {NAME_CHARS_MAX} letters that can be seen."
        return _form(serving, request, key=key, where=where, said=said, status=400)
    if not gate.key.use(key):
        said = "This is not the key, or it was used already. The newest one stands where stillwatch serve runs."
        return _form(serving, request, key="", where=where, name=person, said=said, status=403)
    gate.sessions.end(known.cookie)
    answer = to(where if _PATHS.fullmatch(where) else "/")
    gate.set_cookie(answer, gate.sessions.begin(person))
    return answer


def log_out(serving: Serving, request: Request) -> Response:
    """End the session."""
    known = asked(request)
    serving.gate.sessions.end(known.cookie)
    answer = to("/login")
    answer.delete_cookie(serving.gate.cookie_name, path="/")
    return answer


def _form(  # noqa: PLR0913  # what the form shows again
    serving: Serving, request: Request, *, key: str, where: str, said: str = "", name: str = "", status: int = 200
) -> Response:
    return serving.page(
        request, "login.html", status, key=key, where=where if _PATHS.fullmatch(where) else "/", said=said, name=name,
        name_chars_max=NAME_CHARS_MAX,
    )  # fmt: skip
