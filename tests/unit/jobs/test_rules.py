"""`stillwatch rules`: what people and programs read, and how it ends."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from jobs.cli import app
from jobs.rules_output import as_table
from pipeline.errors import ConfigError
from pipeline.features import NAMES
from pipeline.io.catalog import Catalog, sqlite_url
from pipeline.rules import read_rules
from tests.contract.catalog_commits import P0, alert_of, commit_of
from tests.contract.test_desk import verdict_of
from tests.rule_files import rule_text

FIRES = (
    '[[rule.example]]\nname = "Twenty questions"\nexpect = "fires"\n'
    "[[rule.example.traffic]]\nrequests = 20\nsend = { message_count = 1 }\n"
)
SILENT = (
    '[[rule.example]]\nname = "Ten questions in conversations"\nexpect = "stays silent"\n'
    "[[rule.example.traffic]]\nrequests = 10\nsend = { message_count = [1, 3] }\n"
)
CONDITION = "single_turn_share_7d >= high and exchanges >= 8"
RULE = "[constants]\nhigh = 0.9\n" + rule_text(condition=CONDITION)

Run = Callable[..., Result]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `stillwatch rules` on a file of the given text, or on those that ship."""
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str, text: str | None = None) -> Result:
        rules = []
        if text is not None:
            Path("mine.toml").write_text(text, encoding="utf-8")
            rules = ["--rules", "mine.toml"]
        return CliRunner().invoke(app, ["rules", *arguments, *rules], catch_exceptions=True)

    return invoke


def refusal(result: Result) -> str:
    assert isinstance(result.exception, ConfigError), result.output
    return str(result.exception)


def test_the_list_says_what_alerts_were_worth_where_there_is_a_catalog(command: Run, tmp_path: Path) -> None:
    with contextlib.closing(Catalog.open(sqlite_url(tmp_path / "catalog.db"), create=True)) as catalog:
        claim = catalog.start_at(P0, 0)
        alerts = [replace(alert_of(number), rule="one_shot") for number in range(2)]
        catalog.commit(commit_of(P0, 0, 10), claim.epoch, [], alerts=alerts)
        catalog.desk.verdicts.give(verdict_of(1, account_id=alerts[0].entity_id))
    url = f"sqlite:///{tmp_path / 'catalog.db'}"
    result = command("list", "--catalog", url, text=RULE + FIRES)
    assert result.output.endswith("one_shot  2 alerts on 2 accounts; judged: 1 harvesting; precision 100%\n")
    (said,) = json.loads(command("list", "--catalog", url, "--format", "json", text=RULE + FIRES).output)
    assert said["worth"]["precision"] == 1.0


def test_the_list_has_a_line_for_each_rule(command: Run) -> None:
    second = rule_text(name="second", state="live", suppress_hours=0.5, condition="risk > 0.5")
    result = command("list", text=RULE + FIRES + second)
    assert result.exit_code == 0
    assert result.output == (
        "name      version  state   severity  silent for  owner      sequences  title\n"
        "one_shot  1        shadow  low       24 h        detection  1          Nearly all requests are single-turn\n"
        "second    1        live    low       0.5 h       detection  none       Nearly all requests are single-turn\n"
        "(2 rules, 1 live)\n"
    )


def test_programs_get_all_of_each_rule(command: Run) -> None:
    (rule,) = json.loads(command("list", "--format", "json", text=RULE + FIRES).output)
    assert (rule["name"], rule["condition"], rule["constants"]) == ("one_shot", CONDITION, {"high": 0.9})
    assert rule["sequences"] == [{"name": "Twenty questions", "expect": "fires", "place": "mine.toml, line 15"}]
    assert rule.pop("worth") is None
    assert json.loads(command("show", "one_shot", "--format", "json", text=RULE + FIRES).output) == rule


def test_a_rule_is_shown_with_the_numbers_of_its_constants(command: Run) -> None:
    shown = command("show", "one_shot", text=RULE + FIRES).output
    assert "single_turn_share_7d >= high (0.9) and exchanges >= 8" in shown
    assert "Look at its prompts." in shown
    assert "Single-turn products look the same." in shown
    assert "  written in   mine.toml, line 3\n" in shown
    assert "  fires         Twenty questions (mine.toml, line 15, 20 events of 1 account)\n" in shown


def test_a_rule_that_there_is_not_is_told_the_nearest(command: Run) -> None:
    assert refusal(command("show", "risk_hihg")) == "no rule is named risk_hihg; did you mean risk_high?"
    assert refusal(command("test", "xyz")) == "no rule is named xyz; `stillwatch rules list` shows them"


def test_a_check_finds_nothing_wrong_with_what_ships(command: Run) -> None:
    result = command("check", "--format", "json")
    found = json.loads(result.output)
    assert (result.exit_code, found["ok"], found["rules"], found["problems"]) == (0, True, 9, [])
    assert len(found["warnings"]) == 3  # of rules that need a feed


def test_a_check_says_all_that_is_wrong_and_what_may_be_unwise(command: Run) -> None:
    broken = FIRES.replace("Twenty", "Broken").replace("message_count = 1", "message_count = -1")
    second = rule_text(name="second", state="live", suppress_hours=0.5, condition="single_turn_share_7d > 0.5")
    third = rule_text(name="third", condition="single_turn > 0.5")
    result = command("check", text=RULE + FIRES + broken + second + third)
    assert refusal(result) == "rules: 4 problems to mend; the lines above say where"
    lines = result.output.splitlines()
    assert [line.partition(": ")[0] for line in lines[:-1]] == ["wrong"] * 4 + ["warning"] * 2
    assert "rule 'third': unknown name single_turn; did you mean" in lines[0]
    assert lines[1] == (
        "wrong: mine.toml, line 3, rule 'one_shot': no sequence that it must not fire on; add [[rule.example]] (docs/rules.md)"
    )
    assert "rule 'second': no sequence that it must fire on and none that it must not fire on" in lines[2]
    assert lines[3].startswith("wrong: mine.toml, line 21, sequence 'Broken questions': event 1 of 20 is none: ")
    assert "rule 'second': live, and on one signal alone (single_turn_share_7d)" in lines[4]
    assert "rule 'second': suppress_hours = 0.5: one account may alert 48 times a day" in lines[5]
    assert lines[6] == "2 rules with 2 sequences can be read; 4 problems, 2 warnings"


def test_a_rule_that_needs_the_feed_is_warned_of_only_where_there_is_none(command: Run, tmp_path: Path) -> None:
    text = rule_text(condition="payment_accounts > 3") + FIRES + SILENT
    assert "payment_accounts needs the accounts feed, and none is configured" in command("check", text=text).output
    (tmp_path / "settings.toml").write_text('accounts = "feed.ndjson"\n')
    assert "warning" not in command("check", "--config", "settings.toml", text=text).output.replace("0 warnings", "")


def test_rules_that_do_what_they_must_end_well(command: Run) -> None:
    result = command("test", text=RULE + FIRES + SILENT)
    assert result.exit_code == 0
    assert result.output == (
        "one_shot (version 1, shadow): single_turn_share_7d >= high (0.9) and exchanges >= 8\n"
        "  ok    fires: Twenty questions\n"
        "        fired after 8 exchanges (20 exchanges, looked at 2 times)\n"
        "  ok    stays silent: Ten questions in conversations\n"
        "        silent (10 exchanges, looked at 1 time); nearest after 8, but not single_turn_share_7d >= high (0.9) (single_turn_share_7d is 0.5)\n"
        "2 sequences: 2 as they must be, 0 not\n"
    )  # fmt: skip


def test_a_rule_that_does_not_is_told_by_how_much(command: Run) -> None:
    swapped = FIRES.replace('"fires"', '"stays silent"') + SILENT.replace('"stays silent"', '"fires"')
    result = command("test", text=RULE + swapped)
    assert refusal(result) == "rules: in 2 of 2 sequences the rule did not do what it must"
    assert result.output == (
        "one_shot (version 1, shadow): single_turn_share_7d >= high (0.9) and exchanges >= 8\n"
        "  FAIL  stays silent: Twenty questions\n"
        "        fired after 8 exchanges (20 exchanges, looked at 2 times)\n"
        "        as it fired, after 8 exchanges:\n"
        "          holds     single_turn_share_7d >= high (0.9), where single_turn_share_7d is 1\n"
        "          holds     exchanges >= 8, where exchanges is 8\n"
        "        written in mine.toml, line 15\n"
        "  FAIL  fires: Ten questions in conversations\n"
        "        silent (10 exchanges, looked at 1 time); nearest after 8, but not single_turn_share_7d >= high (0.9) (single_turn_share_7d is 0.5)\n"
        "        nearest to firing, after 8 exchanges:\n"
        "          does not  single_turn_share_7d >= high (0.9), where single_turn_share_7d is 0.5\n"
        "          holds     exchanges >= 8, where exchanges is 8\n"
        "        written in mine.toml, line 21\n"
        "2 sequences: 0 as they must be, 2 not\n"
    )  # fmt: skip


def test_a_sequence_in_which_nobody_is_looked_at_fails_whatever_it_expects(command: Run) -> None:
    result = command("test", text=RULE + FIRES + SILENT.replace("requests = 10", "requests = 5"))
    assert refusal(result) == "rules: in 1 of 2 sequences the rule did not do what it must"
    assert "never looked at: 5 exchanges, looked at 0 times; a row comes with the 8th exchange" in result.output


def test_a_rule_without_sequences_fails_the_test_and_runs_all_the_same(command: Run) -> None:
    result = command("test", text=RULE)
    assert refusal(result) == "rules: 1 rule without the sequences that each needs"
    assert command("list", text=RULE).exit_code == 0  # reads as `stillwatch run` does


def test_programs_get_the_numbers_of_a_test(command: Run) -> None:
    found = json.loads(command("test", "one_shot", "--format", "json", text=RULE + FIRES + SILENT).output)
    assert (found["ok"], found["without_sequences"]) == (True, [])
    fires, silent = found["sequences"]
    assert (fires["fired_after"], fires["rows"], fires["as_expected"]) == ([8], 2, True)
    assert silent["nearest"] == {
        "exchanges": 8,
        "met": [
            {"text": "single_turn_share_7d >= high (0.9)", "holds": False, "numbers": {"single_turn_share_7d": 0.5}},
            {"text": "exchanges >= 8", "holds": True, "numbers": {"exchanges": 8.0}},
        ],
    }


def test_rules_that_ship_can_run_beside_others(command: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(RULE)
    listed = command("list", "--rules", "shipped,mine.toml").output
    assert "risk_high" in listed
    assert "(10 rules, 1 live)" in listed


@pytest.mark.parametrize("name", ("list", "show", "check", "test"))
def test_a_broken_file_is_one_clear_error(command: Run, name: str) -> None:
    arguments = [name, "one_shot"] if name == "show" else [name]
    result = command(*arguments, text="[[rule]\n")
    said = result.output + refusal(result)
    assert "rules: mine.toml: not TOML: " in said
    assert "at line 1" in said


@pytest.mark.parametrize("width", (200, 110, 100, 80))
def test_a_narrow_terminal_gets_no_line_that_is_too_wide(width: int) -> None:
    rules = read_rules(None, NAMES)
    table = as_table(rules, width)
    assert max(map(len, table.splitlines())) <= width
    head = table.splitlines()[0].split()
    assert ("owner" in head, "title" in head) == (width >= 110, width >= 100)
