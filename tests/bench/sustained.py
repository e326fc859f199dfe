"""Resident memory of `stillwatch run` with scoring, 200,000 accounts at work, over a sustained run."""

from __future__ import annotations

import contextlib
import csv
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import numpy as np
import psutil
from kafka.admin import KafkaAdminClient

from tests.bench.chart import line_chart
from tests.bench.live_traffic import ACCOUNTS
from tests.bench.measure import Program, command_of, say, scratch_folder
from tests.bench.memory import FOLDER, WARM_SHARE
from tests.bench.peers.task import Task
from tests.bench.report import table, write_section
from tests.servers import create_topic

RATE: Final = 10_000
SAMPLE_S: Final = 1.0
JOB: Final = Program("`stillwatch run`", "stillwatch", "sustained")
_TOPIC: Final = "bench-sustained"


def measure(bootstrap: str, minutes: float, folder: Path = FOLDER) -> None:
    """Measure, write the table `sustained`, the series and the picture."""
    count = int(minutes * 60 * RATE)
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=bootstrap)) as admin:
        create_topic(admin, _TOPIC, 1)
    with scratch_folder() as out:
        task = Task(bootstrap, _TOPIC, count, ndjson="", out=out)
        seconds, mib, facts = _follow(task, [sys.executable, "-m", "tests.bench.live_traffic", bootstrap, _TOPIC])
    with (folder / "sustained.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("seconds", "resident_mib"))
        rows.writerows((f"{s:.0f}", f"{m:.1f}") for s, m in zip(seconds, mib, strict=True))
    title = f"Resident memory, {ACCOUNTS:,} accounts, {RATE:,} events a second"
    chart = line_chart(title, "seconds", "MiB", {"stillwatch run": list(zip(seconds, mib, strict=True))})
    (folder / "sustained.svg").write_text(chart)
    warm = np.array(seconds) >= WARM_SHARE * seconds[-1]
    slope = 60 * np.polyfit(np.array(seconds)[warm], np.array(mib)[warm], 1)[0]
    commits, snapshots = max(facts["commits"], 1), max(facts["snapshots"], 1)
    header = ("what", "measured", "target")
    said = [
        ("events, minutes", f"{count:,}, {seconds[-1] / 60:.1f}", ""),
        ("most resident MiB", f"{max(mib):,.0f}", "< 1,430 (1.5 GB)"),
        ("MiB a minute after a quarter of the run", f"{slope:+.1f}", "0 over 30 minutes"),
        ("CPU s, all of it", f"{facts['cpu_s']:.1f}", ""),
        ("CPU s a commit, its files alone", f"{facts['commit_files_cpu_s'] / commits:.3f} ({commits} commits)", ""),
        ("CPU s a snapshot", f"{facts['snapshot_cpu_s'] / snapshots:.3f} ({facts['snapshots']} snapshots)", ""),
        ("snapshots ÷ commits' files, CPU of all", f"{facts['snapshot_cpu_s'] / facts['commit_files_cpu_s']:.2f}", "≤ 1"),
        ("bytes of the last snapshot, an account", f"{facts['snapshot_bytes'] / ACCOUNTS:,.0f}", ""),
    ]  # fmt: skip
    write_section("sustained", table(header, said))


def _follow(task: Task, traffic: list[str]) -> tuple[list[float], list[float], dict[str, float]]:
    seconds: list[float] = []
    mib: list[float] = []
    began_s = time.monotonic()
    job = subprocess.Popen(command_of(JOB, task), stdout=subprocess.PIPE, text=True)
    sender = subprocess.Popen([*traffic, str(RATE), str(task.events)], stdout=subprocess.DEVNULL)
    try:
        followed = psutil.Process(job.pid)
        while job.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                if resident := followed.memory_info().rss:
                    seconds.append(time.monotonic() - began_s)
                    mib.append(resident / 2**20)
            time.sleep(SAMPLE_S)
    finally:
        sender.terminate()
        sender.wait()
    if job.returncode:
        raise RuntimeError(f"the job ended with {job.returncode}")
    say(f"  at most {max(mib):.0f} MiB")
    return seconds, mib, json.loads(job.stdout.read().splitlines()[0] if job.stdout else "{}")
