"""`stillwatch run`, but it kills itself with SIGKILL after a given step of a commit.  Run as a program by the tests.

Usage: python crashing_worker.py STEP COUNT SETTINGS_JSON

Dies when STEP happened for the COUNT-th time; STEP `never`: runs on.  Begins when its standard input ends or brings a
line: a test may have it load everything (most of a second) while another worker runs.
"""

import json
import os
import signal
import sys

import pipeline.watch  # noqa: F401  # else loaded only when the job begins
from jobs import logs
from jobs.run import job
from pipeline.config import Settings


def main() -> None:
    """Run the job until the step."""
    crash_at, left = sys.argv[1], int(sys.argv[2])

    def step(name: str) -> None:
        nonlocal left
        if name == crash_at:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.stdin.readline()
    logs.configure("info")
    job(Settings(**json.loads(sys.argv[3])), step=step)


if __name__ == "__main__":
    main()
