"""`stillwatch deliver` that kills itself after a step: `crashing_deliver.py STEP COUNT CONFIG`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from jobs import logs
from jobs.deliver import run
from pipeline.config import read_settings


def main(crash_at: str, count: int, config: Path) -> None:
    """Run until the step was taken so often."""
    seen = 0

    def step(name: str) -> None:
        nonlocal seen
        seen += name == crash_at
        if seen >= count and name == crash_at:
            os.kill(os.getpid(), signal.SIGKILL)

    logs.configure("info")
    run(read_settings(config), once=False, step=step)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
