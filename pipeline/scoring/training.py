"""Models from labelled rows of features.

The parts learn from a bounded, balanced choice of rows.  Their combination, and with it the calibration of the risk, is
learned from what parts say of families that they did not learn: what they say of their own rows would flatter them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError
from pipeline.features.feature import Feature
from pipeline.scoring.boosted_trees import Boosting
from pipeline.scoring.combination import PARTS, Combination, calibrated, fit_combination
from pipeline.scoring.corroboration import Corroboration, corroboration_of
from pipeline.scoring.evidence import CHANNELS, Evidence, channels_of
from pipeline.scoring.growing import Curriculum, grow_trees
from pipeline.scoring.half_space_trees import HalfSpaceTrees
from pipeline.scoring.kinds import COLD, EXCHANGES_MIN, GROWN_EXCHANGES
from pipeline.scoring.labelled import LabelledRows, split_of, spread_rows
from pipeline.scoring.logistic_regression import LinearWeights, LogisticRegression
from pipeline.scoring.models import Models
from pipeline.scoring.mondrian_forest import ForestSettings, ForestStart, LabelledValues, MondrianForest
from pipeline.scoring.scaling import Floats, Scaling, Values
from pipeline.scoring.staged_trees import BOOSTED_SHARE, StagedTrees
from pipeline.scoring.views import unused_columns, views_of
from pipeline.scoring.zscores import Population, zscore_contributions

POPULATION_ROWS: Final = 1024
"""Rows of honest accounts that the running population starts with and keeps in number."""

HONEST_SHARES: Final = (0.001, 0.005, 0.01)
"""Shares of honest accounts for which the risk that they exceed is told, as thresholds to choose from."""

FAMILIES_MIN: Final = 2
"""Without a second family there would be none to be held out."""


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """What training may be asked to do otherwise; the defaults are what measured best on unseen families.

    Attributes:
        rows_per_account: starting rows of an account at most.
        rows_max: starting rows in all.
        passes: how often logistic regression goes over the rows.
        stretch: how much more a feature that tells the classes apart is split on than one that does not.
        prior: share of harvesters among accounts for which the risk is calibrated.
        folds: groups of families that are held out in turn to learn the combination.
        parts: those that are combined; the others weigh nothing.
        unused: columns that models do not look at: they serve rules and people.
        withheld: groups of columns; as many shares of the starting rows are learned without one of them, so that the
            models know what to make of a log that lacks them.
        withheld_share: the share of the forest's rows for each group.
        withheld_weight: of a copy of all rows without a group, beside the rows themselves, for the trees.
        boosted_share: how much boosted trees count beside randomised ones.
        boosting: how they are grown; they take the seed of these settings.
        corroboration: what adds to the trees, which do not look at it.
        forest: parameters of the forest.
        seed: of choices and orders.
    """

    rows_per_account: int = 4
    rows_max: int = 6000
    passes: int = 5
    stretch: float = 20.0
    prior: float = 0.02
    folds: int = 4
    parts: tuple[str, ...] = ("extra_trees",)
    unused: tuple[int, ...] = ()
    withheld: tuple[tuple[int, ...], ...] = ()
    withheld_share: float = 0.1
    withheld_weight: float = 0.3
    boosted_share: float = BOOSTED_SHARE
    boosting: Boosting = field(default_factory=Boosting)
    corroboration: Corroboration | None = None
    forest: ForestSettings = field(default_factory=ForestSettings)
    seed: int = 1


def settings_for(features: Sequence[Feature], base: TrainingSettings) -> TrainingSettings:
    """The settings with the columns that models do not look at, those that a log may lack, and what adds to trees."""
    lacking = (np.flatnonzero(~view) for view in views_of(features).values() if not view.all())
    withheld = tuple(tuple(columns.tolist()) for columns in lacking)
    return replace(base, unused=unused_columns(features), withheld=withheld, corroboration=corroboration_of(features))


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """The parts before they are combined.

    Attributes:
        used: bool[F]: the features that models look at.
        forest: the labelled model's start.
        trees: the trees that carry the risk, on the values themselves.
        linear: weights of the linear reference.
        directions: float64[F], see `Models`.
        population: float32[R, F]: rows of honest accounts.
    """

    used: npt.NDArray[np.bool_]
    forest: ForestStart
    trees: StagedTrees
    linear: LinearWeights
    directions: Floats
    population: Values

    def score(self, values: Values, stage: npt.NDArray[np.int64]) -> Floats:
        """Each channel's score (see `evidence.CHANNELS`), float64[n, C], of rows at their stages, int64[n]."""
        values = np.where(self.used, values, np.float32(np.nan))
        population = Population(self.population)
        trees = HalfSpaceTrees(self.population.shape[1])
        trees.learn(population.ranks(self.population))
        ranks = self.forest.scaling.ranks(values)
        return channels_of(
            zscore_contributions(population.zscores(values), self.directions).sum(axis=1),
            trees.score(population.ranks(values)),
            LogisticRegression(self.linear).log_odds(ranks),
            MondrianForest(self.forest).predict_proba(ranks),
            self.trees.predict_proba(self.forest.scaling.filled(values), stage),
        )


def train(rows: LabelledRows, names: tuple[str, ...], features_hash: str, settings: TrainingSettings) -> Models:
    """Models from labelled rows.

    Args:
        rows: of all sources; those of accounts with fewer than four exchanges are not used.
        names: of the features.
        features_hash: of their definitions.
        settings: see there.

    Raises:
        ConfigError: there are no honest accounts or fewer than two families to learn from, or none that have grown.
    """
    warm = rows.take(rows.exchanges >= EXCHANGES_MIN)
    families = len(np.unique(warm.family[warm.harvesting]))
    if families < FAMILIES_MIN or warm.harvesting.all():
        raise ConfigError(
            f"{families} families and {len(np.unique(warm.account[~warm.harvesting]))} honest accounts have "
            f"{EXCHANGES_MIN} exchanges or more: training needs {FAMILIES_MIN} families and some honest accounts"
        )
    grown = warm.take(warm.exchanges >= GROWN_EXCHANGES)
    if not len(grown) or grown.harvesting.all() or not grown.harvesting.any():
        raise ConfigError(
            f"training needs honest accounts and harvesters with {GROWN_EXCHANGES} exchanges or more: "
            "give it longer traffic"
        )
    parts = fit_parts(warm, settings)
    evidence, combination = fit_out_of_family(warm, settings)
    return Models(
        names=names,
        features_hash=features_hash,
        used=parts.used,
        forest=parts.forest,
        trees=parts.trees,
        linear=parts.linear,
        directions=parts.directions,
        population=parts.population,
        evidence=evidence,
        combination=combination,
        sources=_sources(warm),
    )


def fit_parts(rows: LabelledRows, settings: TrainingSettings) -> Parts:
    """The parts, from a bounded choice of the rows in a shuffled order."""
    used = np.ones(rows.values.shape[1], dtype=np.bool_)
    used[list(settings.unused)] = False
    rows = rows.with_values(np.where(used, rows.values, np.float32(np.nan)))
    teaching = rows.take(rows.teaches)
    chosen = without_some(starting_rows(teaching, settings), settings)
    weights = class_weights(chosen)
    scaling = Scaling.fit(chosen.values)
    ranks = scaling.ranks(chosen.values)
    difference = class_difference(ranks, chosen.harvesting, weights)
    stretch = 1.0 + (settings.stretch - 1.0) * np.abs(difference) / max(float(np.abs(difference).max()), 1e-9)
    labelled = LabelledValues(chosen.values, chosen.kind)
    linear = LogisticRegression(LinearWeights.none(ranks.shape[1]))
    for _ in range(settings.passes):
        linear.learn(ranks, chosen.harvesting, weights)
    forest = ForestStart.grow(settings.forest, scaling, stretch / settings.stretch, labelled)
    population = population_rows(rows, settings.seed)
    curriculum = Curriculum(
        scaling, settings.withheld, settings.withheld_weight, settings.seed, settings.boosted_share, settings.boosting,
        settings.corroboration,
    )  # fmt: skip
    trees = grow_trees(teaching, curriculum)
    return Parts(used, forest, trees, linear.learned, np.sign(difference) * used, population)


def starting_rows(rows: LabelledRows, settings: TrainingSettings) -> LabelledRows:
    """A bounded choice of rows, in the order in which they are learned."""
    chosen = spread_rows(rows, settings.rows_per_account)
    order = np.random.default_rng(settings.seed).permutation(len(chosen))
    return rows.take(chosen[order[: settings.rows_max]])


def without_some(rows: LabelledRows, settings: TrainingSettings) -> LabelledRows:
    """The same rows, a share of them without each of the groups of columns that may be withheld."""
    values = rows.values.copy()
    drawn = np.random.default_rng(settings.seed + 1).random(len(rows))
    for number, columns in enumerate(settings.withheld):
        lacking = np.flatnonzero((drawn // settings.withheld_share).astype(np.int64) == number)
        values[np.ix_(lacking, np.array(columns, dtype=np.int64))] = np.nan
    return rows.with_values(values)


def population_rows(rows: LabelledRows, seed: int) -> Values:
    """Rows of honest accounts, one an account in turn until there are enough; float32[POPULATION_ROWS, F]."""
    honest = rows.take(~rows.harvesting)
    order = np.random.default_rng(seed).permutation(len(honest))
    _, first = np.unique(honest.account[order], return_index=True)
    chosen = [*order[np.sort(first)], *np.delete(order, first)]
    return honest.values[np.resize(chosen, POPULATION_ROWS)]


def class_weights(rows: LabelledRows) -> Floats:
    """Weights of mean 1 with which both classes count the same, and all rows of a class alike; float64[n]."""
    share = float(rows.harvesting.mean())
    return np.where(rows.harvesting, 0.5 / max(share, 1e-9), 0.5 / max(1.0 - share, 1e-9))


def class_difference(ranks: Floats, harvesting: npt.NDArray[np.bool_], weights: Floats) -> Floats:
    """How much higher harvesters rank in each feature, float64[F] in [-1, 1]: 2 AUC - 1 but for ties."""
    higher = np.average(ranks[harvesting], axis=0, weights=weights[harvesting])
    lower = np.average(ranks[~harvesting], axis=0, weights=weights[~harvesting])
    return (higher - lower) * 2.0


def fit_out_of_family(rows: LabelledRows, settings: TrainingSettings) -> tuple[Evidence, Combination]:
    """Evidence and combination, from the parts' scores of families and honest accounts that they did not learn."""
    families = np.unique(rows.family[rows.harvesting])
    folds = max(min(settings.folds, len(families)), 1)
    of_family = dict(zip(families.tolist(), np.arange(len(families)) % folds, strict=True))
    fold = split_of(rows.account, folds)
    fold[rows.harvesting] = [of_family[family] for family in rows.family[rows.harvesting].tolist()]
    scores = np.zeros((len(rows), len(CHANNELS)))
    for held_out in range(folds):
        tested = rows.take(fold == held_out)
        scores[fold == held_out] = fit_parts(rows.take(fold != held_out), settings).score(tested.values, tested.stage)
    return combine(scores, rows, settings)


def combine(scores: Floats, rows: LabelledRows, settings: TrainingSettings) -> tuple[Evidence, Combination]:
    """Evidence and combination from scores float64[n, C] of rows that were not learned."""
    _, account = np.unique(rows.account, return_inverse=True)
    honest = ~rows.harvesting
    _, number = np.unique(account[honest], return_inverse=True)
    evidence = Evidence.fit(scores[honest], rows.stage[honest], number, int(number.max()) + 1)
    parts, _ = evidence.parts(scores, rows.stage)
    parts[:, [part not in settings.parts for part in PARTS]] = 0.0
    teaches = rows.teaches & (rows.stage != COLD)
    weights = rows.take(teaches).per_stage_weights()
    combination = fit_combination(parts[teaches], rows.harvesting[teaches], weights, settings.prior)
    found = calibrated(combination, parts, rows.harvesting, account)
    highest = np.full(int(account.max()) + 1, 0.0)
    np.maximum.at(highest, account, found.risk(parts))
    of_honest = np.sort(highest[np.unique(account[honest])])
    exceeded = {share: float(of_honest[-1 - int(share * len(of_honest))]) for share in HONEST_SHARES}
    return evidence, replace(found, exceeded=exceeded)


def _sources(rows: LabelledRows) -> dict[str, dict[str, int]]:
    """For each source its accounts, harvesting accounts, families and rows."""
    out = {}
    for source in np.unique(rows.source).tolist():
        part = rows.take(rows.source == source)
        out[source] = {
            "rows": len(part),
            "accounts": len(np.unique(part.account)),
            "harvesting": len(np.unique(part.account[part.harvesting])),
            "families": len(np.unique(part.family[part.harvesting])),
        }
    return out
