"""The prompt of `stillwatch sql`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import duckdb
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from pipeline.errors import StillwatchError
from pipeline.harmless import harmless
from pipeline.io.views.session import Session
from pipeline.io.views.tables import VIEWS, brief

HELP: Final = """\
A query ends with ; and may take several lines.  Ctrl-C stops it, Ctrl-D leaves.
  .tables         the views, and what a row of each is
  .schema VIEW    its columns, and what they mean
  .help           this
  .quit           leave
To begin with:
  SELECT account_id, count(*) AS n FROM access WHERE dt = current_date GROUP BY ALL ORDER BY n DESC LIMIT 10;
"""

_WORDS: Final = (
    "SELECT", "FROM", "WHERE", "GROUP BY", "ORDER BY", "LIMIT", "HAVING", "JOIN", "LEFT JOIN", "ON", "USING", "WITH",
    "AS", "AND", "OR", "NOT", "IN", "BETWEEN", "LIKE", "ILIKE", "IS NULL", "IS NOT NULL", "DISTINCT", "COUNT", "SUM",
    "AVG", "MIN", "MAX", "QUALIFY", "OVER", "PARTITION BY", "CASE", "WHEN", "THEN", "ELSE", "END", "DESC", "INTERVAL",
    "CURRENT_DATE", "NOW()", "DESCRIBE", "SUMMARIZE", "SHOW TABLES", "EXPLAIN", "EXPLAIN ANALYZE", "PIVOT", "UNION ALL",
)  # fmt: skip


def prompt(session: Session, show: Callable[[str], None]) -> None:
    """Ask for queries and answer them until the user leaves.

    Args:
        session: to take scripts apart with.
        show: runs a statement and shows its answer.
    """
    asking: PromptSession[str] = PromptSession(
        history=_history(), completer=Names(), complete_while_typing=False, key_bindings=_keys(), multiline=True,
        prompt_continuation=lambda width, _line, _soft: "-> ".rjust(width),
    )  # fmt: skip
    _say(f"Views: {', '.join(VIEWS)}.  .help says more.")
    while True:
        try:
            text = asking.prompt("stillwatch> ").strip()
        except KeyboardInterrupt:
            continue  # the line is dropped, as shells do
        except EOFError:
            return
        if text in {".quit", ".exit"}:
            return
        if text.startswith("."):
            _say(_command(text))
        elif text:
            _answer(session, show, text)


def _answer(session: Session, show: Callable[[str], None], text: str) -> None:
    try:
        for statement in session.statements(text):
            show(statement)
    except StillwatchError as error:
        _say(harmless(str(error), keep="\n"))
    except KeyboardInterrupt:
        _say("stopped")


def _command(text: str) -> str:
    name, _, argument = text.rstrip(";").partition(" ")
    if name == ".tables":
        return "\n".join(f"{view.name:<13} {view.about}" for view in VIEWS.values())
    view = VIEWS.get(argument.strip().lower())
    if name == ".schema" and view:
        return "\n".join(f"{column:<22} {brief(kind):<25} {meaning}" for column, kind, meaning in view.described())
    if name == ".schema":
        return f".schema VIEW: one of {', '.join(VIEWS)}"
    return HELP.rstrip() if name == ".help" else f"{harmless(name)} is unknown.\n{HELP.rstrip()}"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def is_complete(text: str) -> bool:
    """Whether Enter sends the text: a command, nothing, or SQL whose last word is a semicolon, comments aside."""
    text = text.strip()
    if not text or text.startswith("."):
        return True
    tokens = [position for position, kind in duckdb.tokenize(text) if kind != duckdb.token_type.comment]
    return bool(tokens) and text.encode()[tokens[-1] :].startswith(b";")


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @Condition
    def _complete() -> bool:
        from prompt_toolkit.application import get_app  # noqa: PLC0415  # of the moment, not of the import

        return is_complete(get_app().current_buffer.text)

    @keys.add("enter", filter=_complete)
    def _send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    return keys


class Names(Completer):
    """Completes views, columns, words of SQL, and the prompt's own commands."""

    def __init__(self) -> None:
        columns = {column: kind for view in VIEWS.values() for column, kind, _ in view.described()}
        views = dict.fromkeys(VIEWS, "view")
        self._sql = {**views, **columns, **dict.fromkeys(_WORDS, "")}
        self._commands = dict.fromkeys((".tables", ".schema", ".help", ".quit"), "")

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Names that begin with the word before the cursor."""
        del complete_event
        line = document.text_before_cursor.lstrip()
        if line.startswith("."):
            first, space, word = line.rpartition(" ")
            names = dict.fromkeys(VIEWS, "view") if first else self._commands
            del space
        else:
            word, names = document.get_word_before_cursor(), self._sql
        if word:
            for name, about in names.items():
                if name.lower().startswith(word.lower()):
                    yield Completion(name, start_position=-len(word), display_meta=about)


def _history() -> History:
    """What was asked before, for this user's eyes alone; of this run only where there is no place for it."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    file = Path(base).expanduser() / "stillwatch" / "sql_history"
    with contextlib.suppress(OSError, RuntimeError):
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.touch(mode=0o600)
        return FileHistory(str(file))
    return InMemoryHistory()
