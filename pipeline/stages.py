"""The ensemble as an `Analysis` takes it: what it remembers, in parts by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.decisions import Verdict
from pipeline.drifts import Drift
from pipeline.features.hashing import keys
from pipeline.features.rows import COUNT, FeatureRows
from pipeline.scoring import snapshots
from pipeline.scoring.ensemble import Ensemble, JudgedValues
from pipeline.scoring.kinds import COLD, stage_of
from pipeline.scoring.models import Models
from pipeline.scoring.scores import Scores
from pipeline.snapshots import Part, Parts
from pipeline.windows import KINDS


class EnsembleStage:
    """Models of one partition; see `pipeline.scoring.ensemble.Ensemble`."""

    def __init__(self, models: Models) -> None:
        self._models, self._ensemble = models, Ensemble(models)

    def scored(self, rows: FeatureRows) -> Iterator[tuple[FeatureRows, Scores]]:
        """The rows in pieces, cut where the models learn, each with its scores."""
        return self._ensemble.scored(rows)

    def learn(self, rows: FeatureRows, scores: Scores, may_learn: npt.NDArray[np.bool_]) -> None:
        """Learn from a scored piece."""
        self._ensemble.learn(rows, scores, may_learn)

    def take_drifts(self) -> Sequence[Drift]:
        """Changes noticed since the last call, oldest first."""
        return self._ensemble.take_drifts()

    @property
    def verdict_seq(self) -> int:
        """Place of the last verdict that was taken in."""
        return self._ensemble.verdict_seq

    def judge(self, verdicts: Sequence[Verdict]) -> None:
        """Take verdicts in, in their order: as the rows that they speak of, where there is one."""
        names = self._models.names
        self._ensemble.judge([_judged(verdict, names) for verdict in verdicts])

    def snapshot(self) -> Parts:
        """All that was learned since the models were trained."""
        parts: dict[str, Part] = dict(snapshots.snapshot(self._ensemble))
        return parts

    def restore(self, parts: Parts) -> None:
        """Go on where a snapshot was taken.

        Raises:
            SchemaError: the parts are not its parts, or of other models.
        """
        tables: dict[str, Any] = dict(parts)
        self._ensemble = snapshots.restore(self._models, tables)


_SAYS: Final = {"harvesting": True, "benign": False}
"""Decisions that are precedents; the others say that none holds."""


def _judged(verdict: Verdict, names: Sequence[str]) -> JudgedValues:
    row, key = verdict.row, int(keys([verdict.account_id])[0])
    if row is None:
        return JudgedValues(verdict.seq, key, None, COLD, np.full(len(names), np.nan, np.float32))
    numbers = [row.features.get(name) for name in names]
    values = np.array([np.nan if number is None else number for number in numbers], np.float32)
    stage = stage_of(np.array([row.exchanges]), np.array([row.kind == KINDS[COUNT]]))
    return JudgedValues(verdict.seq, key, _SAYS.get(verdict.decision), int(stage[0]), values)
