"""`stillwatch backfill`: past records into the lake, by the stages of the live job, each once.

What a flag says is in `jobs/backfill_flags.py`, what it is refused for in `jobs/backfill_wish.py`; each kind of source
has a file of its own that does the work.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jobs import backfill_flags as flags
from jobs import logs, options
from jobs.backfill_wish import Wish
from pipeline.config import Settings, read_settings


def backfill(  # noqa: PLR0913, PLR0917  # Typer: a parameter is a flag
    sources: flags.Sources = None,
    score: flags.Score = None,
    feed: flags.Feed = None,
    partitions: flags.Partitions = None,
    parallel: flags.Parallel = 1,
    dry_run: flags.DryRun = False,
    low: flags.From = None,
    high: flags.To = None,
    rejects: flags.Rejects = False,
    give_up: flags.GiveUp = None,
    replace_: flags.Replace = False,
    of: flags.Of = None,
    bootstrap: options.Bootstrap = None,
    kafka: options.KafkaSettings = None,
    config: options.ConfigFile = None,
    lake: options.LakeFolder = None,
    catalog: options.CatalogUrl = None,
    topic: flags.Topic = None,
    rules: options.Rules = None,
    models: options.ModelsFolder = None,
    accounts: options.AccountsFeed = None,
) -> None:
    """Land past records, each once, by the stages of the live job; safe beside `stillwatch run`.

    A file is known by the hash of its bytes: what is landed of it already is skipped, so the same command goes on where
    a killed one stopped.  Alerts that are raised are kept and listed, and sent to nobody: docs/backfill.md has recipes.

    Exit codes: 0 all is landed; 2 a file, flag or setting is wrong; 3 Kafka no longer holds the range; 4 broker,
    catalog or disk failed for too long; 5 files or catalog are not what Stillwatch wrote; 130 a signal ended it early.
    After each of them the same command goes on where this one stopped.
    """
    settings = read_settings(
        config, bootstrap=bootstrap, kafka=options.key_values(kafka), lake=lake, catalog=catalog, topic=topic,
        rules=rules, models=models, accounts=_text(accounts), scoring=_scoring(score),
    )  # fmt: skip
    logs.configure("warning")
    wish = Wish(
        sources=tuple(sources or ()), score=score, feed=feed, partitions=partitions, parallel=parallel, dry_run=dry_run,
        low=low, high=high, rejects=rejects, give_up=give_up, replaces=replace_, of=tuple(of or ()),
        kafka=tuple(flag for flag, given in (("--bootstrap", bootstrap), ("--kafka", kafka)) if given),
    )  # fmt: skip
    wish.check(scores=settings.scoring == "on")
    _job_of(wish)(wish, settings)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _scoring(score: bool | None) -> str | None:
    """The setting `scoring` that a flag stands for."""
    return None if score is None else "on" if score else "off"


def _job_of(wish: Wish) -> Callable[[Wish, Settings], None]:
    """What does the work; each loads Kafka, DuckDB or Parquet where it needs them, so that the others do not wait."""
    if wish.give_up is not None:
        from jobs.backfill_give_up import backfill_give_up  # noqa: PLC0415  # as said above

        return backfill_give_up
    if wish.rejects:
        from jobs.backfill_rejects import backfill_rejects  # noqa: PLC0415  # as said above

        return backfill_rejects
    if wish.is_past and wish.replaces:
        from jobs.backfill_replace_past import backfill_replace_past  # noqa: PLC0415  # as said above

        return backfill_replace_past
    if wish.is_past:
        from jobs.backfill_past import backfill_past  # noqa: PLC0415  # as said above

        return backfill_past
    if wish.replaces:
        from jobs.backfill_replace import backfill_replace  # noqa: PLC0415  # as said above

        return backfill_replace
    from jobs.backfill_files import backfill_files  # noqa: PLC0415  # as said above

    return backfill_files
