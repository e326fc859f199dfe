"""Where a test's catalog is to be: on either database."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.io.catalog import sqlite_url


def new_catalog_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place of no catalog yet, on the database that the fixture's parameter names: `sqlite` or `postgresql`."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "catalog.db")
    return str(request.getfixturevalue("postgres_url"))
