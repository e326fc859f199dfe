"""Resident memory of `stillwatch run` while the topic is far ahead of it."""

from __future__ import annotations

import csv
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import psutil

from tests.bench.chart import line_chart
from tests.bench.measure import Program, command_of, say, scratch_folder
from tests.bench.peers.stillwatch import SLOW_BYTES_PER_S
from tests.bench.peers.task import Task
from tests.bench.report import DOCUMENT, table, write_section
from tests.bench.topics import Topic

SAMPLE_S: Final = 0.5
FOLDER: Final = DOCUMENT.parent / "benchmarks"
WARM_SHARE: Final = 0.25
"""The first quarter of a run fills buffers; the slope is measured after it."""

PROGRAMS: Final = (
    Program("as fast as it can", "stillwatch"),
    Program(f"the lake's disk takes {SLOW_BYTES_PER_S // 1_000_000} MB/s", "stillwatch", "slow"),
)


class Series(NamedTuple):
    """What one run took: seconds since its start, and MiB resident at each."""

    program: Program
    seconds: Sequence[float]
    resident_mib: Sequence[float]


def measure(bootstrap: str, topic: Topic, folder: Path = FOLDER) -> None:
    """Measure, write the table `memory`, the series and the picture."""
    series = [_follow(program, bootstrap, topic) for program in PROGRAMS]
    folder.mkdir(exist_ok=True)
    with (folder / "memory.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("run", "seconds", "resident_mib"))
        for program, seconds, resident_mib in series:
            rows.writerows((program.title, f"{s:.1f}", f"{m:.1f}") for s, m in zip(seconds, resident_mib, strict=True))
    lines = {one.program.title: list(zip(one.seconds, one.resident_mib, strict=True)) for one in series}
    title = f"Resident memory of stillwatch run, {topic.events:,} events waiting"
    (folder / "memory.svg").write_text(line_chart(title, "seconds", "MiB", lines))
    header = ("the lake", "events", "wall s", "most MiB", "MiB after 25 %", "MiB at the end", "MiB per million events")
    write_section("memory", table(header, [_row(one, topic.events) for one in series]))


def _follow(program: Program, bootstrap: str, topic: Topic) -> Series:
    with scratch_folder() as out:
        task = Task(bootstrap, topic.name, topic.events, ndjson="", out=out)
        began_s = time.monotonic()
        process = subprocess.Popen(command_of(program, task), stdout=subprocess.DEVNULL)
        seconds, resident_mib = [], []
        followed = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                resident_mib.append(followed.memory_info().rss / 2**20)
            except psutil.NoSuchProcess:
                break
            seconds.append(time.monotonic() - began_s)
            time.sleep(SAMPLE_S)
        if process.wait():
            raise RuntimeError(f"{program.title}: the job ended with {process.returncode}")
    while resident_mib and not resident_mib[-1]:  # a process that has ended and is not waited for yet
        seconds.pop(), resident_mib.pop()
    say(f"  {program.title}: at most {max(resident_mib):.0f} MiB")
    return Series(program, seconds, resident_mib)


def _row(series: Series, events: int) -> list[str]:
    seconds, mib = np.array(series.seconds), np.array(series.resident_mib)
    warm = seconds >= WARM_SHARE * seconds[-1]
    millions = seconds / seconds[-1] * events / 1e6  # the rate is steady
    slope = np.polyfit(millions[warm], mib[warm], 1)[0]
    first = mib[warm][: max(1, warm.sum() // 8)].mean()
    last = mib[warm][-max(1, warm.sum() // 8) :].mean()
    return [
        series.program.title, f"{events:,}", f"{seconds[-1]:.0f}", f"{mib.max():,.0f}", f"{first:,.0f}", f"{last:,.0f}",
        f"{slope:+.0f}",
    ]  # fmt: skip
