"""The test run itself: it does not depend on how it was started, and it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

INTERRUPTED = """
import signal, subprocess, sys, time
import pytest

def test_sigint_reaches_this_process_and_its_children():
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    child = subprocess.Popen([sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)"], stdout=subprocess.PIPE)
    with child:
        child.stdout.readline()
        child.send_signal(signal.SIGINT)
        assert child.wait(30) == -signal.SIGINT
"""

STUCK = """
import signal, time

def test_that_no_signal_reaches():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    time.sleep(60)

def test_that_never_runs():
    pass
"""


def run_of(folder: Path, code: str, *options: str, ignoring_sigint: bool = False) -> subprocess.CompletedProcess[str]:
    """A run of its own over one file, under this project's settings and conftest."""
    file = folder / "test_of_its_own.py"
    file.write_text(code)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "-c", "pyproject.toml"]
    former = signal.signal(signal.SIGINT, signal.SIG_IGN if ignoring_sigint else signal.SIG_DFL)
    try:
        process = subprocess.Popen(
            [*command, *options, str(file)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    finally:
        signal.signal(signal.SIGINT, former)
    with process:
        out, complaints = process.communicate(timeout=50)
    return subprocess.CompletedProcess(command, process.returncode, out, complaints)


def test_tests_can_send_sigint_where_the_run_was_started_with_it_ignored(tmp_path: Path) -> None:
    finished = run_of(tmp_path, INTERRUPTED, ignoring_sigint=True)
    assert finished.returncode == pytest.ExitCode.OK, finished.stdout


def test_a_test_that_ignores_its_timeout_ends_the_run_with_its_stack(tmp_path: Path) -> None:
    finished = run_of(tmp_path, STUCK, "-o", "timeout=1", "-o", "watchdog_s=1")
    assert finished.returncode == 1
    assert "Timeout (0:00:02)!" in finished.stderr
    assert "in test_that_no_signal_reaches" in finished.stderr
    assert "passed" not in finished.stdout
