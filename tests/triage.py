"""A real `stillwatch serve` for tests, and visitors of it that speak plain HTTP."""

from __future__ import annotations

import contextlib
import html
import http.client
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BOUND_S = 60.0


class Served:
    """One process, and what it says.

    Attributes:
        process: of it.
        said: its lines of standard output so far.
        address: that it said it is at.
    """

    def __init__(self, lake: Path, *flags: str, **environment: str) -> None:
        known = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jobs.cli", "serve", "--lake", str(lake), "--port", "0", *flags],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, **known},
        )  # fmt: skip
        self.said: list[str] = []
        self.logged: list[str] = []
        self._lines: queue.Queue[str] = queue.Queue()
        self._readers = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=self._read_log, daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        self.address = self.wait_for(r" is at (http\S+)")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            self._lines.put(line)
        self._lines.put("")

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        self.logged.extend(self.process.stderr)

    def wait_for(self, pattern: str) -> str:
        """The first group of the next line that matches."""
        while True:
            line = self._lines.get(timeout=BOUND_S)
            if not line:
                raise AssertionError(f"it ended without saying {pattern}: {''.join(self.said)}{''.join(self.logged)}")
            if found := re.search(pattern, line):
                return found[1]

    @property
    def netloc(self) -> str:
        return urllib.parse.urlsplit(self.address).netloc

    def log_in_address(self) -> str:
        """The next address that lets somebody in."""
        return self.wait_for(r"log in at (\S+)")

    def visitor(self, name: str = "", key: str = "") -> Visitor:
        """Somebody; with a name, who has logged in."""
        visitor = Visitor(self.netloc)
        if name:
            given = key or urllib.parse.parse_qs(urllib.parse.urlsplit(self.log_in_address()).query)["key"][0]
            answer = visitor.post("/login", key=given, name=name, next="/")
            assert (answer.status, answer.headers["location"]) == (303, "/"), answer.text
        return visitor

    def end(self, how: int = signal.SIGTERM) -> int:
        """Stop it; returns its exit code, once all that it said was read."""
        self.process.send_signal(how)
        code = self.process.wait(BOUND_S)
        for reader in self._readers:
            reader.join(BOUND_S)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return code


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    text: str
    body: bytes = b""


@dataclass
class Visitor:
    """A client with cookies, which sends what it is told and nothing of its own.

    Attributes:
        netloc: host and port.
        cookies: by name.
        headers: sent with each request.
    """

    netloc: str
    cookies: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """One request; a header's `_` is a `-`."""
        sent = {
            "Host": self.netloc,
            **self.headers,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        if self.cookies:
            sent.setdefault("Cookie", "; ".join(f"{name}={value}" for name, value in self.cookies.items()))
        with contextlib.closing(http.client.HTTPConnection(self.netloc, timeout=BOUND_S)) as connection:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.items():
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            content = response.read()
        for cookie in response.headers.get_all("set-cookie") or []:
            name, _, rest = cookie.partition("=")
            self.cookies[name] = rest.partition(";")[0]
        known = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, known, content.decode("utf-8", "replace"), content)

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def post(self, path: str, /, **fields: str) -> Answer:
        """Send a form as it is given."""
        return self.send(path, fields)

    def send(self, path: str, fields: Mapping[str, Any], **headers: str) -> Answer:
        kind = {"Content_Type": "application/x-www-form-urlencoded", **headers}
        return self.ask("POST", path, urllib.parse.urlencode(fields, errors="surrogatepass").encode(), **kind)

    def csrf(self) -> str:
        """What this visitor's forms carry."""
        found = re.search(r'name="csrf" value="([^"]+)"', self.get("/").text)
        assert found is not None
        return found[1]

    def fill(self, page: str, action: str, **fields: str) -> Answer:
        """Send a form of a page, its hidden fields as they stand there."""
        return self.send(action, {**hidden_fields(self.get(page).text, action), **fields})


def hidden_fields(page: str, action: str) -> dict[str, str]:
    """Hidden fields of the form with an action on a page."""
    form = re.search(rf'<form[^>]*action="{re.escape(action)}(?:#\w+)?".*?</form>', page, re.DOTALL)
    assert form is not None, action
    found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form[0])
    return {name: html.unescape(value) for name, value in found}


@contextlib.contextmanager
def serving(lake: Path, *flags: str, **environment: str) -> Iterator[Served]:
    """Serve a lake; whatever happens, the process is gone afterwards."""
    served = Served(lake, *flags, **environment)
    try:
        yield served
    finally:
        if served.process.poll() is None:
            served.end()
