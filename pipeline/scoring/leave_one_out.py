"""What the models make of families that they never saw: each family is held out in turn, and honest accounts by parts.

For a family and a split, the parts learn from the other families, the honest accounts of the other splits and whatever
further rows are given, and score the family and the split.  The combination is then learned from what such parts said
of the *other* families and splits, so nothing about the family or the split that it is used on has gone into it, except
that parts which scored the other families had seen this one; five numbers are all that could tell of it.

`make bench ARGS=detection` measures with it; it stands beside `training.py`, whose steps it repeats one by one.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from pipeline.scoring.combination import PARTS
from pipeline.scoring.evaluation import (
    HONEST_SHARES,
    AccountRisks,
    average_precision,
    roc_auc,
    share_above,
    threshold_exceeded_by,
)
from pipeline.scoring.kinds import EXCHANGES_MIN
from pipeline.scoring.labelled import LabelledRows, split_of
from pipeline.scoring.scaling import Floats
from pipeline.scoring.training import TrainingSettings, combine, fit_parts
from pipeline.scoring.views import Columns, seen_through

EVERYTHING: Final = "everything"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    Attributes:
        settings: how the parts are trained.
        views: columns that the models may see when they score, by name; `everything` is among them.
        families: those to hold out; none means all.
        splits: parts of the honest accounts, by a hash of their ids.
        run_splits: how many of them to run.
        processes: to run in.
    """

    settings: TrainingSettings
    views: Mapping[str, Columns]
    families: tuple[str, ...] = ()
    splits: int = 5
    run_splits: int = 5
    processes: int = 2


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """What parts said of one family and one split that they had not learned.

    Attributes:
        family: its name.
        split: its number.
        rows: of the family and the split.
        scores: by view, float64[n, C].
    """

    family: str
    split: int
    rows: LabelledRows
    scores: dict[str, Floats] = field(default_factory=dict)


def held_out_scores(rows: LabelledRows, extra: LabelledRows | None, plan: Plan) -> list[Held]:
    """Fit and score every family and split of the plan; minutes.

    Args:
        rows: those to be held out in turn.
        extra: further rows to learn from, of other runs; those of a family of the same name are left out with it.
        plan: what to do.
    """
    families = plan.families or tuple(np.unique(rows.family[rows.harvesting]).tolist())
    jobs = [(family, split) for family in families for split in range(plan.run_splits)]
    if plan.processes == 1:
        _begin(rows, extra, plan)
        return [_held_out(job) for job in jobs]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(plan.processes, context, initializer=_begin, initargs=(rows, extra, plan)) as pool:
        return list(pool.map(_held_out, jobs))


_given: dict[str, Any] = {}


def _begin(rows: LabelledRows, extra: LabelledRows | None, plan: Plan) -> None:
    warm = rows.take(rows.exchanges >= EXCHANGES_MIN)
    further = None if extra is None else extra.take(extra.exchanges >= EXCHANGES_MIN)
    _given.update(rows=warm, extra=further, plan=plan, split=split_of(warm.account, plan.splits))


def _held_out(job: tuple[str, int]) -> Held:
    family, split = job
    rows, extra, plan = _given["rows"], _given["extra"], _given["plan"]
    tested = np.where(rows.harvesting, rows.family == family, _given["split"] == split)
    learned = [rows.take(~tested & (rows.family != family))]
    if extra is not None:
        learned.append(extra.take(extra.family != family))
    parts = fit_parts(LabelledRows.concat(learned), plan.settings)
    held = Held(family, split, rows.take(tested))
    for name, view in plan.views.items():
        held.scores[name] = parts.score(seen_through(held.rows.values, view), held.rows.stage)
    return held


def combined(
    held: Sequence[Held], view: str, settings: TrainingSettings, parts: tuple[str, ...] = PARTS
) -> list[Floats]:
    """The log-odds of the rows of each of `held` in a view, by combinations learned from the others.

    Args:
        held: what `held_out_scores` gave, of at least two families and two splits.
        view: a name among the plan's views.
        settings: for the prior.
        parts: those that are combined; an ablation leaves some out.
    """
    settings = replace(settings, parts=parts)
    used = np.array([part in parts for part in PARTS])
    risks = []
    for one in held:
        others = [other for other in held if other.family != one.family and other.split != one.split]
        scores = np.concatenate([other.scores[view] for other in others])
        rows = LabelledRows.concat([_named(other) for other in others])
        evidence, combination = combine(scores, rows, settings)
        risks.append(combination.log_odds(evidence.parts(one.scores[view], one.rows.stage)[0] * used))
    return risks


def _named(held: Held) -> LabelledRows:
    """The rows, with accounts that are others' if other parts scored them."""
    return replace(held.rows, account=np.char.add(held.rows.account, f"/{held.family}"))


def leave_one_out_report(held: Sequence[Held], risks: Sequence[Floats]) -> dict[str, Any]:
    """AUC, average precision and recall of held-out families, as means and deviations over the splits.

    A threshold is that of one held-out family: the risk that a share of the honest accounts of *all* splits exceeds,
    each scored by the parts that learned neither it nor the family.
    """
    accounts = [AccountRisks.of(one.rows, risk) for one, risk in zip(held, risks, strict=True)]
    splits = sorted({one.split for one in held})
    out: dict[str, Any] = {
        "auc": _over_splits(held, [roc_auc(a.risk, a.harvesting) for a in accounts], splits),
        "average_precision": _over_splits(held, [average_precision(a.risk, a.harvesting) for a in accounts], splits),
        "thresholds": {f"{share:g}": _at_share(held, accounts, share, splits) for share in HONEST_SHARES},
    }
    return out


def _at_share(
    held: Sequence[Held], accounts: Sequence[AccountRisks], share: float, splits: Iterable[int]
) -> dict[str, Any]:
    thresholds = {}
    for family in {one.family for one in held}:
        honest = [a.risk[~a.harvesting] for one, a in zip(held, accounts, strict=True) if one.family == family]
        thresholds[family] = threshold_exceeded_by(np.concatenate(honest), share)
    # An account is above its own family's threshold or not; after this all share the threshold 0.
    relative = [
        AccountRisks(a.account, a.risk - thresholds[one.family], a.harvesting, a.population, a.family, a.variant)
        for one, a in zip(held, accounts, strict=True)
    ]
    recalls = []
    for split in splits:
        of_split = [a for one, a in zip(held, relative, strict=True) if one.split == split]
        attack = AccountRisks.concat([a.take(a.harvesting) for a in of_split])
        recalls.append(share_above(attack.risk, 0.0, attack.variant))
    whole = AccountRisks.concat(relative)
    attack, honest_accounts = whole.take(whole.harvesting), whole.take(~whole.harvesting)
    return {
        "by_variant": {variant: _mean_sd([recall[variant] for recall in recalls]) for variant in recalls[0]},
        "by_family": share_above(attack.risk, 0.0, attack.family),
        "false_positives_by_population": share_above(honest_accounts.risk, 0.0, honest_accounts.population),
    }


def _over_splits(held: Sequence[Held], values: Sequence[float], splits: Iterable[int]) -> dict[str, float]:
    of_split = [[v for one, v in zip(held, values, strict=True) if one.split == split] for split in splits]
    return _mean_sd([float(np.mean(values)) for values in of_split])


def _mean_sd(values: Sequence[float]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "sd": float(np.std(values))}
