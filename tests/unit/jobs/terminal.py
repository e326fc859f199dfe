"""`stillwatch sql` as a program of its own, at a terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys, typer
from jobs.sql import sql
from pipeline.errors import StillwatchError
app = typer.Typer()
app.command()(sql)
try:
    app()
except StillwatchError as error:
    sys.exit(f"stillwatch: {error}")
"""
TIMEOUT_S = 60.0


def at_terminal(
    root: Path,
    *arguments: str,
    columns: int = 80,
    keys: bytes = b"",
    home: Path | None = None,
    interrupted: bytes = b"",
) -> str:
    """What the command writes to a terminal, line feeds as it wrote them.

    Args:
        root: of the lake.
        arguments: of the command.
        columns: of the terminal.
        keys: typed once it asks.
        home: for its history.
        interrupted: typed once it says that it was stopped; until then it is interrupted, again and again.
    """
    master, slave = pty.openpty()
    environment = {
        **os.environ,
        "COLUMNS": str(columns),
        "LINES": "50",
        "TERM": "dumb",
        "XDG_STATE_HOME": str(home or root.parent),
    }
    command = [sys.executable, "-c", PROGRAM, "--lake", str(root), *arguments]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment, cwd=ROOT)
    os.close(slave)
    written, deadline_s = b"", time.monotonic() + TIMEOUT_S
    try:
        while time.monotonic() < deadline_s:
            if not select.select([master], [], [], 0.2)[0]:
                if interrupted and not keys:
                    process.send_signal(signal.SIGINT)
                continue
            try:
                chunk = os.read(master, 65536)
            except OSError:  # Linux says so when the last writer is gone
                break
            if not chunk:
                break
            written += chunk
            if keys and b"stillwatch>" in written:
                os.write(master, keys)
                keys = b""
            if interrupted and b"stopped" in written:
                os.write(master, interrupted)
                interrupted = b""
        else:
            pytest.fail(f"still running after {TIMEOUT_S} s: {written!r}")
        assert process.wait(TIMEOUT_S) == 0, written
    finally:
        process.kill()
        process.wait()
        os.close(master)
    return written.decode().replace("\r\n", "\n")
