"""The folder of results: whole or not there, and nobody else's."""

from __future__ import annotations

import contextlib
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError
from pipeline.io import backtest_folder
from pipeline.io.backtest_folder import FILES, BacktestFolder, read_report

WINDOWS = pa.schema([("account_id", pa.string()), ("risk", pa.float32())])


def fill(path: Path, account: str = "a") -> None:
    with BacktestFolder(path, WINDOWS) as folder:
        folder.add(pa.table({"account_id": [account], "risk": pa.array([0.5], pa.float32())}), [])
        folder.frames()
        folder.write_accounts(pl.DataFrame({"account_id": [account]}))
        folder.write("report.json", b"{}")
        folder.write("report.html", b"<!doctype html>")
        folder.publish()


def test_all_files_appear_together_and_an_earlier_run_is_replaced(tmp_path: Path) -> None:
    fill(tmp_path / "deep" / "out", "a")
    fill(tmp_path / "deep" / "out", "b")
    assert sorted(path.name for path in (tmp_path / "deep" / "out").iterdir()) == sorted(FILES)
    assert pq.read_table(tmp_path / "deep" / "out" / "scores.parquet")["account_id"].to_pylist() == ["b"]
    assert read_report(tmp_path / "deep" / "out")[0] == {}


def test_a_failed_run_leaves_the_earlier_one(tmp_path: Path) -> None:
    fill(tmp_path, "a")
    with contextlib.suppress(ZeroDivisionError), BacktestFolder(tmp_path, WINDOWS) as folder:
        folder.add(WINDOWS.empty_table(), [])
        raise ZeroDivisionError
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    assert pq.read_table(tmp_path / "scores.parquet")["account_id"].to_pylist() == ["a"]


def test_a_folder_with_anything_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(ConfigError, match=r"holds other files \(thesis\.txt\)"):
        BacktestFolder(tmp_path, WINDOWS)
    with pytest.raises(ConfigError, match="is a file: name a folder"):
        BacktestFolder(tmp_path / "thesis.txt", WINDOWS)


def test_scores_are_written_in_groups_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backtest_folder, "_GROUP_ROWS", 10)
    with BacktestFolder(tmp_path, WINDOWS) as folder:
        for at in range(25):
            folder.add(pa.table({"account_id": [str(at)], "risk": pa.array([0.5], pa.float32())}), [])
        scores, _ = folder.frames()
        assert scores.collect()["account_id"].to_list() == [str(at) for at in range(25)]
        with pq.ParquetFile(folder.partial("scores.parquet")) as file:
            assert file.metadata.num_row_groups == 3


def test_what_is_no_backtest_cannot_be_compared_with(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no results of a backtest"):
        read_report(tmp_path)
