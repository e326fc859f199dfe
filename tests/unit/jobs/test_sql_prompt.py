"""The prompt of `stillwatch sql`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from jobs.sql_prompt import Names, is_complete, prompt
from pipeline.config import read_settings
from pipeline.errors import ConfigError
from pipeline.io.views.session import Session
from pipeline.io.views.tables import VIEWS
from tests.lake_maker import make_lake
from tests.unit.jobs.terminal import at_terminal


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prompt") / "lake"
    events = [{"event_time": f"2026-03-01T00:00:{second:02}Z", "account_id": "a", "model": "m"} for second in range(36)]
    with make_lake(folder, events):
        return folder


@pytest.fixture
def session(root: Path) -> Iterator[Session]:
    with Session.open(read_settings(None, lake=str(root))) as opened:
        yield opened


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PipeInput]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        yield pipe


def asked(session: Session, keys: PipeInput, text: str, show: Callable[[str], None] | None = None) -> list[str]:
    """The statements that typing a text runs; Ctrl-D at the end."""
    statements: list[str] = []
    keys.send_text(text + "\x04")
    prompt(session, show or statements.append)
    return statements


def test_a_query_ends_with_a_semicolon_and_may_take_lines(session: Session, keys: PipeInput) -> None:
    assert asked(session, keys, "SELECT 1;\rSELECT ';',\r2 -- ;\r;\rSELECT 3; SELECT 4;\r") == [
        "SELECT 1;", "SELECT ';',\n2 -- ;\n;", "SELECT 3; ", "SELECT 4;",
    ]  # fmt: skip


def test_an_error_and_an_interrupt_leave_the_prompt_alive(
    session: Session, keys: PipeInput, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    def show(statement: str) -> None:
        ran.append(statement)
        if "bad" in statement:
            raise ConfigError("bad\x1b[31m query")
        if "slow" in statement:
            raise KeyboardInterrupt

    asked(session, keys, "SELECT 'bad';\rSELECT 'slow';\rSELECT 'unfinished\x03SELEC;\rSELECT 'good';\r", show)
    assert ran == ["SELECT 'bad';", "SELECT 'slow';", "SELECT 'good';"]
    said = capsys.readouterr().out
    assert "bad\\u001b[31m query\nstopped\n" in said
    assert 'Parser Error: syntax error at or near "SELEC"' in said


def test_commands_of_the_prompt(session: Session, keys: PipeInput, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(session, keys, ".tables\r.schema REJECTS;\r.schema nope\r.help\r.oops\r.quit\rSELECT 1;\r") == []
    said = capsys.readouterr().out
    assert all(f"\n{view.name} " in said for view in VIEWS.values())
    assert re.search(r"\nerror_type +VARCHAR +Kind of", said)
    assert ".schema VIEW: one of access, content" in said
    assert said.count("Ctrl-C stops it") == 2
    assert ".oops is unknown" in said


def test_history_is_kept_for_the_user_alone(session: Session, keys: PipeInput, tmp_path: Path) -> None:
    asked(session, keys, "SELECT 'one';\r")
    file = tmp_path / "state" / "stillwatch" / "sql_history"
    assert "SELECT 'one';" in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert asked(session, keys, "\x1b[A\r") == ["SELECT 'one';"]


def test_a_prompt_without_a_place_for_its_history(session: Session, keys: PipeInput, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file, not a folder")
    assert asked(session, keys, "SELECT 1;\r") == ["SELECT 1;"]


@pytest.mark.parametrize(
    ("text", "expected"),
    (
        ("SELECT 1;", True), ("SELECT 1", False), ("SELECT ';", False), ("SELECT ';'", False), ("SELECT 1; -- done", True),
        ("SELECT 1 -- ;", False), ("SELECT 'ö名';  ", True), ("", True), (".help", True), ("-- only", False),
    ),
)  # fmt: skip
def test_when_enter_sends(text: str, expected: bool) -> None:
    assert is_complete(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    (("SELECT acc", {"access", "account_id", "account_windows", "accepted"}), (".sch", {".schema"}), (".schema lake_o", {"lake_offsets"}), ("selec", {"SELECT"}), ("", set())),
)  # fmt: skip
def test_names_are_completed(text: str, expected: set[str]) -> None:
    assert {found.text for found in Names().get_completions(Document(text), CompleteEvent())} == expected


def test_ctrl_c_stops_a_query_and_not_the_prompt(root: Path, tmp_path: Path) -> None:
    endless = b"SELECT count(*), sum(hash(a.range * b.range)) FROM range(1000000000) a, range(1000000) b;\r"
    text = at_terminal(root, keys=endless, home=tmp_path, interrupted=b"SELECT 'alive' AS still;\r.quit\r")
    assert "stopped" in text
    assert "still\n-----\nalive\n(1 row)" in text


def test_the_prompt_at_a_terminal(root: Path, tmp_path: Path) -> None:
    text = at_terminal(root, keys=b"SELECT count(*) AS\rmany FROM events;\r.quit\r", home=tmp_path)
    assert "Views: access, content, rejects, account_windows, alerts, events" in text
    assert "many\n----\n  36\n(1 row)" in text
