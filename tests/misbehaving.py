"""A local HTTP server that does to whoever asks what real ones do on bad days."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asked."""

    line: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


Behaviour = Callable[[socket.socket, threading.Event], None]
"""What is done with a connection once the request was read; the event says that the server ends."""


def answering(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Behaviour:
    """An ordinary answer."""
    more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = f"HTTP/1.1 {status} Said\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{more}\r\n"
    return saying(head.encode() + body)


def saying(content: bytes) -> Behaviour:
    """Just these bytes, and the end."""

    def act(connection: socket.socket, _end: threading.Event) -> None:
        connection.sendall(content)

    return act


def silent(connection: socket.socket, end: threading.Event) -> None:
    """Never an answer."""
    end.wait()


def cut(connection: socket.socket, end: threading.Event) -> None:
    """The connection is reset without an answer."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


def dripping(head: bytes, drop: bytes = b"x", every_s: float = 0.01) -> Behaviour:
    """A beginning, and then a drop now and then, without end."""

    def act(connection: socket.socket, end: threading.Event) -> None:
        with contextlib.suppress(OSError):
            connection.sendall(head)
            while not end.wait(every_s):
                connection.sendall(drop)

    return act


class Misbehaving:
    """The server.  Does one behaviour after the other, and the last one from then on."""

    def __init__(self, behaviours: Iterable[Behaviour]) -> None:
        self._behaviours = _held(iter(list(behaviours)))
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/hook"
        self.requests: list[Request] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._end.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            request = _read(connection)
            if request is None:
                return
            with self._lock:
                self.requests.append(request)
                behaviour = next(self._behaviours)
            behaviour(connection, self._end)


def _held(behaviours: Iterator[Behaviour]) -> Iterator[Behaviour]:
    last = answering(200)
    for last in behaviours:
        yield last
    yield from itertools.repeat(last)


def _read(connection: socket.socket) -> Request | None:
    with connection.makefile("rb") as file:
        line = file.readline()
        if not line:
            return None
        headers = {}
        while (header := file.readline().strip()) != b"":
            name, _, value = header.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        return Request(line.decode().strip(), headers, file.read(int(headers.get("content-length", 0))))
