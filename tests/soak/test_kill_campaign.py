"""Hundreds of kills, on both catalogs.  `make soak`; STILLWATCH_TEST_SOAK_KILLS says how many."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.io.catalog import sqlite_url
from tests.integration.kills import STEPS, campaign, plan
from tests.integration.scored import assert_as_by_backtest
from tests.integration.workers import site_of
from tests.servers import KafkaServer

REPLAY_S = 1800.0
KILLS = int(os.environ.get("STILLWATCH_TEST_SOAK_KILLS", "300"))


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("catalog", ("sqlite", "postgresql"))
def test_hundreds_of_kills_lose_nothing_and_double_nothing(
    tmp_path: Path,
    kafka: KafkaServer,
    topic: Callable[..., str],
    catalog: str,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Half of them right after a step of a commit, half at random moments; scores are those of a calm replay."""
    url = sqlite_url(tmp_path / "catalog.db") if catalog == "sqlite" else request.getfixturevalue("postgres_url")
    at_steps = KILLS // 4 // len(STEPS)
    moments = plan(seed=KILLS, at_steps=at_steps, at_random=KILLS // 2 - at_steps * len(STEPS))
    with site_of(tmp_path, kafka.bootstrap, topic(3), catalog=url, snapshot_events=20_000) as site:
        result = campaign(site, moments, seed=KILLS)
        scores, alerts = assert_as_by_backtest(site, tmp_path / "again", bound_s=REPLAY_S)
    assert result.kills == KILLS // 2
    assert result.landed == result.produced
    with capsys.disabled():
        print(f"\n{catalog}: {result}; {scores:,} scores and {alerts:,} alerts as in a replay that nothing happened to")
