"""`stillwatch backfill`, but it kills itself with SIGKILL after a given step of a commit.  Run as a program by the tests.

Usage: python crashing_backfill.py STEP COUNT ARGUMENTS…

Dies when STEP happened for the COUNT-th time, in whichever commit, or in a replacement's swap.
"""

import functools
import os
import signal
import sys

from jobs import backfill_replace, backfill_replace_past, backfill_work
from jobs.cli import main
from pipeline.io.rewriting.replacement import Replacer
from pipeline.stream import Stream

crash_at, left = sys.argv[1], int(sys.argv[2])


def step(name: str) -> None:
    """Count steps down."""
    global left  # noqa: PLW0603  # of this program
    if name == crash_at:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    backfill_work.Stream = functools.partial(Stream, step=step)  # type: ignore[misc,assignment]
    backfill_replace.Replacer = functools.partial(Replacer, step=step)  # type: ignore[misc,assignment]
    backfill_replace_past.Replacer = functools.partial(Replacer, step=step)  # type: ignore[misc,assignment]
    sys.argv = ["stillwatch", "backfill", *sys.argv[3:]]
    main()
