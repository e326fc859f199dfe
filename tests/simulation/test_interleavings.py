"""Any interleaving of workers, any crash, any zombie: each record lands exactly once, and is scored as if nothing was.

The first seeds run with `make test`, all of them with `make soak`.  One alone, whichever it is:

    python -m pytest -m "" "tests/simulation/test_interleavings.py::test_each_record_lands_exactly_once[217]"
"""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog

from pipeline.io.inspection import inspect
from tests.simulation.worlds import World

SEEDS = 400
SEEDS_QUICK = 24
STEPS = 500


@pytest.fixture(autouse=True)
def _quiet() -> None:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory(), processors=[lambda *_: ""])


@pytest.mark.parametrize(
    "seed", (*range(SEEDS_QUICK), *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(SEEDS_QUICK, SEEDS)))
)
def test_each_record_lands_exactly_once(seed: int, tmp_path: Path) -> None:
    world = World(tmp_path, seed, partitions=1 + seed % 3)
    try:
        world.produce(10)
        for step in range(STEPS):
            world.act()
            if step % 200 == 100:
                _check_readers_view(world)
        world.produce(5)
        world.settle()
        landed = world.landed()
        left = inspect(world.lake, world.catalog)
        found, wanted = world.found(), world.wanted_findings()
    finally:
        world.close()
    assert landed == {"glob": world.wanted(), "catalog": world.wanted()}
    assert left.errors == []
    assert {note.kind for note in left.notes} <= {"staged", "snapshot"}, "only zombies may have left something"
    assert found.windows == wanted.windows
    assert found.alerts == found.alerts_in_lake == wanted.alerts
    assert found.outbox == wanted.outbox


def _check_readers_view(world: World) -> None:
    """At any moment: what the catalog shows is there, whole commits of it, and verify finds nothing wrong."""
    assert inspect(world.lake, world.catalog).errors == []
