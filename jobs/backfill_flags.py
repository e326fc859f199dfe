"""The flags of `stillwatch backfill`, one each, in the order in which its help lists them.

A new flag is written here, gets its parameter in `jobs/backfill.py` and its field in `Wish`, and is refused there for
what it cannot be given with.
"""

from __future__ import annotations

from typing import Annotated

import typer

Sources = Annotated[
    list[str] | None,
    typer.Argument(metavar="FILE|FOLDER|GLOB", help="NDJSON, plain, .gz or .zst, and Parquet.", show_default=False),
]
Score = Annotated[
    bool | None,
    typer.Option(
        "--score/--no-score",
        help="Whether accounts are scored and alerts raised, in the order in which files are named.",
        show_default="the setting `scoring`",
    ),
]
Feed = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The log that scored files are added to; accounts are known along it.",
        show_default="backfill",
    ),
]
Partitions = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=4096,
        metavar="N",
        help="Of a new feed; as many as the topic has give the live job's scores. "
        "By default as many as the lake knows of the topic, or 1.",
    ),
]
Parallel = Annotated[
    int, typer.Option(min=1, max=256, metavar="N", help="Processes: by file without scores, by partition with.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Read and decode everything, say what would be landed, write nothing.")
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="TIME|OFFSET",
        help="Of files and rejects only events from this time on (UTC); without either, the past of --topic from "
        "this Kafka time or offset on.",
    ),
]
To = Annotated[str | None, typer.Option("--to", metavar="TIME|OFFSET", help="Up to this one, which is left out.")]
Rejects = Annotated[
    bool, typer.Option("--rejects", help="Instead of files, the lake's rejects: land those that are events today.")
]
GiveUp = Annotated[
    str | None,
    typer.Option(
        "--give-up",
        metavar="FILE",
        help="Instead of landing anything, close a file of --feed that was landed in part and is lost or has changed, "
        "by its name or SHA-256: what is landed of it stays, and the feed goes on behind it.",
    ),
]
Replace = Annotated[
    bool,
    typer.Option(
        "--replace",
        help="Put the files' rows in the place of rows that are there, of the range of --from and --to or of the "
        "sources of --of, at one moment. Without files, read records of that past of --topic again, in the place of "
        "what they were landed as. Scores and alerts stay as they were. --dry-run says what would go.",
    ),
]
Of = Annotated[
    list[str] | None,
    typer.Option(
        "--of",
        metavar="FILE|FEED|TOPIC",
        help="What --replace takes away is only of this file that was backfilled, feed or topic; repeatable.",
        show_default="everything in the range",
    ),
]
Topic = Annotated[str | None, typer.Option(help="Topic of the access log.")]
