"""`stillwatch run --once` with its default settings; `variant` may name another lake or ask for a profile."""

from __future__ import annotations

import cProfile
import json
import pstats
import time
from collections.abc import Sequence

from jobs import logs
from jobs import run as command
from pipeline.commits import Commit, FileEntry
from pipeline.config import read_settings
from pipeline.io.lake import Lake
from pipeline.land import Section
from tests.bench.peers.task import Task, measured

SLOW_BYTES_PER_S = 4_000_000
"""What the slow lake's disk writes."""

PROFILE_ROWS = 15


class SlowLake(Lake):
    """A lake on a disk that takes its time."""

    def stage(self, commit: Commit, sections: Sequence[Section]) -> list[FileEntry]:
        """Write the files, and return when a slow disk would have written them."""
        began_s = time.monotonic()
        files = super().stage(commit, sections)
        late_s = sum(file.bytes for file in files) / SLOW_BYTES_PER_S - (time.monotonic() - began_s)
        time.sleep(max(0.0, late_s))
        return files


def run(task: Task) -> int:
    """Run the job; returns how many events it landed."""
    settings = read_settings(bootstrap=task.bootstrap, topic=task.topic, lake=task.out)
    progress = command.job(settings, once=True).progress
    if progress.rejects or progress.events != task.events:
        raise RuntimeError(f"{progress.events} events and {progress.rejects} rejects of {task.events} records")
    return progress.events


def _top(profile: cProfile.Profile) -> list[dict[str, object]]:
    """The functions that took most time of their own."""
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    rows = [
        {"file": file, "line": line, "function": name, "calls": calls, "own_s": own_s, "all_s": all_s}
        for (file, line, name), (_, calls, own_s, all_s, _) in stats.items()
    ]
    return sorted(rows, key=lambda row: -row["own_s"])[:PROFILE_ROWS]  # type: ignore[operator]


if __name__ == "__main__":
    given = Task.given()
    logs.configure("warning")
    if given.variant == "slow":
        command.Lake = SlowLake  # type: ignore[misc]
    profile = cProfile.Profile(time.thread_time)  # waiting is not what takes the time of a CPU
    began_s = time.thread_time()
    with measured() as facts:
        if given.variant == "profile":
            profile.enable()
        facts["events"] = run(given)
        profile.disable()
        facts["main_thread_s"] = time.thread_time() - began_s
    if given.variant == "profile":
        print(json.dumps(_top(profile)))
