"""The copy of the desk in the lake, kept by commands that need no lake for what they do."""

from __future__ import annotations

from pathlib import Path

import structlog

from jobs import logs
from pipeline.config import Settings
from pipeline.io.catalog import Catalog
from pipeline.io.desk import copies


def keep_if_there(settings: Settings, ledger: Catalog) -> None:
    """Bring the copy up to the catalog, if the lake's folder is on this machine; else the next `maintain` does."""
    root = Path(settings.lake).expanduser().absolute()
    if root.is_dir():
        if not structlog.is_configured():  # a service logs as it was told to
            logs.configure("warning")
        copies.keep(root, ledger)
