"""Sequences of events as data: how they are read, what they stand for, and what is refused with which words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.rules import Example, read_rule_files, read_rules
from pipeline.rules.example import EXAMPLES_MAX
from pipeline.rules.sequence import feed_of, lines_of
from tests.rule_files import KNOWN, rule_text

HEAD = '[[rule.example]]\nname = "one"\nexpect = "fires"\n'
TRAFFIC = "[[rule.example.traffic]]\nrequests = 2\n"


def example(text: str, words: str = "") -> Example:
    (rule,) = read_rules(None, KNOWN, text=words + rule_text() + HEAD + text)
    (found,) = rule.examples
    return found


def sent(found: Example) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines_of(found)]


def texts(found: Example) -> list[str]:
    return [event["prompt"] for event in sent(found)]


def test_a_sequence_is_events_at_their_times() -> None:
    events = sent(example(TRAFFIC + "every_s = 90\nsend = { message_count = 1, temperature = 0.5 }\n"))
    sent_at = [event.pop("event_time") for event in events]
    assert sent_at == ["2026-03-02T00:00:00.000000Z", "2026-03-02T00:01:30.000000Z"]
    assert events == [{"account_id": "watched", "model": "model-1", "message_count": 1, "temperature": 0.5}] * 2


def test_pauses_and_values_are_taken_in_turn() -> None:
    found = example(
        "starts = 2026-05-01T12:00:00+02:00\n[[rule.example.traffic]]\nrequests = 5\nevery_s = [1, 10]\nafter_s = 60\n"
        'send = { output_tokens = [7, 8, 9], model = "m" }\n'
    )
    events = sent(found)
    assert [event["event_time"][11:19] for event in events] == [
        "10:01:00", "10:01:01", "10:01:11", "10:01:12", "10:01:22",
    ]  # fmt: skip
    assert [event["output_tokens"] for event in events] == [7, 8, 9, 7, 8]
    assert {event["model"] for event in events} == {"m"}


def test_slots_give_every_combination_before_one_comes_again() -> None:
    words = '[words]\nmetal = ["tin", "lead"]\nfate = ["melts", "rusts", "shines"]\n'
    found = example("[[rule.example.traffic]]\nrequests = 7\nsend = { prompt = '{metal} {fate}, {metal}!' }\n", words)
    assert texts(found) == [
        "tin melts, tin!", "lead melts, lead!", "tin rusts, tin!", "lead rusts, lead!", "tin shines, tin!",
        "lead shines, lead!", "tin melts, tin!",
    ]  # fmt: skip


def test_texts_of_a_list_each_go_through_their_own_words_and_braces_that_are_no_slots_stay() -> None:
    found = example(
        '[rule.example.words]\nmetal = ["tin", "lead"]\n[[rule.example.traffic]]\nrequests = 4\n'
        "send = { prompt = ['{metal} {n}', 'give {\"a\": 1}'] }\n"
    )
    assert texts(found) == ["tin 1", 'give {"a": 1}', "lead 2", 'give {"a": 1}']


def test_a_sequences_own_words_go_before_the_files() -> None:
    own = '[rule.example.words]\nmetal = ["zinc"]\n' + TRAFFIC + "send = { prompt = '{metal}' }\n"
    assert texts(example(own, '[words]\nmetal = ["tin"]\n')) == ["zinc", "zinc"]


def test_streams_are_merged_by_time_and_several_accounts_send_other_things_each() -> None:
    found = example(
        '[rule.example.words]\nmetal = ["tin", "lead", "zinc", "gold"]\n'
        + TRAFFIC + "every_s = 10\nsend = { prompt = 'mine' }\n"
        '[[rule.example.traffic]]\naccount_id = "shop"\naccounts = 2\nrequests = 2\nevery_s = 10\nafter_s = 5\n'
        "send = { prompt = '{metal}' }\n"
    )  # fmt: skip
    assert [(event["account_id"], event["prompt"]) for event in sent(found)] == [
        ("watched", "mine"), ("shop-1", "tin"), ("shop-2", "lead"), ("watched", "mine"), ("shop-1", "zinc"), ("shop-2", "gold"),
    ]  # fmt: skip


def test_a_feed_is_made_of_records_and_of_several_alike() -> None:
    found = example(
        TRAFFIC + '[[rule.example.feed]]\naccount_id = "watched"\nage_days = 2\nplan = "free"\n'
        '[[rule.example.feed]]\naccount_id = "shop"\naccounts = 3\ncreated_at = 2025-01-01\nplan = "free"\npayment_fingerprint = "p"\n'
    )
    feed = feed_of(found)
    assert feed is not None
    assert len(feed) == 4
    facts = feed.facts(["watched", "shop-3"])
    assert facts.payment_accounts.tolist()[1] == 3
    assert facts.created.tolist() == [1772236800000, 1735689600000]
    assert feed_of(example(TRAFFIC)) is None


def test_events_may_stand_in_a_file_beside_the_rule_file(tmp_path: Path) -> None:
    (tmp_path / "incident.ndjson").write_text('{"account_id": "a"}\n\n{"account_id": "b"}\n')
    (tmp_path / "mine.toml").write_text(rule_text() + HEAD + 'account_id = "a"\nevents = "incident.ndjson"\n')
    ((found,),) = (rule.examples for rule in read_rules([tmp_path / "mine.toml"], KNOWN))
    assert (len(lines_of(found)), found.account_id) == (2, "a")
    (tmp_path / "incident.ndjson").unlink()
    with pytest.raises(ConfigError, match=r"mine\.toml, line \d+, events of 'one': .*incident\.ndjson: No such file"):
        lines_of(found)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    (
        ("", "[[rule.example]]", "give either [[rule.example.traffic]] or events"),
        (TRAFFIC + '[rule.example.words]\nn = ["x"]\n', "[rule.example.words]", "words = {'n': ['x']}: expected lists of texts"),
        ('expcet = "fires"\n' + TRAFFIC, "expcet", "unknown field 'expcet'; did you mean expect?"),
        ('account_id = ""\n' + TRAFFIC, "account_id", "account_id = '': expected a text"),
        ("starts = 2026\n" + TRAFFIC, "starts", "starts = 2026: expected a time from 1970 to 2199"),
        ("traffic = 7\n", "traffic", "traffic = 7: expected tables, each beginning with a line [[rule.example.traffic]]"),
        ("[[rule.example.traffic]]\nevery_s = 5\n", "[[rule.example.traffic]]", "requests is missing; give a whole number"),
        ("[[rule.example.traffic]]\nrequests = 0\n", "requests", "requests = 0: expected a whole number from 1 to 100,000"),
        (TRAFFIC + "every_s = -1\n", "every_s", "every_s = -1: expected seconds"),
        (TRAFFIC + "every_s = []\n", "every_s", "every_s = []: expected seconds"),
        (TRAFFIC + "evry_s = 1\n", "evry_s", "unknown field 'evry_s'; did you mean every_s?"),
        (TRAFFIC + "send = { promt = 'x' }\n", "send", "send: unknown field 'promt'; did you mean prompt?"),
        (TRAFFIC + "[rule.example.traffic.send]\npromt = 'x'\n", "[rule.example.traffic.send]", "send: unknown field 'promt'; did you mean prompt?"),
        (TRAFFIC + "accounts = 20000\n", "accounts", "accounts = 20000: expected how many accounts do the same"),
        ("[[rule.example.traffic]]\nrequests = 100000\naccounts = 2\n", "[[rule.example]]", "200,000 events are too many for one sequence; 100,000 at most"),
        (TRAFFIC + "[[rule.example.feed]]\nplan = 'x'\n", "[[rule.example.feed]]", "account_id is missing"),
        (TRAFFIC + "[[rule.example.feed]]\naccount_id = 'x'\nage_days = -1\n", "age_days", "age_days = -1: expected days"),
    ),
)  # fmt: skip
def test_what_is_no_sequence_is_refused_with_file_line_and_fix(text: str, line: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    whole = rule_text() + "\n# its sequence\n" + HEAD + text
    file.write_text(whole, encoding="utf-8")
    found = read_rule_files([file], KNOWN)
    (problem,) = found.problems
    head = whole.index("# its sequence")
    number = whole[: whole.index(f"\n{line}", head) + 1].count("\n") + 1
    assert problem.startswith(f"{file}, line {number}, rule 'one_shot': sequence 'one': ")
    assert said in problem
    assert found.rules == ()


@pytest.mark.parametrize(
    ("send", "said"),
    (
        ("prompt = '{metl}'", "send.prompt: no words for {metl}; did you mean metal?"),
        ("prompt = ['{xyzzy}']", "send.prompt: no words for {xyzzy}; add a list of that name to"),
        ("prompt = []", "send.prompt: an empty list; name at least one value"),
        ("seed = 99999999999999999999", "send holds what JSON cannot: Integer exceeds 64-bit range"),
    ),
)
def test_what_cannot_be_made_names_the_sequence_and_the_field(send: str, said: str) -> None:
    words = '[words]\nmetal = ["tin"]\n'
    with pytest.raises(ConfigError) as refused:
        lines_of(example(f"{TRAFFIC}send = {{ {send} }}\n", words))
    assert said in str(refused.value)
    assert str(refused.value).startswith("shipped.toml, line 15, sequence 'one'")


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        "[constants]\nrisk = 1\n"
        + rule_text(version=0, leave_out="owner")
        + HEAD
        + rule_text(name="b", condition="c > 1")
    )
    found = read_rule_files([file, tmp_path / "none.toml"], KNOWN)
    assert [problem.replace(str(tmp_path), "") for problem in found.problems] == [
        "rules: /mine.toml: [constants] risk: rows have numbers of this name; choose another",
        "/mine.toml, line 5, rule 'one_shot': version = 0: expected a whole number from 1 on",
        "/mine.toml, line 3, rule 'one_shot': owner is missing; give one line of text, at most 120 characters",
        "/mine.toml, line 14, rule 'one_shot': sequence 'one': give either [[rule.example.traffic]] or events, a file of events beside the rule file",
        "/mine.toml, line 23, rule 'b': unknown name c; docs/features.md lists the names",
        "rules: /none.toml: No such file or directory",
    ]  # fmt: skip
    with pytest.raises(
        ConfigError, match=r"choose another \(`stillwatch rules check` says what else is wrong: 5 more\)"
    ):
        read_rules([file, tmp_path / "none.toml"], KNOWN)


def test_sequences_of_one_name_and_too_many_are_refused() -> None:
    twice = read_rule_files(None, KNOWN, text=rule_text() + (HEAD + TRAFFIC) * 2)
    assert "sequence 'one': another one has this name; rename one of them" in twice.problems[0]
    many = read_rule_files(None, KNOWN, text=rule_text() + (HEAD + TRAFFIC) * (EXAMPLES_MAX + 1))
    assert "21 sequences are too many; 20 at most" in many.problems[0]


def test_sequences_written_inline_are_read_without_their_own_lines() -> None:
    text = rule_text() + 'example = [{ name = "one", expect = "sings", traffic = [{ requests = 1 }] }]\n'
    (problem,) = read_rule_files(None, KNOWN, text=text).problems
    assert problem.startswith("shipped.toml, line 13, rule 'one_shot': sequence 'one': expect = 'sings': expected")


def test_sequences_change_nothing_of_what_a_rule_decides() -> None:
    (bare,) = read_rules(None, KNOWN, text=rule_text())
    (shown,) = read_rules(None, KNOWN, text=rule_text() + HEAD + TRAFFIC)
    assert bare.fingerprint == shown.fingerprint


VALUES = st.sampled_from((
    "1", "-1", '"x"', "[]", "{}", "[[1]]", "true", "nan", "inf", "2026-01-01", "07:32:00", "99999999999999999999", '""', '["a"]',
    "[{}]", "{ a = 1 }", '[1, "x"]', '"{n} {metal} {x}"', '"\\u0000"', "9999-12-31T23:59:59Z",
))  # fmt: skip
KEYS = st.sampled_from((
    "name", "expect", "account_id", "starts", "events", "words", "requests", "every_s", "after_s", "accounts", "send", "prompt",
    "age_days", "created_at", "plan", "condition", "version", "example", "rule",
))  # fmt: skip
LINES = st.sampled_from((
    "[[rule]]", "[[rule.example]]", "[[rule.example.traffic]]", "[rule.example.traffic.send]", "[[rule.example.feed]]", "[words]",
))  # fmt: skip
WHOLE = (rule_text() + HEAD + TRAFFIC + "send = { model = 'm' }\n").splitlines()


@given(st.lists(st.tuples(st.integers(0, len(WHOLE)), LINES | st.builds("{} = {}".format, KEYS, VALUES)), max_size=4))
def test_whatever_is_written_is_a_sequence_or_one_line_for_each_thing_wrong(added: list[tuple[int, str]]) -> None:
    lines = list(WHOLE)
    for at, line in added:
        lines.insert(at, line)
    found = read_rule_files(None, KNOWN, text="\n".join(lines))
    said = list(found.problems)
    for made in (example for rule in found.rules for example in rule.examples):
        try:
            feed_of(made)
            lines_of(made)
        except ConfigError as error:
            said.append(str(error))
    assert not [problem for problem in said if "\n" in problem or len(problem) > 700]
