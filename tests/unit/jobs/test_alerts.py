"""`stillwatch alerts`: what it lists and shows, of a real catalog, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from jobs.alerts_output import as_table, as_text
from pipeline.alerts import Alert, alert_id_of
from pipeline.batch import Partition
from pipeline.commits import Commit
from pipeline.io.catalog import Catalog
from pipeline.io.views.session import Session
from tests.commands import run_command
from tests.lake_maker import LakeMaker

NOON_US = 1_772_366_400_000_000  # 2026-03-01 12:00 UTC
HOUR_US = 3_600_000_000
WHERE = Partition("llm-access", 0)
HOSTILE = "\x1b[31m[bold]'; DROP TABLE x; --\u202e\n<b>\x00end"

Command = Callable[..., tuple[int, str, str]]


def alert(account: str, hours: float = 0, **changes: Any) -> Alert:
    raised = NOON_US + round(hours * HOUR_US)
    made = Alert(
        alert_id="", rule="risk_high", rule_version=1, state="live", severity="high", entity_type="account",
        entity_id=account, window_start_us=NOON_US, raised_at_us=raised, first_seen_us=NOON_US - HOUR_US,
        topic=WHERE.topic, partition=WHERE.number, offset=1234, exchanges=64, output_tokens=41_203, risk=0.953,
        reasons=("The risk is high: risk >= 0.9, where risk is 0.953", "what to do: Look.\nThen judge."),
        features={"single_turn_share_7d": 0.98, "longest_gap_7d": None}, versions={"models": "m1"},
    )  # fmt: skip
    made = replace(made, **changes)
    return replace(made, alert_id=changes.get("alert_id") or alert_id_of(made.rule, 1, "account", account, raised))


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[LakeMaker]:
    maker = LakeMaker(tmp_path / "lake")
    yield maker
    maker.close()


def keep(catalog: Catalog, alerts: Sequence[Alert]) -> None:
    """Put alerts into a catalog by a commit, as the job does."""
    first = catalog.offsets().get(WHERE, 0)
    claim = catalog.start_at(WHERE, first)
    commit = Commit(f"{first:032x}", WHERE, first, first + 1, 1, 0, NOON_US, "tests")
    catalog.commit(commit, claim.epoch, [], alerts=alerts)
    catalog.publish(commit.commit_id)


@pytest.fixture
def stillwatch(maker: LakeMaker) -> Command:
    """`stillwatch(...)` runs a command of `alerts`; its exit code, standard output, and what its error says."""

    def run(command: str, *arguments: str, lake: str = str(maker.root)) -> tuple[int, str, str]:
        return run_command("alerts", command, "--lake", lake, *arguments)

    return run


@pytest.fixture
def some(maker: LakeMaker) -> list[Alert]:
    alerts = [
        alert("anna", 0),
        alert("bert", 5, rule="no_pause", state="shadow", severity="low", risk=None),
        alert("anna", 30, rule="one_shot", severity="medium"),
        alert(HOSTILE, 2),
        alert("x" * 10_000, 3),
    ]
    keep(maker.catalog, alerts)
    return alerts


def accounts(shown: str) -> list[str]:
    return [row["entity_id"] for row in json.loads(shown)]


@pytest.mark.parametrize(
    ("flags", "expected"),
    (
        ([], ["anna", "x" * 10_000, HOSTILE, "anna"]),
        (["--state", "all"], ["anna", "bert", "x" * 10_000, HOSTILE, "anna"]),
        (["--state", "shadow"], ["bert"]),
        (["--rule", "risk_high"], ["x" * 10_000, HOSTILE, "anna"]),
        (["--rule", "risk"], []),
        (["--severity", "medium"], ["anna"]),
        (["--account", "anna"], ["anna", "anna"]),
        (["--account", "anna", "--severity", "high"], ["anna"]),
        (["--since", "2026-03-02"], ["anna"]),
        (["--since", "2026-03-01T14:00Z"], ["anna", "x" * 10_000, HOSTILE]),
        (["--since", "2026-03-01T15:30:00+01:00"], ["anna", "x" * 10_000]),
        (["--since", "99999d"], ["anna", "x" * 10_000, HOSTILE, "anna"]),
        (["--limit", "2"], ["anna", "x" * 10_000]),
        (["--limit", "0"], ["anna", "x" * 10_000, HOSTILE, "anna"]),
    ),
)
def test_list_filters_and_has_the_latest_first(
    stillwatch: Command, some: list[Alert], flags: list[str], expected: list[str]
) -> None:
    code, shown, _ = stillwatch("list", *flags, "--format", "json")
    assert code == 0
    assert accounts(shown) == [account.replace("\0", "\u2400") for account in expected]


def test_since_counts_back_from_now(stillwatch: Command, some: list[Alert]) -> None:
    assert stillwatch("list", "--since", "1m")[1] == "no live alerts; --state all looks at live and shadow rules\n"


def test_a_table_fits_80_columns_and_is_harmless(some: list[Alert]) -> None:
    wide = alert("y" * 90, 1, rule="a_rule_with_a_very_long_name_that_goes_on", severity="informational")
    for state in ("live", "all"):
        text = as_table([*some, wide], 80, state=state, more=False)
        lines = text.splitlines()
        assert max(map(cell_len, lines)) <= 80
        assert len(lines) == 8
        assert re.search("[^\n -~…–]", text) is None
        assert "(10,000 chars)" in text
        assert "[bold]" in as_table(some, None, state=state, more=False)
        assert ("shadow" in text) == (state == "all")
    assert lines[-1] == "(6 alerts)"
    assert lines[1].startswith(f"{some[0].alert_id[:8]}  2026-03-01 12:00  high")


def test_a_table_says_when_there_are_more(stillwatch: Command, some: list[Alert]) -> None:
    shown = stillwatch("list", "--limit", "1")[1]
    assert shown.endswith("(the latest 1 alert; --limit 0 shows all)\n")
    assert stillwatch("list", "--limit", "4")[1].endswith("(4 alerts)\n")


def test_csv_and_json_hold_all_of_it(stillwatch: Command, some: list[Alert]) -> None:
    rows = list(csv.DictReader(io.StringIO(stillwatch("list", "--state", "all", "--format", "csv")[1])))
    objects = json.loads(stillwatch("list", "--state", "all", "--format", "json")[1])
    assert [row["alert_id"] for row in rows] == [one["alert_id"] for one in objects]
    assert rows[1]["risk"] == ""
    assert rows[2]["entity_id"] == "x" * 10_000
    assert rows[0]["reasons"].splitlines()[-2:] == ["what to do: Look.", "Then judge."]
    assert objects[0]["raised_at"] == "2026-03-02T18:00:00.000000Z"
    assert objects[0]["features"] == {"single_turn_share_7d": 0.98, "longest_gap_7d": None}
    assert json.loads(stillwatch("list", "--rule", "none", "--format", "json")[1]) == []


def test_show_says_everything_in_words(stillwatch: Command, some: list[Alert]) -> None:
    code, shown, _ = stillwatch("show", some[0].alert_id[:10].upper())
    assert code == 0
    assert max(map(len, shown.splitlines())) <= 80
    words = " ".join(shown.split())
    for said in (
        f"alert {some[0].alert_id}",
        "account anna",
        "rule risk_high, version 1, live",
        "severity high",
        "raised 2026-03-01 12:00:00 UTC (event time)",
        "since 2026-03-01 11:00:00 UTC (first seen)",
        "taken 64 exchanges, 41,203 output tokens until then",
        "risk 0.953",
        "where llm-access, partition 0, raised by offset 1234",
        "- The risk is high: risk >= 0.9, where risk is 0.953 - what to do: Look. Then judge.",
        "single_turn_share_7d 0.98 longest_gap_7d unknown",
        "FROM access WHERE account_id = 'anna' AND topic =",
        "models m1",
    ):
        assert said in words
    whole = json.loads(stillwatch("show", some[0].alert_id, "--format", "json")[1])
    assert (whole["alert_id"], whole["risk"], whole["offset"]) == (some[0].alert_id, 0.953, 1234)


@pytest.mark.parametrize("account", (HOSTILE, "x" * 10_000, "x y" * 30, "it's"))
def test_show_obeys_nothing_and_cuts_long_ids(account: str) -> None:
    text = as_text(alert(account, reasons=(f"said {HOSTILE}",)), 80)
    assert re.search("[^\n -~…\u2400]", text) is None
    assert ("…(10,000 chars)" in text) == (len(account) > 1000)
    assert len(text) < 2000
    if "x y" in account:
        assert f"\n  account   {account}\n" in text


@pytest.mark.parametrize("account", ("anna", "it's", "two  spaces", "x" * 300, "\x1b[31m"))
def test_the_query_that_is_shown_finds_the_requests(account: str, maker: LakeMaker) -> None:
    events = [
        {"event_time": f"2026-03-01T1{hour}:30:00Z", "account_id": who, "model": "m"}
        for hour in (1, 2)
        for who in (account, "other")
    ]
    maker.append(events)
    text = as_text(alert(account, 1, offset=2), 80)
    query = text[text.index("FROM access") : text.index("\nmade by")]
    with Session(maker.lake, Catalog.open(maker.catalog_url, create=False)) as session, session.run(query) as answer:
        rows = [row for batch in answer.batches for row in batch.to_pylist()]
    assert [(row["account_id"], row["event_time"].hour) for row in rows] == [(account, 11), (account, 12)]


def test_an_unknown_an_impossible_and_an_ambiguous_id_end_with_2_and_one_line(
    stillwatch: Command, maker: LakeMaker
) -> None:
    ids = [f"ab{number}".ljust(32, "0") for number in range(7)]
    keep(maker.catalog, [alert(f"a{number}", alert_id=one) for number, one in enumerate(ids)])
    assert stillwatch("show", "cd") == (
        2,
        "",
        "no alert's id begins with cd; `stillwatch alerts list --state all` shows them",
    )
    for wrong in ("xyz", "a%", "ab_", "", "a" * 33, "\x1b[31m"):
        code, _, error = stillwatch("show", wrong)
        assert (code, error.split(";")[0]) == (2, "an alert's id has up to 32 of the characters 0-9 and a-f")
    code, _, error = stillwatch("show", "ab")
    assert code == 2
    assert error.startswith("more than 5 alerts' ids begin with ab: ")
    assert error.endswith(", …; give more of it")
    assert stillwatch("show", "ab3")[0] == 0
    keep(maker.catalog, [alert("again", alert_id="ab3f".ljust(32, "0"))])
    assert stillwatch("show", "ab3")[2].startswith("2 alerts' ids begin with ab3: ")


def test_without_a_lake_it_ends_with_2_and_makes_nothing(stillwatch: Command, tmp_path: Path) -> None:
    for command in (["list"], ["show", "ab"]):
        code, shown, error = stillwatch(*command, lake=str(tmp_path / "none"))
        assert (code, shown) == (2, "")
        assert "there is no catalog at " in error
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    (
        (["--since", "yesterday\x1b"], "--since yesterday\\u001b: expected a day (2026-03-01), a time"),
        (["--since", "9999999d"], "--since 9999999d: expected"),
        (["--severity", "severe"], "Invalid value for '--severity'"),
        (["--state", "none"], "Invalid value for '--state'"),
        (["--format", "xml"], "Invalid value for '--format'"),
        (["--limit", "-1"], "Invalid value for '--limit'"),
    ),
)
def test_wrong_flags_end_with_2(stillwatch: Command, flags: list[str], said: str) -> None:
    code, _, error = stillwatch("list", *flags)
    assert code == 2
    assert said in error
