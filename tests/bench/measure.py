"""Running the compared programs and making numbers of it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.bench.peers.task import Task

PROGRAM_TIMEOUT_S = 600


@dataclass(frozen=True)
class Run:
    """One run of one program.

    Attributes:
        events: how many it dealt with.
        cpu_s: CPU seconds of the whole process, all threads, start-up included, as the kernel counted them.
        work_cpu_s: CPU seconds of its work alone, as the process counted them: imports are before it.
        wall_s: seconds of its work alone.
        facts: what else it said.
    """

    events: int
    cpu_s: float
    work_cpu_s: float
    wall_s: float
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Program:
    """A program to compare.

    Attributes:
        title: its name in the tables.
        module: in `tests.bench.peers`.
        variant: which way, where it has several.
    """

    title: str
    module: str
    variant: str = ""


def run_program(program: Program, task: Task) -> Run:
    """Run a program in a process of its own.

    Raises:
        RuntimeError: it failed, or did not deal with every event.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = command_of(program, task)
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PROGRAM_TIMEOUT_S)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if result.returncode:
        raise RuntimeError(f"{program.title} ended with {result.returncode}:\n{result.stderr[-3000:]}")
    facts = json.loads(result.stdout.splitlines()[0])
    if facts["events"] < task.events:
        raise RuntimeError(f"{program.title} dealt with {facts['events']} of {task.events} events")
    cpu_s = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Run(task.events, cpu_s, facts["cpu_s"], facts["wall_s"], facts)


def command_of(program: Program, task: Task) -> list[str]:
    """The command line that runs a program; warnings that its libraries show on import are none of ours."""
    module = f"tests.bench.peers.{program.module}"
    return [sys.executable, "-W", "ignore", "-m", module, json.dumps({**asdict(task), "variant": program.variant})]


@contextmanager
def scratch_folder() -> Iterator[str]:
    """An empty folder that is removed afterwards."""
    path = tempfile.mkdtemp(prefix="stillwatch-bench-")
    try:
        yield path
    finally:
        shutil.rmtree(path)


def take_turns(programs: Sequence[Program], rounds: int, run: Callable[[Program], Run]) -> dict[Program, list[Run]]:
    """Run every program once a round, in turn, so that a slow moment of the machine meets all of them alike."""
    runs: dict[Program, list[Run]] = {program: [] for program in programs}
    for number in range(rounds):
        for program in programs if number % 2 == 0 else reversed(programs):
            runs[program].append(run(program))
            say(f"  {program.title}: {runs[program][-1].cpu_s:.2f} s CPU")
    return runs


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(values)


def ratio(over: Sequence[float], under: Sequence[float]) -> str:
    """Median of the rounds' ratios, with the lowest and the highest."""
    ratios = sorted(above / below for above, below in zip(over, under, strict=True))
    spread = f" ({ratios[0]:.2f}–{ratios[-1]:.2f})" if len(ratios) > 1 else ""
    return f"{median(ratios):.2f}{spread}"


def say(text: str) -> None:
    """Tell whoever waits."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def versions(kafka: str) -> str:
    """The machine and the versions of all that is compared, in one paragraph."""
    names = ("duckdb", "pyarrow", "polars", "numpy", "kafka-python", "confluent-kafka", "quixstreams")
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return (
        f"{time.strftime('%Y-%m-%d')}, {_processor()}, {os.cpu_count()} CPUs, {platform.system()} "
        f"{platform.release().split('-')[0]}, Python {platform.python_version()}, {kafka}, {packages}. "
        f"Load average at the start: {os.getloadavg()[0]:.1f}."
    )


def _processor() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.processor() or platform.machine()
