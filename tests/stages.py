"""Stages that are simple but remember as the real ones do: all that comes after depends on every event before."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.alerts import Alert, alert_id_of
from pipeline.analysis import Watch
from pipeline.batch import Partition
from pipeline.decisions import Verdict
from pipeline.drifts import Drift
from pipeline.errors import SchemaError
from pipeline.features import NAMES
from pipeline.features.rows import COUNT, TICK, FeatureRows
from pipeline.snapshots import Parts
from pipeline.windows import PARTS

HOUR_US = 3_600_000_000
EVERY = 3
BLOCK = 4
MODELS = "stand-in 1"


class CountingStates:
    """Counts each account's events, and chains a checksum over all that they said."""

    def __init__(self, _partition: Partition) -> None:
        self._accounts: dict[str, dict[str, int]] = {}
        self.dropped_for_room = 0

    def __len__(self) -> int:
        return len(self._accounts)

    def step(self, events: pa.Table) -> FeatureRows:
        rows: list[tuple[Any, ...]] = []
        columns = events.set_column(
            events.schema.get_field_index("event_time"), "event_time", events["event_time"].cast(pa.int64())
        ).drop_columns(["kafka_time"])
        for event in columns.to_pylist():
            at = event["event_time"]
            seen = self._accounts.setdefault(
                event["account_id"], {"events": 0, "tokens": 0, "first": at, "clock": at, "said": 0}
            )
            is_later = at // HOUR_US > seen["clock"] // HOUR_US
            seen["clock"] = max(seen["clock"], at)
            seen["events"] += 1
            seen["tokens"] += event["output_tokens"] or 0
            seen["said"] = zlib.crc32(repr(sorted(event.items(), key=str)).encode(), seen["said"])
            kinds = [TICK] * is_later + [COUNT] * (seen["events"] % EVERY == 0)
            values = [seen["events"], seen["said"] % 1000 if event["prompt"] else np.nan]
            rows += [
                (event["offset"], kind, event["account_id"], zlib.crc32(event["account_id"].encode()), seen["clock"],
                 seen["first"], seen["events"], seen["tokens"], values)
                for kind in kinds
            ]  # fmt: skip
        return _rows(rows)

    def snapshot(self) -> Parts:
        rows = [{"account_id": name, **seen} for name, seen in self._accounts.items()]
        names = ("account_id", "events", "tokens", "first", "clock", "said")
        return {"accounts": pa.table({name: [row[name] for row in rows] for name in names}), "every": EVERY}

    def restore(self, parts: Parts) -> None:
        table = _part(parts, {"accounts", "every"})["accounts"]
        self._accounts = {row.pop("account_id"): row for row in table.to_pylist()}


@dataclass(frozen=True)
class PlainScores:
    risk: Any
    parts: dict[str, Any]
    top: Any
    contribution: Any
    versions: dict[str, str]


class RunningMean:
    """Scores a row by its distance from the mean of what was learned, in blocks."""

    def __init__(self, _partition: Partition) -> None:
        self._sum, self._count, self._block = 0.0, 0, []  # type: float, int, list[float]
        self._in_block = 0
        self.verdict_seq = 0

    def scored(self, rows: FeatureRows) -> Iterator[tuple[FeatureRows, PlainScores]]:
        start = 0
        while start < len(rows):
            piece = rows.slice(start, start + BLOCK - self._in_block)
            yield piece, self.score(piece)
            start += len(piece)

    def score(self, rows: FeatureRows) -> PlainScores:
        mean = self._sum / max(self._count, 1)
        said = np.nan_to_num(rows.values[:, 1], nan=500.0)
        risk = (np.abs(said - mean) / 1000).astype(np.float32)
        risk[rows.exchanges < EVERY] = np.nan
        top = np.tile(np.array([[1, -1]], np.int16), (len(rows), 1))
        top[np.isnan(risk)] = -1
        return PlainScores(
            risk, dict.fromkeys(PARTS, risk), top, np.full((len(rows), 2), 0.5, np.float32), {"m": MODELS}
        )

    def learn(self, rows: FeatureRows, scores: PlainScores, may_learn: Any) -> None:
        self._block += [float(value) for value in scores.risk[may_learn] if not np.isnan(value)]
        self._in_block += len(rows)
        assert self._in_block <= BLOCK
        if self._in_block == BLOCK:
            self._sum += sum(self._block) * 100
            self._count += len(self._block)
            self._block, self._in_block = [], 0

    def take_drifts(self) -> tuple[Drift, ...]:
        return ()

    def judge(self, verdicts: Sequence[Verdict]) -> None:
        """Each is one more thing learned, and when it was matters: the mean moves on from there."""
        for verdict in verdicts:
            self._sum += 10_000 + zlib.crc32(verdict.account_id.encode()) % 1000 + self._count
            self._count += 3
            self.verdict_seq = verdict.seq

    def snapshot(self) -> Parts:
        block = {"block": list(self._block), "in_block": self._in_block}
        return {"sum": self._sum, "count": self._count, "verdict_seq": self.verdict_seq, **block}

    def restore(self, parts: Parts) -> None:
        known: Any = _part(parts, {"sum", "count", "verdict_seq", "block", "in_block"})
        self._sum, self._count, self.verdict_seq = known["sum"], known["count"], known["verdict_seq"]
        self._block, self._in_block = list(known["block"]), known["in_block"]


class AboveHalf:
    """Raises an alert of each row above a risk, but of an account only once an hour of its clock."""

    def __init__(self, partition: Partition) -> None:
        self._partition = partition
        self._silent: dict[str, int] = {}

    def step(self, rows: FeatureRows, scores: PlainScores) -> tuple[Sequence[Alert], Any]:
        alerts: list[Alert] = []
        may_learn = np.ones(len(rows), np.bool_)
        for row in range(len(rows)):
            account, at, risk = rows.account_id[row], int(rows.scored_at[row]), float(scores.risk[row])
            if not risk >= 0.5:
                continue
            may_learn[row] = False
            if at < self._silent.get(account, at):
                continue
            self._silent[account] = at + HOUR_US
            rule = f"above half in {self._partition}"  # the same account may come by several partitions in a test
            state: Any = "shadow" if zlib.crc32(account.encode()) % 4 == 0 else "live"
            alerts.append(
                Alert(
                    alert_id_of(rule, 1, "account", account, at), rule, 1, state, "high", "account",
                    account, at, at, int(rows.first_seen[row]), *self._partition, int(rows.offset[row]),
                    int(rows.exchanges[row]), int(rows.output_tokens[row]), risk, ("far from the mean",),
                    {NAMES[0]: float(rows.values[row, 0]), NAMES[1]: None}, {"rules": "1"},
                )
            )  # fmt: skip
        return alerts, may_learn

    def take_suppressed(self) -> dict[str, int]:
        return {}

    def snapshot(self) -> Parts:
        return {"silent": pa.table({"account_id": list(self._silent), "until": list(self._silent.values())})}

    def restore(self, parts: Parts) -> None:
        silent = _part(parts, {"silent"})["silent"]
        self._silent = dict(zip(*(silent[name].to_pylist() for name in ("account_id", "until")), strict=True))


def stand_ins(models: str = MODELS) -> Watch:
    """Something to watch with."""
    return Watch(CountingStates, RunningMean, AboveHalf, models)


def _part(parts: Parts, names: set[str]) -> Any:
    if set(parts) != names:
        raise SchemaError(f"the snapshot holds parts {sorted(parts)}, expected {sorted(names)}")
    return parts


def _rows(rows: list[tuple[Any, ...]]) -> FeatureRows:
    columns = list(zip(*rows, strict=True)) or [()] * 9
    whole = [np.array(columns[at], np.int64) for at in (0, 4, 5, 6, 7)]
    values = np.full((len(rows), len(NAMES)), np.nan, np.float32)
    if rows:
        values[:, :2] = columns[8]
    return FeatureRows(
        whole[0], np.array(columns[1], np.uint8), list(columns[2]), np.array(columns[3], np.uint64), whole[1], whole[2],
        whole[3], whole[4], values,
    )  # fmt: skip
