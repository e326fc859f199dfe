"""Labelled feature rows from files: from a backtest's folder, or from an access log run through the same stages."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.accounts import Accounts
from pipeline.errors import ConfigError
from pipeline.features import FAMILIES, NAMES
from pipeline.features.engine import AccountStates
from pipeline.features.rows import COUNT, FeatureRows
from pipeline.io.backtest_folder import REPORT
from pipeline.io.event_files import find_files, read_files
from pipeline.scoring.kinds import stage_of
from pipeline.scoring.labelled import LabelledRows
from pipeline.scoring.scaling import Values

Ints = npt.NDArray[np.int64]

_LABEL_COLUMNS: Final = ("account_id", "label", "population", "family", "variant")


@dataclass(frozen=True, slots=True)
class Label:
    """What is known of an account: `label` is "benign" or "attack"."""

    label: str
    population: str
    family: str
    variant: str


def read_labels(path: Path) -> dict[str, Label]:
    """Labels by account, from a CSV file such as `stillwatch simulate` writes.

    Raises:
        ConfigError: the file is missing, lacks a column, or says something other than benign and attack.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            table = csv.DictReader(file)
            lacks = [name for name in _LABEL_COLUMNS if name not in (table.fieldnames or ())]
            if lacks:
                raise ConfigError(f"{path} lacks the column {lacks[0]}: labels need {', '.join(_LABEL_COLUMNS)}")
            labels = {row["account_id"]: Label(*(row[name] or "" for name in _LABEL_COLUMNS[1:])) for row in table}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the labels: {error}") from None
    for account, label in labels.items():
        if label.label not in {"benign", "attack"}:
            raise ConfigError(f"{path}: {account} is labelled {label.label!r}, not benign or attack")
    return labels


def logs_of_run(folder: Path) -> list[str]:
    """SHA-256 of the logs that a backtest read, as its report has them; none of a lake, and none without a report.

    Raises:
        ConfigError: the report is none of a backtest.
    """
    path = folder / REPORT
    try:
        given = orjson.loads(path.read_bytes())["input"]
        return [file["sha256"] for file in given["files"] if file["name"] in given["events"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is no report of a backtest: {type(error).__name__} at {error}") from None


def rows_of_run(folder: Path, labels: Path) -> LabelledRows:
    """The rows of a backtest: `scores.parquet` (account_id, exchanges, features) in its folder.

    Args:
        folder: what `stillwatch backtest --out` wrote.
        labels: who is who.

    Raises:
        ConfigError: a file is missing, or its features are others than this Stillwatch's.
    """
    path = folder / "scores.parquet"
    try:
        table = pq.read_table(path, columns=["account_id", "exchanges", "kind", "features"])
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    features = table["features"].combine_chunks()
    if tuple(field.name for field in features.type) != NAMES:
        raise ConfigError(f"{path} holds other features than this Stillwatch computes: run the backtest again")
    columns = [features.field(name).to_numpy(zero_copy_only=False) for name in NAMES]
    values = np.column_stack(columns).astype(np.float32, copy=False)
    accounts = table["account_id"].to_pylist()
    exchanges = table["exchanges"].to_numpy().astype(np.int64)
    stage = stage_of(exchanges, pc.equal(table["kind"], "count").to_numpy())
    return _labelled(values, accounts, (exchanges, stage), read_labels(labels), folder.name)


def rows_of_events(events: Path, accounts: Path | None, labels: Path) -> LabelledRows:
    """The rows that an access log gives when it is read as one partition.

    Args:
        events: one canonical event a line (.ndjson, .gz, .zst), in the order of a topic.
        accounts: the accounts feed; None for none.
        labels: who is who.

    Raises:
        ConfigError: a file cannot be read.
    """
    known = read_labels(labels)
    rows = feature_rows(events, Accounts.load(accounts) if accounts else None)
    seen = (rows.exchanges, stage_of(rows.exchanges, rows.kind == COUNT))
    return _labelled(rows.values, rows.account_id, seen, known, events.name.partition(".")[0])


def feature_rows(events: Path, accounts: Accounts | None) -> FeatureRows:
    """Decode a file of events as a backtest does, and compute its features; what is no event is passed over."""
    states = AccountStates(FAMILIES, accounts)
    chunks = read_files(find_files(str(events)), "file", partitions=1).chunks
    rows = [states.step(table) for chunk in chunks for table in chunk.events]
    return FeatureRows.concat([FeatureRows.empty(len(NAMES)), *rows])


def _labelled(
    values: Values, accounts: list[str], seen: tuple[Ints, Ints], labels: dict[str, Label], source: str
) -> LabelledRows:
    """Rows in emission order, sorted by account and joined with labels; accounts without one are left out.

    Args:
        values: float32[n, F].
        accounts: of each row.
        seen: exchanges and stage of each row.
        labels: by account.
        source: name of the run.
    """
    ids = np.array(accounts, dtype=np.str_)
    order = np.argsort(ids, kind="stable")
    order = order[[account in labels for account in ids[order].tolist()]]
    if not len(order):
        raise ConfigError(f"{source} has no row of a labelled account: are these its labels?")
    of_row = [labels[account] for account in ids[order].tolist()]
    harvesting = np.array([label.label == "attack" for label in of_row])
    return LabelledRows(
        values[order],
        np.char.add(f"{source}/", ids[order]),
        seen[0][order].astype(np.int64),
        seen[1][order].astype(np.int64),
        harvesting,
        np.where(harvesting, "", [label.population for label in of_row]),
        np.where(harvesting, [label.family or "unnamed" for label in of_row], ""),
        np.where(harvesting, [label.variant for label in of_row], ""),
        np.full(len(order), source),
    )
