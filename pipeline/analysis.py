"""What is known of one partition's accounts, and the order in which it is used: features → score → alert → learn.

The live job and a backtest both go through `Analysis` and nothing else, so that they say the same of the same events.
What it says depends on the events and their order, never on how they were cut: step by step, all at once, or restored
from a snapshot in between.

Pure: events in, rows and alerts out; nothing here touches the world.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.alerts import Alert
from pipeline.batch import Partition
from pipeline.decisions import Verdict
from pipeline.drifts import Drift
from pipeline.errors import SchemaError
from pipeline.features import FEATURES_HASH
from pipeline.features.rows import FeatureRows
from pipeline.orgs import OrgOf, no_org
from pipeline.rules import Rule
from pipeline.snapshots import Label, Part, Parts, pack, unpack
from pipeline.windows import Scores, windows_of

STAGES: Final = ("states", "ensemble", "alerting")
"""Names of the stages that remember something, as a snapshot has them."""


class Stage(Protocol):
    """Something that remembers."""

    def snapshot(self) -> Parts:
        """All that it remembers, as plain data that does not change with it."""

    def restore(self, parts: Parts, /) -> None:
        """Remember what `snapshot` said, and go on as if nothing had been in between; only done when it is new.

        Raises:
            SchemaError: a part is unknown, is missing, or does not fit.
        """


class States(Stage, Protocol):
    """Accounts and their features.

    Attributes:
        dropped_for_room: accounts that were dropped because more came than are kept.
    """

    dropped_for_room: int

    def __len__(self) -> int:
        """Accounts that are remembered."""

    def step(self, events: pa.Table, /) -> FeatureRows:
        """Take in events, and emit the rows that are due."""


class Ensemble(Stage, Protocol):
    """Models that score rows and learn from them."""

    def scored(self, rows: FeatureRows, /) -> Iterator[tuple[FeatureRows, Scores]]:
        """The rows in pieces, cut where the models learn, each with its scores; `learn` comes before the next one."""

    def learn(self, rows: FeatureRows, scores: Any, may_learn: npt.NDArray[np.bool_], /) -> None:
        """Learn from a piece with its own scores, but not from rows that may teach nothing."""

    def take_drifts(self) -> Sequence[Drift]:
        """Changes noticed since the last call, oldest first."""

    @property
    def verdict_seq(self) -> int:
        """Place of the last verdict that was taken in; 0 before the first."""

    def judge(self, verdicts: Sequence[Verdict], /) -> None:
        """Take verdicts in, in their order, after all that were taken in before."""


class Alerting(Stage, Protocol):
    """Rules, and what they have raised already."""

    def step(self, rows: FeatureRows, scores: Any, /) -> tuple[Sequence[Alert], npt.NDArray[np.bool_]]:
        """Alerts that a scored piece raises, and which of its rows may teach the models what is normal."""

    def take_suppressed(self) -> Mapping[str, int]:
        """Rows since the last call that met a rule while it was silent for their account, by the rule's name."""


@dataclass(frozen=True, slots=True)
class Watch:
    """What all partitions are watched with, loaded once.

    Attributes:
        states: makes a partition's account states.
        ensemble: makes a partition's models.
        alerting: makes a partition's rules.
        models: version of the models, which snapshots are checked against.
        rules: those that `alerting` is made of.
        learned: SHA-256 of the files that the models learned: what is said of those is remembered, not found.
        org_of: an account's organisation by the accounts feed.
    """

    states: Callable[[Partition], States]
    ensemble: Callable[[Partition], Ensemble]
    alerting: Callable[[Partition], Alerting]
    models: str
    learned: frozenset[str] = frozenset()
    rules: Sequence[Rule] = ()
    org_of: OrgOf = no_org


@dataclass(frozen=True, slots=True)
class Analysed:
    """What came of some events.

    Attributes:
        windows: `pipeline.windows.WINDOWS_SCHEMA`, in the order of their emission.
        alerts: in the order in which they were raised.
        drifts: changes of what is scored that the models noticed, oldest first; nothing is done about them.
        suppressed: rows that met a rule while it was silent for their account, by the rule's name.
        forgotten: accounts that were dropped because more came than are kept.
    """

    windows: pa.Table
    alerts: tuple[Alert, ...]
    drifts: tuple[Drift, ...] = ()
    suppressed: Mapping[str, int] = field(default_factory=dict)
    forgotten: int = 0


class Analysis:
    """One partition's accounts, models and rules."""

    def __init__(self, partition: Partition, watch: Watch) -> None:
        """Begin with nothing known.

        Args:
            partition: whose events come.
            watch: what they are watched with.
        """
        self.partition, self._watch = partition, watch
        self._states = watch.states(partition)
        self._ensemble = watch.ensemble(partition)
        self._alerting = watch.alerting(partition)
        self.next_offset = 0

    @property
    def accounts(self) -> int:
        """How many accounts are remembered."""
        return len(self._states)

    def step(self, events: pa.Table) -> Analysed:
        """Take in the next events.

        Args:
            events: `pipeline.events.DECODED_SCHEMA`, of this partition, in offset order, after all that came before.

        Raises:
            SchemaError: they are not after all that came before.
        """
        if len(events):
            self._pass(events["offset"][0].as_py(), events["offset"][-1].as_py() + 1)
        dropped_before = self._states.dropped_for_room
        rows = self._states.step(events)
        said: list[Scores] = []
        alerts: list[Alert] = []
        for piece, scores in self._ensemble.scored(rows):
            raised, may_learn = self._alerting.step(piece, scores)
            self._ensemble.learn(piece, scores, may_learn)
            said.append(scores)
            alerts += raised
        windows = windows_of(self.partition, rows, said)
        drifts, suppressed = tuple(self._ensemble.take_drifts()), self._alerting.take_suppressed()
        forgotten = self._states.dropped_for_room - dropped_before
        return Analysed(windows, tuple(alerts), drifts, suppressed, forgotten)

    @property
    def verdict_seq(self) -> int:
        """Place of the last verdict that is known here; 0 before the first."""
        return self._ensemble.verdict_seq

    def judge(self, verdicts: Sequence[Verdict]) -> None:
        """Take verdicts in; they count for the events after those that have come.

        Raises:
            SchemaError: one was taken in before.
        """
        if any(verdict.seq <= self.verdict_seq for verdict in verdicts):
            raise SchemaError(f"{self.partition}: verdicts up to {self.verdict_seq} were taken in already")
        if verdicts:
            self._ensemble.judge(verdicts)

    def pass_to(self, next_offset: int) -> None:
        """Note that there are no events below an offset but those that came: records without event were passed over."""
        self._pass(self.next_offset, next_offset)

    def _pass(self, first_offset: int, next_offset: int) -> None:
        if first_offset < self.next_offset:
            raise SchemaError(f"{self.partition}: events from {first_offset} came after {self.next_offset - 1}")
        self.next_offset = max(self.next_offset, next_offset)

    def snapshot(self) -> bytes:
        """All that is known, as one file's content: see `pipeline.snapshots`."""
        parts: dict[str, Part] = {}
        for name, stage in self._stages():
            parts |= {f"{name}.{part}": content for part, content in stage.snapshot().items()}
        return pack(self._label(self.next_offset), parts)

    @classmethod
    def restore(cls, partition: Partition, watch: Watch, blob: bytes, next_offset: int) -> Analysis:
        """Know what a snapshot knows, and go on as if nothing had been in between.

        Args:
            partition: whose events come.
            watch: what they are watched with.
            blob: what `snapshot` gave.
            next_offset: the next event's, or a smaller one.

        Raises:
            SchemaError: it is damaged, or of something else than these features and models; in one line.
        """
        analysis = cls(partition, watch)
        parts = unpack(blob, analysis._label(next_offset))
        unknown = [name for name in parts if not name.startswith(tuple(f"{stage}." for stage in STAGES))]
        if unknown:
            raise SchemaError(f"the snapshot holds parts that nobody knows: {', '.join(map(repr, unknown))}")
        for name, stage in analysis._stages():
            of_stage = f"{name}."
            stage.restore({key.removeprefix(of_stage): part for key, part in parts.items() if key.startswith(of_stage)})
        analysis.next_offset = next_offset
        return analysis

    def _stages(self) -> Sequence[tuple[str, Stage]]:
        return tuple(zip(STAGES, (self._states, self._ensemble, self._alerting), strict=True))

    def _label(self, next_offset: int) -> Label:
        return Label(self.partition, next_offset, FEATURES_HASH, self._watch.models)
