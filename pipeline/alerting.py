"""From feature rows and scores to alerts: which rules hold, who is silent for now, and the reasons in words.

Rules are looked at row by row in the order of emission, though computed for many rows at once: where the rows were cut
makes no difference.  A rule that raised for an account is silent for it while the account's own clock is less than
`suppress_hours` from that moment, whatever other accounts' clocks say.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.alerts import Alert, alert_id_of
from pipeline.batch import Partition
from pipeline.errors import ConfigError, SchemaError
from pipeline.reasons import precedents_in_words, reasons_of
from pipeline.rules import RISK, Rule
from pipeline.rules.condition import Mask

ENTRIES_MAX: Final = 16_384
"""Accounts that a rule remembers in a partition, the last that it alerted: about 3 MB a rule.  An older one is
forgotten, and may then be alerted again before its time; no clock decides it, so no event dated ahead can."""

RULES_SCHEMA: Final = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("version", pa.int32(), nullable=False),
        pa.field("fingerprint", pa.string(), nullable=False),
    ]
)
RAISED_SCHEMA: Final = pa.schema(
    [
        pa.field("rule", pa.uint16(), nullable=False),
        pa.field("key", pa.uint64(), nullable=False),
        pa.field("raised_at", pa.int64(), nullable=False),
        pa.field("suppressed", pa.int64(), nullable=False),
    ]
)
"""What a snapshot holds: the rules, and for each (by its place among them) the accounts it alerted, oldest first, with
the rows since that met the condition and were suppressed."""


@dataclass(slots=True)
class Raised:
    """What a rule remembers of an account that it alerted.

    Attributes:
        at: the account's clock then, microseconds since the epoch.
        suppressed: rows since then that met the condition while the rule was silent for the account.
    """

    at: int
    suppressed: int = 0


class Described(Protocol):
    """What is said about a feature."""

    @property
    def name(self) -> str:
        """As conditions name it."""

    @property
    def words(self) -> str:
        """What the number is: "share of requests that are single-turn"."""


class Rows(Protocol):
    """The feature rows that alerting looks at: `pipeline.features.rows.FeatureRows`, n of them."""

    @property
    def offset(self) -> npt.NDArray[np.int64]:
        """Of the record that triggered the row."""

    @property
    def account_id(self) -> list[str]:
        """Whose row it is."""

    @property
    def key(self) -> npt.NDArray[np.uint64]:
        """XXH3-64 of the account's id."""

    @property
    def scored_at(self) -> npt.NDArray[np.int64]:
        """The account's clock, microseconds of event time since the epoch."""

    @property
    def first_seen(self) -> npt.NDArray[np.int64]:
        """When the account's present life began, microseconds since the epoch."""

    @property
    def exchanges(self) -> npt.NDArray[np.int64]:
        """Events of the account's present life."""

    @property
    def output_tokens(self) -> npt.NDArray[np.int64]:
        """Tokens that it was answered."""

    @property
    def values(self) -> npt.NDArray[np.float32]:
        """float32[n, F], NaN where a feature is not computable."""

    def __len__(self) -> int: ...


class Risks(Protocol):
    """The scores that alerting looks at, of the same n rows."""

    @property
    def risk(self) -> npt.NDArray[np.float32]:
        """float32[n], 0 to 1; NaN: unknown."""

    @property
    def top(self) -> npt.NDArray[np.int16]:
        """int16[n, k], features that weighed most, the weightiest first; -1: none."""

    @property
    def contribution(self) -> npt.NDArray[np.float32]:
        """float32[n, k], what each adds to the log-odds of the risk."""

    @property
    def precedents(self) -> npt.NDArray[np.float32]:
        """float32[n], what verdicts on accounts like these add to the log-odds of the risk."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Of features, models and configuration."""


class Worded(Protocol):
    """A reason for a score."""

    @property
    def words(self) -> str:
        """It as a sentence."""


class Explains(Protocol):
    """What turns contributions into sentences: `pipeline.scoring.explain.Explainer`."""

    def reasons(
        self, values: npt.NDArray[np.float32], top: npt.NDArray[np.int16], contribution: npt.NDArray[np.float32]
    ) -> Sequence[Worded]:
        """The reasons for one row's score, the weightiest first."""


class Alerting:
    """Alerts of one partition."""

    def __init__(
        self, rules: Sequence[Rule], features: Sequence[Described], partition: Partition, explainer: Explains
    ) -> None:
        """Begin with no account alerted.

        Args:
            rules: to look at, in this order.
            features: columns of the rows' `values`.
            partition: whose rows come.
            explainer: of the models that make the scores.
        """
        self._rules = tuple(rules)
        self._words = {feature.name: feature.words for feature in features}
        self._names = [feature.name for feature in features]
        self._place = {name: index for index, name in enumerate(self._names)}
        self._partition = partition
        self._explainer = explainer
        self._raised: list[OrderedDict[int, Raised]] = [OrderedDict() for _ in self._rules]
        self._suppressed: Counter[str] = Counter()

    def step(self, rows: Rows, scores: Risks) -> tuple[list[Alert], Mask]:
        """Look at rows.

        Args:
            rows: n rows in the order of emission, after all that were given before.
            scores: theirs.

        Returns:
            The alerts by row, then by the order of rules; and bool[n], which rows may teach the models what is normal:
            those of no account that a live rule on the risk alerts now, or did within its suppression window.
        """
        columns = Columns(rows, scores, self._place)
        keys: list[int] = rows.key.tolist()
        clocks: list[int] = rows.scored_at.tolist()
        may_learn = np.ones(len(rows), dtype=np.bool_)
        raises: list[tuple[int, int, Raised | None]] = []
        for index, rule in enumerate(self._rules):
            fires = rule.condition.fires(columns, len(rows))
            walked = _walk(rule, self._raised[index], fires, keys, clocks)
            raises.extend((row, index, before) for row, before in walked.raised)
            if walked.suppressed:
                self._suppressed[rule.name] += walked.suppressed
            if rule.withholds_learning:
                may_learn[[row for row, _ in walked.raised] + walked.silent] = False
        raises.sort(key=lambda raised: raised[:2])
        return [self._alert(self._rules[index], columns, row, before) for row, index, before in raises], may_learn

    def take_suppressed(self) -> Mapping[str, int]:
        """Rows since the last call that met a rule's condition while it was silent for their account, by the rule."""
        taken, self._suppressed = self._suppressed, Counter()
        return taken

    def _alert(self, rule: Rule, columns: Columns, row: int, before: Raised | None) -> Alert:
        rows, scores = columns.rows, columns.scores
        account, clock = rows.account_id[row], int(rows.scored_at[row])
        start = clock // rule.suppress_us * rule.suppress_us
        top = [self._names[feature] for feature in scores.top[row].tolist() if feature >= 0]
        said = {name: columns.number(name, row) for name in rule.condition.names}
        features = {name: columns.number(name, row) for name in [*said, *top] if name in self._place}
        alert = Alert(
            alert_id=alert_id_of(rule.name, rule.version, "account", account, start),
            rule=rule.name,
            rule_version=rule.version,
            state=rule.state,
            severity=rule.severity,
            entity_type="account",
            entity_id=account,
            window_start_us=start,
            raised_at_us=clock,
            first_seen_us=int(rows.first_seen[row]),
            topic=self._partition.topic,
            partition=self._partition.number,
            offset=int(rows.offset[row]),
            exchanges=int(rows.exchanges[row]),
            output_tokens=int(rows.output_tokens[row]),
            risk=columns.number(RISK, row),
            reasons=(),
            features=features,
            versions={**scores.versions, "rule": rule.fingerprint[:16]},
        )
        weighed = self._explainer.reasons(rows.values[row], scores.top[row], scores.contribution[row])
        precedents = precedents_in_words(alert.risk, float(scores.precedents[row]))
        words = [*(reason.words for reason in weighed), *precedents]
        again = None if before is None else (before.at, before.suppressed)
        return reasons_of(alert, rule, said, words, self._words, again)

    def snapshot(self) -> dict[str, pa.Table]:
        """All that the next rows' alerts depend on, as plain tables: `rules` and `raised`."""
        rules = [[rule.name, rule.version, rule.fingerprint] for rule in self._rules]
        raised = [
            (index, key, entry.at, entry.suppressed)
            for index, accounts in enumerate(self._raised)
            for key, entry in accounts.items()
        ]
        return {"rules": _table(rules, RULES_SCHEMA), "raised": _table(raised, RAISED_SCHEMA)}

    def restore(self, parts: Mapping[str, Any]) -> None:
        """Go on where a snapshot was taken; a rule that is new, or of a new version, begins with no account alerted.

        Args:
            parts: what `snapshot` gave.

        Raises:
            ConfigError: a rule decides otherwise than when the snapshot was taken, and has the same version.
            SchemaError: it is no such snapshot.
        """
        shapes = {"rules": RULES_SCHEMA, "raised": RAISED_SCHEMA}
        for name in [*shapes, *parts]:
            part = parts.get(name)
            if name not in shapes or not isinstance(part, pa.Table) or not part.schema.equals(shapes[name]):
                raise SchemaError(f"the snapshot's part {name} of the alerting is missing, unknown or of another shape")
        tables: Mapping[str, pa.Table] = parts
        then = tables["rules"].to_pylist()
        places = [self._place_of(rule) for rule in then]
        raised: list[OrderedDict[int, Raised]] = [OrderedDict() for _ in self._rules]
        for index, key, at, suppressed in zip(
            *(column.to_pylist() for column in tables["raised"].columns), strict=True
        ):
            if index >= len(places):
                raise SchemaError("the snapshot's part raised of the alerting names a rule that is not in it")
            place = places[index]
            if place is not None:
                raised[place][key] = Raised(at, suppressed)
        self._raised = raised

    def _place_of(self, then: Mapping[str, Any]) -> int | None:
        """Where a rule of a snapshot is now."""
        for index, rule in enumerate(self._rules):
            if (rule.name, rule.version) == (then["name"], then["version"]):
                if rule.fingerprint != then["fingerprint"]:
                    raise ConfigError(
                        f"rule {rule.name!r} is still version {rule.version}, but its condition, constants, state or "
                        f"suppress_hours is not what this partition ran with; give it version {rule.version + 1}"
                    )
                return index
        return None


class Columns:
    """The numbers that conditions look at, each made once a step."""

    def __init__(self, rows: Rows, scores: Risks, place: Mapping[str, int]) -> None:
        self.rows, self.scores = rows, scores
        self._place = place
        self._made: dict[str, npt.NDArray[Any]] = {}

    def __call__(self, name: str) -> npt.NDArray[Any]:
        """The numbers of a name, one a row."""
        made = self._made.get(name)
        if made is None:
            if name == RISK:
                made = self.scores.risk
            elif name in self._place:
                made = self.rows.values[:, self._place[name]]
            else:  # as floats, for which no sum or product is out of range
                made = getattr(self.rows, name).astype(np.float64)
            self._made[name] = made
        return made

    def number(self, name: str, row: int) -> float | None:
        """One of them; None: unknown."""
        number = float(self(name)[row])
        return number if np.isfinite(number) else None


@dataclass(frozen=True, slots=True)
class _Walked:
    """What became of the rows that matter to a rule.

    Attributes:
        raised: rows that raise, each with what was remembered of its account before.
        silent: rows of accounts for which it is silent, as far as it matters who they are.
        suppressed: how many of these met the condition.
    """

    raised: list[tuple[int, Raised | None]]
    silent: list[int]
    suppressed: int


def _walk(
    rule: Rule, past: OrderedDict[int, Raised], fires: Mask, keys: Sequence[int], clocks: Sequence[int]
) -> _Walked:
    """Go through the rows that matter to a rule, in order.

    Args:
        rule: the rule.
        past: when it last raised for which account, oldest first; changed in place.
        fires: bool[n], where its condition holds.
        keys: the rows' accounts.
        clocks: the rows' times.
    """
    firing = np.flatnonzero(fires).tolist()
    candidates = firing
    if rule.withholds_learning and (past or firing):
        alerted = {keys[row] for row in firing}
        candidates = [row for row, key in enumerate(keys) if key in past or key in alerted]
    raised: list[tuple[int, Raised | None]] = []
    silent: list[int] = []
    suppressed = 0
    holds = set(firing)
    for row in candidates:
        key, clock = keys[row], clocks[row]
        last = past.get(key)
        if last is not None and abs(clock - last.at) < rule.suppress_us:
            silent.append(row)
            if row in holds:
                last.suppressed += 1
                suppressed += 1
        elif row in holds:
            past[key] = Raised(clock)
            past.move_to_end(key)
            if len(past) > ENTRIES_MAX:
                past.popitem(last=False)
            raised.append((row, last))
    return _Walked(raised, silent, suppressed)


def _table(rows: Sequence[Sequence[Any]], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )
