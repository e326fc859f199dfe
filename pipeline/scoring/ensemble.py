"""The models of one partition: score, then learn, in blocks.

Rows are scored by the models as they stood after all whole blocks of 256 rows before them, and a block's rows are
learned together when it is complete.  Blocks count the rows since the partition's start, so that no score depends on
how rows arrive together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.drifts import Drift
from pipeline.features.rows import COUNT, FeatureRows
from pipeline.scoring.combination import PARTS, probability_of
from pipeline.scoring.drift import DriftDetector
from pipeline.scoring.evidence import channels_of
from pipeline.scoring.explain import no_contributions, top_contributions
from pipeline.scoring.half_space_trees import HalfSpaceTrees
from pipeline.scoring.kinds import COLD, LOOKS, likeliest_kind, stage_of
from pipeline.scoring.logistic_regression import LogisticRegression
from pipeline.scoring.models import Models
from pipeline.scoring.mondrian_forest import LabelledValues, MondrianForest
from pipeline.scoring.precedents import Precedent, Precedents
from pipeline.scoring.scaling import Floats, Values
from pipeline.scoring.scores import Scores
from pipeline.scoring.teachers import DailyTeachers
from pipeline.scoring.zscores import Population, zscore_contributions

BLOCK: Final = 256

EXPLAINED_FROM: Final = 0.01
"""Risk from which the forest's part is explained too; below it the linear parts do, which cost nothing more."""

_APART: Final = 1e-6

_ANY: Final = LOOKS.index("any")

_ZSCORE, _HALF_SPACE, _FOREST, _LINEAR, _TREES = map(
    PARTS.index, ("zscore", "half_space_trees", "mondrian_forest", "logistic_regression", "extra_trees")
)

_AHEAD_ROWS: Final = 4096
"""Rows that are looked at by the models that blocks do not teach, at once: many together cost less each."""


@dataclass(frozen=True, slots=True, eq=False)
class _Ahead:
    """What models that only verdicts teach say of n rows.

    Attributes:
        values: float32[n, F], of the features that models look at.
        filled: float64[n, F], with medians for unknown ones.
        ranks: float64[n, F].
        linear: float64[n], the logistic regression's log-odds.
        forest: float64[n, K], the Mondrian forest's probabilities.
        trees: float64[n, K], the trees'; NaN for cold rows.
        precedents: float64[n], by how much verdicts move the log-odds.
        stage: int64[n].
    """

    values: Values
    filled: Floats
    ranks: Floats
    linear: Floats
    forest: Floats
    trees: Floats
    precedents: Floats
    stage: npt.NDArray[np.int64]

    def part(self, rows: slice | npt.NDArray[np.int64]) -> _Ahead:
        """Of some of the rows."""
        return _Ahead(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True, slots=True, eq=False)
class _Told:
    """What the combination of all parts says of n rows.

    Attributes:
        risk: float64[n].
        top: int16[n, TOP], see `Scores`.
        contribution: float32[n, TOP].
    """

    risk: Floats
    top: npt.NDArray[np.int16]
    contribution: npt.NDArray[np.float32]

    def part(self, rows: slice | npt.NDArray[np.int64]) -> _Told:
        """Of some of the rows."""
        return _Told(self.risk[rows], self.top[rows], self.contribution[rows])


@dataclass(frozen=True, slots=True, eq=False)
class JudgedValues:
    """A verdict as the models take it.

    Attributes:
        seq: its place among all verdicts.
        account: XXH3-64 of the account's id.
        harvesting: None: nothing holds of the account any more, or nobody is sure.
        stage: of the row that it speaks of.
        values: float32[F], that row.
    """

    seq: int
    account: int
    harvesting: bool | None
    stage: int
    values: npt.NDArray[np.float32]


class Ensemble:
    """The models of one partition; `snapshots.py` knows all of its attributes.

    Attributes:
        precedents: what verdicts say of accounts that look like those they judged.
        verdict_seq: place of the last verdict that is known here.
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
        self.precedents = Precedents(models.trees, models.forest.scaling.filled(models.population))
        self.verdict_seq = 0
        self.teachers = DailyTeachers()
        self.risk_drift = DriftDetector("risk")
        self.verdict_drift = DriftDetector("verdicts")
        self.blocks = 0
        self.block_rows = 0
        self.pending: list[Values] = [np.empty((0, width), dtype=np.float32)]
        self._pending_ranks: list[Floats] = []
        self.pending_risks: list[npt.NDArray[np.float32]] = [np.empty(0, dtype=np.float32)]
        self.drifts: list[Drift] = []

    def scored(self, rows: FeatureRows) -> Iterator[tuple[FeatureRows, Scores]]:
        """The rows in pieces, each with its scores; whoever asks for the next piece has let `learn` have this one."""
        for first in range(0, len(rows), _AHEAD_ROWS):
            some = rows.slice(first, first + _AHEAD_ROWS)
            ahead = self._look_ahead(some)
            told = None if self._heeds_blocks else self._tell(ahead, None, np.zeros(len(some)))
            for start, stop in self._pieces(len(some)):
                piece, rows_of = some.slice(start, stop), slice(start, stop)
                yield piece, self._score(piece, ahead.part(rows_of), told and told.part(rows_of))

    @property
    def _heeds_blocks(self) -> bool:
        """Whether the risk listens to what blocks teach: if not, it can be told of many blocks at once."""
        weights = self.models.combination.weights
        return bool(weights[_ZSCORE] or weights[_HALF_SPACE])

    def _pieces(self, rows: int) -> list[tuple[int, int]]:
        """Where to cut the next `rows` rows, so that each piece ends at the latest where the block does."""
        ends = [*range(BLOCK - self.block_rows, rows, BLOCK), rows]
        return [(start, stop) for start, stop in zip([0, *ends[:-1]], ends, strict=True) if stop > start]

    def _look_ahead(self, rows: FeatureRows) -> _Ahead:
        values = self._used(rows.values)
        stage = stage_of(rows.exchanges, rows.kind == COUNT)
        filled, ranks = self.models.forest.scaling.filled(values), self.models.forest.scaling.ranks(values)
        trees, precedents = self._look_at_trees(filled, stage)
        return _Ahead(
            values=values,
            filled=filled,
            ranks=ranks,
            linear=self.logistic_regression.log_odds(ranks),
            forest=self.mondrian_forest.predict_proba(ranks),
            trees=trees,
            precedents=precedents,
            stage=stage,
        )

    def _look_at_trees(self, filled: Floats, stage: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
        """What the trees say of rows, and what verdicts on rows in the same leaves do."""
        trees, moved = np.full((len(stage), len(LOOKS)), np.nan), np.zeros(len(stage))
        for group, rows, seen in self.models.trees.seen(filled, stage):
            trees[rows] = self.models.trees.proba_of(seen, group)
            if len(self.precedents):
                moved[rows] = self.precedents.moved(seen, group)
        return trees, moved

    def _score(self, rows: FeatureRows, ahead: _Ahead, told: _Told | None) -> Scores:
        known = np.flatnonzero(ahead.stage != COLD)
        scores = Scores.unknown(len(rows), self._versions)
        if not len(known):
            return scores
        ranks = self.population.ranks(ahead.values)
        if len(known) < len(rows):
            ahead, told = ahead.part(known), told and told.part(known)
        self._score_known(ahead, told, ranks[known], known, scores)
        return replace(scores, ranks=ranks)

    @property
    def _versions(self) -> dict[str, str]:
        verdicts = {"verdicts": str(self.verdict_seq)} if self.verdict_seq else {}
        return {**self.models.versions, **verdicts}

    def _used(self, values: Values) -> Values:
        """The values with NaN for features that the models do not look at."""
        return np.where(self.models.used, values, np.float32(np.nan))

    def _score_known(
        self, ahead: _Ahead, told: _Told | None, ranks: Floats, at: npt.NDArray[np.int64], scores: Scores
    ) -> None:
        towards = zscore_contributions(self.population.zscores(ahead.values), self.models.directions)
        half_space = self.half_space_trees.score(ranks)
        if told is None:
            told = self._tell(ahead, towards, half_space)
        scores.precedents[at], scores.risk[at] = ahead.precedents, told.risk
        scores.top[at], scores.contribution[at] = told.top, told.contribution
        said = {
            "zscore": towards.sum(axis=1),
            "half_space_trees": half_space,
            "mondrian_forest": ahead.forest[:, _ANY],
            "logistic_regression": probability_of(ahead.linear),
            "extra_trees": ahead.trees[:, _ANY],
        }
        for part in PARTS:
            scores.parts[part][at] = said[part]

    def _tell(self, ahead: _Ahead, towards: Floats | None, half_space: Floats) -> _Told:
        """Combine what all parts say.

        Args:
            ahead: n rows.
            towards: float64[n, F], what each feature adds to the mean z-score; None if the risk does not listen to it.
            half_space: float64[n], scores of the half-space trees.
        """
        weights = self.models.combination.weights
        zscore = np.zeros(len(half_space)) if towards is None else towards.sum(axis=1)
        channels = channels_of(zscore, half_space, ahead.linear, ahead.forest, ahead.trees)
        parts, look = self.models.evidence.parts(channels, ahead.stage)
        risk = probability_of(self.models.combination.log_odds(parts) + ahead.precedents)
        told = _Told(risk, *no_contributions(len(risk)))
        risky = risk >= EXPLAINED_FROM
        rows = np.flatnonzero(risky | bool(weights[_ZSCORE] or weights[_LINEAR]))
        if len(rows):
            worth = np.maximum(parts[rows], 0.0) * weights
            added = np.zeros((len(rows), ahead.values.shape[1]))
            if towards is not None and weights[_ZSCORE]:
                added += _shared_out(towards[rows], worth[:, _ZSCORE])
            if weights[_LINEAR]:
                linear = self.logistic_regression.contributions(ahead.ranks[rows])
                added += _shared_out(linear, worth[:, _LINEAR])
            self._explain(added, ahead.part(rows), look[rows], np.where(risky[rows, np.newaxis], worth, 0.0))
            told.top[rows], told.contribution[rows] = top_contributions(added)
        return told

    def _explain(self, added: Floats, ahead: _Ahead, look: npt.NDArray[np.int64], worth: Floats) -> None:
        """Share out what forest and trees are worth.

        Args:
            added: float64[n, F], changed in place.
            ahead: n rows.
            look: int64[n, 2], that the forest and the trees find likeliest.
            worth: float64[n, P], evidence times weight.
        """
        if len(rows := np.flatnonzero(worth[:, _FOREST])):
            moved = self.mondrian_forest.contributions(ahead.ranks[rows], look[rows, 0])
            added[rows] += _shared_out(moved, worth[rows, _FOREST])
        if len(rows := np.flatnonzero(worth[:, _TREES])):
            moved = self.models.trees.contributions(ahead.filled[rows], look[rows, 1], ahead.stage[rows])
            added[rows] += _shared_out(moved, worth[rows, _TREES])

    def learn(self, rows: FeatureRows, scores: Scores, may_learn: npt.NDArray[np.bool_]) -> None:
        """Count a scored piece into its block; a complete block is learned.

        Args:
            rows: the piece.
            scores: what `score` said of it.
            may_learn: bool[n]: False for accounts that are suspect and must not teach what is normal.
        """
        teaches = np.flatnonzero(may_learn & ~np.isnan(scores.risk))
        admitted = teaches[self.teachers.admit(rows.key[teaches], rows.scored_at[teaches])]
        self.pending.append(self._used(rows.values[admitted]))
        if scores.ranks is not None:
            self._pending_ranks.append(scores.ranks[admitted])
        self.pending_risks.append(scores.risk[~np.isnan(scores.risk)])
        self.block_rows += len(rows)
        if self.block_rows == BLOCK:
            self._learn_block()

    def _learn_block(self) -> None:
        values, risks = np.concatenate(self.pending), np.concatenate(self.pending_risks)
        ranks = np.concatenate(self._pending_ranks) if self._pending_ranks else np.empty((0, values.shape[1]))
        if len(ranks) < len(values):  # the block began before a snapshot, which holds values alone
            ranks = self.population.ranks(values)
        self.blocks += 1
        self.block_rows = 0
        self.pending, self.pending_risks, self._pending_ranks = [values[:0]], [risks[:0]], []
        windows = self.half_space_trees.learn(ranks) if len(values) else 0
        self.population.learn(values)
        if windows:
            self.population.refresh()
        if len(risks):
            self._notice(self.risk_drift, float(risks.mean(dtype=np.float64)))

    def judge(self, judged: Sequence[JudgedValues]) -> None:
        """Take verdicts in, in their order; rows that are scored from now on are held against them.

        The models that learn from labels do so once from each verdict, if the risk listens to them at all.
        """
        told: list[JudgedValues] = []
        for one in judged:
            precedent = None
            if one.harvesting is not None:
                precedent = Precedent(one.harvesting, one.stage, self._used(one.values[np.newaxis])[0])
                told.append(one)
            self._let_count(one.account, precedent)
            self.verdict_seq = one.seq
        if judged:
            self.precedents.settle()
        if told:
            harvesting = np.array([bool(one.harvesting) for one in told])
            self._learn_labels(self._used(np.stack([one.values for one in told])), harvesting)

    def recall(self, precedents: Mapping[int, Precedent]) -> None:
        """Know precedents of accounts, in their order, without learning from them again."""
        for account, precedent in precedents.items():
            self._let_count(account, precedent)
        self.precedents.settle()

    def _let_count(self, account: int, precedent: Precedent | None) -> None:
        filled = None
        if precedent is not None:
            filled = self.models.forest.scaling.filled(precedent.values[np.newaxis])[0]
        self.precedents.judge(account, precedent, filled)

    def _learn_labels(self, values: Values, harvesting: npt.NDArray[np.bool_]) -> None:
        """Teach the parts that the risk listens to; harvesting is of the kind that the forest finds likeliest."""
        ranks, weights = self.models.forest.scaling.ranks(values), self.models.combination.weights
        if weights[_FOREST]:
            likeliest = likeliest_kind(self.mondrian_forest.predict_proba(ranks))
            self.mondrian_forest.learn(LabelledValues(values, np.where(harvesting, likeliest, np.int8(0))))
        if weights[_LINEAR]:
            self.logistic_regression.learn(ranks, harvesting)
        for is_harvesting in harvesting.tolist():
            self._notice(self.verdict_drift, float(is_harvesting))

    def _notice(self, detector: DriftDetector, value: float) -> None:
        noticed = detector.update(value, self.blocks * BLOCK)
        if noticed is not None:
            self.drifts.append(noticed)

    def take_drifts(self) -> tuple[Drift, ...]:
        """Changes noticed since the last call, oldest first."""
        drifts, self.drifts = tuple(self.drifts), []
        return drifts


def _shared_out(moved: Floats, evidence: Floats) -> Floats:
    """A part's evidence shared out among features by what each moved the part towards harvesting, float64[n, F].

    What moved it away gets its share with the other sign: the shares of a row add up to its evidence where the part
    leans towards harvesting at all.
    """
    towards = np.maximum(moved, 0.0).sum(axis=1)
    factor: Floats = np.divide(evidence, towards, out=np.zeros(len(moved)), where=towards > _APART)
    return moved * factor[:, np.newaxis]
