"""What is right in a rule file and may still be unwise: said by `stillwatch rules check`, and stops nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final

from pipeline.rules.rule import RISK, ROW_NAMES, Rule

_AMOUNTS: Final = frozenset(ROW_NAMES) - {RISK}
"""How much was asked and answered: what every rule may look at, and no signal of its own."""

_HOURS_FEW: Final = 1.0


def missing_examples(rules: Sequence[Rule]) -> Iterator[str]:
    """Rules that nothing shows to fire, or to keep silent: an error to `check`.

    A running job takes them, so that rule files of an earlier release go on.
    """
    for rule in rules:
        expected = {example.expect for example in rule.examples}
        missing = [
            words
            for expect, words in (("fires", "must fire on"), ("stays silent", "must not fire on"))
            if expect not in expected
        ]
        if missing:
            what = " and none that it ".join(missing)
            yield f"{rule.place}, rule {rule.name!r}: no sequence that it {what}; add [[rule.example]] (docs/rules.md)"


def warnings_of(rules: Sequence[Rule], of_feed: Collection[str], *, has_feed: bool) -> Iterator[str]:
    """What to think about before these rules run.

    Args:
        rules: that can be run.
        of_feed: features that need the accounts feed.
        has_feed: whether one is configured.
    """
    for rule in rules:
        signals = [name for name in rule.condition.names if name not in _AMOUNTS]
        for what in _unwise(rule, signals):
            yield f"{rule.place}, rule {rule.name!r}: {what}"
        needed = [name for name in signals if name in of_feed]
        if needed and not has_feed:
            yield (
                f"{rule.place}, rule {rule.name!r}: {', '.join(needed)} needs the accounts feed, and none is "
                "configured (accounts); what is unknown does not fire"
            )


def _unwise(rule: Rule, signals: Sequence[str]) -> Iterator[str]:
    if rule.state == "live" and RISK not in signals:
        alone = "one signal alone" if len(signals) == 1 else "amounts alone" if not signals else "no risk"
        yield (
            f"live, and on {alone}{f' ({signals[0]})' if len(signals) == 1 else ''}: its false alerts have no measured "
            "rate; let it run in shadow first, and see what `stillwatch backtest` says"
        )
    if rule.suppress_hours < _HOURS_FEW:
        times = 24 / rule.suppress_hours
        yield f"suppress_hours = {rule.suppress_hours:g}: one account may alert {times:,.0f} times a day"
