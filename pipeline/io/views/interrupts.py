"""Ctrl-C for a query that computes: DuckDB itself does not always see it."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Iterator

import duckdb


@contextlib.contextmanager
def interruptible(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Let SIGINT stop whatever the connection runs meanwhile.

    Python's handlers run between two steps of Python, and there is none while a query computes.  DuckDB 2.0 looks for
    signals only when its main thread is not itself at work, which in a query of one long step is never.  So a thread
    waits for the byte that Python's part in C writes the moment a signal comes, and interrupts the connection.

    Only the main thread gets signals; in others this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard, told = socket.socketpair()
    told.setblocking(False)  # a handler in C must not wait
    former = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(heard, connection), name="interrupts", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(former)
        told.close()
        watcher.join()  # a late interrupt must not hit the next query
        heard.close()


def _watch(heard: socket.socket, connection: duckdb.DuckDBPyConnection) -> None:
    while numbers := heard.recv(64):
        if signal.SIGINT in numbers:
            connection.interrupt()
