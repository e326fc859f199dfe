"""Growing the trees that ship: experts, one a source of traffic, a gate that knows the sources apart, boosted trees."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from pipeline.scoring.boosted_trees import Boosting, boost
from pipeline.scoring.corroboration import Corroboration
from pipeline.scoring.extra_trees import Experts, Growth, Lesson, grow
from pipeline.scoring.kinds import GROWN_EXCHANGES, KINDS, looks_of
from pipeline.scoring.labelled import LabelledRows
from pipeline.scoring.mondrian_trees import MondrianTrees
from pipeline.scoring.scaling import Floats, Scaling
from pipeline.scoring.staged_trees import BOOSTED_SHARE, StagedTrees

TREES: Final = 120
"""Of each expert."""

GATE_TREES: Final = 40

YOUNG_TRIED: Final = 0.2
"""Share of the features that a split of the trees for young accounts chooses among, as measured on unseen families."""

GROWN_TRIED: Final = 0.4
"""The same for grown ones."""

GATE_TRIED: Final = 0.2
"""The same for the gate."""


@dataclass(frozen=True, slots=True)
class Curriculum:
    """How rows are taught.

    Attributes:
        scaling: fills unknown values.
        withheld: groups of columns that a log may lack; trees also learn copies of the rows that lack them.
        withheld_weight: of such a copy beside the rows themselves.
        seed: of all trees.
        boosted_share: how much boosted trees count; 0 grows none.
        boosting: how they are grown.
        corroboration: what adds to the trees, which do not look at it.
    """

    scaling: Scaling
    withheld: tuple[tuple[int, ...], ...]
    withheld_weight: float
    seed: int
    boosted_share: float = BOOSTED_SHARE
    boosting: Boosting = field(default_factory=Boosting)
    corroboration: Corroboration | None = None

    def lesson(self, rows: LabelledRows, label: np.ndarray[tuple[int], np.dtype[np.int64]], labels: int) -> Lesson:
        """The rows and their copies; every account counts the same."""
        apart = [] if self.corroboration is None else [self.corroboration.column]
        copies = []
        for columns in ((), *self.withheld):
            without = rows.values.copy()
            without[:, [*columns, *apart]] = np.nan
            copies.append(without)
        filled = np.concatenate([self.scaling.filled(values) for values in copies])
        share = np.repeat([1.0, *(self.withheld_weight for _ in self.withheld)], len(rows))
        weights: Floats = np.tile(rows.account_weights(), len(copies)) * share
        return Lesson(filled, np.tile(label, len(copies)), labels, weights)


def grow_trees(rows: LabelledRows, curriculum: Curriculum) -> StagedTrees:
    """Trees of both stages, from the last rows of stretches of an account's life.

    Such a stretch ends when its exchanges double, and when its stage changes, as where it falls quiet and comes back.
    """
    rows = rows.take(rows.ends_doubling | rows.ends_stage)
    grown = rows.take(rows.exchanges >= GROWN_EXCHANGES)
    if not len(grown):  # where families are held out in turn, none of the others may have grown
        grown = rows
    return StagedTrees(
        young=_experts(rows, curriculum, YOUNG_TRIED),
        grown=_experts(grown, curriculum, GROWN_TRIED),
        boosted=_boosted(grown, curriculum),
        boosted_share=curriculum.boosted_share,
        corroboration=curriculum.corroboration,
    )


def _boosted(grown: LabelledRows, curriculum: Curriculum) -> MondrianTrees:
    if not curriculum.boosted_share:
        return MondrianTrees.lone_leaf(np.zeros(1))
    lesson = curriculum.lesson(grown, grown.harvesting.astype(np.int64), 2)
    return boost(lesson, curriculum.boosting, curriculum.seed)


def _experts(rows: LabelledRows, curriculum: Curriculum, tried: float) -> Experts:
    """An expert for each source that knows both classes; the rows of other sources teach all of them."""
    known = np.unique(rows.source).tolist()
    sources = [source for source in known if _has_both(rows.take(rows.source == source))]
    if not sources:
        return Experts((_expert(rows, curriculum, tried),), _gate(rows, known[:1], curriculum))
    others = ~np.isin(rows.source, sources)
    experts = tuple(_expert(rows.take((rows.source == source) | others), curriculum, tried) for source in sources)
    return Experts(experts, _gate(rows.take(~others), sources, curriculum))


def _has_both(rows: LabelledRows) -> bool:
    return bool(rows.harvesting.any()) and not rows.harvesting.all()


def _expert(rows: LabelledRows, curriculum: Curriculum, tried: float) -> MondrianTrees:
    lesson = curriculum.lesson(rows, rows.kind.astype(np.int64), len(KINDS) + 1)
    trees = grow(lesson, Growth(TREES, tried, curriculum.seed))
    return replace(trees, probability=looks_of(trees.probability[:, 1:]))


def _gate(rows: LabelledRows, sources: list[str], curriculum: Curriculum) -> MondrianTrees:
    """Trees that tell the sources apart; with one source there is nothing to tell, and one leaf says so."""
    if len(sources) == 1:
        return MondrianTrees.lone_leaf(np.ones(1))
    label = np.searchsorted(sources, rows.source)
    lesson = curriculum.lesson(rows, label, len(sources))
    return grow(replace(lesson, weights=lesson.even_weights), Growth(GATE_TREES, GATE_TRIED, curriculum.seed))
