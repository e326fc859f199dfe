"""Reads the dossier of an account: `read_dossier` is the way in."""

from __future__ import annotations

from pipeline.io.dossier.reading import UnknownAccountError, Wanted, read_dossier

__all__ = ["UnknownAccountError", "Wanted", "read_dossier"]
