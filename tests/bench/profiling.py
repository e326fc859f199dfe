"""Where the job's time goes, by function."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.bench.measure import Program, command_of, scratch_folder
from tests.bench.peers.task import Task
from tests.bench.report import table, write_section
from tests.bench.topics import Topic

ROOT = Path(__file__).parents[2]
JOB = Program("the job under cProfile", "stillwatch", "profile")


def measure(bootstrap: str, topic: Topic) -> None:
    """Profile one run and write the table `profile`."""
    with scratch_folder() as out:
        task = Task(bootstrap, topic.name, topic.events, ndjson="", out=out)
        result = subprocess.run(command_of(JOB, task), check=True, capture_output=True, text=True)
    facts, functions = (json.loads(line) for line in result.stdout.splitlines())
    rows = [
        (
            f"`{_where(row['file'])}` `{row['function']}`",
            f"{row['calls']:,}",
            *(f"{row[s]:.2f}" for s in ("own_s", "all_s")),
        )
        for row in functions
    ]
    said = (
        f"{topic.events:,} events, {facts['cpu_s']:.1f} CPU s under the profiler, {facts['main_thread_s']:.1f} of them "
        "in the main thread, which is the one profiled; the rest is mostly kafka-python's I/O thread. "
        "The profiler costs time at every call: what is called once a record looks dearer than it is."
    )
    write_section("profile", f"{said}\n\n{table(('function', 'calls', 'own CPU s', 'with what it calls'), rows)}")


def _where(file: str) -> str:
    """A path from its package on."""
    parts = Path(file).parts
    if "site-packages" in parts:
        return "/".join(parts[parts.index("site-packages") + 1 :])
    path = Path(file)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else "/".join(parts[-3:])
