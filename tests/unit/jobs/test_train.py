"""`stillwatch train` makes models that load, from logs or from runs, and says in one line what it cannot learn from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from jobs.cli import app
from pipeline.errors import ConfigError
from pipeline.features import NAMES
from pipeline.io import labelled_runs
from pipeline.scoring import Models
from pipeline.scoring.boosted_trees import Boosting
from pipeline.scoring.mondrian_forest import ForestSettings
from pipeline.scoring.training import TrainingSettings


@pytest.fixture(autouse=True)
def _small_forest(monkeypatch: pytest.MonkeyPatch) -> None:
    """One tree instead of many: what is tested is the command."""
    small = TrainingSettings(
        rows_max=60, passes=1, folds=2, forest=ForestSettings(n_estimators=1), boosting=Boosting(forests=1, rounds=4)
    )
    monkeypatch.setattr("jobs.train.DEFAULTS", small)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A backtest's folder: forty accounts of two families and one kind of customer, rows in the order of emission."""
    folder = tmp_path / "run"
    folder.mkdir()
    random = np.random.default_rng(0)
    accounts = [f"a{number:02}" for number in range(40)] * 3
    features = pa.StructArray.from_arrays([pa.array(random.random(120), pa.float32()) for _ in NAMES], list(NAMES))
    table = pa.table(
        {"account_id": accounts, "exchanges": np.repeat([8, 16, 64], 40), "kind": ["count"] * 120, "features": features}
    )
    pq.write_table(table, folder / "scores.parquet")
    lines = ["account_id,label,population,family,variant,pool_id"]
    for number in range(40):
        kind = f"attack,,{'xy'[number // 2 % 2]},loud," if number % 2 else "benign,people,,,"
        lines.append(f"a{number:02},{kind}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def invoke(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, ["train", *map(str, arguments)])
    if result.exception is not None:
        raise result.exception
    return result.output


def test_models_from_a_run_load(run: Path, tmp_path: Path) -> None:
    said = invoke("--runs", run, "--labels", run / "labels.csv", "--out", tmp_path / "models")
    models = Models.load(tmp_path / "models")
    assert models.version in said
    assert "120 rows of 40 accounts" in said
    digest = hashlib.sha256((run / "scores.parquet").read_bytes()).hexdigest()
    counts = {"rows": 120, "accounts": 40, "harvesting": 20, "families": 2}
    assert models.sources == {"run": {**counts, "sha256": digest, "of": []}}
    assert models.learned == {digest}


def test_models_know_the_logs_of_the_runs_that_they_learned(run: Path, tmp_path: Path) -> None:
    files = [{"name": "a.ndjson", "sha256": "1" * 64}, {"name": "labels.csv", "sha256": "2" * 64}]
    (run / "report.json").write_text(json.dumps({"input": {"events": ["a.ndjson"], "files": files}}))
    invoke("--runs", run, "--labels", run / "labels.csv", "--out", tmp_path / "models")
    assert Models.load(tmp_path / "models").learned > {"1" * 64}
    assert "2" * 64 not in Models.load(tmp_path / "models").learned

    (run / "report.json").write_text("{}")
    with pytest.raises(ConfigError, match="is no report of a backtest"):
        invoke("--runs", run, "--labels", run / "labels.csv", "--out", tmp_path / "others")


def test_two_sources_of_one_name_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two sources are called run"):
        invoke(*("--runs", run, "--labels", run / "labels.csv") * 2, "--out", tmp_path / "models")


def test_rows_of_a_run_follow_their_accounts(run: Path) -> None:
    rows = labelled_runs.rows_of_run(run, run / "labels.csv")
    assert rows.exchanges[:6].tolist() == [8, 16, 64] * 2
    assert rows.account[0] == rows.account[2] == "run/a00"
    assert set(rows.family[rows.harvesting].tolist()) == {"x", "y"}
    assert set(rows.population[~rows.harvesting].tolist()) == {"people"}


def test_models_from_a_log_load(tmp_path: Path) -> None:
    made = CliRunner().invoke(
        app,
        [
            "simulate",
            "--out",
            str(tmp_path / "log.ndjson"),
            "--accounts",
            "120",
            "--hours",
            "6",
            "--attack-share",
            "0.4",
        ],
    )
    assert made.exit_code == 0
    files = ("--events", tmp_path / "log.ndjson", "--labels", tmp_path / "labels.csv")
    said = invoke(*files, "--accounts", tmp_path / "accounts.ndjson", "--out", tmp_path / "models")
    assert Models.load(tmp_path / "models").version in said


def test_models_are_not_replaced_unasked(run: Path, tmp_path: Path) -> None:
    invoke("--runs", run, "--labels", run / "labels.csv", "--out", tmp_path / "models")
    with pytest.raises(ConfigError, match="--force"):
        invoke("--runs", run, "--labels", run / "labels.csv", "--out", tmp_path / "models")
    invoke("--runs", run, "--labels", run / "labels.csv", "--out", tmp_path / "models", "--force")


@pytest.mark.parametrize(
    ("arguments", "words"),
    (
        ((), "say what to learn from"),
        (("--events", "x.ndjson"), "--labels once for each"),
        (("--runs", "nowhere"), "--labels once for each --runs"),
        (("--runs", "nowhere", "--labels", "x.csv"), "cannot read"),
        (("--runs", "nowhere", "--labels", "x.csv", "--prior", "1"), "--prior"),
    ),
)
def test_arguments_that_do_not_do(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        invoke("--out", tmp_path / "models", *arguments)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("labels", "words"),
    (
        ("account_id,label\n", "lacks the column population"),
        ("account_id,label,population,family,variant\na00,bad,,,\n", "not benign or attack"),
        ("account_id,label,population,family,variant\nzz,benign,p,,\n", "no row of a labelled account"),
    ),
)
def test_labels_that_do_not_do(run: Path, labels: str, words: str) -> None:
    (run / "labels.csv").write_text(labels)
    with pytest.raises(ConfigError, match=words):
        labelled_runs.rows_of_run(run, run / "labels.csv")


def test_a_run_with_other_features_is_refused(run: Path) -> None:
    table = pq.read_table(run / "scores.parquet")
    other = pa.StructArray.from_arrays([pa.array(np.zeros(120))], ["another"])
    pq.write_table(table.set_column(3, "features", other), run / "scores.parquet")
    with pytest.raises(ConfigError, match="other features"):
        labelled_runs.rows_of_run(run, run / "labels.csv")
