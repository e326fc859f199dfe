"""Rules, and how they fared on their sequences, as people and programs read them."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from rich.cells import cell_len, set_cell_size

from pipeline.counted import counted
from pipeline.harmless import harmless
from pipeline.io.desk.worth import Worth
from pipeline.reasons import number_in_words
from pipeline.rules import Example, Rule
from pipeline.trials import Look, Met, Trial

TEXT_CELLS: Final = 100
"""Width of words where no terminal has one."""

_GAP: Final = "  "
_TITLE_CELLS_MIN: Final = 20
_OWNER, _TITLE = 5, 7


def as_table(rules: Sequence[Rule], width: int | None) -> str:
    """A line for each rule, and one that counts them.

    Args:
        rules: in their order.
        width: of the terminal, in cells, by which titles are cut or left out; None if nothing bounds it.
    """
    head = ("name", "version", "state", "severity", "silent for", "owner", "sequences", "title")
    rows = [
        (
            rule.name, str(rule.version), rule.state, rule.severity, f"{rule.suppress_hours:g} h", rule.owner,
            str(len(rule.examples)) if rule.examples else "none", rule.title,
        )
        for rule in rules
    ]  # fmt: skip
    widths = [max(map(cell_len, column)) for column in zip(head, *rows, strict=True)]
    if width is not None:
        _fit(widths, width)
    lines = [
        _GAP.join(_fitted(cell, cells) for cell, cells in zip(row, widths, strict=True) if cells)
        for row in (head, *rows)
    ]
    live = sum(rule.state == "live" for rule in rules)
    lines.append(f"({counted(len(rules), 'rule')}, {live} live)")
    return "".join(f"{line.rstrip()}\n" for line in lines)


def worth_as_text(rules: Sequence[Rule], worth: Mapping[str, Worth]) -> str:
    """What came of the rules' alerts, a line for each rule that raised any; nothing where none did."""
    if not worth:
        return ""
    names = [*(rule.name for rule in rules if rule.name in worth), *sorted(set(worth) - {rule.name for rule in rules})]
    margin = max(map(len, names))
    lines = ["", "alerts so far, of all versions, and the verdicts that stand on their accounts"]
    lines += [f"{harmless(name):{margin}}  {_worth(worth[name])}" for name in names]
    return "".join(f"{line}\n" for line in lines)


def _worth(worth: Worth) -> str:
    covered = f", {worth.suppressed:,} suppressed" if worth.suppressed else ""
    raised = f"{counted(worth.alerts, 'alert')} on {counted(worth.accounts, 'account')}{covered}"
    judged = ", ".join(
        f"{count:,} {decision}"
        for decision, count in (("harvesting", worth.harvesting), ("benign", worth.benign), ("unsure", worth.unsure))
        if count
    )
    share = "" if worth.precision is None else f"; precision {worth.precision:.0%}"
    return f"{raised}; judged: {judged or 'none'}{share}"


def _fit(widths: list[int], width: int) -> None:
    """Make room: where not even the beginning of a title has any, the owner is left out, and then the title."""
    for left_out in (None, _OWNER, _TITLE):
        if left_out is not None:
            widths[left_out] = 0
        room = width - sum(widths[:_TITLE]) - len(_GAP) * sum(map(bool, widths[:_TITLE]))
        if room >= min(widths[_TITLE], _TITLE_CELLS_MIN):
            widths[_TITLE] = min(widths[_TITLE], room)
            return


def _fitted(text: str, cells: int) -> str:
    return set_cell_size(text, cells) if cell_len(text) <= cells else set_cell_size(text, cells - 1) + "…"


def as_text(rule: Rule, width: int) -> str:
    """One rule in words.

    Args:
        rule: the rule.
        width: cells of a line; longer words are left whole.
    """
    facts = (
        ("version", f"{rule.version}, {rule.state}"),
        ("severity", rule.severity),
        ("fires when", rule.condition.filled),
        ("then silent", f"for this account, {rule.suppress_hours:g} h by its own clock"),
        ("owner", rule.owner),
        ("ATLAS", ", ".join(rule.atlas) or "none"),
        ("written in", rule.place),
        ("fingerprint", rule.fingerprint[:16]),
    )
    lines = [f"rule {rule.name}: {rule.title}"]
    margin = max(len(name) for name, _ in facts)
    for name, text in facts:
        lines += _wrapped(f"{name:{margin}}  ", text, width)
    for head, text in (("what to do", rule.runbook), ("what it misses, and whom it may wrong", rule.blind_spots)):
        lines += ["", head, *_wrapped("", " ".join(text.split()), width)]
    lines += ["", "sequences of events (`stillwatch rules test` tries them)"]
    for example in rule.examples:
        lines += _wrapped(f"{example.expect:12}  ", f"{example.name} ({_what(example)})", width)
    if not rule.examples:
        lines += _wrapped("", "none", width)
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _what(example: Example) -> str:
    """What a sequence is made of, and where it stands."""
    if example.events:
        return f"{example.place}, events of {example.events}"
    events = sum(traffic.requests * (traffic.accounts or 1) for traffic in example.traffic)
    accounts = {traffic.account_id: traffic.accounts or 1 for traffic in example.traffic}
    return f"{example.place}, {counted(events, 'event')} of {counted(sum(accounts.values()), 'account')}"


def _wrapped(head: str, text: str, width: int) -> list[str]:
    return textwrap.wrap(
        text, max(width, len(head) + 20), initial_indent=f"  {head}", subsequent_indent=" " * (len(head) + 2),
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def check_as_text(rules: Sequence[Rule], problems: Sequence[str], warnings: Sequence[str]) -> str:
    """What is wrong, what may be unwise, and a line that sums it up."""
    sequences = sum(len(rule.examples) for rule in rules)
    lines = [*(f"wrong: {problem}" for problem in problems), *(f"warning: {warning}" for warning in warnings)]
    read = f"{counted(len(rules), 'rule')} with {counted(sequences, 'sequence')} can be read"
    lines.append(f"{read}; {counted(len(problems), 'problem')}, {counted(len(warnings), 'warning')}")
    return "".join(f"{line}\n" for line in lines)


def trials_as_text(trials: Sequence[Trial], untested: Sequence[str]) -> str:
    """Rule by rule, what happened in each sequence, and a line that sums it up."""
    lines: list[str] = []
    for place, trial in enumerate(trials):
        if not place or trials[place - 1].rule is not trial.rule:
            rule = trial.rule
            lines.append(f"{rule.name} (version {rule.version}, {rule.state}): {rule.condition.filled}")
        lines += _trial(trial)
    lines += [f"wrong: {what}" for what in untested]
    right = sum(trial.as_expected for trial in trials)
    lines.append(f"{counted(len(trials), 'sequence')}: {right} as they must be, {len(trials) - right} not")
    return "".join(f"{line}\n" for line in lines)


def _trial(trial: Trial) -> Iterator[str]:
    mark = "ok  " if trial.as_expected else "FAIL"
    yield f"  {mark}  {trial.example.expect}: {trial.example.name}"
    yield f"        {happened(trial)}"
    if trial.others:
        said = ", ".join(f"{rule} after {exchanges:,}" for rule, exchanges in trial.others)
        yield f"        other rules on this account: {said}"
    if trial.elsewhere:
        yield f"        it also alerted {counted(trial.elsewhere, 'other account')}"
    if trial.nearest is not None and not trial.as_expected:
        when = "as it fired" if trial.alerts else "nearest to firing"
        yield f"        {when}, after {counted(trial.nearest.exchanges, 'exchange')}:"
        for met in trial.nearest.met:
            yield f"          {'holds   ' if met.holds else 'does not'}  {met.text}, where {_numbers(met)}"
        yield f"        written in {trial.example.place}"


def happened(trial: Trial) -> str:
    """What a rule did in a sequence, in one line."""
    seen = f"{counted(trial.exchanges, 'exchange')}, looked at {counted(trial.looks, 'time')}"
    if not trial.looks:
        return (
            f"never looked at: {seen}; a row comes with the 8th exchange, or once 2 h of silence follow 4 of them "
            "and others go on sending"
        )
    if trial.alerts:
        times = "" if len(trial.alerts) == 1 else f", {counted(len(trial.alerts), 'alert')} in all"
        return f"fired after {counted(trial.alerts[0].exchanges, 'exchange')}{times} ({seen})"
    return f"silent ({seen}){_nearest(trial.nearest)}"


def _nearest(look: Look | None) -> str:
    missed = [f"{met.text} ({_numbers(met)})" for met in look.met if not met.holds] if look else []
    return f"; nearest after {look.exchanges:,}, but not {' nor '.join(missed)}" if look and missed else ""


def _numbers(met: Met) -> str:
    return ", ".join(f"{name} is {number_in_words(number)}" for name, number in met.numbers.items())


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "name": rule.name,
        "version": rule.version,
        "title": rule.title,
        "state": rule.state,
        "severity": rule.severity,
        "condition": rule.condition.text,
        "constants": dict(rule.condition.constants),
        "suppress_hours": rule.suppress_hours,
        "atlas": list(rule.atlas),
        "owner": rule.owner,
        "runbook": rule.runbook,
        "blind_spots": rule.blind_spots,
        "place": rule.place,
        "fingerprint": rule.fingerprint,
        "sequences": [
            {"name": example.name, "expect": example.expect, "place": example.place} for example in rule.examples
        ],
    }


def list_as_json(rules: Sequence[Rule], worth: Mapping[str, Worth]) -> str:
    """Rules as a JSON array, an object a line; everything but ASCII is written out."""
    said = [_rule(rule) | {"worth": _worth_said(worth.get(rule.name))} for rule in rules]
    return "[" + ",".join(f"\n{json.dumps(one)}" for one in said) + "\n]\n"


def _worth_said(worth: Worth | None) -> dict[str, Any] | None:
    return None if worth is None else {**asdict(worth), "precision": worth.precision}


def rule_as_json(rule: Rule) -> str:
    """One rule as a JSON object."""
    return json.dumps(_rule(rule), indent=2) + "\n"


def check_as_json(rules: Sequence[Rule], problems: Sequence[str], warnings: Sequence[str]) -> str:
    """What is wrong, as a JSON object."""
    found = {"ok": not problems, "rules": len(rules), "problems": list(problems), "warnings": list(warnings)}
    return json.dumps(found, indent=2) + "\n"


def trials_as_json(trials: Sequence[Trial], untested: Sequence[str]) -> str:
    """What happened in each sequence, as a JSON object."""
    found = {
        "ok": not untested and all(trial.as_expected for trial in trials),
        "sequences": [_trial_as_json(trial) for trial in trials],
        "without_sequences": list(untested),
    }
    return json.dumps(found, indent=2) + "\n"


def _trial_as_json(trial: Trial) -> dict[str, Any]:
    return {
        "rule": trial.rule.name,
        "version": trial.rule.version,
        "name": trial.example.name,
        "place": trial.example.place,
        "account_id": trial.example.account_id,
        "expect": trial.example.expect,
        "as_expected": trial.as_expected,
        "fired_after": [alert.exchanges for alert in trial.alerts],
        "events": trial.events,
        "exchanges": trial.exchanges,
        "rows": trial.looks,
        "nearest": None if trial.nearest is None else asdict(trial.nearest),
        "other_rules": dict(trial.others),
        "other_accounts_alerted": trial.elsewhere,
    }
