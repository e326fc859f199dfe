"""The models of one partition: score, then learn, in blocks.

Rows are scored by the models as they stood after all whole blocks of 256 rows before them, and a block's rows are
learned together when it is complete.  Blocks count the rows since the partition's start, so that no score depends on
how rows arrive together.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.errors import SchemaError
from pipeline.features.rows import FeatureRows
from pipeline.scoring.combination import PARTS, log_odds_of, probability_of
from pipeline.scoring.drift import Drift, DriftDetector
from pipeline.scoring.explain import top_contributions
from pipeline.scoring.half_space_trees import HalfSpaceTrees
from pipeline.scoring.logistic_regression import LogisticRegression
from pipeline.scoring.models import Models
from pipeline.scoring.mondrian_forest import LabelledValues, MondrianForest
from pipeline.scoring.scaling import Floats, Values
from pipeline.scoring.scores import EXCHANGES_MIN, Scores
from pipeline.scoring.teachers import DailyTeachers
from pipeline.scoring.zscores import Population, zscore_contributions

BLOCK: Final = 256

EXPLAINED_FROM: Final = 0.01
"""Risk from which the forest's part is explained too; below it the linear parts do, which cost nothing more."""

_APART: Final = 1e-6


class Ensemble:
    """The models of one partition; `snapshots.py` knows all of its attributes.

    Attributes:
        blocks: whole blocks learned since the partition's start.
        block_rows: rows of the unfinished block.
        pending: values of those among them that will teach, float32[n, F] each.
        pending_risks: known risks of the unfinished block, float32[n] each.
        drifts: changes noticed and not yet taken.
    """

    def __init__(self, models: Models) -> None:
        self.models = models
        width = len(models.names)
        self.population = Population(models.population)
        self.half_space_trees = HalfSpaceTrees(width, models.masses)
        self.mondrian_forest = MondrianForest(models.forest)
        self.logistic_regression = LogisticRegression(models.linear)
        self.teachers = DailyTeachers()
        self.risk_drift = DriftDetector("risk")
        self.verdict_drift = DriftDetector("verdicts")
        self.blocks = 0
        self.block_rows = 0
        self.pending: list[Values] = [np.empty((0, width), dtype=np.float32)]
        self.pending_risks: list[npt.NDArray[np.float32]] = [np.empty(0, dtype=np.float32)]
        self.drifts: list[Drift] = []

    def pieces(self, rows: int) -> list[tuple[int, int]]:
        """Where to cut the next `rows` rows, so that each piece ends at the latest where the block does."""
        ends = [*range(BLOCK - self.block_rows, rows, BLOCK), rows]
        return [(start, stop) for start, stop in zip([0, *ends[:-1]], ends, strict=True) if stop > start]

    def score(self, rows: FeatureRows) -> Scores:
        """Score a piece; changes nothing.

        Raises:
            SchemaError: the piece goes beyond the block; cut rows with `pieces`.
        """
        if len(rows) > BLOCK - self.block_rows:
            raise SchemaError(f"{len(rows)} rows in a piece, but the block has room for {BLOCK - self.block_rows}")
        known = np.flatnonzero(rows.exchanges >= EXCHANGES_MIN)
        scores = Scores.unknown(len(rows), self.models.versions)
        if len(known):
            self._score_known(rows.values[known], known, scores)
        return scores

    def _score_known(self, values: Values, at: npt.NDArray[np.int64], scores: Scores) -> None:
        combination = self.models.combination
        ranks = self.models.forest.scaling.ranks(values)
        parts, linear = self._parts(values, ranks)
        log_odds = combination.log_odds(parts)
        risk = probability_of(log_odds)
        scores.risk[at] = risk
        for column, part in enumerate(PARTS):
            scores.parts[part][at] = parts[:, column] if column < 2 else probability_of(parts[:, column])  # noqa: PLR2004
        risky = np.flatnonzero(risk >= EXPLAINED_FROM)
        if len(risky):
            linear[risky] += combination.weights[2] * self._forest_log_odds(ranks[risky], parts[risky, 2])
        scores.top[at], scores.contribution[at] = top_contributions(linear)

    def _parts(self, values: Values, ranks: Floats) -> tuple[Floats, Floats]:
        """The parts' scores float64[n, P] as they are combined, and what the linear ones add, float64[n, F]."""
        towards = zscore_contributions(self.population.zscores(values), self.models.directions)
        linear = self.logistic_regression.contributions(ranks)
        parts = np.column_stack(
            (
                towards.sum(axis=1),
                self.half_space_trees.score(self.population.ranks(values)),
                log_odds_of(self.mondrian_forest.predict_proba(ranks)),
                linear.sum(axis=1) + self.logistic_regression.learned.intercept,
            )
        )
        weights = self.models.combination.weights
        return parts, linear * weights[3] + towards * weights[0]

    def _forest_log_odds(self, ranks: Floats, log_odds: Floats) -> Floats:
        """What each feature moved the forest's log-odds by, float64[n, F].

        The forest's contributions are differences of probabilities; all of a row's are scaled by the one factor that
        makes them add up to its difference in log-odds.
        """
        moved = self.mondrian_forest.contributions(ranks)
        base = self.mondrian_forest.trees.base
        by_probability = probability_of(log_odds) - base
        by_log_odds = log_odds - float(log_odds_of(np.array(base)))
        flat = 1.0 / (base * (1.0 - base))
        apart = np.abs(by_probability) > _APART
        factor: Floats = np.divide(by_log_odds, by_probability, out=np.full(len(ranks), flat), where=apart)
        return moved * factor[:, np.newaxis]

    def learn(self, rows: FeatureRows, scores: Scores, may_learn: npt.NDArray[np.bool_]) -> None:
        """Count a scored piece into its block; a complete block is learned.

        Args:
            rows: the piece.
            scores: what `score` said of it.
            may_learn: bool[n]: False for accounts that are suspect and must not teach what is normal.
        """
        teaches = np.flatnonzero(may_learn & ~np.isnan(scores.risk))
        admitted = teaches[self.teachers.admit(rows.key[teaches], rows.scored_at[teaches])]
        self.pending.append(rows.values[admitted])
        self.pending_risks.append(scores.risk[~np.isnan(scores.risk)])
        self.block_rows += len(rows)
        if self.block_rows == BLOCK:
            self._learn_block()

    def _learn_block(self) -> None:
        values, risks = np.concatenate(self.pending), np.concatenate(self.pending_risks)
        self.blocks += 1
        self.block_rows = 0
        self.pending, self.pending_risks = [values[:0]], [risks[:0]]
        windows = self.half_space_trees.learn(self.population.ranks(values)) if len(values) else 0
        self.population.learn(values)
        if windows:
            self.population.refresh()
        if len(risks):
            self._notice(self.risk_drift, float(risks.mean(dtype=np.float64)))

    def learn_verdicts(self, rows: LabelledValues) -> None:
        """Learn what analysts decided: feature values as they were stored, in the order of the verdicts."""
        self.mondrian_forest.learn(rows)
        self.logistic_regression.learn(self.models.forest.scaling.ranks(rows.values), rows.harvesting)
        for harvesting in rows.harvesting.tolist():
            self._notice(self.verdict_drift, float(harvesting))

    def _notice(self, detector: DriftDetector, value: float) -> None:
        noticed = detector.update(value, self.blocks * BLOCK)
        if noticed is not None:
            self.drifts.append(noticed)

    def take_drifts(self) -> tuple[Drift, ...]:
        """Changes noticed since the last call, oldest first."""
        drifts, self.drifts = tuple(self.drifts), []
        return drifts
