"""The ensemble as an `Analysis` takes it: what it remembers, in parts by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.drifts import Drift
from pipeline.features.rows import FeatureRows
from pipeline.scoring import snapshots
from pipeline.scoring.ensemble import Ensemble
from pipeline.scoring.models import Models
from pipeline.scoring.scores import Scores
from pipeline.snapshots import Part, Parts


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
