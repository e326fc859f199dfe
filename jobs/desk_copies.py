"""The copy of the desk in the lake, kept by commands that need no lake for what they do."""

from __future__ import annotations

from pathlib import Path

from jobs import logs
from pipeline.config import Settings
from pipeline.io.catalog import Catalog
from pipeline.io.desk import copies


def keep_if_there(settings: Settings, ledger: Catalog) -> None:
    """Bring the copy up to the catalog, if the lake's folder is on this machine; else the next `maintain` does."""
    root = Path(settings.lake).expanduser().absolute()
    if root.is_dir():
        copies.keep(root, ledger)


def keep_after(settings: Settings, ledger: Catalog) -> None:
    """The same for a command that is done after it, and whose output is for others to read: only warnings are said."""
    logs.configure("warning")
    keep_if_there(settings, ledger)
