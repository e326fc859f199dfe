"""Labels: who of the accounts is known to harvest.  They judge the scores and are never an input to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import polars as pl

from pipeline.alerts import without_nul
from pipeline.decisions import Verdict
from pipeline.errors import ConfigError

LABEL_COLUMNS: Final = ("account_id", "label", "population", "family", "variant")
ATTACK, BENIGN = "attack", "benign"
UNNAMED: Final = "(none)"
"""Stands for a population, family or variant that a label leaves empty."""


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels of the accounts of a log.

    Attributes:
        rows: one a labelled account that the log knows: LABEL_COLUMNS as texts, `attack` Boolean instead of `label`.
        unknown: labelled accounts that the log does not know; they are left out.
        unlabelled: accounts of the log that have no label; they are left out, too.
    """

    rows: pl.DataFrame
    unknown: tuple[str, ...]
    unlabelled: tuple[str, ...]


def checked(given: pl.DataFrame, where: str) -> pl.DataFrame:
    """What a file of labels says, if it can be used.

    Args:
        given: its columns as texts.
        where: the file, for the message.

    Returns:
        LABEL_COLUMNS, one row an account.

    Raises:
        ConfigError: a column is missing, a label is neither `attack` nor `benign`, or an account has two.
    """
    missing = [name for name in LABEL_COLUMNS if name not in given.columns]
    if missing:
        raise ConfigError(f"--labels {where}: no column {', '.join(missing)}; needed: {', '.join(LABEL_COLUMNS)}")
    rows = given.select(pl.col(LABEL_COLUMNS).cast(pl.String))
    others = rows.filter(~pl.col("label").is_in([ATTACK, BENIGN]).fill_null(value=False))
    if len(others):
        raise ConfigError(f"--labels {where}: label {others['label'][0]!r}; it must be {ATTACK!r} or {BENIGN!r}")
    if rows["account_id"].null_count():
        raise ConfigError(f"--labels {where}: a row has no account_id")
    twice = rows.filter(pl.col("account_id").is_duplicated())
    if len(twice):
        raise ConfigError(f"--labels {where}: account {twice['account_id'][0]!r} is labelled twice")
    return rows


def matched(labels: pl.DataFrame, accounts: pl.Series) -> Labels:
    """Keep the labels of the accounts that are in the log.

    Args:
        labels: from `checked`.
        accounts: String, every account of the log once.
    """
    known = labels.filter(pl.col("account_id").is_in(accounts.implode()))
    rows = known.select(
        "account_id",
        (pl.col("label") == ATTACK).alias("attack"),
        *(pl.col(name).replace("", None).fill_null(UNNAMED) for name in LABEL_COLUMNS[2:]),
    )
    labelled = labels["account_id"]
    return Labels(
        rows=rows,
        unknown=tuple(labelled.filter(~labelled.is_in(accounts.implode())).to_list()),
        unlabelled=tuple(accounts.filter(~accounts.is_in(labelled.implode())).to_list()),
    )


def decided(verdicts: Iterable[Verdict], accounts: pl.Series) -> pl.DataFrame | None:
    """What verdicts say of the accounts of a log, by the last one on each; `unsure` and `withdrawn` say nothing.

    Args:
        verdicts: in their order.
        accounts: String, every account of the log once.

    Returns:
        `account_id` and `attack` Boolean, one row an account that is judged; None where none is.
    """
    known = {spelling: name for name in accounts for spelling in (without_nul(name), name)}
    last = {known[one.account_id]: one.decision for one in verdicts if one.account_id in known}
    told = [(name, decision == "harvesting") for name, decision in last.items() if decision in {"harvesting", "benign"}]
    return pl.DataFrame(told, schema={"account_id": pl.String, "attack": pl.Boolean}, orient="row") if told else None
