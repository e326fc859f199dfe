"""What accounts are watched with, loaded once for all partitions: models, rules, and the accounts feed.

The live job and a backtest take it from here, so that both are configured alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pipeline.accounts import Accounts
from pipeline.alerting import Alerting
from pipeline.analysis import Watch
from pipeline.config import Settings
from pipeline.features import FAMILIES, FEATURES, NAMES
from pipeline.features.engine import ACCOUNTS_MAX, AccountStates
from pipeline.orgs import no_org
from pipeline.rules import Rule, read_rules
from pipeline.scoring.explain import Explainer
from pipeline.scoring.models import Models
from pipeline.scoring.scaling import Scaling
from pipeline.stages import EnsembleStage

_SHIPPED: Final = "shipped"
"""Stands for the rules that ship, among names of files."""


def load_watch(settings: Settings) -> Watch:
    """Load what the settings name.

    Args:
        settings: `rules`, `models` and `accounts` of them.

    Raises:
        ConfigError: a file is missing or wrong, a rule speaks of what there is not, or the models do not fit.
    """
    rules = load_rules(settings)
    feed = Accounts.load(Path(settings.accounts).expanduser()) if settings.accounts else None
    return watch_with(rules, load_models(settings), feed, settings.accounts_max)


def load_rules(settings: Settings) -> tuple[Rule, ...]:
    """Load the rules that the settings name.

    Raises:
        ConfigError: a file is missing or wrong, or a rule speaks of what there is not.
    """
    return read_rules(rule_files_of(settings), NAMES)


def rule_files_of(settings: Settings) -> list[Path | None]:
    """The rule files that the settings name, in order; None among them: the one that ships."""
    names = [name.strip() for name in settings.rules.split(",") if name.strip()] or [_SHIPPED]
    return [None if name == _SHIPPED else Path(name).expanduser() for name in names]


def load_models(settings: Settings) -> Models:
    """Load the models that the settings name.

    Raises:
        ConfigError: they are missing, or do not fit.
    """
    return Models.load(Path(settings.models).expanduser() if settings.models else None)


def watch_with(rules: Sequence[Rule], models: Models, feed: Accounts | None, accounts_max: int = ACCOUNTS_MAX) -> Watch:
    """Wire what was loaded.

    Args:
        rules: that run together.
        models: that every partition starts from.
        feed: what the sign-up system knows of accounts.
        accounts_max: the most accounts of a partition whose state is kept.
    """
    _ = models.masses  # takes a tenth of a second: not when the first events of a partition wait
    words, units = [feature.words for feature in FEATURES], [feature.unit for feature in FEATURES]
    explainer = Explainer(NAMES, words, Scaling.fit(models.population), units)
    return Watch(
        states=lambda _partition: AccountStates(FAMILIES, feed, accounts_max=accounts_max),
        ensemble=lambda _partition: EnsembleStage(models),
        alerting=lambda partition: Alerting(rules, FEATURES, partition, explainer),
        models=models.version,
        learned=models.learned,
        org_of=feed.org_of if feed else no_org,
        rules=rules,
    )
