"""`stillwatch verdict`, `exception`, `audit` and what `alerts` says of them: an analyst's morning on a real lake."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from jobs import listed
from jobs.serving.words import done_by
from pipeline.alerts import Alert
from pipeline.batch import Partition
from pipeline.commits import Commit
from pipeline.decisions import ACTIONS
from pipeline.delivery import words as delivered
from pipeline.dossier import page
from pipeline.io.catalog import AlertFilter
from pipeline.io.clock import SystemClock
from pipeline.io.desk.audit_log import Act
from tests.commands import run_command
from tests.lake_maker import LakeMaker
from tests.stages import stand_ins
from tests.unit.io.test_judging import NOON_US, event
from tests.unit.jobs.test_alerts import alert

HOSTILE = "\x1b[31m\"'; DROP TABLE x; --/../<script>alert(1)</script>\u202e" + "é" * 10_000
WHERE = Partition("other", 0)
DAY_US = 86_400_000_000

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[LakeMaker]:
    maker = LakeMaker(tmp_path / "lake", watch=stand_ins())
    for account in ("acct_1", "acct_2", "o'b\"r/<i>", HOSTILE):
        maker.append([event(account, minute) for minute in range(3)])
    yield maker
    maker.close()


@pytest.fixture
def stillwatch(maker: LakeMaker, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`stillwatch(...)` runs a command on the lake as `ana`; its exit code, standard output, and what its error says."""
    monkeypatch.setenv("STILLWATCH_LAKE", str(maker.root))
    monkeypatch.setenv("STILLWATCH_BY", "ana")

    return run_command


def keep(maker: LakeMaker, alerts: Sequence[Alert], at_us: int, orgs: dict[str, str] | None = None) -> None:
    """Put alerts into the catalog by a commit at a moment of the wall clock."""
    first = maker.catalog.offsets().get(WHERE, 0)
    claim = maker.catalog.start_at(WHERE, first)
    commit = Commit(f"{first:032x}", WHERE, first, first + 1, 1, 0, at_us, "tests")
    maker.catalog.commit(commit, claim.epoch, [], alerts=alerts, orgs=orgs or {})
    maker.catalog.publish(commit.commit_id)


def objects(shown: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(shown)
    return found


def test_a_verdict_as_it_is_typed_most_often(stillwatch: Command, maker: LakeMaker) -> None:
    code, shown, _ = stillwatch("verdict", "acct_1", "harvesting", "--why", "one frame", "--by", "ben")
    assert code == 0
    assert shown.startswith("harvesting: acct_1, by ben\n")
    assert "joined to its features as of 2026-03-01 12:02:00 UTC" in shown
    (given,) = maker.catalog.desk.verdicts.find()
    assert (given.decision, given.why, given.given_by, given.source) == ("harvesting", "one frame", "ben", "command")
    assert given.row is not None
    code, shown, _ = stillwatch("verdict", "acct_1", "benign", "--why", "a contract")
    assert "benign: acct_1, by ana\n  in the place of harvesting, given by ben" in shown
    assert stillwatch("verdict", "give", "acct_1", "withdrawn", "--why", "not sure")[0] == 0
    assert stillwatch("verdict", "list")[1] == "no verdicts\n"
    history = objects(stillwatch("verdict", "list", "acct_1", "--history", "--format", "json")[1])
    assert [one["decision"] for one in history] == ["withdrawn", "benign", "harvesting"]
    assert history[2]["features"] == dict(given.row.features)


@pytest.mark.parametrize("account", ("o'b\"r/<i>", HOSTILE))
def test_accounts_with_any_name_are_judged_and_shown_harmlessly(stillwatch: Command, account: str) -> None:
    code, shown, error = stillwatch("verdict", account, "benign", "--why", f"said {HOSTILE[:60]}")
    assert (code, error) == (0, "")
    assert (
        stillwatch("exception", "add", "--account", account, "--owner", "x", "--reason", "y", "--expires", "1d")[0] == 0
    )
    for command in (("verdict", "list"), ("exception", "list"), ("audit",), ("alerts", "list")):
        shown += stillwatch(*command)[1]
    assert re.search("[^\n -~…é–]", shown) is None
    assert len(shown) < 5_000
    assert objects(stillwatch("verdict", "list", account, "--format", "json")[1])[0]["account_id"] == account
    assert len(objects(stillwatch("audit", "--subject", account, "--format", "json")[1])) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    (
        (("verdict", "nobody", "benign", "--why", "x"), "account nobody was never seen"),
        (("verdict", "Acct_1", "benign", "--why", "x"), "near to it are acct_1"),
        (("verdict", "acct_1", "benign", "--why", "  "), "why (the reason, in words) is missing"),
        (("verdict", "acct_1", "benign"), "Missing option '--why'"),
        (("verdict", "acct_1", "guilty", "--why", "x"), "'guilty' is not one of"),
        (("verdict", "acct_1", "benign", "--why", "x", "--at", "noon"), "--at noon: expected a day"),
        (("verdict", "acct_1", "benign", "--why", "x", "--at", "2026-02-01"), "only later ones"),
        (("verdict", "acct_1", "withdrawn", "--why", "x"), "none to withdraw"),
        (("exception", "add", "--account", "nobody", "--owner", "o", "--reason", "r", "--expires", "1d"), "never seen"),
        (("exception", "add", "--rule", "risk_hig", "--owner", "o", "--reason", "r", "--expires", "1d"), "risk_high?"),
        (("exception", "add", "--owner", "o", "--reason", "r", "--expires", "1d"), "name what it covers"),
        (("exception", "add", "--organisation", "a", "--account", "b", "--owner", "o", "--reason", "r", "--expires", "1d"),
         "one for each"),
        (("exception", "add", "--organisation", "a", "--owner", "o", "--reason", "r"), "Missing option '--expires'"),
        (("exception", "add", "--organisation", "a", "--owner", " ", "--reason", "r", "--expires", "1d"), "the owner"),
        (("exception", "add", "--organisation", "a", "--owner", "o", "--reason", "", "--expires", "1d"), "the reason"),
        (("exception", "add", "--organisation", "a", "--owner", "o", "--reason", "r", "--expires", "91d"), "90 days"),
        (("exception", "add", "--organisation", "a", "--owner", "o", "--reason", "r", "--expires", "0d"), "later end"),
        (("exception", "add", "--organisation", "a", "--owner", "o", "--reason", "r", "--expires", "soon"), "--expires"),
        (("exception", "expire", "ff"), "no exception's id begins with ff"),
        (("exception", "expire", "x%"), "0-9 and a-f"),
        (("audit", "--since", "then"), "--since then: expected"),
        (("verdict", "load", "--csv", "none.csv"), "--csv none.csv: No such file"),
    ),
)  # fmt: skip
def test_what_is_wrong_ends_with_2_and_changes_nothing(
    stillwatch: Command, maker: LakeMaker, arguments: tuple[str, ...], said: str
) -> None:
    code, _, error = stillwatch(*arguments)
    assert code == 2
    assert said in error
    assert maker.catalog.desk.audit.records() == []


def test_a_file_of_verdicts_is_given_anyway_where_a_file_of_the_lake_is_broken(
    stillwatch: Command, maker: LakeMaker, tmp_path: Path
) -> None:
    (broken, *_) = maker.catalog.live_files("account_windows")
    (maker.root / broken.path).write_bytes(b"x")
    file = tmp_path / "morning.csv"
    rows = [f"{account},harvesting,one frame" for account in ("acct_1", "acct_2")]
    file.write_text("account_id,decision,why\n" + "\n".join(rows) + "\n", encoding="utf-8")
    load = ("verdict", "load", "--csv", str(file))
    code, _, error = stillwatch(*load)
    assert (code, "stillwatch maintain verify" in error) == (5, True)
    assert maker.catalog.desk.verdicts.find() == []
    code, shown, error = stillwatch(*load, "--anyway")
    assert (code, error) == (0, "")
    assert shown.startswith("2 verdicts given")
    assert f"{broken.path} cannot be read: verdicts that speak of what it may hold are without it" in shown
    unread = [record.details.get("unread") for record in maker.catalog.desk.audit.records()]
    assert broken.path in unread


def test_a_file_is_given_whole_and_once(stillwatch: Command, maker: LakeMaker, tmp_path: Path) -> None:
    file = tmp_path / "morning.csv"
    rows = ['acct_1,harvesting,"one frame,\nover and over",ben,', "acct_2,benign,a customer,,2026-03-01T12:02:30Z"]
    file.write_text("account_id,decision,why,by,at\n" + "\n".join(rows) + "\n\n", encoding="utf-8-sig")
    assert stillwatch("verdict", "load", "--csv", str(file), "--dry-run")[1].startswith("2 verdicts would be given")
    assert maker.catalog.desk.verdicts.find() == []
    assert stillwatch("verdict", "load", "--csv", str(file))[1].startswith("2 verdicts given (in the file: 1 benign")
    second, first = maker.catalog.desk.verdicts.find()
    assert (first.why, first.given_by, second.given_by) == ("one frame,\nover and over", "ben", "ana")
    assert first.source == "csv:morning.csv"
    assert second.row is not None
    again = "acct_1,withdrawn,wrong\nacct_1,harvesting,seen again\nacct_1,harvesting,seen again\n"
    more = file.read_text(encoding="utf-8-sig").rstrip("\n") + "\n" + again.replace(",w", ",w").replace("\n", ",,\n")
    assert "3 verdicts given, 2 on record already" in stillwatch("verdict", "load", "--csv", "-", given=more)[1]
    assert "0 verdicts given, 5 on record already" in stillwatch("verdict", "load", "--csv", "-", given=more)[1]
    assert len(maker.catalog.desk.verdicts.find()) == 5


@pytest.mark.parametrize(
    ("text", "said"),
    (
        ("", "line 1 is to name the columns"),
        ("account,decision,why\n", "has no account_id"),
        ("account_id,decision,why,whom\n", "unknown column whom"),
        ("account_id,decision,why,why\n", "named twice"),
        ("account_id;decision;why\n", "with commas between"),
        ("account_id,decision,why\nacct_1,benign,x\nnobody,benign,x\nacct_2,guilty,x\n",
         "2 lines are wrong, and no verdict was given\n  line 3: account nobody was never seen"),
        ("account_id,decision,why\nacct_1,benign\n", "line 2: 2 cells, and 3 columns"),
        ("account_id,decision,why,at\nacct_1,benign,x,noon\n", "line 2: at noon: expected a day"),
        ('account_id,decision,why\n"acct_1" x,benign,x\n', "line 2: "),
        ('account_id,decision,why\nacct_1,benign,x\nacct_1,benign,"x\n', "line 3: unexpected end of data"),
        ("account_id,decision,why\n" + "nobody,benign,x\n" * 30, "and 10 more"),
    ),
)  # fmt: skip
def test_a_file_that_is_wrong_names_its_lines_and_gives_nothing(
    stillwatch: Command, maker: LakeMaker, text: str, said: str
) -> None:
    code, _, error = stillwatch("verdict", "load", "--csv", "-", given=text)
    assert code == 2
    assert said in error
    assert maker.catalog.desk.verdicts.find() == []


def test_an_exception_from_its_making_to_its_end(stillwatch: Command, maker: LakeMaker) -> None:
    now_us = SystemClock().now_us()
    before, during, other = alert("acct_1", 0), alert("acct_1", 48), alert("acct_2", 48)
    keep(maker, [before], now_us)
    made = stillwatch(
        "exception", "add", "--account", "acct_1", "--owner", "sales", "--reason", "contract 7", "--expires", "30d"
    )[1]
    short = re.match("exception ([0-9a-f]{8}): alerts of account acct_1 are suppressed until ", made)
    assert short is not None
    keep(maker, [during, other], now_us + 1_000_000)
    (shown,) = objects(stillwatch("exception", "list", "--format", "json")[1])
    assert (shown["state"], shown["suppressed"], shown["owner"], shown["scope"]) == ("active", 1, "sales", "account")
    found = objects(stillwatch("alerts", "list", "--suppressed", "--format", "json")[1])
    assert [(one["alert_id"], one["suppressed_by"]) for one in found] == [(during.alert_id, shown["exception_id"])]
    others = stillwatch("alerts", "list", "--not-suppressed", "--format", "csv")[1]
    assert during.alert_id not in {row["alert_id"] for row in csv.DictReader(io.StringIO(others))}
    words = " ".join(stillwatch("alerts", "show", during.alert_id)[1].split())
    assert f"suppressed by exception {short[1]} of sales until " in words
    assert "(contract 7): it is delivered to nobody" in words
    assert "suppressed" in stillwatch("alerts", "list")[1]
    said = stillwatch("exception", "expire", short[1][:6], "--by", "ben")[1]
    assert said.endswith("on account acct_1 is ended; it has suppressed 1 alert\n")
    assert "over already" in stillwatch("exception", "expire", short[1])[2]
    late = alert("acct_1", 96)
    keep(maker, [late], now_us + 600_000_000)
    words = " ".join(stillwatch("alerts", "show", late.alert_id)[1].split())
    assert f"not covered exception {short[1]} of sales until" in words
    assert "covered this until then, and had ended by ben when the alert came" in words
    assert "not covered" not in stillwatch("alerts", "show", before.alert_id)[1]


def test_spaces_around_organisation_and_rule_are_not_kept_and_an_account_with_them_is_another(
    stillwatch: Command, maker: LakeMaker
) -> None:
    said = ("--owner", "sales", "--reason", "pilot", "--expires", "1h")
    assert stillwatch("exception", "add", "--organisation", " org_1 ", "--rule", " risk_high\t", *said)[0] == 0
    (entry,) = maker.catalog.desk.exceptions.find()
    assert (entry.scope, entry.subject, entry.rule) == ("organisation", "org_1", "risk_high")
    for command in (
        ("exception", "add", "--account", " acct_1 ", *said),
        ("verdict", " acct_1 ", "benign", "--why", "w"),
    ):
        code, _, error = stillwatch(*command)
        assert (code, "near to it are acct_1, " in error) == (2, True), error


def test_an_exception_that_expired_is_said_so(stillwatch: Command, maker: LakeMaker) -> None:
    now_us = SystemClock().now_us()
    stillwatch(
        "exception", "add", "--organisation", "org_1", "--owner", "sales", "--reason", "pilot", "--expires", "1h"
    )
    with maker.catalog.transaction(write=True) as tx:  # as time does
        tx.execute(sa.text(f"UPDATE exceptions SET created_at_us = {now_us - 2}, expires_at_us = {now_us - 1}"))
    late = alert("acct_9", 1)
    keep(maker, [late], now_us, {"acct_9": "org_1"})
    listing = stillwatch("exception", "list")[1]
    assert "(0 active exceptions)\nexpired " in listing
    assert "of sales, organisation org_1; alerts of it are delivered again" in listing
    assert stillwatch("exception", "list", "--all")[1].splitlines()[1].split()[1] == "expired"
    words = " ".join(stillwatch("alerts", "show", late.alert_id)[1].split())
    assert "of sales on organisation org_1 until" in words
    assert "had expired when the alert came" in words


def test_an_account_whose_events_are_gone_was_seen_if_it_has_alerts(stillwatch: Command, maker: LakeMaker) -> None:
    wanted = ("exception", "add", "--account", "acct_gone", "--owner", "sales", "--reason", "pilot", "--expires", "1h")
    code, _, error = stillwatch(*wanted)
    assert (code, "Check the id (upper and lower case count, and so do spaces) and --lake; --anyway" in error) == (
        2,
        True,
    )
    keep(maker, [alert("acct_gone", 1)], SystemClock().now_us())
    assert stillwatch(*wanted)[0] == 0


def test_an_alert_says_who_has_it_and_what_was_decided(stillwatch: Command, maker: LakeMaker) -> None:
    (mine, *_) = maker.catalog.alerts(AlertFilter(entity_id="acct_1"))
    assert stillwatch("alerts", "claim", mine.alert_id[:12]) == (0, f"alert {mine.alert_id[:8]} is ana's\n", "")
    assert stillwatch("alerts", "claim", mine.alert_id, "--by", "ben")[2].startswith("ana has claimed alert")
    stillwatch("verdict", "acct_1", "harvesting", "--why", "one frame", "--alert", mine.alert_id[:8])
    (row,) = objects(stillwatch("alerts", "list", "--account", "acct_1", "--format", "json")[1])
    assert (row["claimed_by"], row["verdict"], row["delivery"]) == ("ana", "harvesting", "new")
    assert "harvesting by ana, claimed by ana" in stillwatch("alerts", "list")[1]
    assert "verdict   harvesting, by ana" in stillwatch("alerts", "show", mine.alert_id)[1]
    assert stillwatch("alerts", "release", mine.alert_id)[1].endswith("is free now\n")
    assert stillwatch("alerts", "release", mine.alert_id)[1].endswith("is free, as it was\n")


def test_the_record_is_listed_filtered_and_checked(stillwatch: Command, maker: LakeMaker) -> None:
    audit = maker.catalog.desk.audit
    audit.record(Act("verdict.given", "ana", "account", HOSTILE, {"decision": "benign", "note": "\x1b[2J"}), NOON_US)
    audit.record(Act("exception.added", "ben", "rule", "risk_high", {"until_us": NOON_US}), NOON_US + DAY_US)
    audit.record(Act("content.seen", "ana", "account", "acct_1"), NOON_US + 2 * DAY_US)
    table = stillwatch("audit")[1]
    assert "until 2026-03-01 12:00:00 UTC" in table
    assert table.endswith("(3 records)\n")
    assert "\x1b" not in table
    for flags, expected in (
        ((), ["content.seen", "exception.added", "verdict.given"]),
        (("--actor", "ana"), ["content.seen", "verdict.given"]),
        (("--action", "content"), ["content.seen"]),
        (("--subject", HOSTILE), ["verdict.given"]),
        (("--since", "2026-03-02"), ["content.seen", "exception.added"]),
        (("--limit", "1"), ["content.seen"]),
    ):
        shown = stillwatch("audit", "list", *flags, "--format", "json")[1]
        assert [one["action"] for one in objects(shown)] == expected
    assert stillwatch("audit", "--format", "csv")[1].splitlines()[0].startswith("seq,at,action,actor,worker")
    assert stillwatch("audit", "--action", "delivery.dead")[1] == "nothing is recorded\n"
    assert stillwatch("audit", "--action", "verdicts")[1] == "nothing is recorded\n"
    code, _, error = stillwatch("audit", "--action", "deliver")
    assert (code, "delivery.dead" in error) == (2, True)
    assert stillwatch("audit", "verify")[1].startswith("3 records, none missing or changed\n")
    with maker.catalog.transaction(write=True) as tx:
        tx.exec_driver_sql("DROP TRIGGER audit_log_no_UPDATE")
        tx.exec_driver_sql("UPDATE audit_log SET actor = 'eve' WHERE seq = 2")
    code, _, error = stillwatch("audit", "verify")
    assert (code, error.split(":")[0]) == (6, "the audit log is broken at record 2")
    code, shown, _ = stillwatch("audit", "verify", "--json")
    assert (code, json.loads(shown)["broken_at"]) == (6, 2)


def test_a_verdict_rewritten_in_its_table_is_named(stillwatch: Command, maker: LakeMaker) -> None:
    assert stillwatch("verdict", "acct_1", "benign", "--why", "a customer")[0] == 0
    code, shown, _ = stillwatch("audit", "verify")
    assert (code, shown.splitlines()[-1]) == (0, "1 verdict or exception stands as it was made")
    (given,) = maker.catalog.desk.verdicts.find()
    with maker.catalog.transaction(write=True) as tx:
        tx.exec_driver_sql("UPDATE verdicts SET decision = 'harvesting'")
    code, _, error = stillwatch("audit", "verify")
    assert (code, error.split(":")[0]) == (6, f"verdict {given.verdict_id}")
    code, shown, _ = stillwatch("audit", "verify", "--json")
    assert (code, json.loads(shown)["decisions"]["changed"]) == (6, [f"verdict {given.verdict_id}"])


def test_the_record_of_an_alert_is_found_by_the_beginning_of_its_id(stillwatch: Command, maker: LakeMaker) -> None:
    alert = maker.catalog.alerts()[0]
    assert stillwatch("alerts", "claim", alert.alert_id)[0] == 0
    shown = stillwatch("audit", "--subject", alert.alert_id[:8], "--format", "json")[1]
    assert [(one["action"], one["subject"]) for one in objects(shown)] == [("alert.claimed", alert.alert_id)]
    assert stillwatch("audit", "--subject", "0123abcd")[1] == "nothing is recorded\n"


def test_every_action_that_the_code_records_is_known() -> None:
    sources = "".join(path.read_text() for folder in ("pipeline", "jobs") for path in Path(folder).rglob("*.py"))
    recorded = set(re.findall(r'Act\(\s*"([a-z_.]+)"', sources))
    assert len(recorded) > 10
    assert recorded <= set(ACTIONS)
    assert [action for action in ACTIONS if done_by(action) == action] == [], "the triage page has words for each"


def test_tables_fit_80_columns() -> None:
    head = ("a", "b", "empty", "c")
    rows = [("1", "x" * 200, "", "é" * 200), ("2", "y", "", "z")]
    lines = listed.table(head, rows, 60, ((1, 20), (3, 10)))
    assert max(map(cell_len, lines)) <= 80
    assert "empty" not in lines[0]


@given(st.text(st.sampled_from("ab é中,:"), max_size=60), st.integers(2, 20))
def test_wrapped_text_is_all_there_and_fits(text: str, cells: int) -> None:
    lines = listed.wrap(text, cells)
    assert "".join(lines) == text
    assert max(cell_len(line.rstrip()) for line in lines) <= cells


def test_of_the_record_nothing_is_cut_on_a_narrow_terminal(
    stillwatch: Command, maker: LakeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    whose, why = "a/long/name/" + "0123456789" * 8, "because it asked the same again and again, in other words"
    act = Act("delivery.digest_left_out", "somebody@a-long-domain.example", "account", whose, {"reason": why, "n": 7})
    maker.catalog.desk.audit.record(act, NOON_US)
    monkeypatch.setattr(listed, "width", lambda: 80)
    lines = stillwatch("audit")[1].splitlines()
    assert max(map(cell_len, lines)) <= 80
    text = "".join("".join(line.split()) for line in lines)
    assert "…" not in text
    assert "".join(f"n 7, reason {why}".split()) in text
    assert f"account{whose}" in text
    assert "delivery.digest_left_out" in lines[2]
    at = lines[0].index("actor")
    assert "".join(line[at:].strip() for line in lines[2:4]) == "somebody@a-long-domain.example"
    assert all(line.startswith("      ") for line in lines[3:-1])


@pytest.mark.parametrize(
    ("account", "shown"), (("a\0b", "a\u2400b"), ("  ", "'  '"), (" a", " a"), ("\x1b", "\\u001b"))
)
def test_an_id_is_shown_as_it_can_be_typed(account: str, shown: str) -> None:
    for show in (listed.shown_account, page.shown, delivered.shown):
        assert show(account) == shown
