"""`stillwatch train`: models from labelled traffic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from pipeline.counted import counted
from pipeline.errors import ConfigError
from pipeline.features import FEATURES, FEATURES_HASH, NAMES
from pipeline.io.digests import sha256_of_file
from pipeline.io.labelled_runs import logs_of_run, rows_of_events, rows_of_run
from pipeline.scoring.combination import PARTS
from pipeline.scoring.extra_trees import training_library
from pipeline.scoring.labelled import LabelledRows
from pipeline.scoring.training import TrainingSettings, settings_for
from pipeline.scoring.training import train as train_models

DEFAULTS = TrainingSettings()


def train(  # noqa: PLR0913, PLR0917 - one argument per flag is how Typer reads a command
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write the models to.")],
    runs: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="What `stillwatch backtest --out` wrote; repeatable."),
    ] = None,
    events: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="An access log (.ndjson, .gz, .zst); repeatable.")
    ] = None,
    labels: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="labels.csv of each --runs and then of each --events, in the same order."),
    ] = None,
    accounts: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="accounts.ndjson of each --events, in the same order; none for none."),
    ] = None,
    prior: Annotated[
        float, typer.Option(help="Share of accounts that harvest, for which the risk is a probability.")
    ] = DEFAULTS.prior,
    seed: Annotated[int, typer.Option(min=0, help="The same rows and seed give the same models.")] = 1,
    force: Annotated[bool, typer.Option("--force", help="Replace models that exist.")] = False,
) -> None:
    """Learn the models from labelled traffic and write them as plain data: numbers and no text.

    The more kinds of harvesting there are in it, the better the models tell one that they have never seen.  The
    calibration needs at least two families.
    """
    training_library()
    if not 0 < prior < 1:
        raise ConfigError("--prior must lie between 0 and 1")
    if (out / "manifest.json").exists() and not force:
        raise ConfigError(f"{out} holds models already: choose another folder, or replace them with --force")
    parts = _labelled_rows(runs or [], events or [], labels or [], accounts or [])
    rows, hashes = (
        LabelledRows.concat(parts),
        _hashes(parts, [folder / "scores.parquet" for folder in runs or []] + (events or []), runs or []),
    )
    settings = settings_for(FEATURES, replace(DEFAULTS, prior=prior, seed=seed))
    models = train_models(rows, NAMES, FEATURES_HASH, settings)
    models = replace(models, sources={name: {**said, **hashes[name]} for name, said in models.sources.items()})
    models.save(out)
    typer.echo(
        f"models {models.version} from {counted(len(rows), 'row')} of "
        f"{counted(len(np.unique(rows.account)), 'account')}: {out}"
    )
    weights = zip(PARTS, models.combination.weights, strict=True)
    typer.echo(f"parts: {', '.join(f'{part} {weight:.3g}' for part, weight in weights)}")
    for share, risk in models.combination.exceeded.items():
        typer.echo(f"{share:.1%} of honest accounts exceed a risk of {risk:.3f}, out of family")


def _labelled_rows(
    runs: list[Path], events: list[Path], labels: list[Path], accounts: list[Path]
) -> list[LabelledRows]:
    if len(labels) != len(runs) + len(events) or len(accounts) not in {0, len(events)}:
        raise ConfigError(
            "give --labels once for each --runs, then for each --events, and --accounts for each --events or for none"
        )
    feeds: list[Path | None] = [*accounts] or [None] * len(events)
    if not labels:
        raise ConfigError("say what to learn from: --runs DIR or --events FILE, each with its --labels FILE")
    of_runs, of_events = labels[: len(runs)], labels[len(runs) :]
    parts = [rows_of_run(*files) for files in zip(runs, of_runs, strict=True)]
    parts += [rows_of_events(*files) for files in zip(events, feeds, of_events, strict=True)]
    names = [str(part.source[0]) for part in parts]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"two sources are called {twice}: give their files or folders names of their own")
    return parts


def _hashes(
    parts: Sequence[LabelledRows], files: Sequence[Path], runs: Sequence[Path]
) -> dict[str, dict[str, str | list[str]]]:
    """SHA-256 of each source's file, by the source's name, and of the logs that a run was made of."""
    found: dict[str, dict[str, str | list[str]]] = {
        str(part.source[0]): {"sha256": sha256_of_file(path)} for part, path in zip(parts, files, strict=True)
    }
    for part, folder in zip(parts, runs, strict=False):
        found[str(part.source[0])]["of"] = logs_of_run(folder)
    return found
