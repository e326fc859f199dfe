"""What accounts are watched with, loaded once for all partitions: models, rules, and the accounts feed.

The live job and a backtest take it from here, so that both are configured alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.accounts import Accounts
from pipeline.alerting import Alerting
from pipeline.analysis import Watch
from pipeline.config import Settings
from pipeline.features import FAMILIES, FEATURES, NAMES
from pipeline.features.engine import AccountStates
from pipeline.features.rows import FeatureRows
from pipeline.rules.reading import read_rules
from pipeline.scoring import snapshots
from pipeline.scoring.ensemble import Ensemble
from pipeline.scoring.explain import Explainer
from pipeline.scoring.models import Models
from pipeline.scoring.scaling import Scaling
from pipeline.scoring.scores import Scores


def load_watch(settings: Settings) -> Watch:
    """Load what the settings name.

    Args:
        settings: `rules`, `models` and `accounts` of them.

    Raises:
        ConfigError: a file is missing or wrong, a rule speaks of what there is not, or the models do not fit.
    """
    files = [Path(name.strip()).expanduser() for name in settings.rules.split(",") if name.strip()]
    rules = read_rules(files or None, NAMES)
    feed = Accounts.load(Path(settings.accounts).expanduser()) if settings.accounts else None
    models = Models.load(Path(settings.models).expanduser() if settings.models else None)
    explainer = Explainer(NAMES, [feature.words for feature in FEATURES], Scaling.fit(models.population))
    return Watch(
        states=lambda _partition: AccountStates(FAMILIES, feed),
        ensemble=lambda _partition: PartitionEnsemble(models),
        alerting=lambda partition: Alerting(rules, FEATURES, partition, explainer),
        models=models.version,
    )


class PartitionEnsemble:
    """An ensemble as a stage of the analysis: restoring takes another's place."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._ensemble = Ensemble(models)

    def pieces(self, rows: int) -> list[tuple[int, int]]:
        """Cut coming rows where the models learn."""
        return self._ensemble.pieces(rows)

    def score(self, rows: FeatureRows) -> Scores:
        """Score one piece; changes nothing."""
        return self._ensemble.score(rows)

    def learn(self, rows: FeatureRows, scores: Scores, may_learn: npt.NDArray[np.bool_]) -> None:
        """Learn from a piece with its own scores, but not from rows that may teach nothing."""
        self._ensemble.learn(rows, scores, may_learn)

    def snapshot(self) -> dict[str, pa.Table]:
        """All that the models remember, as plain tables."""
        return snapshots.snapshot(self._ensemble)

    def restore(self, parts: Mapping[str, Any]) -> None:
        """Go on where a snapshot was taken.

        Raises:
            SchemaError: it is not of these models.
        """
        self._ensemble = snapshots.restore(self._models, parts)
