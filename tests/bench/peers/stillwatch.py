"""`stillwatch run` with its default settings; `variant` may turn scoring off, name another lake or ask for a profile."""

from __future__ import annotations

import cProfile
import json
import pstats
import time
from collections.abc import Sequence
from typing import ClassVar

from jobs import logs
from jobs import run as command
from pipeline import restoring
from pipeline.analysis import Analysis
from pipeline.commits import Commit, FileEntry, SnapshotEntry
from pipeline.config import read_settings
from pipeline.io.lake import Lake
from pipeline.land import Section
from tests.bench.peers.task import Task, measured

SLOW_BYTES_PER_S = 4_000_000
"""What the slow lake's disk writes."""

PROFILE_ROWS = 15

SCORED = ("scored", "sustained", "profile")
"""Variants that score, as `stillwatch run` does unless it is told otherwise."""


class SlowLake(Lake):
    """A lake on a disk that takes its time."""

    def stage(self, commit: Commit, sections: Sequence[Section]) -> list[FileEntry]:
        """Write the files, and return when a slow disk would have written them."""
        began_s = time.monotonic()
        files = super().stage(commit, sections)
        late_s = sum(file.bytes for file in files) / SLOW_BYTES_PER_S - (time.monotonic() - began_s)
        time.sleep(max(0.0, late_s))
        return files


class CountedLake(Lake):
    """A lake that counts what its files and snapshots take."""

    stages: ClassVar[list[float]] = []
    """CPU seconds of the main thread for each commit's files."""
    snapshots: ClassVar[list[tuple[float, int]]] = []
    """CPU seconds of the main thread for each snapshot's file, and its bytes."""

    def stage(self, commit: Commit, sections: Sequence[Section]) -> list[FileEntry]:
        """Write the files."""
        began_s = time.thread_time()
        files = super().stage(commit, sections)
        self.stages.append(time.thread_time() - began_s)
        return files

    def stage_snapshot(self, commit: Commit, body: bytes) -> SnapshotEntry:
        """Write the snapshot."""
        began_s = time.thread_time()
        entry = super().stage_snapshot(commit, body)
        self.snapshots.append((time.thread_time() - began_s, len(body)))
        return entry


class CountedAnalysis(Analysis):
    """An analysis that counts what its snapshots take."""

    packed: ClassVar[list[float]] = []

    def snapshot(self) -> bytes:
        """Make the snapshot."""
        began_s = time.thread_time()
        body = super().snapshot()
        self.packed.append(time.thread_time() - began_s)
        return body


def _counted() -> dict[str, float]:
    stages, snapshots = CountedLake.stages, CountedLake.snapshots
    return {
        "commits": len(stages),
        "commit_files_cpu_s": sum(stages),
        "snapshots": len(snapshots),
        "snapshot_cpu_s": sum(CountedAnalysis.packed) + sum(cpu_s for cpu_s, _ in snapshots),
        "snapshot_bytes": snapshots[-1][1] if snapshots else 0,
    }


def run(task: Task) -> int:
    """Run the job; returns how many events it landed."""
    scoring = "on" if task.variant in SCORED else "off"
    settings = read_settings(bootstrap=task.bootstrap, topic=task.topic, lake=task.out, scoring=scoring)
    if task.variant == "sustained":
        progress = command.job(settings, records_max=task.events).progress
    else:
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
    elif given.variant == "sustained":
        command.Lake = CountedLake  # type: ignore[misc]
        restoring.Analysis = CountedAnalysis  # type: ignore[misc]
    profile = cProfile.Profile(time.thread_time)  # waiting is not what takes the time of a CPU
    began_s = time.thread_time()
    with measured() as facts:
        if given.variant == "profile":
            profile.enable()
        facts["events"] = run(given)
        profile.disable()
        if given.variant == "sustained":
            facts.update(_counted())
        facts["main_thread_s"] = time.thread_time() - began_s
    if given.variant == "profile":
        print(json.dumps(_top(profile)))
