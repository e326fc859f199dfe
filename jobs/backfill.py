"""`stillwatch backfill`: past records into the lake, by the stages of the live job, each once."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated

import typer

from jobs import logs, options
from jobs.backfill_wish import Wish
from pipeline.backfilling.slices import between
from pipeline.config import read_settings
from pipeline.errors import ConfigError


def backfill(  # noqa: PLR0913, PLR0917  # Typer: a parameter is a flag
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE|FOLDER|GLOB", help="NDJSON, plain, .gz or .zst, and Parquet.", show_default=False),
    ] = None,
    score: Annotated[
        bool | None,
        typer.Option(
            "--score/--no-score",
            help="Whether accounts are scored and alerts raised, in the order in which files are named.",
            show_default="the setting `scoring`",
        ),
    ] = None,
    feed: Annotated[
        str, typer.Option(metavar="NAME", help="The log that scored files are added to; accounts are known along it.")
    ] = "backfill",
    partitions: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=4096,
            metavar="N",
            help="Of a new feed; as many as the topic has give the live job's scores. "
            "By default as many as the lake knows of the topic, or 1.",
        ),
    ] = None,
    parallel: Annotated[
        int, typer.Option(min=1, max=256, metavar="N", help="Processes: by file without scores, by partition with.")
    ] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and decode everything, say what would be landed, write nothing.")
    ] = False,
    low: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="TIME|OFFSET",
            help="Of files and rejects only events from this time on (UTC); without either, the past of --topic from "
            "this Kafka time or offset on.",
        ),
    ] = None,
    high: Annotated[
        str | None, typer.Option("--to", metavar="TIME|OFFSET", help="Up to this one, which is left out.")
    ] = None,
    rejects: Annotated[
        bool, typer.Option("--rejects", help="Instead of files, the lake's rejects: land those that are events today.")
    ] = False,
    replace_: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Put the files' rows in the place of rows that are there, of the range of --from and --to or of the "
            "sources of --of, at one moment. Scores and alerts stay as they were. --dry-run says what would go.",
        ),
    ] = False,
    of: Annotated[
        list[str] | None,
        typer.Option(
            "--of",
            metavar="FILE|FEED|TOPIC",
            help="What --replace takes away is only of this file that was backfilled, feed or topic; repeatable.",
            show_default="everything in the range",
        ),
    ] = None,
    bootstrap: options.Bootstrap = None,
    kafka: options.KafkaSettings = None,
    config: options.ConfigFile = None,
    lake: options.LakeFolder = None,
    catalog: options.CatalogUrl = None,
    topic: Annotated[str | None, typer.Option(help="Topic of the access log.")] = None,
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
    scoring = None if score is None else "on" if score else "off"
    settings = read_settings(
        config, bootstrap=bootstrap, kafka=options.key_values(kafka),
        lake=lake, catalog=catalog, topic=topic, rules=rules, models=models, scoring=scoring,
        accounts=None if accounts is None else str(accounts),
    )  # fmt: skip
    logs.configure("warning")
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,80}", feed):
        raise ConfigError(f"--feed {feed}: letters, digits, '.', '_' and '-', at most 80")
    wish = Wish(tuple(sources or ()), feed, partitions, parallel, dry_run, replaces=replace_, of=tuple(of or ()))
    is_past = not sources and not rejects and (low is not None or high is not None)
    if bool(sources) + is_past + rejects != 1:
        raise ConfigError(
            "give either files, folders or globs, or a past range of the topic with --from and --to, or --rejects: "
            + ("these are several" if sources else "nothing is named")
        )
    if not is_past:
        wish = replace(wish, asked=between(low, high))
    if replace_ or of:
        _check_replaces(wish, score=score)
        from jobs.backfill_replace import backfill_replace  # noqa: PLC0415  # as below

        backfill_replace(wish, settings)
        return
    if rejects:
        if score:
            raise ConfigError("--score: rejects come out of their order, and are landed without scores")
        from jobs.backfill_rejects import backfill_rejects  # noqa: PLC0415  # DuckDB is loaded where it is needed

        backfill_rejects(wish, settings)
        return
    if is_past:
        from jobs.backfill_past import backfill_past  # noqa: PLC0415  # Kafka is loaded where it is needed

        backfill_past(wish, settings, low, high)
        return
    from jobs.backfill_files import backfill_files  # noqa: PLC0415  # as above

    backfill_files(wish, settings)


def _check_replaces(wish: Wish, *, score: bool | None) -> None:
    """See that it is said what goes and what comes."""
    if not wish.replaces:
        raise ConfigError("--of says what --replace takes away: give --replace, too")
    if not wish.sources:
        raise ConfigError("--replace: name the files whose rows come in the place of those that go")
    if wish.asked.is_whole and not wish.of:
        raise ConfigError("--replace: say what goes: a range with --from and --to, a source with --of, or both")
    if score:
        raise ConfigError(
            "--score: what replaces other rows is landed without scores, for accounts are scored along a whole log; "
            "`stillwatch backtest` says what the new rows would have raised"
        )
