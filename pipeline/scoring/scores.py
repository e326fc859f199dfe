"""What the models say of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.scoring.combination import PARTS
from pipeline.scoring.scaling import Floats

TOP: int = 5
"""Contributions kept of each row."""


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Scores of n rows, in the order of the rows.

    Attributes:
        risk: float32[n]: probability of harvesting at the prior that the models state; NaN for unknown.
        parts: float32[n] for each name in PARTS: the mean z-score towards harvesting, the anomaly score and two
            probabilities; NaN for unknown.
        top: int16[n, TOP]: the features that contributed most, the largest first; -1 for none.
        contribution: float32[n, TOP]: what each of them adds to the log-odds of the risk.
        versions: of what made the scores.
        precedents: float32[n]: what verdicts on accounts like these add to the log-odds of the risk; 0 for unknown.
        ranks: float64[n, F]: the rows' values as ranks in the running population, for whoever learns them; None if
            nobody made them.
    """

    risk: npt.NDArray[np.float32]
    parts: Mapping[str, npt.NDArray[np.float32]]
    top: npt.NDArray[np.int16]
    contribution: npt.NDArray[np.float32]
    versions: Mapping[str, str]
    precedents: npt.NDArray[np.float32]
    ranks: Floats | None = None

    def __len__(self) -> int:
        return len(self.risk)

    @staticmethod
    def unknown(count: int, versions: Mapping[str, str]) -> Scores:
        """Nothing known of `count` rows."""
        nothing = np.full(count, np.nan, dtype=np.float32)
        top = np.full((count, TOP), -1, dtype=np.int16)
        parts = {part: nothing.copy() for part in PARTS}
        unmoved = np.zeros(count, dtype=np.float32)
        return Scores(nothing, parts, top, np.zeros((count, TOP), dtype=np.float32), versions, unmoved)

    @staticmethod
    def concat(parts: Sequence[Scores]) -> Scores:
        """The scores of all of `parts`, at least one, one after the other."""
        return Scores(
            np.concatenate([part.risk for part in parts]),
            {name: np.concatenate([part.parts[name] for part in parts]) for name in PARTS},
            np.concatenate([part.top for part in parts]),
            np.concatenate([part.contribution for part in parts]),
            parts[0].versions,
            np.concatenate([part.precedents for part in parts]),
        )
