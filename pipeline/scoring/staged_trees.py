"""The trees that carry the risk: some for young accounts, some for grown ones, and boosted ones beside these.

What others have in common with an account adds to whether it harvests at all (`corroboration`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.scoring.combination import log_odds_of, probability_of
from pipeline.scoring.corroboration import Corroboration
from pipeline.scoring.extra_trees import Experts, Ints, Seen
from pipeline.scoring.kinds import COLD, EARLY, GROWN, LOOKS
from pipeline.scoring.mondrian_trees import MondrianTrees
from pipeline.scoring.scaling import Floats

BOOSTED_SHARE: Final = 0.5
"""What boosted trees say of whether a grown account harvests at all counts so much, as measured on unseen families:
with more they find more hidden harvests, and fewer open ones and members of pools."""

_ANY: Final = LOOKS.index("any")
_ALIKE: Final = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class StagedTrees:
    """Each row is told by the trees of its stage.

    Attributes:
        young: for rows at the stages before `GROWN`; they learned all rows.
        grown: for rows at the stage `GROWN`; they learned such rows alone.
        boosted: the log-odds that a row at the stage `GROWN` is any harvest, in one column; they learned such rows.
        boosted_share: how much these count; the experts have the rest.
        corroboration: what adds to that a row is any harvest; None: nothing does.
    """

    young: Experts
    grown: Experts
    boosted: MondrianTrees
    boosted_share: float
    corroboration: Corroboration | None = None

    def of(self, stage: int) -> Experts:
        """The experts for rows of a stage."""
        return self.grown if stage == GROWN else self.young

    def seen(self, values: Floats, stage: Ints) -> Iterator[tuple[int, Ints, Seen]]:
        """Where experts' trees lead rows: for each group of stages that has any, one of them, the rows, and where.

        Args:
            values: float64[n, F], see `Scaling.filled`.
            stage: int64[n]; cold rows are in no group.
        """
        for one, rows in _groups(stage):
            yield one, rows, self.of(one).seen(values[rows])

    def proba_of(self, seen: Seen, stage: int) -> Floats:
        """Probability of each of `kinds.LOOKS`, float64[n, K], of rows of one group of stages.

        Of grown rows, whether they harvest at all is what experts and boosted trees say between them: it may be less
        than the probability of one kind, which experts alone tell.  Of all rows, what corroborates it adds to it.

        Args:
            seen: the rows, and where the experts' trees lead them.
            stage: that `seen` gave with it.
        """
        found = self.of(stage).proba_of(seen)
        if stage == GROWN and self.boosted_share:
            by_experts = log_odds_of(found[:, _ANY]) * (1.0 - self.boosted_share)
            found[:, _ANY] = probability_of(by_experts + self._by_boosted(seen.values) * self.boosted_share)
        added = self._added(seen.values)
        if len(rows := np.flatnonzero(added)):
            found[rows, _ANY] = probability_of(log_odds_of(found[rows, _ANY]) + added[rows])
        return found

    def _added(self, values: Floats) -> Floats:
        """What corroborates that rows are any harvest, in log-odds, float64[n]."""
        return np.zeros(len(values)) if self.corroboration is None else self.corroboration.added(values)

    def _by_boosted(self, values: Floats) -> Floats:
        """The log-odds that the boosted trees tell, float64[n]."""
        log_odds: Floats = self.boosted.predict_proba(values)[:, 0]
        return log_odds

    def predict_proba(self, values: Floats, stage: Ints) -> Floats:
        """Probability of each of `kinds.LOOKS`, float64[n, K]; NaN for cold rows."""
        out = np.full((len(stage), len(LOOKS)), np.nan)
        for one, rows, seen in self.seen(values, stage):
            out[rows] = self.proba_of(seen, one)
        return out

    def contributions(self, values: Floats, look: Ints, stage: Ints) -> Floats:
        """How much each feature moved each row towards a look, float64[n, F]; `look` int64[n], from 0.

        Probabilities, but log-odds where boosted trees are heard or something is added: only features of one row can be
        compared.
        """
        out = np.full(values.shape, np.nan)
        added = self._added(values)
        for one, rows in _groups(stage):
            out[rows] = self.of(one).contributions(values[rows], look[rows])
            share = self.boosted_share if one == GROWN else 0.0
            asked = rows[(look[rows] == _ANY) & ((share > 0) | (added[rows] > 0))]
            if len(asked):
                out[asked] = self._in_log_odds(values[asked], out[asked], one, share)
        if self.corroboration is not None:
            out[:, self.corroboration.column] += np.where(look == _ANY, added, 0.0)
        return out

    def _in_log_odds(self, values: Floats, moved: Floats, stage: int, share: float) -> Floats:
        """What a stage's experts moved, float64[n, F], in log-odds and with what boosted trees moved."""
        experts = self.of(stage)
        said = experts.proba_of(experts.seen(values))[:, _ANY]
        whole = moved.sum(axis=1)
        steps = log_odds_of(said) - log_odds_of(said - whole)
        slope = 1.0 / np.maximum(said * (1.0 - said), _ALIKE)  # where all that moved them cancels out
        steep: Floats = np.divide(steps, whole, out=slope, where=np.abs(whole) > _ALIKE)
        found = moved * (steep * (1.0 - share))[:, np.newaxis]
        if share:
            found += self.boosted.contributions(values, np.zeros(len(values), np.int64)) * share
        return found


def _groups(stage: Ints) -> Iterator[tuple[int, Ints]]:
    """For each group of stages that has rows, one of the stages and the rows; cold rows are in none."""
    for one, chosen in ((EARLY, (stage != COLD) & (stage != GROWN)), (GROWN, stage == GROWN)):
        rows = np.flatnonzero(chosen)
        if len(rows):
            yield one, rows
