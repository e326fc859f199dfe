"""Small disks for tests: full, or read-only even for root, whom no permission stops."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import is_ci


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A disk of some megabytes, mounted on a new folder; without the right to mount, the test is skipped."""
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk takes root; as root, in a container with CAP_SYS_ADMIN, this test runs")
    size = f"size={megabytes}m"
    command = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        assert not is_ci(), f"CI must run this test, and cannot mount a disk: {mounted.stderr.strip()}"
        pytest.skip(f"this machine lets nobody mount a small disk (CAP_SYS_ADMIN does): {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(disk: Path, options: str) -> None:
    """Change a mounted disk: `ro`, `rw`, `size=200m`."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)
