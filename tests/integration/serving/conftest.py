"""A lake that is scored for real, served by a process: one for each of the files here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config import CATALOG_FILE, read_settings
from pipeline.io.catalog import Catalog, sqlite_url
from pipeline.watch import load_watch
from tests.integration.serving.site import BLANKS, KEY, LONG, SPACED, WITH_NUL, WORDS
from tests.lake_maker import make_lake
from tests.triage import Served, Visitor, serving
from tests.unit.io.dossier_lake import HOSTILE, event, traffic
from tests.unit.jobs.test_alerts import alert, keep


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scored for real; two accounts with odd names have alerts, too."""
    root = tmp_path_factory.mktemp("serve") / "lake"
    odd = [event(account, 200) for account in (SPACED, BLANKS, WITH_NUL)]
    with make_lake(root, [*traffic(), *odd], watch=load_watch(read_settings(None))) as maker:
        reasons = (f"{WORDS}: x > 1", WORDS, f"{WORDS} taken", f"look at {WORDS}", f"what to do: {WORDS}")
        keep(maker.catalog, [alert(account, reasons=reasons, rule="odd") for account in (HOSTILE, LONG)])
    return root


@pytest.fixture(scope="module")
def served(lake: Path) -> Iterator[Served]:
    with serving(lake, STILLWATCH_SERVE_TOKEN=KEY) as running:
        yield running


@pytest.fixture
def ana(served: Served) -> Visitor:
    return served.visitor("Ana", KEY)


@pytest.fixture
def catalog(lake: Path) -> Iterator[Catalog]:
    with contextlib.closing(Catalog.open(sqlite_url(lake / CATALOG_FILE), create=False)) as opened:
        yield opened
