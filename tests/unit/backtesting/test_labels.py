"""Labels that can be used, and those that cannot."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from pipeline.backtesting.labels import UNNAMED, decided, matched
from pipeline.decisions import Decision, Verdict
from pipeline.errors import ConfigError
from pipeline.io.labels_file import read_labels

HEADER = "account_id,label,population,family,variant,pool_id\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_labels_are_matched_with_the_log(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        HEADER + "a,benign,people,,,\nb,attack,attack,poems,loud,p1\ngone,benign,people,,,\n007,benign,etl,,,\n",
    )
    labels = matched(read_labels(path), pl.Series(["007", "a", "b", "new"]))
    assert labels.rows.rows() == [
        ("a", False, "people", UNNAMED, UNNAMED),
        ("b", True, "attack", "poems", "loud"),
        ("007", False, "etl", UNNAMED, UNNAMED),  # a text, and no number
    ]
    assert labels.unknown == ("gone",)
    assert labels.unlabelled == ("new",)


@pytest.mark.parametrize(
    ("text", "said"),
    (
        ("account_id,label\na,benign\n", "no column population, family, variant; needed: account_id"),
        (HEADER + "a,evil,,,,\n", "label 'evil'; it must be 'attack' or 'benign'"),
        (HEADER + "a,benign,p,,,\na,attack,p,,,\n", "account 'a' is labelled twice"),
        (HEADER + ",benign,p,,,\n", "a row has no account_id"),
        ("", "cannot be read as CSV"),
    ),
)
def test_what_cannot_be_used_is_told_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r"labels\.csv") as error:
        read_labels(write(tmp_path, text))
    assert said in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--labels .*gone\.csv: no such file"):
        read_labels(tmp_path / "gone.csv")


def test_of_verdicts_the_last_on_each_account_counts_and_only_of_accounts_of_the_log() -> None:
    def verdict(account: str, decision: Decision) -> Verdict:
        return Verdict("0" * 32, account, decision, "seen", "ana", 0)

    given = [
        verdict("a", "harvesting"), verdict("b", "benign"), verdict("c", "harvesting"), verdict("gone", "benign"),
        verdict("a", "benign"), verdict("c", "withdrawn"), verdict("d", "unsure"),
    ]  # fmt: skip
    found = decided(given, pl.Series(["a", "b", "c", "d", "e"]))
    assert found is not None
    assert found.rows() == [("a", False), ("b", False)]
    with_nul = decided([verdict("a\u2400", "benign")], pl.Series(["a\0"]))
    assert with_nul is not None
    assert with_nul.rows() == [("a\0", False)]
    assert decided(given[-2:], pl.Series(["c", "d"])) is None
