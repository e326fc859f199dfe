"""The loop of a backtest: events in the order of the log through the analysis of the live job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import pyarrow as pa

from pipeline.alerts import Alert
from pipeline.backtesting.activity import Activity
from pipeline.batch import Partition
from pipeline.counted import counted
from pipeline.errors import ConfigError

RECORDS_MIN: Final = 1_000
"""Fewer records are too few to judge the share of rejects before the end of the log."""


class Chunk(Protocol):
    """Some consecutive records; see `pipeline.io.event_files.Chunk`."""

    @property
    def events(self) -> Sequence[pa.Table]:
        """`pipeline.events.DECODED_SCHEMA`, one table a partition, each in offset order."""

    @property
    def records(self) -> int:
        """How many there were, rejects included."""

    @property
    def rejects(self) -> Mapping[str, int]:
        """How many are no events, by reason."""

    @property
    def first_reject(self) -> str:
        """Where the first of these is, in words."""

    @property
    def done(self) -> int:
        """How much of the whole is read."""


class Analysed(Protocol):
    """What came of some events; see `pipeline.analysis.Analysed`."""

    @property
    def windows(self) -> pa.Table:
        """Scores, of WINDOWS_SCHEMA."""

    @property
    def alerts(self) -> Sequence[Alert]:
        """Alerts that the events raised."""

    @property
    def suppressed(self) -> Mapping[str, int]:
        """Rows that met a rule while it was silent for their account, by the rule's name."""


class Analysis(Protocol):
    """All that is known of one partition so far; see `pipeline.analysis.Analysis`."""

    def step(self, events: pa.Table, /) -> Analysed:
        """Take the next events."""


@dataclass(slots=True)
class Replayed:
    """What went through.

    Attributes:
        activity: who was there, when, and how much.
        records: of the log.
        rejects: how many of them are no events, by reason.
        first_reject: where the first one is, in words.
        partitions: those that had events.
        scores: rows of windows.
        alerts: raised.
        suppressed: rows that met a rule while it was silent for their account, by the rule's name.
    """

    activity: Activity = field(default_factory=Activity)
    records: int = 0
    rejects: dict[str, int] = field(default_factory=dict)
    first_reject: str = ""
    partitions: set[Partition] = field(default_factory=set)
    scores: int = 0
    alerts: int = 0
    suppressed: Counter[str] = field(default_factory=Counter)

    @property
    def rejected(self) -> int:
        """Records that are no events."""
        return sum(self.rejects.values())


def replay(
    chunks: Iterable[Chunk],
    analysis_of: Callable[[Partition], Analysis],
    write: Callable[[pa.Table, Sequence[Alert]], None],
    *,
    rejects_max: float,
    watch: Callable[[int, Replayed], None] = lambda _done, _so_far: None,
) -> Replayed:
    """Take a log through the analysis, partition by partition.

    Args:
        chunks: the log.
        analysis_of: makes the analysis of a partition, at its first event.
        write: takes scores and alerts as they come.
        rejects_max: the share of records that may be no events.
        watch: told after each chunk how much is read, and what came of it.

    Raises:
        ConfigError: more records are no events, or none is one.
    """
    so_far = Replayed()
    analyses: dict[Partition, Analysis] = {}
    for chunk in chunks:
        so_far.records += chunk.records
        so_far.first_reject = so_far.first_reject or chunk.first_reject
        for reason, count in chunk.rejects.items():
            so_far.rejects[reason] = so_far.rejects.get(reason, 0) + count
        if so_far.records >= RECORDS_MIN:
            _check_rejects(so_far, rejects_max)
        for events in chunk.events:
            partition = Partition(events["topic"][0].as_py(), events["partition"][0].as_py())
            if partition not in analyses:
                analyses[partition] = analysis_of(partition)
            so_far.activity.add(events)
            analysed = analyses[partition].step(events)
            so_far.scores += len(analysed.windows)
            so_far.alerts += len(analysed.alerts)
            so_far.suppressed.update(analysed.suppressed)
            write(analysed.windows, analysed.alerts)
        watch(chunk.done, so_far)
    so_far.partitions = set(analyses)
    _check_rejects(so_far, rejects_max)
    if not so_far.activity.events:
        raise ConfigError("--events: there is no event in it")
    return so_far


def _check_rejects(so_far: Replayed, rejects_max: float) -> None:
    if so_far.rejected > rejects_max * so_far.records:
        raise ConfigError(
            f"--events: {so_far.rejected:,} of the first {counted(so_far.records, 'record')} are no events, more than "
            f"--max-rejects {rejects_max:g} allows; the first: {so_far.first_reject}"
        )
