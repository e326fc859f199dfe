"""Who gives a command: for the record."""

from __future__ import annotations

import getpass
import os
from typing import Annotated, Final

import typer

from pipeline.errors import ConfigError

By = Annotated[
    str,
    typer.Option(
        "--by",
        metavar="NAME",
        envvar="STILLWATCH_BY",
        help="Who does it.  [default: the system's user]",
    ),
]


_CHARS_MAX: Final = 100


def actor_here() -> str:
    """Who gives a command that has no flag for it: as the environment says.

    Raises:
        As `actor`.
    """
    return actor(os.environ.get("STILLWATCH_BY", ""))


def actor(said: str) -> str:
    """Who was named, else the user that the operating system knows.

    Raises:
        ConfigError: it is no name.
    """
    name = said.strip()
    if not name.isprintable() or len(name) > _CHARS_MAX:
        raise ConfigError(f"--by: a name of at most {_CHARS_MAX} characters that can be printed, in one line")
    if name:
        return name
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user without a name
        return f"uid {os.getuid()}"
