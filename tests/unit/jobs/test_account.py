"""`stillwatch account`: what it shows of a real lake, to people and to programs, and what it refuses."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len

from jobs.account_output import as_json, as_text, spark, spread
from pipeline.config import read_settings
from pipeline.io.desk.audit_log import AuditFilter
from pipeline.watch import load_watch
from tests.commands import run_command
from tests.lake_maker import LakeMaker, make_lake
from tests.unit.io.dossier_lake import HARVESTER, HOSTILE, dossier_of, event, traffic

ROOT = Path(__file__).parents[3]
Command = Callable[..., tuple[int, str, str]]
ODD_IDS = (
    "o'brien",
    'say "hi"',
    "a/../b",
    "<b>x</b>",
    "\x1b[31mred\x1b[0m",
    "x" * 10_000,
    "ünï\u202ecode",
    "-v",
    "%00&#x27;",
    "acme$(touch PWNED)`touch PWNED`",
)


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LakeMaker]:
    odd = [event(name, 200 + minute, prompt=f"prompt of {name}") for name in ODD_IDS for minute in range(2)]
    folder = tmp_path_factory.mktemp("account") / "lake"
    with make_lake(folder, [*traffic(), *odd], watch=load_watch(read_settings(None))) as maker:
        yield maker


@pytest.fixture
def stillwatch(maker: LakeMaker) -> Command:
    """`stillwatch(account, ...)`: exit code, standard output, and what an error says."""

    def run(account: str, *flags: str, lake: Path = maker.root) -> tuple[int, str, str]:
        return run_command("account", "--lake", str(lake), *flags, "--", account)

    return run


def looks(maker: LakeMaker, account: str) -> list[str]:
    """Who has looked at texts of an account, as the record says."""
    wanted = AuditFilter(action="content.seen", subject=account)
    return [record.actor for record in maker.catalog.desk.audit.records(wanted)]


def test_it_says_what_happened_what_that_may_mean_and_what_was_decided_in_this_order(stillwatch: Command) -> None:
    code, out, _ = stillwatch(HARVESTER, "--by", "ann")
    assert code == 0
    parts = [out.index(title) for title in ("FACTS", "INFERENCE", "DECISIONS")]
    assert parts == sorted(parts)
    assert "80 requests, 4 of them refused or failed" in out
    assert "Why risk_high alerted it" in out
    assert "API key key_shared: 1 other account, not alerted; rare" in out
    assert "common: no evidence by itself" in " ".join(out.split())
    assert "You are an expert. Write a detailed exam question about topic 0" in out


@pytest.mark.parametrize("width", (80, 100, 133))
@pytest.mark.parametrize("account", (HARVESTER, HOSTILE, "acct_one"), ids=("loud", "hostile", "one"))
def test_no_line_is_wider_than_the_terminal(maker: LakeMaker, account: str, width: int) -> None:
    """But for the account's id, which is to be copied."""
    first, *lines = as_text(dossier_of(maker.root, account), width).splitlines()
    assert first.startswith("account ")
    assert [line for line in lines if cell_len(line) > width] == []


@pytest.mark.parametrize("account", ODD_IDS)
def test_an_odd_id_is_found_and_written_out_everywhere(
    stillwatch: Command, maker: LakeMaker, account: str, tmp_path: Path
) -> None:
    code, out, _ = stillwatch(account)
    assert code == 0
    assert "2 requests" in out
    assert not [letter for letter in out if not (letter.isprintable() or letter == "\n")]
    assert looks(maker, account)
    query = re.search(r"all of them: (stillwatch sql .*?)\n\n", out, re.DOTALL)
    assert bool(query) == (account.isprintable() and len(account) < 300)
    if query:  # what a shell makes of it is one query, and it runs nothing
        (said,) = shlex.split(query[1])[2:]
        given = subprocess.run(
            ["bash", "-c", f'stillwatch() {{ printf %s "$2"; }}\n{query[1]}'], cwd=tmp_path, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        assert given.stdout == said
        assert account.replace("'", "''") in " ".join(said.split())
        assert list(tmp_path.iterdir()) == []
    page = tmp_path / "page.html"
    assert stillwatch(account, "--html", str(page), "--no-content")[0] == 0
    assert "<b>x</b>" not in page.read_text(encoding="utf-8")
    told = json.loads(stillwatch(account, "--format", "json", "--no-content")[1])
    assert told["account_id"] == account


@pytest.mark.parametrize("account", (*(f"{name}?" for name in ODD_IDS), "", "nobody", "' OR 1=1 --"))
def test_an_account_that_is_not_there_is_one_clear_line(stillwatch: Command, account: str) -> None:
    code, out, error = stillwatch(account)
    assert (code, out) == (2, "")
    assert "nothing is known of an account" in error
    assert ("these are like it" in error) or ("stillwatch sql" in error)
    assert len(error) < 1_000
    assert error.isprintable()


def test_bytes_that_are_no_text_are_no_account(maker: LakeMaker) -> None:
    command = [sys.executable, "-m", "jobs.cli", "account", "--lake", str(maker.root), b"acct\xff\x1b[31m"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False
    )
    assert done.returncode == 2
    assert b"nothing is known of an account acct\\udcff\\u001b[31m" in done.stderr
    assert b"\x1b" not in done.stderr


def test_json_is_the_whole_dossier_with_times_in_rfc3339(stillwatch: Command) -> None:
    told = json.loads(stillwatch(HARVESTER, "--format", "json")[1])
    assert told["seen"]["activity"]["first"] == "2026-03-01T08:00:00.000000Z"
    assert told["seen"]["bucket_s"] == 3600
    assert told["seen"]["timeline"][0] == {
        "start": "2026-03-01T08:00:00.000000Z", "requests": 30, "input_tokens": 1200, "output_tokens": 26595, "errors": 1,
    }  # fmt: skip
    assert told["inferred"]["alerts"][0]["alert"]["rule"]
    assert len(told["inferred"]["measures"]) > 100
    assert told["decided"] == {"verdicts": [], "exceptions": []}


def test_a_look_at_texts_is_on_record_and_a_look_without_is_not(
    stillwatch: Command, maker: LakeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = "acct_twin"
    code, out, _ = stillwatch(account, "--no-content")
    assert code == 0
    assert "Hello" not in out
    assert looks(maker, account) == []
    assert "Hello" in stillwatch(account, "--by", "ann")[1]
    monkeypatch.setenv("STILLWATCH_BY", "bob")
    assert "Hello" in stillwatch(account)[1]
    monkeypatch.delenv("STILLWATCH_BY")
    assert "Hello" in stillwatch(account)[1]
    assert looks(maker, account)[1:] == ["bob", "ann"]
    assert len(looks(maker, account)) == 3
    assert stillwatch("acct_001")[0] == 0
    assert looks(maker, "acct_001") == [], "it has no texts to look at"


def test_a_page_is_written_whole_or_not_at_all(stillwatch: Command, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    code, out, said = stillwatch(HARVESTER, "--html", str(page))
    assert (code, out) == (0, "")
    assert said == f"{page}: written; it opens without a network\n"
    assert page.read_bytes().startswith(b"<!doctype html>")
    assert list(tmp_path.iterdir()) == [page]
    code, _, error = stillwatch(HARVESTER, "--html", str(tmp_path / "none" / "page.html"))
    assert (code, error) == (2, f"--html {tmp_path / 'none' / 'page.html'}: No such file or directory")
    assert stillwatch(HARVESTER, "--html", str(page), "--format", "json")[0] == 2


def test_a_longer_look_back_is_said(stillwatch: Command) -> None:
    assert "in the 168 hours up to" in stillwatch(HARVESTER, "--look-back", "7d", "--no-content")[1]
    assert stillwatch(HARVESTER, "--look-back", "soon")[0] == 2


def test_a_feed_that_is_not_there_is_an_error(stillwatch: Command, tmp_path: Path) -> None:
    code, _, error = stillwatch(HARVESTER, "--accounts", str(tmp_path / "none"))
    assert (code, error) == (2, f"cannot read the accounts feed {tmp_path / 'none'}: No such file or directory")


def test_a_lake_that_is_not_there_is_an_error(stillwatch: Command, tmp_path: Path) -> None:
    code, _, error = stillwatch(HARVESTER, lake=tmp_path / "none")
    assert code == 2
    assert "there is no" in error


def test_sparks_rise_with_values_and_leave_gaps() -> None:
    assert spark([0.0, 0.5, 1.0, math.nan], 1.0) == "▁▅█ "
    assert spark([0.0, 0.0], None) == "▁▁"
    assert spark([], None) == ""
    found = spread([(0, 1.0), (1, 3.0), (99, 2.0)], 0, 100, 4)
    assert found[0] == 3.0
    assert found[3] == 2.0
    assert math.isnan(found[1])


def test_json_has_no_numbers_that_json_has_not(maker: LakeMaker) -> None:
    dossier = dossier_of(maker.root, HARVESTER, texts=False)
    odd = replace(dossier, inferred=replace(dossier.inferred, risk=math.nan))
    assert json.loads(as_json(odd))["inferred"]["risk"] is None
