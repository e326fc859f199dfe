"""A lake and a command that backfills it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from jobs.cli import app
from pipeline.config import CATALOG_FILE
from pipeline.io.catalog import Catalog, sqlite_url
from pipeline.io.lake import Lake
from tests.unit.jobs.backfilled import (
    Land,
)


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path / "lake"


@pytest.fixture
def land(lake: Path) -> Land:
    def run(*arguments: object, score: bool = False) -> Result:
        how = [] if score else ["--no-score"]
        return CliRunner().invoke(app, ["backfill", "--lake", str(lake), *how, *map(str, arguments)])

    return run


@pytest.fixture
def ledger(lake: Path) -> Iterator[Catalog]:
    Lake.open(str(lake), create=True)
    with contextlib.closing(Catalog.open(sqlite_url(lake / CATALOG_FILE), create=True)) as catalog:
        yield catalog
