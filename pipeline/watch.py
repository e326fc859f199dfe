"""What accounts are watched with, loaded once for all partitions: models, rules, and the accounts feed.

The live job and a backtest take it from here, so that both are configured alike.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.accounts import Accounts
from pipeline.alerting import Alerting
from pipeline.analysis import Watch
from pipeline.config import Settings
from pipeline.features import FAMILIES, FEATURES, NAMES
from pipeline.features.engine import AccountStates
from pipeline.rules.reading import read_rules
from pipeline.scoring.explain import Explainer
from pipeline.scoring.models import Models
from pipeline.scoring.scaling import Scaling
from pipeline.stages import EnsembleStage


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
    words, units = [feature.words for feature in FEATURES], [feature.unit for feature in FEATURES]
    explainer = Explainer(NAMES, words, Scaling.fit(models.population), units)
    return Watch(
        states=lambda _partition: AccountStates(FAMILIES, feed),
        ensemble=lambda _partition: EnsembleStage(models),
        alerting=lambda partition: Alerting(rules, FEATURES, partition, explainer),
        models=models.version,
        learned=models.learned,
    )
