"""Live and replayed: the same records get the same scores and alerts, however often the live job was interrupted."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pytest

from pipeline.batch import Partition
from pipeline.io.catalog import Catalog
from pipeline.io.desk.judging import judge
from pipeline.io.lake import Lake
from pipeline.judging import Judgement
from pipeline.simulation import Simulation
from tests.integration.scored import assert_same, backtest, landed, send
from tests.integration.workers import Site, ends_of, site_of
from tests.rule_files import rule_text
from tests.servers import KafkaServer

DAY_US = 86_400_000_000
RULES = rule_text(
    name="one_shots", state="live", severity="high", condition="oneshot_share_7d >= 0.6 and exchanges >= 8",
    suppress_hours=4,
) + rule_text(name="some_risk", condition="risk >= 0.05", suppress_hours=1)  # fmt: skip


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A day of 280 accounts, many of which harvest; a file as `stillwatch simulate` writes it."""
    simulation = Simulation(seed=3, accounts=280, start=datetime(2026, 3, 2, tzinfo=UTC), hours=24, attack_share=0.4)
    path = tmp_path_factory.mktemp("traffic") / "access.ndjson"
    path.write_bytes(b"".join(orjson.dumps(event) + b"\n" for event in simulation.events()))
    return path


@pytest.mark.timeout(300)
def test_interrupted_live_runs_and_backtests_say_the_same(
    tmp_path: Path, kafka: KafkaServer, topic: Callable[..., str], traffic: Path
) -> None:
    """A clean stop, a kill -9 in the middle of commits and a last run, against the lake and against the file."""
    rules = tmp_path / "rules.toml"
    rules.write_text(RULES, encoding="utf-8")
    with site_of(
        tmp_path, kafka.bootstrap, topic(2), rules=str(rules), file_rows_max=900, snapshot_events=2_000
    ) as site:
        config = tmp_path / "stillwatch.toml"
        config.write_text(
            f'topic = "{site.topic}"\nrules = "{rules}"\nfile_rows_max = 900\nsnapshot_events = 2000\n',
            encoding="utf-8",
        )
        sent = send(site, traffic)
        assert site.command("--config", str(config), "--max-events", "5000").process.wait(120) == 0
        assert site.landed() == 5_000
        killed = site.worker(crash_at="committed", count=5, kafka={"max_partition_fetch_bytes": 1 << 18})
        assert killed.process.wait(60) == -signal.SIGKILL
        assert 5_000 < site.landed() < sent
        last = site.command("--config", str(config), "--once")
        assert last.process.wait(120) == 0
        assert sum(line["replayed"] for line in last.logged("analysis restored")) > 0
        assert site.assert_exactly_once(ends_of(site.bootstrap, site.topic)) == sent
        windows, alerts = landed(site)
        assert len(windows) > 600, "models have learned on the way"
        assert windows["risk"].null_count < len(windows)
        assert {alert.state for alert in alerts} == {"live", "shadow"}
        of_lake = ["--events", str(site.lake), "--catalog", site.catalog_url]
        of_file = ["--events", str(traffic), "--partitions", "2"]
        for name, flags in (("lake", of_lake), ("file", of_file)):
            again, alerts_again = backtest(tmp_path / f"of-{name}", *flags, "--config", str(config))
            assert_same(windows, again)
            assert alerts == alerts_again


@pytest.mark.timeout(300)
def test_verdicts_move_what_comes_after_them_alike_live_and_replayed(
    tmp_path: Path, kafka: KafkaServer, topic: Callable[..., str], traffic: Path
) -> None:
    """Verdicts between runs, a kill -9, and a last run that has to replay: the backtest says the same to the bit."""
    with site_of(tmp_path, kafka.bootstrap, topic(2), file_rows_max=900, snapshot_events=2_000) as site:
        config = tmp_path / "stillwatch.toml"
        config.write_text(f'topic = "{site.topic}"\nfile_rows_max = 900\nsnapshot_events = 2000\n', encoding="utf-8")
        send(site, traffic)
        assert site.command("--config", str(config), "--max-events", "6000").process.wait(120) == 0
        windows, _ = landed(site)
        give_verdicts(site, windows)
        killed = site.worker(crash_at="committed", count=4, kafka={"max_partition_fetch_bytes": 1 << 18})
        assert killed.process.wait(60) == -signal.SIGKILL
        give_verdicts(site, windows, skipped=10)
        assert site.command("--config", str(config), "--once").process.wait(120) == 0
        windows, _ = landed(site)
        with contextlib.closing(Catalog.open(site.catalog_url, create=False)) as catalog:
            marks = [mark for number in range(2) for mark in catalog.verdict_marks(Partition(site.topic, number))]
        assert len(marks) >= 4, "each partition learned twice"
        assert sum('"verdicts"' in text for text in windows["versions"].to_pylist()) > 300
        of_lake = ["--events", str(site.lake), "--catalog", site.catalog_url, "--config", str(config)]
        again, _ = backtest(tmp_path / "judged", *of_lake)
        assert_same(windows, again)
        unjudged, _ = backtest(tmp_path / "unjudged", *of_lake, "--no-verdicts")
        moved = np.nanmax(np.abs(unjudged["risk"].to_numpy() - windows["risk"].to_numpy()))
        assert moved > 0.01, "verdicts would do nothing"


def give_verdicts(site: Site, windows: pa.Table, skipped: int = 0) -> None:
    """Judge the last rows of twenty accounts: the likeliest ten are harvesters, the unlikeliest ten are not."""
    last = {row["account_id"]: row for row in windows.to_pylist() if row["risk"] is not None}
    rows = sorted(last.values(), key=lambda row: row["risk"])
    with contextlib.closing(Catalog.open(site.catalog_url, create=False)) as catalog:
        lake = Lake(site.lake)
        for decision, chosen in (("benign", rows[skipped:][:10]), ("harvesting", rows[::-1][skipped:][:10])):
            for row in chosen:
                about_us = int(row["scored_at"].timestamp() * 1e6)
                judgement = Judgement(row["account_id"], decision, "seen", "ana", about_us=about_us)
                assert judge(lake, catalog, judgement, about_us + DAY_US).row is not None
