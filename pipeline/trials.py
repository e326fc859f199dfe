"""Sequences of a rule through the engine of the live job: whether it fires where it must, and how near it came.

The events are decoded, and go through `Analysis` with the features, models and rules that would run; nothing stands in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import analysis
from pipeline.accounts import Accounts
from pipeline.alerting import Columns
from pipeline.alerts import Alert
from pipeline.analysis import Analysis, Watch
from pipeline.batch import Partition, Records
from pipeline.decode import Decoder
from pipeline.errors import ConfigError
from pipeline.features import NAMES
from pipeline.features.rows import FeatureRows
from pipeline.rules import Example, Rule
from pipeline.rules.sequence import feed_of, lines_of
from pipeline.snapshots import Parts

PARTITION: Final = Partition("rules-test", 0)

_PLACES: Final = {name: place for place, name in enumerate(NAMES)}


@dataclass(frozen=True, slots=True)
class Met:
    """One comparison of a condition, as a row had it.

    Attributes:
        text: the comparison, with the numbers of constants.
        holds: whether it was as the condition wants it.
        numbers: what it looked at, by name; None: unknown.
    """

    text: str
    holds: bool
    numbers: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Look:
    """A row of the account, as the rule saw it.

    Attributes:
        exchanges: that the account had made.
        met: the comparisons of the rule's condition.
    """

    exchanges: int
    met: tuple[Met, ...]


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of a sequence.

    Attributes:
        rule: whose sequence it is.
        example: the sequence.
        events: that it has.
        exchanges: those of the account that it is about.
        looks: rows of this account.
        alerts: of the rule, about this account.
        nearest: the row that came nearest to firing; of a rule that fired, the row that did.  None: there was no row.
        others: what other rules said of this account, and after how many exchanges.
        elsewhere: other accounts that the rule alerted.
    """

    rule: Rule
    example: Example
    events: int
    exchanges: int
    looks: int
    alerts: tuple[Alert, ...]
    nearest: Look | None
    others: tuple[tuple[str, int], ...]
    elsewhere: int

    @property
    def as_expected(self) -> bool:
        """Whether the rule did what it must; of an account that nobody looked at, silence says nothing."""
        return bool(self.looks) and bool(self.alerts) == (self.example.expect == "fires")


WatchOf = Callable[[Accounts | None], Watch]


def trial_of(rule: Rule, example: Example, watch_of: WatchOf) -> Trial:
    """Try a sequence.

    Args:
        rule: whose it is.
        example: the sequence.
        watch_of: what accounts are watched with, given the accounts feed.

    Raises:
        ConfigError: the sequence cannot be made, or one of its events is none.
    """
    events = events_of(example)
    watch = watch_of(feed_of(example))
    looked = _Looked(rule, example.account_id)
    recorded = dataclasses.replace(watch, alerting=lambda partition: _Recording(watch.alerting(partition), looked))
    alerts = Analysis(PARTITION, recorded).step(events).alerts
    about = [alert for alert in alerts if alert.entity_id == example.account_id]
    mine = tuple(alert for alert in about if alert.rule == rule.name)
    others = {alert.rule: alert.exchanges for alert in reversed(about) if alert.rule != rule.name}
    return Trial(
        rule=rule,
        example=example,
        events=len(events),
        exchanges=events["account_id"].to_pylist().count(example.account_id),
        looks=looked.rows,
        alerts=mine,
        nearest=looked.nearest,
        others=tuple(sorted(others.items(), key=lambda other: (other[1], other[0]))),
        elsewhere=len({a.entity_id for a in alerts if a.rule == rule.name and a.entity_id != example.account_id}),
    )


def events_of(example: Example) -> pa.Table:
    """The events of a sequence, decoded as the job decodes them: `pipeline.events.DECODED_SCHEMA`.

    Raises:
        ConfigError: the sequence cannot be made, one of its events is none, or none is of the account that it is about.
    """
    lines = lines_of(example)
    values = pa.array(lines, pa.binary()).cast(pa.binary_view())
    count = len(lines)
    decoded = Decoder().decode(Records(PARTITION, values, np.arange(count), np.full(count, -1), count))
    where = f"{example.place}, sequence {example.name!r}"
    if len(decoded.rejects):
        number, reason = decoded.rejects["offset"][0].as_py() + 1, decoded.rejects["reason"][0].as_py()
        raise ConfigError(f"{where}: event {number:,} of {count:,} is none: {reason}")
    if example.account_id not in set(decoded.events["account_id"].to_pylist()):
        raise ConfigError(f"{where}: no event is of account {example.account_id!r}, which it is about; see account_id")
    return decoded.events


def trials_of(rules: Sequence[Rule], watch_of: WatchOf) -> Iterator[Trial]:
    """Try all sequences of some rules, in order."""
    for rule in rules:
        for example in rule.examples:
            yield trial_of(rule, example, watch_of)


@dataclass(slots=True)
class _Looked:
    """What a rule saw of an account; of rows that are equally near the latest counts."""

    rule: Rule
    account_id: str
    rows: int = 0
    nearest: Look | None = None
    _best: tuple[float, ...] = field(default=(-np.inf, -np.inf, -np.inf))

    def add(self, rows: FeatureRows, columns: Columns) -> None:
        mine = [row for row, account_id in enumerate(rows.account_id) if account_id == self.account_id]
        if not mine:
            return
        comparisons = self.rule.condition.comparisons
        fires = self.rule.condition.fires(columns, len(rows))
        holds = np.array([one.holds(columns, len(rows)) for one in comparisons])
        gaps = np.where(holds, 0.0, [one.gaps(columns, len(rows)) for one in comparisons])
        for row in mine:
            self.rows += 1
            near = (0.0, float(holds[:, row].sum()), -float(gaps[:, row].sum()))
            if fires[row]:  # of rows that fire the first is meant: it is the one that raised
                near = (1.0, 0.0, 0.0)
            if near > self._best or (near == self._best and not fires[row]):
                self._best = near
                self.nearest = self._look(row, rows, columns, holds)

    def _look(self, row: int, rows: FeatureRows, columns: Columns, holds: npt.NDArray[np.bool_]) -> Look:
        met = (
            Met(one.text, bool(holds[place, row]), {name: columns.number(name, row) for name in one.names})
            for place, one in enumerate(self.rule.condition.comparisons)
        )
        return Look(int(rows.exchanges[row]), tuple(met))


class _Recording:
    """The rules of the engine, and beside them what one of them saw."""

    def __init__(self, inner: analysis.Alerting, looked: _Looked) -> None:
        self._inner, self._looked = inner, looked

    def step(self, rows: FeatureRows, scores: Any) -> tuple[Sequence[Alert], npt.NDArray[np.bool_]]:
        """What the rules say."""
        self._looked.add(rows, Columns(rows, scores, _PLACES))
        return self._inner.step(rows, scores)

    def take_suppressed(self) -> Mapping[str, int]:
        """What the rules kept silent about."""
        return self._inner.take_suppressed()

    def snapshot(self) -> Parts:
        """What the rules remember."""
        return self._inner.snapshot()

    def restore(self, parts: Parts) -> None:
        """Let the rules remember."""
        self._inner.restore(parts)
