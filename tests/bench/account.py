"""How long `stillwatch account` takes on a lake: the whole process, as its users start it."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from tests.bench.measure import say, versions
from tests.bench.report import table, write_section

ACCOUNTS: Final = {"the loudest": "acct_00000", "a middling one": "acct_04000", "one of the quietest": "acct_19999"}
"""Of the lake that `tests.bench.lake` makes."""

ROUNDS: Final = 5

_ENVIRONMENT: Final = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""Where that is set, every start would compile the program again, which no installed one does."""


def measure(lake: Path, catalog_url: str) -> None:
    """Show some accounts, and write the table and what the machine did meanwhile."""
    about, rows = versions("no broker"), []
    for name, account in ACCOUNTS.items():
        for form, flags in (("terminal", []), ("page", ["--html", str(lake.parent / "account.html")])):
            command = [sys.executable, "-m", "jobs.cli", "account", account, *flags]
            times = [_run([*command, "--lake", str(lake), "--catalog", catalog_url]) for _ in range(ROUNDS + 1)][1:]
            wall_s, cpu_s = (statistics.median(one[place] for one in times) for place in (0, 1))
            least_s = min(one[0] for one in times)
            say(f"  {name}, {form}: {wall_s:.2f} s ({cpu_s:.2f} s CPU)")
            rows.append([f"{name} ({account}), {form}", f"{wall_s:.2f}", f"{least_s:.2f}", "< 2", f"{cpu_s:.2f}"])
    write_section("account", table(["account", "s, median", "s, least", "target", "CPU s, median"], rows))
    write_section("account_run", f"{ROUNDS} rounds. {about} At the end: {os.getloadavg()[0]:.1f}.")


def _run(command: list[str]) -> tuple[float, float]:
    """Seconds, and CPU seconds."""
    before, began_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=_ENVIRONMENT)
    wall_s, after = time.perf_counter() - began_s, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall_s, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
