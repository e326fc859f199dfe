"""Who gives a command: for the record."""

from __future__ import annotations

import getpass
import os
from typing import Annotated

import typer

By = Annotated[
    str,
    typer.Option(
        "--by",
        metavar="NAME",
        envvar="STILLWATCH_BY",
        help="Who does it.  [default: the system's user]",
    ),
]


def actor(said: str) -> str:
    """Who was named, else the user that the operating system knows."""
    if said.strip():
        return said.strip()
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user without a name
        return f"uid {os.getuid()}"
