"""A partition's analysis in the live job: events that wait for it, and what came of them and is not written yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa
import structlog

from pipeline.alerts import Alert
from pipeline.analysis import Analysis
from pipeline.decisions import Verdict
from pipeline.windows import WINDOWS_SCHEMA, joined

STEP_EVENTS: Final = 50_000
"""Events are taken in once this many wait: a step costs something whatever its size."""

STEP_BYTES: Final = 64 << 20
"""Or once they take this much memory: a step takes some more for a while, and events may be of megabytes."""

STEP_WAIT_S: Final = 0.5
"""Or once the first of them has waited this long."""


log = structlog.get_logger("watching")


@dataclass(frozen=True, slots=True)
class WatchLimits:
    """When alerts and snapshots are written; see `pipeline.config.Settings` for each."""

    alert_age_s: float = 1.0
    snapshot_events: int = 1_000_000
    snapshot_age_s: float = 300.0
    replay_events_max: int = 2_000_000


@dataclass(frozen=True, slots=True)
class Findings:
    """What goes into a commit beside the rows.

    Attributes:
        windows: `pipeline.windows.WINDOWS_SCHEMA`, in the order of their emission.
        alerts: in the order in which they were raised.
        snapshot: of the analysis where the commit ends; None where none is due.
        verdict_seq: place of the last verdict that the analysis took in there; None where it took in none.
    """

    windows: pa.Table = field(default_factory=WINDOWS_SCHEMA.empty_table)
    alerts: Sequence[Alert] = ()
    snapshot: bytes | None = None
    verdict_seq: int | None = None


class Watched:
    """One partition's analysis and its findings since the last commit."""

    def __init__(self, analysis: Analysis, limits: WatchLimits, now_s: float, *, ahead: int, based: bool) -> None:
        """Go on with an analysis.

        Args:
            analysis: that knows all events that are landed.
            limits: when to write.
            now_s: by `Clock.elapsed_s`.
            ahead: events that it knows and its newest snapshot does not.
            based: whether the next start could begin with a snapshot, or need not; else one is due at once.
        """
        self._analysis, self._limits = analysis, limits
        self._waiting: list[pa.Table] = []
        self._waiting_events, self._waiting_bytes, self._waiting_since_s = 0, 0, 0.0
        self._windows: list[pa.Table] = []
        self._alerts: list[Alert] = []
        self._alert_since_s = 0.0
        self._ahead, self._based, self._snapshot_s = ahead, based, now_s
        self._snapshot_offset = analysis.next_offset if based and not ahead else -1

    @property
    def accounts(self) -> int:
        """How many accounts the analysis remembers."""
        return self._analysis.accounts

    @property
    def verdict_seq(self) -> int:
        """Place of the last verdict that the analysis knows."""
        return self._analysis.verdict_seq

    def add(self, events: pa.Table, size: int, now_s: float) -> None:
        """Let events wait for the next step.

        Args:
            events: after all that came before.
            size: bytes of memory that they take.
            now_s: by `Clock.elapsed_s`.
        """
        if len(events):
            if not self._waiting:
                self._waiting_since_s = now_s
            self._waiting.append(events)
            self._waiting_events += len(events)
            self._waiting_bytes += size

    def step_if_due(self, now_s: float) -> int:
        """Take in what waits, if it is enough or has waited for long enough; says how many bytes came of it."""
        is_old = self._waiting_events > 0 and now_s - self._waiting_since_s >= STEP_WAIT_S
        is_much = self._waiting_events >= STEP_EVENTS or self._waiting_bytes >= STEP_BYTES
        return self._step(now_s) if is_old or is_much else 0

    def has_old_alerts(self, now_s: float) -> bool:
        """Whether an alert has waited for as long as one may."""
        return bool(self._alerts) and now_s - self._alert_since_s >= self._limits.alert_age_s

    def cut(self, next_offset: int, now_s: float, verdicts: Sequence[Verdict], *, last: bool) -> Findings:
        """Take in what waits, then new verdicts, and hand out all findings since the last cut.

        Args:
            next_offset: where the commit ends.
            now_s: by `Clock.elapsed_s`.
            verdicts: that came since those that the analysis knows, in their order.
            last: the job ends, so that a snapshot spares its successor the replay.
        """
        self._step(now_s)
        self._analysis.pass_to(next_offset)
        self._analysis.judge(verdicts)
        verdict_seq = verdicts[-1].seq if verdicts else None
        if verdicts:
            log.info(
                "verdicts taken in", partition=str(self._analysis.partition), count=len(verdicts), up_to=verdict_seq
            )
        findings = Findings(joined(self._windows), tuple(self._alerts), self._snapshot(now_s, last=last), verdict_seq)
        self._windows, self._alerts = [], []
        return findings

    def _step(self, now_s: float) -> int:
        if not self._waiting:
            return 0
        analysed = self._analysis.step(pa.concat_tables(self._waiting))
        self._ahead += self._waiting_events
        self._waiting, self._waiting_events, self._waiting_bytes = [], 0, 0
        self._windows.append(analysed.windows)
        if analysed.alerts and not self._alerts:
            self._alert_since_s = now_s
        self._alerts += analysed.alerts
        for drift in analysed.drifts:
            log.warning(
                "scores have drifted; nothing was reset", partition=str(self._analysis.partition), signal=drift.signal,
                times=drift.count, rows=drift.rows, before=round(drift.before, 4), after=round(drift.after, 4),
            )  # fmt: skip
        if analysed.forgotten:
            log.warning(
                "more accounts than accounts_max: those silent longest are forgotten, and begin anew if they come back",
                partition=str(self._analysis.partition), forgotten=analysed.forgotten, kept=self._analysis.accounts,
            )  # fmt: skip
        return int(analysed.windows.nbytes)

    def _snapshot(self, now_s: float, *, last: bool) -> bytes | None:
        limits, is_new = self._limits, self._analysis.next_offset != self._snapshot_offset
        is_old = now_s - self._snapshot_s >= limits.snapshot_age_s
        due = last or is_old or not self._based or self._ahead >= limits.snapshot_events
        if not (due and is_new):
            return None
        self._ahead, self._based, self._snapshot_s = 0, True, now_s
        self._snapshot_offset = self._analysis.next_offset
        return self._analysis.snapshot()
