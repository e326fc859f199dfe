"""`stillwatch backtest` as a command: what it writes, what it refuses, and that it says so in one line."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from jobs.backtest import Engine, Request, run
from jobs.cli import app
from pipeline.config import Settings
from pipeline.decisions import Decision, Verdict
from pipeline.errors import ConfigError
from pipeline.features import FEATURES_HASH, NAMES
from pipeline.io.backtest_folder import FILES
from pipeline.io.catalog import Catalog
from pipeline.io.labels_file import read_labels
from pipeline.scoring.boosted_trees import Boosting
from pipeline.scoring.labelled import LabelledRows
from pipeline.scoring.mondrian_forest import ForestSettings
from pipeline.scoring.training import TrainingSettings, train
from pipeline.windows import WINDOWS_SCHEMA
from tests.lake_maker import LakeMaker
from tests.rule_files import rule_text
from tests.unit.backtesting.standin import WINDOWS, StandIn

Run = Callable[..., Result]


def event(account: str, at: int, **others: Any) -> dict[str, Any]:
    time = f"2026-03-01T{at // 60:02}:{at % 60:02}:00+00:00"
    base = {
        "event_time": time,
        "account_id": account,
        "model": "m",
        "message_count": 5,
        "output_tokens": 50,
        "prompt": f"so {at}",
    }
    return base | others


def traffic() -> list[dict[str, Any]]:
    """Two hours: four accounts that talk, two that harvest, one that came twice."""
    events = [event(f"talk{at % 4}", at) for at in range(120)]
    events += [
        event(f"take{at % 2}", at, message_count=1, output_tokens=4000, prompt=f"Write a poem on {at}.")
        for at in range(120)
    ]
    events += [event("rare", 5), event("rare", 6)]
    return sorted(events, key=lambda row: row["event_time"])


def write_traffic(folder: Path) -> Path:
    path = folder / "events.ndjson"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in traffic()))
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["account_id", "label", "population", "family", "variant", "pool_id"])
        rows.writerows([f"talk{at}", "benign", "people", "", "", ""] for at in range(4))
        rows.writerows([f"take{at}", "attack", "attack", "poems", "loud", ""] for at in range(2))
        rows.writerows([["rare", "benign", "people", "", "", ""], ["gone", "benign", "people", "", "", ""]])
    return path


def request(folder: Path, **given: Any) -> Request:
    base: dict[str, Any] = {
        "events": str(folder / "events.ndjson"), "out": folder / "out", "settings": Settings(), "files": (), "labels": None,
        "partitions": 2, "rejects_max": 0.0, "compare": None,
    }  # fmt: skip
    return Request(**base | given)


def engine(threshold: float = 0.5) -> Engine:
    return Engine(lambda partition: StandIn(partition, threshold), WINDOWS)


def test_a_run_without_labels_writes_every_file(tmp_path: Path) -> None:
    write_traffic(tmp_path)
    report = run(request(tmp_path), engine())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)
    assert orjson.loads((tmp_path / "out" / "report.json").read_bytes()) == orjson.loads(orjson.dumps(report))
    assert report["detection"] is None
    assert (report["log"]["events"], report["log"]["accounts"], report["log"]["hours"]) == (242, 7, 2)
    assert (report["scores"]["accounts_scored"], report["scores"]["accounts_never_scored"]) == (6, 1)
    alerts = pl.read_parquet(tmp_path / "out" / "alerts.parquet")
    assert {"alert_id", "rule", "entity_type", "entity_id", "raised_at", "events_before"} <= set(alerts.columns)
    assert dict(alerts.filter(pl.col("state") == "live").select("entity_id", "events_before").iter_rows()) == {
        "take0": 8,
        "take1": 8,
    }
    assert [row["account_id"] for row in report["top_accounts"][:2]] == ["take0", "take1"]


def test_with_labels_it_says_how_good_it_was(tmp_path: Path) -> None:
    write_traffic(tmp_path)
    report = run(request(tmp_path, labels=read_labels(tmp_path / "labels.csv")), engine())
    found = report["detection"]
    assert found["auc"] == 1.0
    assert found["live_rules"]["precision"]["share"] == 1.0
    assert found["live_rules"]["exchanges_before_first_alert"]["loud"]["median"] == 8.0
    assert any("1 labelled account is not in the log, and left out: gone" in line for line in report["warnings"])


def test_a_log_that_the_models_learned_is_said_to_be(tmp_path: Path) -> None:
    path = write_traffic(tmp_path)
    knowing = replace(engine(), learned=frozenset({hashlib.sha256(path.read_bytes()).hexdigest()}))
    report = run(request(tmp_path), knowing)
    assert report["input"]["learned"] == [str(path)]
    assert any("The models learned" in line and str(path) in line for line in report["warnings"])
    assert not any("learned" in line for line in run(request(tmp_path), engine())["warnings"])


def test_a_folder_made_in_vain_is_not_left_behind(tmp_path: Path) -> None:
    write_traffic(tmp_path)
    (tmp_path / "events.ndjson").write_bytes(b"no event\n" * 10)
    with pytest.raises(ConfigError):
        run(request(tmp_path), engine())
    assert not (tmp_path / "out").exists()


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    write_traffic(tmp_path)
    labels = read_labels(tmp_path / "labels.csv")
    contents = []
    for _ in range(2):
        run(request(tmp_path, labels=labels), engine())
        contents.append([(tmp_path / "out" / name).read_bytes() for name in FILES])
    assert contents[0] == contents[1]


def test_a_lake_gives_what_its_log_gave(tmp_path: Path) -> None:
    write_traffic(tmp_path)
    with contextlib.closing(LakeMaker(tmp_path / "lake")) as maker:
        maker.append(traffic(), kafka_ms=-1)
    columns = ["account_id", "scored_at", "risk", "offset"]
    of_file = run(request(tmp_path, partitions=1), engine())
    scores = pq.read_table(tmp_path / "out" / "scores.parquet", columns=columns)
    of_lake = run(request(tmp_path, events="lake", settings=Settings(lake=str(tmp_path / "lake"))), engine())
    assert pq.read_table(tmp_path / "out" / "scores.parquet", columns=columns).equals(scores)
    assert of_lake["log"] == of_file["log"]


def test_of_a_lake_verdicts_say_what_each_rule_was_worth(tmp_path: Path) -> None:
    lake = Settings(lake=str(tmp_path / "lake"))
    with contextlib.closing(LakeMaker(tmp_path / "lake")) as maker:
        maker.append(traffic(), kafka_ms=-1)
    given: list[tuple[str, Decision]] = [
        ("take0", "benign"),
        ("take0", "harvesting"),
        ("take1", "benign"),
        ("gone", "benign"),
    ]
    with contextlib.closing(Catalog.open(lake.catalog_url, create=False)) as catalog:
        for number, (account, decision) in enumerate(given):
            catalog.desk.verdicts.give(Verdict(f"{number:032x}", account, decision, "seen", "ana", number))
    report = run(request(tmp_path, events="lake", settings=lake, verdicts=False), engine())
    told = {rule["rule"]: rule["told"]["verdicts"] for rule in report["rules"]}
    assert (told["risk_high"]["attack"]["count"], told["risk_high"]["benign"]["count"]) == (1, 1)
    assert told["risk_high"]["precision"]["share"] == 0.5
    assert any("verdicts tell of each rule rests on 2 accounts" in line for line in report["warnings"])
    assert b"as the verdicts tell (attack: 1, benign: 1)" in (tmp_path / "out" / "report.html").read_bytes()


def test_two_runs_are_set_side_by_side(tmp_path: Path) -> None:
    write_traffic(tmp_path)
    run(request(tmp_path, out=tmp_path / "before"), engine())
    report = run(request(tmp_path, compare=tmp_path / "before"), engine(threshold=0.95))
    found = report["comparison"]
    assert found["same_log"]
    assert (found["only_before"]["count"], found["only_after"]["count"], found["accounts_moved"]) == (2, 0, 0)
    assert b"Beside the earlier run" in (tmp_path / "out" / "report.html").read_bytes()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of the real features, trained on noise: enough to run."""
    folder, random = tmp_path_factory.mktemp("models"), np.random.default_rng(1)
    count = 120
    harvesting = np.arange(count) % 3 == 0
    values = (random.normal(size=(count, len(NAMES))) + harvesting[:, None]).astype(np.float32)
    said = [np.where(harvesting, text, "") for text in ("a", "loud")]
    said[0] = np.where(harvesting, np.array(["x", "y"])[np.arange(count) % 2], "")
    rows = LabelledRows(
        values, np.array([f"a{at}" for at in range(count)]), np.full(count, 64), np.full(count, 4), harvesting,
        np.where(harvesting, "", "people"), said[0], said[1], np.full(count, "made-up"),
    )  # fmt: skip
    settings = TrainingSettings(
        rows_max=60, folds=2, forest=ForestSettings(n_estimators=2), boosting=Boosting(forests=1, rounds=4)
    )
    train(rows, NAMES, FEATURES_HASH, settings).save(folder)
    return folder


@pytest.fixture
def command(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `stillwatch backtest` in a folder with some traffic; a known error is raised."""
    write_traffic(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STILLWATCH_MODELS", str(models))

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(
            app, ["backtest", "--events", "events.ndjson", "--out", "out", *arguments], catch_exceptions=False
        )

    return invoke


def test_the_command_runs_the_analysis_of_the_live_job(command: Run, tmp_path: Path) -> None:
    result = command("--labels", "labels.csv", "--partitions", "2")
    assert result.exit_code == 0
    assert "242 events of 7 accounts" in result.output
    assert "AUC " in result.output
    assert "note: 1 labelled account is not in the log" in result.output
    scores = pq.read_table(tmp_path / "out" / "scores.parquet")
    assert scores.schema.equals(WINDOWS_SCHEMA)
    assert len(scores) > 0
    assert set(scores["partition"].to_pylist()) == {0, 1}
    assert orjson.loads((tmp_path / "out" / "report.json").read_bytes())["made_by"]["versions"]["models"]


def test_a_rule_is_tried_on_history_beside_those_that_ship(command: Run, tmp_path: Path) -> None:
    text = rule_text(name="mine", condition="exchanges >= 16", suppress_hours=1, severity="low")
    (tmp_path / "mine.toml").write_text(text)
    result = command("--labels", "labels.csv", "--rules", "shipped,mine.toml")
    assert result.exit_code == 0
    assert re.search(
        r"(?m)^rule +state +alerts +accounts +added +suppressed +first after +right by labels ", result.output
    )
    report = orjson.loads((tmp_path / "out" / "report.json").read_bytes())
    mine = {rule["rule"]: rule for rule in report["rules"]}["mine"]
    assert len(report["rules"]) == 10
    assert mine["alerts"] > 0
    assert mine["suppressed"] > 0
    assert mine["exchanges_before_first_alert"]["median"] == 16
    told = mine["told"]["labels"]
    assert told["attack"]["count"] + told["benign"]["count"] + told["unknown"] == mine["accounts"]
    assert re.search(
        rf"(?m)^mine +shadow +{mine['alerts']} +{mine['accounts']} +{mine['added']} +{mine['suppressed']} +16 ",
        result.output,
    )
    assert b"What each rule adds to the others" in (tmp_path / "out" / "report.html").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    (
        (("--rules", "wrong_rules.toml"), r"wrong_rules\.toml.*no_such_feature"),
        (("--events", "gone.ndjson"), r"--events gone\.ndjson: no such file"),
        (("--events", "*.zst"), r"--events \*\.zst: no file matches"),
        (("--labels", "gone.csv"), r"--labels gone\.csv: no such file"),
        (("--labels", "events.ndjson"), "cannot be read as CSV: "),
        (("--labels", "notes.csv"), "no column account_id, label, population, family, variant"),
        (("--accounts", "gone.ndjson"), r"gone\.ndjson"),
        (("--compare", "."), "no results of a backtest"),
        (("--out", "."), r"holds other files"),
        (("--events", "lake", "--partitions", "2"), "--partitions is for files"),
        (("--config", "rules.toml"), r"wrong_rules\.toml.*no_such_feature"),
        (("--events", "broken.ndjson"), r"broken\.ndjson, line 2: "),
    ),
)  # fmt: skip
def test_what_is_wrong_is_one_clear_error(command: Run, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    (tmp_path / "broken.ndjson").write_bytes((tmp_path / "events.ndjson").read_bytes().replace(b"\n", b"\n{\n", 5))
    (tmp_path / "notes.csv").write_text("who,what\na,b\n")
    (tmp_path / "rules.toml").write_text('rules = "wrong_rules.toml"\n')
    (tmp_path / "wrong_rules.toml").write_text(
        '[[rule]]\nname = "x"\nversion = 1\ntitle = "x"\nstate = "live"\nseverity = "low"\ncondition = "no_such_feature > 1"\n'
        'suppress_hours = 1\natlas = []\nowner = "x"\nrunbook = "x"\nblind_spots = "x"\n'
    )
    with pytest.raises(ConfigError, match=said):
        command(*arguments)
    assert not (tmp_path / "out" / "report.json").exists()
