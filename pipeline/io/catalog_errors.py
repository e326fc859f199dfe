"""What the catalog's database says, in the errors of Stillwatch, each with what to do."""

from __future__ import annotations

import re
from typing import Final

import sqlalchemy as sa

from pipeline.errors import NoRightError, RetryableError, SchemaError, StillwatchError

_WORTH_ANOTHER_TRY: Final = ("25P03", "25P04", "25006")
"""PostgreSQL ended a silent or long transaction, or has just become a standby: SQLSTATE, class 25."""

_NO_RIGHT: Final = ("42501", "3F000")
"""PostgreSQL's SQLSTATEs `insufficient_privilege`, and what it says where a role may use no schema."""

_DISK_FULL: Final = ("disk I/O error", "database or disk is full")
"""What SQLite says of a full disk: the first where its log of changes, the second where the database cannot grow."""

_DENIED: Final = re.compile(r'permission denied for table "?([^"\s]+)"?')
_NEEDED: Final = {
    "SELECT": "SELECT", "INSERT": "SELECT, INSERT", "UPDATE": "SELECT, UPDATE", "DELETE": "SELECT, DELETE",
    "INSERT or UPDATE": "SELECT, INSERT, UPDATE",
}  # fmt: skip
_RIGHTS: Final = "SELECT, INSERT, UPDATE, DELETE"
_MADE_BY: Final = (
    "the tables are made, and brought up to date, by the role that owns them: start the command once as that role, or "
    "GRANT this role to it"
)


def in_words(error: sa.exc.SQLAlchemyError, url: sa.URL) -> StillwatchError | None:
    """What an error of the database means; None where it is a bug, or for the caller to judge.

    Args:
        error: as SQLAlchemy raised it.
        url: of the catalog.
    """
    where = f"catalog {url.render_as_string(hide_password=True)}"
    said = " ".join(str(getattr(error, "orig", None) or error).split())
    match error:
        case sa.exc.IntegrityError():
            return None
        case sa.exc.OperationalError() | sa.exc.InterfaceError() | sa.exc.TimeoutError():
            return RetryableError(f"{where}: {said}{'; is the disk full?' if said in _DISK_FULL else ''}")
        case sa.exc.InternalError():
            return RetryableError(f"{where}: {said}") if _state(error) in _WORTH_ANOTHER_TRY else None
        case sa.exc.ProgrammingError() if _state(error) in _NO_RIGHT:
            return NoRightError(where, _no_right(error, url, said))
        case sa.exc.DatabaseError() if type(error) is sa.exc.DatabaseError:  # its other kinds are bugs
            return SchemaError(f"{where}: {said}; `maintain rebuild-catalog` makes a new one")
    return None


def _state(error: sa.exc.DBAPIError) -> str | None:
    state: str | None = getattr(error.orig, "sqlstate", None)
    return state


def _no_right(error: sa.exc.DBAPIError, url: sa.URL, said: str) -> str:
    """Which right a role lacks, and what to grant it."""
    verb = _verb((error.statement or "").strip().upper())
    role = _quoted(url.username or "this role")
    found = _DENIED.search(said)
    if found is None or verb in {"CREATE", "ALTER", "DROP"}:
        return f"the role {role} may not do this ({said}): {_MADE_BY}"
    name = _quoted(found[1])
    rights = _NEEDED.get(verb, _RIGHTS)
    return (
        f"the role {role} may not {verb if verb in _NEEDED else 'work with'} the table {name}: "
        f"GRANT {rights} ON {name} TO {role}. A role that decides or runs jobs needs {_RIGHTS} on all tables of the "
        "catalog, one that reads alone SELECT: docs/operations.md"
    )


def _verb(statement: str) -> str:
    """What a statement does, in capitals: one that locks rows needs the right to change them, as an upsert does."""
    if statement.endswith("FOR UPDATE"):
        return "UPDATE"
    verb = statement.partition(" ")[0]
    is_upsert = verb == "INSERT" and "ON CONFLICT" in statement and "DO UPDATE" in statement
    return "INSERT or UPDATE" if is_upsert else verb


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else '"' + name.replace('"', '""') + '"'
