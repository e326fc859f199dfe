"""Options that several commands share, with one wording."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final

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
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
Rules = Annotated[
    str | None,
    typer.Option(
        "--rules", metavar="FILE,…", help="Alert rules (TOML) instead of those that ship; shipped,FILE runs both."
    ),
]
ModelsFolder = Annotated[
    str | None,
    typer.Option("--models", metavar="DIR", help="Models of `stillwatch train` instead of those that ship."),
]
AccountsFeed = Annotated[
    Path | None,
    typer.Option("--accounts", metavar="FILE", help="The accounts feed, as NDJSON."),
]


_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([smhd])")
_LONGEST_S: Final = 36_525 * 86_400
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def duration_s(text: str) -> float:
    """Seconds of a duration such as `90s`, `15m`, `1h` or `7d`.

    Raises:
        BadParameter: it is none, or none that calendars can hold.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is no duration: give a number and s, m, h or d, as in 90s, 1h or 7d")
    seconds = float(match[1]) * _SECONDS[match[2]]
    if seconds > _LONGEST_S:
        raise typer.BadParameter(f"{text!r} is longer than a century: give {_LONGEST_S // 86_400:,}d or less")
    return seconds


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
