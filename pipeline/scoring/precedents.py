"""What verdicts say of accounts that look like those they judged: how they move the risk.

Two rows are alike as far as extremely randomised trees lead them to the same leaves, the similarity of Breiman
(Random forests, Machine Learning 45, 2001, section on proximities).  The verdicts near a row are counted by their
similarity, H of harvesters and B of honest accounts, and the log-odds of the row's risk move by
ln((a + H) / (a + B)): the posterior odds of a beta-binomial model with a prior of `a` on either side.

Counts are whole numbers for each leaf, so the order of the verdicts does not matter, and taking one back is exact.
Where the verdicts lean towards harvesting even for the median honest account, as they do when only right alerts are
judged, that much is taken off everywhere: verdicts raise those nearer to harvesters than most, and not everybody.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.scoring.extra_trees import Experts, Seen
from pipeline.scoring.kinds import COLD, EARLY, GROWN
from pipeline.scoring.scaling import Floats
from pipeline.scoring.staged_trees import StagedTrees

PRIOR: Final = 0.3
"""Verdicts' worth of doubt on either side, as measured on families that the trees had not seen: 15 + 15 verdicts raise
recall most with it, and no family loses more than a hundredth by a mix of 5 to 60 verdicts (docs/detection.md)."""

PRECEDENTS_MAX: Final = 4096
"""Accounts with a verdict that count; of more, those judged longest ago no longer do."""

_HONEST, _HARVESTING = 0, 1

_GROUPS: Final = (EARLY, GROWN)
"""Stages that have trees of their own; those before GROWN share them."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Precedent:
    """A judged account as it was.

    Attributes:
        harvesting: what the verdict says.
        stage: of the row.
        values: float32[F]: the row, NaN where unknown.
    """

    harvesting: bool
    stage: int
    values: npt.NDArray[np.float32]


class Precedents:
    """The verdicts that count, one an account."""

    def __init__(self, trees: StagedTrees, honest: Floats) -> None:
        """Begin without any.

        Args:
            trees: by which rows are alike.
            honest: float64[R, F], rows of honest accounts without NaN.
        """
        self._trees, self._honest = trees, honest
        self.by_account: OrderedDict[int, Precedent] = OrderedDict()
        self._leaves: dict[int, tuple[Ints, ...]] = {}
        self._counts = {stage: _no_counts(trees.of(stage)) for stage in _GROUPS}
        self._base = dict.fromkeys(_GROUPS, 0.0)
        self._honest_seen: dict[int, Seen] = {}

    def __len__(self) -> int:
        return len(self.by_account)

    def judge(self, account: int, precedent: Precedent | None, filled: Floats | None) -> None:
        """Let an account's verdict count in place of the one before it; call `settle` after the last.

        Args:
            account: XXH3-64 of its id.
            precedent: None: nothing holds of it any more.
            filled: float64[F], the precedent's values without NaN; None without a precedent.
        """
        self._strike(account)
        if precedent is None or filled is None or precedent.stage == COLD:
            return
        seen = self._trees.of(precedent.stage).seen(filled[np.newaxis])
        self.by_account[account] = precedent
        self._leaves[account] = tuple(leaves[:, 0] for leaves in seen.leaves)
        self._count(account, 1)
        while len(self.by_account) > PRECEDENTS_MAX:
            self._strike(next(iter(self.by_account)))

    def settle(self) -> None:
        """Take the verdicts' lean from what they say."""
        for stage in _GROUPS:
            if stage not in self._honest_seen:
                self._honest_seen[stage] = self._trees.of(stage).seen(self._honest)
            leans = self._log_ratio(stage, self._honest_seen[stage])
            self._base[stage] = max(0.0, float(np.median(leans)))

    def moved(self, seen: Seen, stage: int) -> Floats:
        """By how much the log-odds of rows move, float64[n], of what the trees of their stage have seen of them."""
        group = _group_of(stage)
        return self._log_ratio(group, seen) - self._base[group]

    def _log_ratio(self, group: int, seen: Seen) -> Floats:
        alike = np.zeros((2, len(seen.likeness)))
        for number, leaves in enumerate(seen.leaves):
            counts = self._counts[group][number]
            near = np.stack([counts[side].take(leaves, mode="clip").sum(axis=0) for side in (_HONEST, _HARVESTING)])
            alike += near / len(leaves) * seen.likeness[:, number]
        ratio: Floats = np.log((PRIOR + alike[_HARVESTING]) / (PRIOR + alike[_HONEST]))
        return ratio

    def _strike(self, account: int) -> None:
        if account in self.by_account:
            self._count(account, -1)
            del self.by_account[account], self._leaves[account]

    def _count(self, account: int, by: int) -> None:
        precedent = self.by_account[account]
        side = _HARVESTING if precedent.harvesting else _HONEST
        for counts, leaves in zip(self._counts[_group_of(precedent.stage)], self._leaves[account], strict=True):
            counts[side, leaves] += by  # the leaves of one row in different trees are different nodes


def _group_of(stage: int) -> int:
    return GROWN if stage == GROWN else EARLY


def _no_counts(experts: Experts) -> tuple[Ints, ...]:
    return tuple(np.zeros((2, len(expert.feature)), np.int64) for expert in experts.experts)
