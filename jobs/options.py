"""Options that several commands share, with one wording."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import ConfigError

ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", envvar="STILLWATCH_CONFIG", help="Settings in TOML.")
]
LakeFolder = Annotated[str | None, typer.Option("--lake", metavar="DIR", help="Folder of the Parquet files.")]
CatalogUrl = Annotated[
    str | None,
    typer.Option("--catalog", metavar="URL", help="Database of the catalog; by default catalog.db in the lake."),
]
Bootstrap = Annotated[
    str | None, typer.Option("--bootstrap", metavar="HOST:PORT,…", help="Kafka brokers to ask first.")
]
KafkaSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--kafka", metavar="KEY=VALUE", help="A setting of the Kafka client, such as security_protocol=SSL; repeatable."
    ),
]
AccountsFeed = Annotated[
    Path | None,
    typer.Option("--accounts", metavar="FILE", help="The accounts feed, as NDJSON."),
]


def key_values(given: list[str] | None) -> dict[str, str]:
    """Take `KEY=VALUE` options apart.

    Raises:
        ConfigError: one has no `=`.
    """
    pairs = [text.partition("=") for text in given or []]
    for key, equals, _ in pairs:
        if not key or not equals:
            raise ConfigError(f"--kafka {key}: expected KEY=VALUE")
    return {key: value for key, _, value in pairs}
