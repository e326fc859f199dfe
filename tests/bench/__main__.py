"""`python -m tests.bench`: measure, and write the tables of docs/benchmarks.md."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from tests.bench import (
    detection,
    end_to_end,
    features,
    fetch,
    lake,
    latency,
    memory,
    profiling,
    storm,
    sustained,
    verdicts,
)
from tests.bench.events import write_ndjson
from tests.bench.measure import say, versions
from tests.bench.peers.task import Task
from tests.bench.report import write_section
from tests.bench.topics import Topic, make_topic
from tests.servers import choose_kafka


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    events: int
    memory_events: int
    rounds: int
    latency_s: int = 60
    sustained_min: float = 5
    lake_events: int = 50_000_000
    storm_s: int = 90
    storm_alerts: int = 100_000
    log: Path | None = None
    accounts: Path | None = None
    labels: Path | None = None


FULL = Size(events=1_500_000, memory_events=5_000_000, rounds=5)
QUICK = Size(
    events=200_000, memory_events=600_000, rounds=2, latency_s=15, sustained_min=0.5, lake_events=500_000, storm_s=60,
    storm_alerts=10_000,
)  # fmt: skip
LOG_EVENTS = 200_000
LOG_ACCOUNTS = 12_000


@dataclass
class Bench:
    """What the measurements share; topics are produced when they are first needed."""

    bootstrap: str
    folder: Path
    size: Size
    _topics: dict[str, Topic] = field(default_factory=dict)

    @cached_property
    def ndjson(self) -> Path:
        """The events as a file."""
        say(f"making {self.size.events:,} events")
        path = self.folder / "events.ndjson"
        write_ndjson(path, self.size.events)
        return path

    def topic(self, batches: str) -> Topic:
        """The events in one partition."""
        return self._made(f"bench-{batches.replace(' ', '')}", self.size.events, batches=batches)

    def empty_topic(self) -> Topic:
        """A topic without events."""
        return self._made("bench-empty", 0)

    def memory_topic(self) -> Topic:
        """The events, over and over, in four partitions."""
        return self._made("bench-memory", self.size.memory_events, partitions=4)

    def _made(self, name: str, events: int, *, partitions: int = 1, batches: str = "1 MB") -> Topic:
        if name not in self._topics:
            source = self.ndjson if events else None
            say(f"producing {events:,} events to {name}")
            topic = make_topic(self.bootstrap, name, source, events, partitions=partitions, batches=batches)
            self._topics[name] = topic
        return self._topics[name]


def _fetch(bench: Bench) -> None:
    fetch.measure(bench.bootstrap, [bench.topic("1 MB"), bench.topic("16 KiB")], bench.size.rounds)


def _end_to_end(bench: Bench) -> None:
    empty = bench.folder / "empty.ndjson"
    empty.touch()
    topic = bench.topic("1 MB")
    task = Task(bench.bootstrap, topic.name, topic.events, str(bench.ndjson), out="")
    nothing = replace(task, topic=bench.empty_topic().name, events=0, ndjson=str(empty))
    end_to_end.measure(task, nothing, bench.topic("16 KiB"), bench.size.rounds)


def _scored(bench: Bench) -> None:
    empty = bench.folder / "empty.ndjson"
    empty.touch()
    topic = bench.topic("1 MB")
    task = Task(bench.bootstrap, topic.name, topic.events, str(bench.ndjson), out="")
    nothing = replace(task, topic=bench.empty_topic().name, events=0, ndjson=str(empty))
    end_to_end.measure_scored(task, nothing, bench.size.rounds)


def _features(bench: Bench) -> None:
    if bench.size.log:
        features.measure(bench.size.log, bench.size.accounts, bench.size.rounds)
        return
    path = bench.folder / "simulated.ndjson"
    latency.simulate(path, LOG_EVENTS, LOG_ACCOUNTS, keyed=False)
    features.measure(path, None, bench.size.rounds)


def _detection(bench: Bench) -> None:
    assert bench.size.log is not None
    assert bench.size.labels is not None
    detection.measure(bench.folder, bench.size.log, bench.size.accounts, bench.size.labels)


def _verdicts(bench: Bench) -> None:
    assert bench.size.log is not None
    assert bench.size.labels is not None
    verdicts.measure(bench.folder, bench.size.log, bench.size.accounts, bench.size.labels)


def _latency(bench: Bench) -> None:
    latency.measure(bench.bootstrap, bench.folder, bench.size.latency_s)


def _sustained(bench: Bench) -> None:
    sustained.measure(bench.bootstrap, bench.size.sustained_min)


def _storm(bench: Bench) -> None:
    storm.measure(bench.bootstrap, bench.folder, bench.size.storm_s, bench.size.storm_alerts)


def _memory(bench: Bench) -> None:
    memory.measure(bench.bootstrap, bench.memory_topic())


def _lake(bench: Bench) -> None:
    lake.measure(bench.folder, bench.size.lake_events)


def _profile(bench: Bench) -> None:
    profiling.measure(bench.bootstrap, bench.topic("1 MB"))


OF_LABELLED_LOGS = {"detection", "verdicts"}

WITHOUT_KAFKA = {"lake", *OF_LABELLED_LOGS}

MEASUREMENTS: dict[str, Callable[[Bench], None]] = {
    "fetch": _fetch,
    "end_to_end": _end_to_end,
    "scored": _scored,
    "features": _features,
    "detection": _detection,
    "verdicts": _verdicts,
    "latency": _latency,
    "sustained": _sustained,
    "storm": _storm,
    "memory": _memory,
    "lake": _lake,
    "profile": _profile,
}


def main() -> int:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    what = f"what to measure: {', '.join(MEASUREMENTS)}; default: all"
    parser.add_argument("names", nargs="*", metavar="NAME", help=what)
    parser.add_argument("--quick", action="store_true", help="few events and rounds: shows that it works, not how fast")
    parser.add_argument("--profile", action="store_true", help="the same as the name profile")
    parser.add_argument("--events", type=int, help="how many events the programs get")
    parser.add_argument("--rounds", type=int, help="how often each program is run")
    parser.add_argument("--minutes", type=float, help="length of the sustained run; 30 shows whether memory stays flat")
    parser.add_argument(
        "--log", type=Path, help="access log for `features` and `detection`; default: simulated traffic"
    )
    parser.add_argument("--accounts", type=Path, help="accounts feed of that log")
    parser.add_argument("--labels", type=Path, help="who harvests in that log, for `detection`")
    given = parser.parse_args()
    names = given.names + ["profile"] * given.profile or [
        name for name in MEASUREMENTS if name not in OF_LABELLED_LOGS or given.labels
    ]
    if unknown := set(names) - set(MEASUREMENTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if OF_LABELLED_LOGS & set(names) and not (given.log and given.labels):
        parser.error(f"{', '.join(sorted(OF_LABELLED_LOGS))}: measured on a log with labels, --log and --labels")
    size = QUICK if given.quick else FULL
    size = replace(size, events=given.events or size.events, rounds=given.rounds or size.rounds)
    size = replace(size, sustained_min=given.minutes or size.sustained_min, log=given.log, accounts=given.accounts)
    size = replace(size, lake_events=given.events or size.lake_events, labels=given.labels)
    if set(names) <= WITHOUT_KAFKA:
        with tempfile.TemporaryDirectory(prefix="stillwatch-bench-") as folder:
            _measure("", "no broker", Path(folder), size, names)
        return 0
    kafka = choose_kafka()
    if kafka.kind == "embedded":
        print(f"the benchmarks run on Apache Kafka, not on {kafka.describe()}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="stillwatch-bench-") as folder:
        kafka.start()
        try:
            _measure(kafka.bootstrap, kafka.describe(), Path(folder), size, names)
        finally:
            kafka.close()
    return 0


def _measure(bootstrap: str, broker: str, folder: Path, size: Size, names: list[str]) -> None:
    bench = Bench(bootstrap, folder, size)
    about = versions(broker)
    say(about)
    for name in names:
        say(name)
        MEASUREMENTS[name](bench)
        said = [argument for argument in sys.argv[1:] if "/" not in argument]  # where files are is nobody's business
        arguments = f" ARGS='{' '.join(said)}'" if said else ""
        write_section(f"{name}_run", f"`make bench{arguments}`, {size.rounds} rounds. {about}")
    say("written to docs/benchmarks.md")


if __name__ == "__main__":
    sys.exit(main())
