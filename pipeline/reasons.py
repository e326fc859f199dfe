"""The reasons of an alert, in words and numbers: why, who has taken how much since when, where to look, what to do."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.alerts import Alert
from pipeline.counted import counted
from pipeline.moments import moment_at
from pipeline.rules import RISK, Rule

_LAST: Final = 3
"""Reasons that stand after what weighed most: how much was taken, where to look, what to do."""

_MOVED_MIN: Final = 0.1
"""Log-odds below which verdicts are not spoken of: a tenth changes a risk of 0.5 to 0.52."""

_TO_DO: Final = "what to do: "

_WHOLE_FROM: Final = 1_000.0
"""From here on digits after the point say nothing."""


def reasons_of(
    alert: Alert,
    rule: Rule,
    said: Mapping[str, float | None],
    weighed: Sequence[str],
    words: Mapping[str, str],
    again: tuple[int, int] | None = None,
) -> Alert:
    """Give an alert its reasons.

    Args:
        alert: without them.
        rule: that raised it.
        said: the numbers that its condition looked at.
        weighed: what weighed most in the risk, in sentences, the weightiest first.
        words: what each feature is.
        again: when the rule last alerted the account, microseconds since the epoch, and how many rows met it since and
            were suppressed; None: it never did, or it is forgotten.

    Returns:
        The same alert with `reasons`: the rule's first, then what weighed most (of rules on the risk), then how much
        was taken (and how often the rule kept silent), where to look and the runbook.
    """
    lines = [_condition(rule, said, words)]
    if RISK in rule.condition.names:
        lines += weighed
    since, until = time_in_words(alert.first_seen_us), time_in_words(alert.raised_at_us)
    taken = f"{counted(alert.exchanges, 'exchange')} and {counted(alert.output_tokens, 'output token')}"
    where = f"this account's requests in {alert.where} up to offset {alert.offset}"
    lines += [
        f"{taken} taken since {since}{_again(again, rule)}",
        f"look at {where}, from {since} to {until}",
        f"{_TO_DO}{rule.runbook}",
    ]
    return dataclasses.replace(alert, reasons=tuple(lines))


def precedents_in_words(risk: float | None, moved: float) -> Sequence[str]:
    """What verdicts did to a risk, as a sentence; nothing where they did nothing worth a word.

    Args:
        risk: 0 to 1.
        moved: what they added to its log-odds.
    """
    if risk is None or not 0.0 < risk < 1.0 or abs(moved) < _MOVED_MIN:
        return ()
    without = 1.0 / (1.0 + math.exp(moved - math.log(risk / (1.0 - risk))))
    verb = "raised" if moved > 0 else "lowered"
    return (f"verdicts on accounts like it {verb} the risk from {number_in_words(without)} to {number_in_words(risk)}",)


def _condition(rule: Rule, said: Mapping[str, float | None], words: Mapping[str, str]) -> str:
    """The rule's title, its condition, and what the numbers were."""
    numbers = [
        f"{name}{f' ({words[name]})' if name in words else ''} is {number_in_words(number)}"
        for name, number in said.items()
    ]
    fixed = [f"{name} stands for {number_in_words(number)}" for name, number in rule.condition.constants.items()]
    return f"{rule.title}: {rule.condition.text}, where {', '.join([*numbers, *fixed])}"


def _again(again: tuple[int, int] | None, rule: Rule) -> str:
    """What the rule said of the account before, and what it did not."""
    if again is None:
        return ""
    at_us, suppressed = again
    held = f"while the rule held {counted(suppressed, 'more time')}" if suppressed else "in which the rule did not hold"
    return f"; alerted before, on {time_in_words(at_us)}, then silent for {rule.suppress_hours:g} h {held}"


def weighed_of(alert_reasons: Sequence[str]) -> Sequence[str]:
    """What weighed most in an alert's risk, of the reasons that `reasons_of` gave; of other rules: the condition."""
    return alert_reasons[1:-_LAST] or alert_reasons[:1]


@dataclass(frozen=True, slots=True)
class ReasonParts:
    """The reasons of an alert, taken apart again.

    Attributes:
        condition: the rule's title, its condition and its numbers.
        weighed: what weighed most in the risk, the weightiest first.
        taken: how much was taken, and since when.
        where: which requests to look at.
        to_do: the runbook, as it was when the alert was raised.
    """

    condition: str
    weighed: tuple[str, ...]
    taken: str
    where: str
    to_do: str


def parts_of(alert_reasons: Sequence[str]) -> ReasonParts:
    """Take the reasons apart that `reasons_of` gave; those of another form are all what weighed."""
    if len(alert_reasons) <= _LAST or not alert_reasons[-1].startswith(_TO_DO):
        return ReasonParts("", tuple(alert_reasons), "", "", "")
    condition, *weighed, taken, where, to_do = alert_reasons
    return ReasonParts(condition, tuple(weighed), taken, where, to_do.removeprefix(_TO_DO))


def number_in_words(number: float | None) -> str:
    """Three digits of a number, all of a large one; `unknown` where it was not computable."""
    if number is None:
        return "unknown"
    return f"{number:,.0f}" if abs(number) >= _WHOLE_FROM else f"{number:.3g}"


def time_in_words(time_us: int) -> str:
    """Microseconds since the epoch as `2026-03-01 12:00:00 UTC`."""
    return f"{moment_at(time_us):%Y-%m-%d %H:%M:%S} UTC"
