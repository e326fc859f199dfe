"""Both catalogs, for the suites that each of them must pass."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.io.catalog import Catalog
from tests.catalogs import new_catalog_url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where no catalog is yet."""
    return new_catalog_url(request, tmp_path)


@pytest.fixture
def catalog(url: str) -> Iterator[Catalog]:
    """One that was just made."""
    with contextlib.closing(Catalog.open(url, create=True)) as catalog:
        yield catalog
