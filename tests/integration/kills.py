"""A campaign of kills: workers die at given moments, again and again, while events flow."""

from __future__ import annotations

import random
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from tests.integration.workers import Producer, Reader, Site, Worker, ends_of
from tests.waiting import wait_until

STEPS = ("staged", "committed", "placed", "published", "hinted")
"""The steps of a commit, after each of which a worker can be made to die."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a campaign counted."""

    kills: int
    produced: int
    landed: int
    queries: int

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.produced:,} records produced, {self.landed:,} landed once each by catalog and by "
            f"glob, {self.queries:,} queries meanwhile, each of whole commits"
        )


def plan(seed: int, at_steps: int, at_random: int) -> list[str | float]:
    """Moments to kill at: `at_steps` times after each step of a commit, `at_random` times after some seconds."""
    chance = random.Random(seed)
    moments: list[str | float] = [step for step in STEPS for _ in range(at_steps)]
    moments += [chance.uniform(0, 1.5) for _ in range(at_random)]
    chance.shuffle(moments)
    return moments


def campaign(site: Site, moments: Sequence[str | float], seed: int) -> Result:
    """Start a worker, kill it, and so on; then land the rest and judge.  Meanwhile the next one loads its program."""
    chance = random.Random(seed)

    def held(moment: str | float | None) -> Worker:
        """The worker that will be killed at a moment, or never."""
        if isinstance(moment, str):
            return site.worker(crash_at=moment, count=chance.randint(1, 4), held=True)
        return site.worker(held=True)

    with Producer(site.bootstrap, site.topic, rate=3_000) as producer, Reader(site) as reader:
        following = held(moments[0])
        for moment, after in zip(moments, [*moments[1:], None], strict=True):
            worker, following = following, held(after)
            worker.begin()
            if isinstance(moment, str):
                assert worker.process.wait(60) == -signal.SIGKILL
            else:
                worker.wait_for("started")
                _let_run(worker, moment)
                assert worker.kill() == -signal.SIGKILL
        producer.finish()
        following.begin()
        landed = land_the_rest(site, following)
    return Result(len(moments), producer.sent, landed, reader.queries)


def land_the_rest(site: Site, worker: Worker) -> int:
    """Let one worker go on until all is landed, stop it, and judge; returns the records."""
    ends = ends_of(site.bootstrap, site.topic)
    wait_until(lambda: site.landed() >= sum(ends.values()), "everything landed")
    assert worker.stop() == 0
    return site.assert_exactly_once(ends)


def _let_run(worker: Worker, seconds: float) -> None:
    """Let it run for a while; it must not end by itself."""
    try:
        code = worker.process.wait(seconds)
    except subprocess.TimeoutExpired:
        return
    raise AssertionError(f"ended by itself with {code}: {worker.log()[-3:]}")
