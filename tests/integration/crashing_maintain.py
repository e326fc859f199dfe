"""`stillwatch maintain`, but it kills itself with SIGKILL after a given step.  Run as a program by the tests.

Usage: python crashing_maintain.py WHAT STEP COUNT LAKE CATALOG_URL

Dies when STEP happened for the COUNT-th time; ends by itself with 0 if it never does.
"""

import os
import signal
import sys

from pipeline.io.catalog import Catalog
from pipeline.io.lake import Lake
from pipeline.io.rewriting.ledger import RewriteLedger
from tests.rewrites import WORK


def main() -> None:
    """Work until the step."""
    what, crash_at, left, root, url = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5]

    def step(name: str) -> None:
        nonlocal left
        if name == crash_at:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    lake, catalog = Lake.open(root, create=False), Catalog.open(url, create=False)
    WORK[what](lake, catalog, RewriteLedger(catalog, "tests"), step)
    catalog.close()


if __name__ == "__main__":
    main()
