"""Kafka → Parquet, whole processes: `stillwatch run --once` against other ways to the same Parquet."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import duckdb

from tests.bench.measure import Program, Run, median, ratio, run_program, say, scratch_folder, take_turns
from tests.bench.peers.task import Task
from tests.bench.report import table, write_section
from tests.bench.topics import Topic

OURS: Final = Program("`stillwatch run --once`, landing only", "stillwatch")
OURS_SMALL: Final = Program("the same, 16 KiB producer batches", "stillwatch", "small")
OURS_SCORED: Final = Program("`stillwatch run --once`: features, scores and alerts too", "stillwatch", "scored")
COPY: Final = Program("DuckDB `COPY (FROM read_json('events.ndjson'))`, file to file", "duckdb_copy")
COPY_COLUMNS: Final = Program("the same, columns named, zstd", "duckdb_copy", "columns")
PLAIN: Final = Program("kafka-python, `json.loads`, pyarrow", "plain")
QUIX: Final = Program("Quix Streams, batching sink", "quix")

PLAIN_LINEAR: Final = Program("kafka-python, `json.loads`, River's logistic regression, pyarrow", "plain", "linear")
PLAIN_TREES: Final = Program("the same with River's half-space trees", "plain", "half_space_trees")

OFTEN: Final = (OURS, COPY, COPY_COLUMNS, OURS_SMALL)
SELDOM: Final = (PLAIN, QUIX)
"""These take many times as long and are far from their limits: fewer rounds, each with a run of ours beside it."""

START_ROUNDS: Final = 3

WITH_SCORES: Final = (OURS_SCORED, COPY, OURS)
WITH_SCORES_SELDOM: Final = (QUIX, PLAIN_LINEAR, PLAIN_TREES)
SCORED_TARGETS: Final = {
    COPY: "≥ 0.357 (ours ≤ 2.8 ×)", QUIX: "≥ 2.5", PLAIN_TREES: "≥ 10", PLAIN_LINEAR: "≥ 10",
}  # fmt: skip

TARGETS: Final = {COPY: "≥ 0.625 (ours ≤ 1.6 ×)", PLAIN: "≥ 5", QUIX: "≥ 4"}

_HEADER: Final = (
    "program", "events per CPU s", "CPU s", "of it start-up", "wall s", "CPU ÷ ours", "with start-up", "target"
)  # fmt: skip

Runs = Mapping[Program, Sequence[Run]]


def measure(task: Task, nothing: Task, small: Topic, rounds: int) -> None:
    """Measure and write the table `end_to_end`.

    Args:
        task: the events, in a topic and in a file.
        nothing: an empty topic and an empty file.
        small: the same events as the task's in small batches.
        rounds: how often the close race is run; the others half as often.
    """

    def run(program: Program) -> Run:
        return _checked_run(program, replace(task, topic=small.name) if program == OURS_SMALL else task)

    say("start-up: the programs with nothing to do")
    starts = take_turns([*OFTEN[:-1], *SELDOM], START_ROUNDS, lambda program: _checked_run(program, nothing))
    start_s = {program: median([run.cpu_s for run in runs]) for program, runs in starts.items()}
    start_s[OURS_SMALL] = start_s[OURS]
    say("the close race")
    close = take_turns(OFTEN, rounds, run)
    say("the slower programs")
    wide = take_turns([OURS, *SELDOM], max(1, (rounds + 1) // 2), run)
    rows = [_row(program, close, start_s) for program in OFTEN] + [_row(program, wide, start_s) for program in SELDOM]
    write_section("end_to_end", table(_HEADER, rows))


def measure_scored(task: Task, nothing: Task, rounds: int) -> None:
    """Measure and write the table `scored`: the job with all that it does by default.

    Args:
        task: the events, in a topic and in a file.
        nothing: an empty topic and an empty file.
        rounds: how often the close race is run; the others half as often.
    """
    say("start-up: the programs with nothing to do")
    programs = [*WITH_SCORES, *WITH_SCORES_SELDOM]
    starts = take_turns(programs, min(rounds, START_ROUNDS), lambda program: _checked_run(program, nothing))
    start_s = {program: median([run.cpu_s for run in runs]) for program, runs in starts.items()}
    say("the close race")
    close = take_turns(WITH_SCORES, rounds, lambda program: _checked_run(program, task))
    say("the slower programs")
    seldom = [OURS_SCORED, *WITH_SCORES_SELDOM]
    wide = take_turns(seldom, max(1, (rounds + 1) // 2), lambda program: _checked_run(program, task))
    rows = [_row(program, close, start_s, OURS_SCORED) for program in WITH_SCORES]
    rows += [_row(program, wide, start_s, OURS_SCORED) for program in WITH_SCORES_SELDOM]
    write_section("scored", table(_HEADER, rows))


def _row(program: Program, runs: Runs, start_s: Mapping[Program, float], base: Program = OURS) -> list[str]:
    own, ours = runs[program], runs[base]
    net = [run.cpu_s - start_s[program] for run in own]
    factor = "1" if program == base else ratio(net, [run.cpu_s - start_s[base] for run in ours])
    gross = "1" if program == base else ratio([run.cpu_s for run in own], [run.cpu_s for run in ours])
    return [
        program.title,
        f"{own[0].events / median(net) / 1000:,.0f} k",
        f"{median([run.cpu_s for run in own]):.2f}",
        f"{start_s[program]:.2f}",
        f"{median([run.wall_s for run in own]):.2f}",
        factor,
        gross,
        (TARGETS if base == OURS else SCORED_TARGETS).get(program, ""),
    ]


def _checked_run(program: Program, task: Task) -> Run:
    """Run a program, then count what it wrote.

    Raises:
        RuntimeError: the Parquet files do not hold every event once, with typed columns.
    """
    with scratch_folder() as out:
        run = run_program(program, replace(task, out=out))
        if task.events:
            _check(program, task, out)
    return run


def _check(program: Program, task: Task, out: str) -> None:
    pattern = f"{out}/access/**/*.parquet" if program.module == "stillwatch" else f"{out}/*.parquet"
    found, expected = _facts(f"read_parquet('{pattern}')"), _facts_of_source(task.ndjson)
    if found != expected or found[0] != task.events:
        raise RuntimeError(f"{program.title} wrote {found}, not {expected}")


@functools.cache
def _facts_of_source(ndjson: str) -> tuple[object, ...]:
    return _facts(f"read_json('{ndjson}')")


def _facts(source: str) -> tuple[object, ...]:
    """Rows, different rows, and sums over columns that show whether types and values are right."""
    time_ms = "epoch_ms(event_time)"
    facts = (
        f"count(*), count(DISTINCT request_id), sum(input_tokens), min({time_ms}), max({time_ms}), sum(length(model))"
    )
    with duckdb.connect() as connection:
        return connection.execute(f"SELECT {facts} FROM {source}").fetchone()
