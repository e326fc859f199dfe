"""How well families that training has not seen are told from honest use: the tables of docs/detection.md."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from subprocess import DEVNULL, run
from typing import Any, Final

import numpy as np

from pipeline.features import FEATURES
from pipeline.io.labelled_runs import rows_of_events
from pipeline.scoring.combination import PARTS
from pipeline.scoring.corroboration import FEATURE as CORROBORATING
from pipeline.scoring.labelled import LabelledRows
from pipeline.scoring.leave_one_out import Held, Plan, combined, held_out_scores, leave_one_out_report
from pipeline.scoring.mondrian_forest import ForestSettings
from pipeline.scoring.training import TrainingSettings, settings_for
from pipeline.scoring.views import views_of
from tests.bench.measure import say
from tests.bench.report import table, write_section

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "detection.md"
SHARE: Final = "0.01"
"""Of the honest accounts, by how many exceed it the threshold is named."""

ABLATION_SPLITS: Final = 3
"""Of the five parts of the honest accounts, those that are run where something is left out: each takes a minute."""

SIMULATED: Final = "--seed 1 --accounts 1400 --hours 48 --start 2026-03-01T00:00Z --attack-share 0.3"
"""What is simulated and learned beside the log: the same that the shipped models learned."""


def measure(folder: Path, log: Path, accounts: Path | None, labels: Path) -> None:
    """Leave each family of the log out in turn, and write the tables `left_out`…; three quarters of an hour on two CPUs.

    Args:
        folder: for simulated traffic.
        log: an access log.
        accounts: its accounts feed.
        labels: who harvests in it, and how.
    """
    rows = rows_of_events(log, accounts, labels)
    settings = settings_for(FEATURES, TrainingSettings())
    views = views_of(FEATURES)
    say(f"{len(np.unique(rows.family)) - 1} families left out in turn")
    extra = simulated(folder)
    held = held_out_scores(rows, extra, Plan(settings, views))
    variants = sorted(set(rows.variant[rows.harvesting].tolist()))
    as_it_ships = {view: _report(held, view, settings, settings.parts) for view in views}
    lines = [_line(view, report, variants) for view, report in as_it_ships.items()]
    chosen = {f"{part} alone": (part,) for part in PARTS} | {"all together": PARTS}
    chosen |= {f"all but {part}": tuple(other for other in PARTS if other != part) for part in PARTS}
    everything = next(iter(views))
    lines += [_line(name, _report(held, everything, settings, parts), variants) for name, parts in chosen.items()]
    write_section("left_out", table(("", "AUC", *variants), lines), DOCUMENT)
    at = as_it_ships[everything]["thresholds"][SHARE]
    kinds = (("family", at["by_family"]), ("honest population", at["false_positives_by_population"]))
    groups = [(f"{kind} {name}", f"{share:.3f}") for kind, found in kinds for name, share in sorted(found.items())]
    write_section("left_out_by", table(("", "share above"), groups), DOCUMENT)
    lines = []
    for name, less in ablations(settings).items():
        say(name)
        plan = Plan(less, {everything: views[everything]}, run_splits=ABLATION_SPLITS)
        lines.append(_line(name, _report(held_out_scores(rows, extra, plan), everything, less, less.parts), variants))
    write_section("left_out_features", table(("", "AUC", *variants), lines), DOCUMENT)


def ablations(settings: TrainingSettings) -> dict[str, TrainingSettings]:
    """Models as they ship, without boosted trees or with nothing else, and with a family of features less.

    Parts that weigh nothing are trained as little as can be.
    """
    base = replace(settings, passes=1, forest=ForestSettings(n_estimators=1))
    of_trees = {
        "no boosted trees": replace(base, boosted_share=0.0),
        "boosted trees alone": replace(base, boosted_share=1.0),
        f"all but {CORROBORATING}": _without(base, {CORROBORATING}),
    }
    of_features = {
        f"all but {family}": _without(base, {feature.name for feature in FEATURES if feature.family == family})
        for family in sorted(_looked_at(settings))
    }
    return {"as they ship": base, **of_trees, **of_features}


def _without(settings: TrainingSettings, names: Collection[str]) -> TrainingSettings:
    columns = tuple(number for number, feature in enumerate(FEATURES) if feature.name in names)
    return replace(settings, unused=tuple(sorted({*settings.unused, *columns})))


def _looked_at(settings: TrainingSettings) -> set[str]:
    return {feature.family for number, feature in enumerate(FEATURES) if number not in set(settings.unused)}


def simulated(folder: Path) -> LabelledRows:
    events = folder / "simulated.ndjson.zst"
    run([sys.executable, "-m", "jobs.cli", "simulate", "--out", events, *SIMULATED.split()], check=True, stderr=DEVNULL)
    return rows_of_events(events, folder / "accounts.ndjson", folder / "labels.csv")


def _report(held: Sequence[Held], view: str, settings: TrainingSettings, parts: tuple[str, ...]) -> dict[str, Any]:
    return leave_one_out_report(held, combined(held, view, settings, parts))


def _line(name: str, report: dict[str, Any], variants: Sequence[str]) -> list[str]:
    by_variant = report["thresholds"][SHARE]["by_variant"]
    shares = [f"{by_variant[variant]['mean']:.2f} ± {by_variant[variant]['sd']:.2f}" for variant in variants]
    return [name, f"{report['auc']['mean']:.3f}", *shares]
