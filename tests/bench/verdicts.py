"""What thirty verdicts do for the accounts that nobody judged: a table of docs/detection.md.

A family of harvesters is left out in turn, and a split of the honest accounts, as for the tables beside it: the models
have seen neither.  Fifteen of the harvesters that they find nevertheless, and fifteen of the honest accounts nearest to
an alert, are judged; the figures are those of all others, before and after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline.features import FEATURES
from pipeline.io.labelled_runs import rows_of_events
from pipeline.scoring.evaluation import roc_auc, threshold_exceeded_by
from pipeline.scoring.kinds import EXCHANGES_MIN
from pipeline.scoring.labelled import LabelledRows, split_of
from pipeline.scoring.leave_one_out import EVERYTHING, Held, combined
from pipeline.scoring.precedents import Precedent, Precedents
from pipeline.scoring.training import Parts, TrainingSettings, fit_parts, settings_for
from tests.bench.detection import DOCUMENT, simulated
from tests.bench.measure import say
from tests.bench.report import table, write_section

SPLITS, RUN_SPLITS, DRAWS = 5, 2, 5
NEAREST: Final = 30
"""Honest accounts of the highest risk, among which the false alerts are drawn."""

SHARE: Final = 0.01
MIXES: Final = ((15, 15), (5, 5), (15, 0), (0, 15))
"""Verdicts of harvesting and of honest use."""


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    held: Held
    parts: Parts
    honest: np.ndarray[Any, Any]


def measure(folder: Path, log: Path, accounts: Path | None, labels: Path) -> None:
    """Write the table `verdicts`; ten minutes.  Arguments as those of `tests.bench.detection.measure`."""
    rows, extra = rows_of_events(log, accounts, labels), simulated(folder)
    settings = settings_for(FEATURES, TrainingSettings())
    trials = [_trial(rows, extra, settings, *job) for job in _jobs(rows)]
    held = [trial.held for trial in trials]
    risks = combined(held, EVERYTHING, settings, settings.parts)
    lines = []
    for mix in MIXES:
        found = np.array([
            [_drawn(trial, risk, mix, seed) for seed in range(DRAWS)] for trial, risk in zip(trials, risks, strict=True)
        ])  # fmt: skip  # float[trials, draws, before and after, figures]
        before, after = found.mean(axis=(0, 1))
        worst = (found[:, :, 1] - found[:, :, 0]).mean(axis=1).min(axis=0)
        lines.append([
            f"{mix[0]} harvesting, {mix[1]} benign",
            *(f"{one:.3f} → {other:.3f}" for one, other in zip(before, after, strict=True)),
            f"{worst[0]:+.3f}", f"{worst[1]:+.3f}",
        ])  # fmt: skip
    head = (
        "verdicts", "AUC", "recall, 1 % of honest above", "recall, threshold as before", "honest above that",
        "worst family, AUC", "worst family, recall",
    )  # fmt: skip
    write_section("verdicts", table(head, lines), DOCUMENT)


def _jobs(rows: LabelledRows) -> Sequence[tuple[str, int]]:
    return [(family, split) for family in np.unique(rows.family[rows.harvesting]) for split in range(RUN_SPLITS)]


def _trial(rows: LabelledRows, extra: LabelledRows, settings: TrainingSettings, family: str, split: int) -> _Trial:
    say(f"without {family}, split {split}")
    rows, extra = rows.take(rows.exchanges >= EXCHANGES_MIN), extra.take(extra.exchanges >= EXCHANGES_MIN)
    tested = np.where(rows.harvesting, rows.family == family, split_of(rows.account, SPLITS) == split)
    learned = [rows.take(~tested & (rows.family != family)), extra.take(extra.family != family)]
    parts = fit_parts(LabelledRows.concat(learned), settings)
    held = Held(family, split, rows.take(tested))
    held.scores[EVERYTHING] = parts.score(held.rows.values, held.rows.stage)
    return _Trial(held, parts, parts.forest.scaling.filled(parts.population))


def _drawn(trial: _Trial, risk: Any, mix: tuple[int, int], seed: int) -> list[list[float]]:
    """Figures of the accounts that were not judged, before and after."""
    rows, random = trial.held.rows, np.random.default_rng(seed)
    starts = rows.account_starts()
    highest = np.maximum.reduceat(risk, starts)
    harvesting = rows.harvesting[starts]
    threshold = threshold_exceeded_by(highest[~harvesting], SHARE)
    found = np.flatnonzero(harvesting & (highest > threshold))
    honest = np.flatnonzero(~harvesting)
    nearest = honest[np.argsort(-highest[honest])[:NEAREST]]
    judged = np.concatenate([random.choice(found, min(mix[0], len(found)), replace=False),
                             random.choice(nearest, mix[1], replace=False)])  # fmt: skip
    moved = np.maximum.reduceat(risk + _moved(trial, risk, starts, judged), starts)
    others = np.setdiff1d(np.arange(len(starts)), judged)
    return [_figures(scores[others], harvesting[others], threshold) for scores in (highest, moved)]


def _moved(trial: _Trial, risk: Any, starts: Any, judged: Any) -> Any:
    rows, parts = trial.held.rows, trial.parts
    values = np.where(parts.used, rows.values, np.float32(np.nan))
    filled = parts.forest.scaling.filled(values)
    precedents = Precedents(parts.trees, trial.honest)
    ends = [*starts[1:], len(rows)]
    for account in judged.tolist():
        first = int(starts[account])
        row = first + int(np.argmax(risk[first : ends[account]]))
        one = Precedent(bool(rows.harvesting[row]), int(rows.stage[row]), values[row])
        precedents.judge(account, one, filled[row])
    precedents.settle()
    moved = np.zeros(len(rows))
    for stage, some, seen in parts.trees.seen(filled, rows.stage):
        moved[some] = precedents.moved(seen, stage)
    return moved


def _figures(scores: Any, harvesting: Any, threshold: float) -> list[float]:
    again = threshold_exceeded_by(scores[~harvesting], SHARE)
    above = [float((scores[harvesting] > limit).mean()) for limit in (again, threshold)]
    return [roc_auc(scores, harvesting), *above, float((scores[~harvesting] > threshold).mean())]
