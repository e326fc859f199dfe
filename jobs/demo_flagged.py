"""What `stillwatch demo` says at its end of the accounts that the job flagged: who, why, and how right that was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from rich.console import Console

from jobs import demo_view as view
from jobs.demo_view import Answer
from pipeline.backtesting.metrics import Steps, quantile_of_counts, steps
from pipeline.counted import counted
from pipeline.reasons import weighed_of
from pipeline.simulation import Label

_FLAGGED: Final = """\
SELECT entity_id AS account_id, strftime(raised_at, '%a %H:%M') AS raised, exchanges, risk, reasons, alert_id
FROM alerts WHERE state = 'live'
QUALIFY row_number() OVER (PARTITION BY entity_id ORDER BY raised_at, alert_id) = 1
ORDER BY risk DESC NULLS LAST, account_id"""
"""Each account that a live rule flagged, by its first alert."""

_RISKS: Final = """\
SELECT account_id, max(risk) AS risk
FROM (SELECT DISTINCT account_id FROM access) LEFT JOIN account_windows USING (account_id) GROUP BY account_id"""
"""Each account that sent anything, with the highest risk that it ever got; null if it was never scored."""

_SHADOW: Final = """\
SELECT rule, count(*) AS alerts, count(DISTINCT entity_id) AS accounts
FROM alerts WHERE state = 'shadow' GROUP BY rule ORDER BY accounts DESC, rule"""

_SHOWN: Final = 8
_REASONS_SHOWN: Final = 2
_ATTACK: Final = "attack"


@dataclass(frozen=True, slots=True)
class Flagged:
    """An account that a live rule flagged, by its first alert; see `_FLAGGED`."""

    account_id: str
    raised: str
    exchanges: int
    risk: float | None
    reasons: Sequence[str]
    alert_id: str


@dataclass(frozen=True, slots=True)
class Group:
    """Accounts of one variant of harvesting, or of one kind of customer.

    Attributes:
        name: of the variant or population.
        accounts: that sent anything.
        flagged: of them.
        unscored: of them: they sent too little to be scored.
    """

    name: str
    accounts: int
    flagged: int
    unscored: int

    @property
    def missed(self) -> int:
        """Accounts that were not flagged."""
        return self.accounts - self.flagged


@dataclass(frozen=True, slots=True)
class Comparison:
    """Flagged accounts beside the simulation's labels; accounts that sent nothing are in none of it.

    Attributes:
        variants: groups of harvesters, the largest first.
        populations: groups of customers, those with most flagged first.
        swept: all thresholds on the highest risk of each account, which is 0 where it was never scored.
        exchanges: that half of the flagged harvesters had made at most when they were; None if there are none.
    """

    variants: Sequence[Group]
    populations: Sequence[Group]
    swept: Steps
    exchanges: int | None

    @classmethod
    def of(cls, flagged: Mapping[str, int], risks: Mapping[str, float | None], labels: Iterable[Label]) -> Comparison:
        """Compare accounts with labels.

        Args:
            flagged: accounts, with the exchanges that each had made then.
            risks: highest risk of every account that sent anything; None if it was never scored.
            labels: of all accounts.
        """
        there = [label for label in labels if label.account_id in risks]
        attack = [label for label in there if label.label == _ATTACK]
        benign = [label for label in there if label.label != _ATTACK]
        variants = _groups(attack, lambda label: label.variant, flagged, risks)
        populations = _groups(benign, lambda label: label.population, flagged, risks)
        counts = np.array([flagged[label.account_id] for label in attack if label.account_id in flagged], np.float64)
        middle = quantile_of_counts(counts, 0.5)
        return cls(
            variants=sorted(variants, key=lambda group: (-group.accounts, group.name)),
            populations=sorted(populations, key=lambda group: (-group.flagged, -group.accounts, group.name)),
            swept=steps(
                np.array([risks[label.account_id] or 0.0 for label in there], np.float64),
                np.array([label.label == _ATTACK for label in there], np.bool_),
            ),
            exchanges=None if middle is None else int(middle),
        )

    def in_words(self) -> dict[str, str]:
        """What the figures are, and the figures."""
        found, wrong = (sum(group.flagged for group in groups) for groups in (self.variants, self.populations))
        harvesters, customers = self.swept.positives, self.swept.negatives
        words = {
            "harvesters": f"{found:,} of {harvesters:,} in the traffic flagged{_share(found, harvesters)}",
            "customers": f"{wrong:,} of {customers:,} in the traffic flagged{_share(wrong, customers)}",
            "precision": f"{found:,} of {found + wrong:,} flagged accounts harvest{_share(found, found + wrong)}; "
            f"{harvesters:,} of all {harvesters + customers:,} do{_share(harvesters, harvesters + customers)}",
        }
        if self.exchanges is not None:
            words["how soon"] = (
                f"half of the flagged harvesters had made {counted(self.exchanges, 'exchange')} or fewer"
            )
        if self.swept.auc is not None and self.swept.average_precision is not None:
            words["ranking"] = (
                f"AUC {self.swept.auc:.3f}, average precision {self.swept.average_precision:.3f}, "
                "by the highest risk of each account"
            )
        return words


def report(console: Console, ask: Callable[[str], Answer], labels: Sequence[Label]) -> Flagged | None:
    """Say which accounts were flagged, why, and how that compares with the labels.

    Args:
        console: where.
        ask: answers a query over the lake.
        labels: of all accounts.

    Returns:
        The flagged account of the highest risk; None if there is none.
    """
    answer = ask(_FLAGGED)
    flagged = [Flagged(*row) for row in answer.rows]  # type: ignore[arg-type]  # as _FLAGGED selects them
    risks = {str(account): None if risk is None else float(str(risk)) for account, risk in ask(_RISKS).rows}
    _show_flagged(console, answer.sql, flagged, {label.account_id: label for label in labels})
    compared = Comparison.of({one.account_id: one.exchanges for one in flagged}, risks, labels)
    view.title(console, "How right that was, by the simulation's labels")
    view.pairs(console, compared.in_words())
    rows = [(group.name, group.accounts, group.flagged, group.missed, group.unscored) for group in compared.variants]
    console.print()
    console.print(
        view.table(Answer("", ("harvesters", "in traffic", "flagged", "missed", "too few requests"), rows, 0.0))
    )
    hit = [(group.name, group.accounts, group.flagged) for group in compared.populations if group.flagged]
    if hit:
        console.print()
        console.print(view.table(Answer("", ("customers", "in traffic", "flagged wrongly"), hit, 0.0)))
    view.prose(
        console,
        "This is simulated traffic, and the models have seen other traffic of the same simulator: it shows the job at "
        "work, not how well it would find a real harvest. docs/detection.md says what is known of that.",
    )
    shadow = ask(_SHADOW)
    if shadow.rows:
        view.title(console, "Rules in shadow: their alerts are kept and counted, and not for delivery")
        view.query(console, shadow)
    return flagged[0] if flagged else None


def in_words(label: Label) -> str:
    """What the simulation says of an account."""
    return f"harvester, {label.variant}" if label.label == _ATTACK else f"customer, {label.population}"


def _show_flagged(console: Console, sql: str, flagged: Sequence[Flagged], label_of: Mapping[str, Label]) -> None:
    shown = f", the {_SHOWN} riskiest of them" if len(flagged) > _SHOWN else ""
    view.title(console, f"Accounts that the job flagged: {len(flagged):,}{shown}")
    view.sql(console, sql)
    if not flagged:
        view.prose(console, "None. An account needs some requests before it can be scored; try a longer demo.")
    for one in flagged[:_SHOWN]:
        risk = "unknown" if one.risk is None else f"{one.risk:.2f}"
        view.say(console)
        view.say(
            console,
            f"  {one.account_id}  {one.raised}, after {counted(one.exchanges, 'exchange')}, risk {risk}"
            f"  (simulated as {in_words(label_of[one.account_id])})",
        )
        view.points(console, weighed_of(one.reasons)[:_REASONS_SHOWN])


def _groups(
    labels: Iterable[Label], name: Callable[[Label], str], flagged: Mapping[str, int], risks: Mapping[str, float | None]
) -> list[Group]:
    every, found, unscored = Counter[str](), Counter[str](), Counter[str]()
    for label in labels:
        every[name(label)] += 1
        found[name(label)] += label.account_id in flagged
        unscored[name(label)] += risks[label.account_id] is None
    return [Group(group, count, found[group], unscored[group]) for group, count in every.items()]


def _share(count: int, of: int) -> str:
    return f" ({count / of:.1%})" if of else ""
