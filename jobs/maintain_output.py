"""What the commands of `stillwatch maintain` have in common: what they open, and how they speak."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import structlog

from jobs import logs
from jobs.actors import actor_here
from pipeline.config import Settings
from pipeline.io.catalog import Catalog
from pipeline.io.desk import copies
from pipeline.io.lake import Lake
from pipeline.io.rewriting.ledger import RewriteLedger

_UNITS: Final = ("B", "kB", "MB", "GB", "TB")
_STEP: Final = 1000


@dataclass(frozen=True, slots=True)
class Opened:
    """A lake that is looked after."""

    lake: Lake
    catalog: Catalog
    ledger: RewriteLedger


@contextlib.contextmanager
def opened(settings: Settings, *, changes: bool = True) -> Iterator[Opened]:
    """Open the lake that the settings name.

    Args:
        settings: which.
        changes: whether something is to be changed; else nothing at all is written, for the lake may be one to read.

    Raises:
        ConfigError: there is none.
        RetryableError: the catalog does not answer.
        SchemaError: the catalog is of another version.
    """
    lake = Lake.open(settings.lake, create=False)
    with contextlib.closing(Catalog.open(settings.catalog_url, create=False)) as catalog:
        yield Opened(lake, catalog, RewriteLedger(catalog, f"{socket.gethostname()}:{os.getpid()}", actor_here()))
        if changes:
            if not structlog.is_configured():  # else what it warns of would be among what the command says
                logs.configure("warning")
            copies.keep(lake.root, catalog, every_table=True)


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit in _UNITS:
        if abs(count) < _STEP or unit == _UNITS[-1]:
            break
        count /= _STEP
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def duration(seconds: float) -> str:
    """A time as people read it."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"
