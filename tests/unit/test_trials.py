"""Sequences through the real engine: those of the rules that ship do what they must, and a miss says by how much."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from pipeline.accounts import Accounts
from pipeline.analysis import Watch
from pipeline.errors import ConfigError
from pipeline.features import NAMES
from pipeline.rules import Example, Rule, read_rules
from pipeline.scoring.models import Models
from pipeline.trials import Trial, trial_of
from pipeline.watch import watch_with
from tests.rule_files import rule_text

SHIPPED = read_rules(None, NAMES)
SEQUENCES = [(rule, example) for rule in SHIPPED for example in rule.examples]

HEAD = '[[rule.example]]\nname = "one"\nexpect = "{}"\n'
TRAFFIC = "[[rule.example.traffic]]\nrequests = 20\nsend = { message_count = 1, output_tokens = 10 }\n"


@cache
def models() -> Models:
    return Models.load(None)


def tried(rule: Rule, example: Example, rules: tuple[Rule, ...] = SHIPPED) -> Trial:
    def watch_of(feed: Accounts | None) -> Watch:
        return watch_with(rules, models(), feed)

    return trial_of(rule, example, watch_of)


def of_text(condition: str, expect: str = "fires", sequence: str = TRAFFIC) -> Trial:
    rules = read_rules(None, NAMES, text=rule_text(condition=condition) + HEAD.format(expect) + sequence)
    return tried(rules[0], rules[0].examples[0], rules)


@pytest.mark.parametrize(("rule", "example"), SEQUENCES, ids=[f"{rule.name}: {one.name}" for rule, one in SEQUENCES])
def test_a_rule_that_ships_does_what_it_must(rule: Rule, example: Example) -> None:
    """And those that must be silent are near: one comparison alone stands between them and an alert."""
    trial = tried(rule, example)
    assert trial.as_expected, trial.nearest
    assert trial.nearest is not None
    assert sum(not met.holds for met in trial.nearest.met) == (example.expect == "stays silent")


def test_each_rule_that_ships_has_both() -> None:
    for rule in SHIPPED:
        assert {example.expect for example in rule.examples} == {"fires", "stays silent"}


def test_a_rule_that_fires_says_after_how_many_exchanges_and_what_it_saw() -> None:
    trial = of_text("single_turn_share_7d >= 0.9 and exchanges >= 10")
    assert trial.as_expected
    assert [alert.exchanges for alert in trial.alerts] == [16]
    assert (trial.events, trial.exchanges, trial.looks) == (20, 20, 2)
    assert trial.nearest is not None
    assert trial.nearest.exchanges == 16
    assert [(met.text, met.holds, met.numbers) for met in trial.nearest.met] == [
        ("single_turn_share_7d >= 0.9", True, {"single_turn_share_7d": 1.0}),
        ("exchanges >= 10", True, {"exchanges": 16.0}),
    ]


def test_a_rule_that_does_not_says_what_came_nearest() -> None:
    trial = of_text("single_turn_share_7d >= 0.9 and exchanges >= 18 and payment_accounts >= 0")
    assert not trial.as_expected
    assert trial.alerts == ()
    assert trial.nearest is not None
    assert [(met.holds, met.numbers) for met in trial.nearest.met] == [
        (True, {"single_turn_share_7d": 1.0}), (False, {"exchanges": 16.0}), (False, {"payment_accounts": None}),
    ]  # fmt: skip


def test_of_an_account_that_was_never_looked_at_silence_says_nothing() -> None:
    trial = of_text("exchanges >= 1", "stays silent", TRAFFIC.replace("20", "7"))
    assert (trial.looks, trial.alerts, trial.nearest) == (0, (), None)
    assert not trial.as_expected


def test_other_accounts_and_other_rules_are_told_apart() -> None:
    crowd = TRAFFIC.replace("requests", 'account_id = "shop"\naccounts = 3\nrequests')
    text = rule_text(condition="exchanges >= 16") + HEAD.format("stays silent") + TRAFFIC.replace("20", "9") + crowd
    rules = read_rules(None, NAMES, text=text + rule_text(name="second", condition="exchanges >= 8"))
    trial = tried(rules[0], rules[0].examples[0], rules)
    assert trial.as_expected
    assert (trial.elsewhere, trial.others) == (3, (("second", 8),))


def test_a_feed_is_of_its_sequence_alone() -> None:
    feed = '[[rule.example.feed]]\naccount_id = "watched"\npayment_fingerprint = "p"\n'
    assert of_text("payment_accounts >= 0", "fires", TRAFFIC + feed).as_expected
    assert of_text("payment_accounts >= 0", "stays silent").as_expected


def test_a_file_of_events_goes_through_the_same_engine(tmp_path: Path) -> None:
    lines = [f'{{"event_time":"2026-03-02T00:00:{at:02}Z","account_id":"a","model":"m"}}' for at in range(8)]
    (tmp_path / "events.ndjson").write_text("\n".join(lines))
    file = tmp_path / "mine.toml"
    sequence = HEAD.format("fires") + 'account_id = "a"\nevents = "events.ndjson"\n'
    file.write_text(rule_text(condition="exchanges >= 8") + sequence)
    rules = read_rules([file], NAMES)
    assert tried(rules[0], rules[0].examples[0], rules).as_expected
    (tmp_path / "events.ndjson").write_text("\n".join([*lines, "{"]))
    with pytest.raises(ConfigError, match=r"mine\.toml, line 13, sequence 'one': event 9 of 9 is none: .*JSON"):
        tried(rules[0], rules[0].examples[0], rules)


@pytest.mark.parametrize(
    ("traffic", "said"),
    (
        (TRAFFIC.replace("output_tokens = 10", "output_tokens = -1"), "event 1 of 20 is none: "),
        (
            TRAFFIC.replace("requests", 'account_id = "b"\nrequests'),
            "no event is of account 'watched', which it is about",
        ),
    ),
)
def test_events_that_are_none_and_missing_accounts_are_clear_errors(traffic: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        of_text("exchanges >= 8", "fires", traffic)
    assert f"shipped.toml, line 13, sequence 'one': {said}" in str(refused.value)
