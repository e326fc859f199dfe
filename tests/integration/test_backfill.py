"""Backfilled is as landed live: the same rows, and in the same order the same scores and alerts; and each row once."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from pipeline.simulation import Simulation
from tests.catalogs import new_catalog_url
from tests.integration.backfills import (
    PastLake,
    alerts_of,
    assert_whole,
    counted,
    said,
    same_alerts,
    scores,
    tables_of,
)
from tests.integration.scored import send
from tests.integration.workers import ROOT, Producer, ends_of, site_of
from tests.rule_files import rule_text
from tests.servers import KafkaServer
from tests.waiting import wait_until

RULES = rule_text(
    name="one_shots", state="live", severity="high", condition="oneshot_share_7d >= 0.6 and exchanges >= 8",
    suppress_hours=4,
) + rule_text(name="some_risk", condition="risk >= 0.05", suppress_hours=1)  # fmt: skip

PIECES = 3


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ten hours of 200 accounts, many of which harvest, and two records that are no events."""
    simulation = Simulation(seed=3, accounts=200, start=datetime(2026, 3, 2, tzinfo=UTC), hours=10, attack_share=0.4)
    lines = [orjson.dumps(event) for event in simulation.events()]
    lines[100:100] = [b'{"account_id": "nobody", "model": "m"}']
    lines[3000:3000] = [b'{"account_id": "nobody", "event_time": "yesterday", "model": "m"}']
    folder = tmp_path_factory.mktemp("traffic")
    (folder / "whole.ndjson").write_bytes(b"".join(line + b"\n" for line in lines))
    for number in range(PIECES):
        piece = lines[number * len(lines) // PIECES : (number + 1) * len(lines) // PIECES]
        (folder / f"piece-{number}.ndjson").write_bytes(b"".join(line + b"\n" for line in piece))
    return folder


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where no catalog is yet."""
    return new_catalog_url(request, tmp_path)


class Compacting:
    """A compactor of all hours, whoever else works."""

    def __init__(self, lake: PastLake) -> None:
        command = ["maintain", "compact", "--lake", str(lake.root), "--catalog", lake.catalog_url, "--grace", "0s"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "jobs.cli", *command], cwd=ROOT, stdout=subprocess.DEVNULL
        )

    def __enter__(self) -> None:
        """It runs."""

    def __exit__(self, *_error: object) -> None:
        assert self._process.wait(120) == 0


@pytest.fixture
def config(tmp_path: Path) -> Path:
    rules = tmp_path / "rules.toml"
    rules.write_text(RULES, encoding="utf-8")
    path = tmp_path / "stillwatch.toml"
    path.write_text(f'rules = "{rules}"\nfile_rows_max = 900\nsnapshot_events = 2000\n', encoding="utf-8")
    return path


@pytest.mark.timeout(400)
def test_live_in_one_go_and_in_pieces_give_the_same(
    tmp_path: Path, kafka: KafkaServer, topic: Callable[..., str], traffic: Path, config: Path
) -> None:
    with site_of(tmp_path, kafka.bootstrap, topic(2)) as site:
        sent = send(site, traffic / "whole.ndjson")
        assert site.command("--config", str(config), "--once").process.wait(120) == 0
        live, live_alerts = tables_of(site.lake, site.catalog_url), alerts_of(site.catalog_url)
    assert len(live["access"]) == sent - 2
    assert len(live["rejects"]) == 2
    assert len(live["account_windows"]) > 300
    assert {alert.state for alert in live_alerts} == {"live", "shadow"}

    flags = ("--config", str(config), "--partitions", "2")
    at_once, in_pieces, shuffled = (PastLake(tmp_path / name, *flags) for name in ("once", "pieces", "shuffled"))
    at_once.landed("--parallel", "2", traffic / "whole.ndjson")
    for number in range(PIECES):
        in_pieces.landed(traffic / f"piece-{number}.ndjson")
    for number in (2, 0, 1):
        shuffled.landed(traffic / f"piece-{number}.ndjson")

    for lake in (at_once, in_pieces, shuffled):
        assert_whole(lake.root, lake.catalog_url)
        past = tables_of(lake.root, lake.catalog_url)
        for table in ("access", "content", "rejects"):
            assert said(past[table]) == said(live[table]), f"{table} of {lake.root.name}"
    for lake in (at_once, in_pieces):
        past = tables_of(lake.root, lake.catalog_url)
        assert scores(past["account_windows"]).equals(scores(live["account_windows"])), lake.root.name
        assert same_alerts(alerts_of(lake.catalog_url), live_alerts), lake.root.name


@pytest.mark.timeout(300)
def test_killed_at_every_step_it_goes_on_without_a_row_twice(tmp_path: Path, traffic: Path, config: Path) -> None:
    flags = ("--config", str(config), "--partitions", "2")
    whole, killed = PastLake(tmp_path / "whole", *flags), PastLake(tmp_path / "killed", *flags)
    whole.landed(traffic / "whole.ndjson")
    files = [traffic / f"piece-{number}.ndjson" for number in range(PIECES)]
    for crash in (("staged", 1), ("committed", 1), ("placed", 1), ("published", 1), ("hinted", 1)):
        assert killed.backfill(*files, crash=crash).returncode == -signal.SIGKILL, crash
    assert "skipped as already there" in killed.landed(*files)
    assert_whole(killed.root, killed.catalog_url)
    expected, found = (tables_of(lake.root, lake.catalog_url) for lake in (whole, killed))
    for table in ("access", "content", "rejects"):
        assert said(found[table]) == said(expected[table]), table
    assert scores(found["account_windows"]).equals(scores(expected["account_windows"]))
    assert same_alerts(alerts_of(killed.catalog_url), alerts_of(whole.catalog_url))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("how", ("--score", "--no-score"))
def test_what_was_committed_but_not_shown_when_all_was_read_is_shown(tmp_path: Path, traffic: Path, how: str) -> None:
    """Then no partition has anything left to read, and none is opened."""
    lake, piece = PastLake(tmp_path / "lake", how), traffic / "piece-0.ndjson"
    assert lake.backfill(piece, crash=("committed", 1)).returncode == -signal.SIGKILL
    assert counted(lake.landed(piece)) | {"read": 0} == counted(lake.landed(piece))
    assert_whole(lake.root, lake.catalog_url)
    tables = tables_of(lake.root, lake.catalog_url)
    assert len(tables["access"]) + len(tables["rejects"]) == piece.read_bytes().count(b"\n")


@pytest.mark.timeout(120)
def test_with_postgresql_as_catalog(tmp_path: Path, traffic: Path, config: Path, postgres_url: str) -> None:
    lake = PastLake(tmp_path / "lake", "--config", str(config), "--partitions", "2", catalog=postgres_url)
    pieces = sorted(traffic.glob("piece-*.ndjson"))
    assert lake.backfill(*pieces, crash=("committed", 2)).returncode == -signal.SIGKILL
    lake.landed(*pieces, "--parallel", "2")
    assert counted(lake.landed(*pieces, "--dry-run"))["to be read"] == 0
    assert_whole(lake.root, postgres_url)


@pytest.mark.timeout(300)
def test_beside_a_running_job_neither_loses_nor_doubles(
    tmp_path: Path, kafka: KafkaServer, topic: Callable[..., str], traffic: Path, config: Path
) -> None:
    """Both write one lake with one SQLite catalog, and a backfill is killed in the middle."""
    with site_of(tmp_path, kafka.bootstrap, topic(2)) as site:
        past = PastLake(site.lake, "--config", str(config), "--topic", site.topic, catalog=site.catalog_url)
        with Producer(site.bootstrap, site.topic, rate=500) as producer:
            live = site.worker()
            wait_until(lambda: site.landed() > 0, "the live job")
            pieces = sorted(traffic.glob("piece-*.ndjson"))
            assert past.backfill(*pieces, crash=("committed", 3)).returncode == -signal.SIGKILL
            past.landed(*pieces)
            past.landed("--no-score", traffic, "--parallel", "2")
            producer.finish()
        ends = ends_of(site.bootstrap, site.topic)
        files = tables_of(site.lake, site.catalog_url, "file:")
        lines = [path.read_bytes().count(b"\n") for path in (*pieces, traffic / "whole.ndjson")]
        assert len(files["access"]) + len(files["rejects"]) == sum(lines)
        wait_until(lambda: site.landed() == sum(ends.values()) + sum(lines), "all that was sent")
        assert live.stop() == 0
        kafkas = tables_of(site.lake, site.catalog_url, site.topic)
        assert len(kafkas["access"]) + len(kafkas["rejects"]) == producer.sent
        assert_whole(site.lake, site.catalog_url)


@pytest.mark.timeout(300)
def test_two_backfills_of_the_same_files_at_once_land_each_row_once(
    tmp_path: Path, traffic: Path, config: Path
) -> None:
    """The one that comes later takes the feed over, the other ends and says so; or finds all landed already."""
    lake = PastLake(tmp_path / "lake", "--config", str(config), "--partitions", "2")
    pieces = sorted(traffic.glob("piece-*.ndjson"))
    both = [lake.start(*pieces, "--parallel", parallel) for parallel in ("2", "1")]
    ended = [(it.wait(120), it.stderr.read() if it.stderr else "") for it in both]
    for it in both:
        it.communicate()
    assert {code for code, _ in ended} <= {0, 2}
    assert all("another" in words for code, words in ended if code), ended
    lake.landed(*pieces)
    assert_whole(lake.root, lake.catalog_url)
    tables = tables_of(lake.root, lake.catalog_url)
    rows = sum(path.read_bytes().count(b"\n") for path in pieces)
    assert len(tables["access"]) + len(tables["rejects"]) == rows


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGKILL))
def test_ended_in_the_middle_with_several_processes_it_goes_on(
    tmp_path: Path, traffic: Path, config: Path, number: signal.Signals
) -> None:
    """Those that a killed one leaves behind notice it and end; until then they are fenced like any other."""
    lake = PastLake(tmp_path / "lake", "--config", str(config), "--partitions", "2")
    pieces = sorted(traffic.glob("piece-*.ndjson"))
    running = lake.start("--parallel", "2", *pieces)
    wait_until(lambda: running.poll() is not None or lake.commits() > 0, "a first commit")
    running.send_signal(number)
    _, words = running.communicate(timeout=120)
    assert running.returncode in ({0, 130} if number == signal.SIGTERM else {-signal.SIGKILL, 0})
    assert ("ended early by SIGTERM" in words) == (running.returncode == 130)
    wait_until(lambda: lake.backfill(*pieces).returncode == 0, "one that nobody fences")
    assert_whole(lake.root, lake.catalog_url)
    tables = tables_of(lake.root, lake.catalog_url)
    rows = sum(path.read_bytes().count(b"\n") for path in pieces)
    assert len(tables["access"]) + len(tables["rejects"]) == rows


REPLACE_STEPS = ("staged", "committed", "placed", "begun", "written", "swapped")
HALF = ("--from", "2026-03-02T02:00", "--to", "2026-03-02T07:00")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("url", ("sqlite", pytest.param("postgresql", marks=pytest.mark.soak)), indirect=True)
def test_a_replacement_killed_after_any_step_goes_on_and_is_seen_whole_or_not_at_all(
    tmp_path: Path, traffic: Path, url: str
) -> None:
    """While compactors merge the same hours, and one of them is killed, too."""
    lake = PastLake(tmp_path / "lake", "--no-score", catalog=url)
    lake.landed(traffic / "whole.ndjson")
    new = tmp_path / "new"
    new.mkdir()
    lines = (traffic / "whole.ndjson").read_bytes().splitlines(keepends=True)
    for number in range(4):
        of_file = lines[number * 2 :: 8]
        content = b"".join(line.replace(b'"model":"', b'"model":"new-') for line in of_file)
        (new / f"{number}.ndjson").write_bytes(content)
    rows = tables_of(lake.root, url)
    before = Counter(rows["access"]["model"].to_pylist())
    for number, step in enumerate(REPLACE_STEPS):
        assert lake.backfill("--replace", *HALF, new, crash=(step, 1)).returncode == -signal.SIGKILL, step
        models = Counter(tables_of(lake.root, url)["access"]["model"].to_pylist())
        assert (models == before) == (step != "swapped"), step
        if number % 2:
            with Compacting(lake):
                pass
    assert "was made already" in lake.landed("--replace", *HALF, new)
    found = tables_of(lake.root, url)
    came = [model for model in found["access"]["model"].to_pylist() if model.startswith("new-")]
    times = rows["access"]["event_time"].cast("int64").to_numpy() // 3_600_000_000 % 24
    stays = int(((times < 2) | (times >= 7)).sum())
    assert came
    assert len(found["access"]) == stays + len(came)
    assert_whole(lake.root, url)
    with Compacting(lake):
        pass
    assert_whole(lake.root, url)
    assert said(tables_of(lake.root, url)["access"]) == said(found["access"])
