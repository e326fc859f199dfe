"""States and features alone, and the whole analysis, without Kafka, decoding or files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.bench.measure import Program, Run, median, run_program, take_turns
from tests.bench.peers.features import BATCH, LIVE_ACCOUNTS, LIVE_WARM
from tests.bench.peers.task import Task
from tests.bench.report import table, write_section

DEV: Final = Program("states and features, the log as it is", "features", "dev")
LIVE: Final = Program(
    f"states and features, {LIVE_ACCOUNTS:,} live accounts, from their {LIVE_WARM}th event on", "features", "live"
)
ANALYSIS: Final = Program("states, features, scores and alerts, the log as it is", "features", "analysis")

TARGETS: Final = {DEV: "≥ 400 k", LIVE: "≥ 200 k"}


def measure(log: Path, accounts: Path | None, rounds: int) -> None:
    """Measure and write the table `features`.

    Args:
        log: events to run, as `stillwatch simulate --out` writes them.
        accounts: their accounts feed.
        rounds: how often.
    """
    task = Task("", "", 0, str(log), out=str(accounts) if accounts else "")
    runs = take_turns([DEV, LIVE, ANALYSIS], rounds, lambda program: run_program(program, task))
    header = ("what", "events", "rows a 1,000 events", "events per CPU s", "state bytes an account", "target")
    rows = [_row(program, runs[program]) for program in runs]
    write_section("features", f"Batches of {BATCH:,}.\n\n{table(header, rows)}")


def _row(program: Program, runs: Sequence[Run]) -> list[str]:
    facts = [run.facts for run in runs]
    events, size = facts[0]["measured"], int(facts[0]["account_bytes"])
    return [
        program.title,
        f"{events:,}",
        f"{1000 * facts[0]['rows'] / events:.0f}",
        f"{median([fact['measured'] / fact['step_cpu_s'] for fact in facts]) / 1000:,.0f} k",
        f"{size:,}" if size else "",
        TARGETS.get(program, ""),
    ]
