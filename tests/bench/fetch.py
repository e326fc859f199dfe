"""Fetch alone: how many records one CPU second of the client takes out of Kafka."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from tests.bench.measure import Program, Run, median, ratio, run_program, take_turns
from tests.bench.peers.task import Task
from tests.bench.report import table, write_section
from tests.bench.topics import Topic

OURS: Final = Program("columnar path", "fetch", "columnar")
STOCK: Final = Program("kafka-python `poll()`", "fetch", "stock")
CONFLUENT: Final = Program("confluent-kafka `consume()`", "fetch", "confluent")


def measure(bootstrap: str, topics: Sequence[Topic], rounds: int) -> None:
    """Measure and write the table `fetch`."""
    rows = []
    for topic in topics:
        task = Task(bootstrap, topic.name, topic.events, ndjson="", out="")
        runs = take_turns([OURS, CONFLUENT, STOCK], rounds, partial(run_program, task=task))
        rows += [_row(topic, program, runs[program], runs[OURS]) for program in runs]
    header = ("producer's batches", "client", "events per CPU s", "CPU s", "wall s", "CPU ÷ columnar path's", "target")
    write_section("fetch", table(header, rows, left=2))


def _row(topic: Topic, program: Program, runs: Sequence[Run], ours: Sequence[Run]) -> list[str]:
    cpu_s = median([run.work_cpu_s for run in runs])
    target = {CONFLUENT: "≥ 1.5", STOCK: "≥ 5"}.get(program, "")
    factor = ratio([run.work_cpu_s for run in runs], [run.work_cpu_s for run in ours]) if program != OURS else "1"
    wall_s = median([run.wall_s for run in runs])
    rate = f"{topic.events / cpu_s / 1000:,.0f} k"
    return [topic.batches, program.title, rate, f"{cpu_s:.2f}", f"{wall_s:.2f}", factor, target]
