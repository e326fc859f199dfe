"""Which account is meant by an id that somebody typed: no command line holds a NUL, and some ids do."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.alerts import spellings
from pipeline.io.rewriting.naming import REJECTS, Named
from pipeline.io.views.session import Session
from pipeline.sql_text import literal

_SOUGHT = {"access": "account_id", "account_windows": "account_id", "alerts": "entity_id"}


def as_in_lake(session: Session, account_id: str, *, also_rejects: bool = False) -> str:
    """An id as the lake has it.

    Args:
        session: on the lake.
        account_id: as it was typed; U+2400 may stand for NULs, as it does wherever they are shown.
        also_rejects: an id that only rejects name is in the lake, too; it takes a look at all of them.

    Returns:
        With NULs, if that is how the lake has it; as it was typed, if the lake has neither or both.

    Raises:
        SchemaError: a file of the lake is missing or broken.
    """
    every = spellings(account_id)
    if len(every) == 1:
        return account_id
    found = _in_columns(session, every) | (_in_rejects(session, every) if also_rejects else set())
    typed, with_nul = every
    return with_nul if found == {with_nul} else typed


def _in_columns(session: Session, names: Sequence[str]) -> set[str]:
    listed = ", ".join(map(literal, names))
    query = " UNION ".join(
        f"SELECT {column} AS name FROM {table} WHERE {column} IN ({listed})"  # noqa: S608  # names of our own, the ids quoted
        for table, column in _SOUGHT.items()
    )
    with session.run(query) as result:
        return {row["name"] for batch in result.batches for row in batch.to_pylist()}


def _in_rejects(session: Session, names: Sequence[str]) -> set[str]:
    found: set[str] = set()
    with session.run(f"SELECT raw, reason FROM {REJECTS}") as result:  # noqa: S608  # a name of our own
        for batch in result.batches:
            rows = pa.Table.from_batches([batch])
            found.update(name for name in names if not pc.all(Named(name).others(REJECTS, rows)).as_py())
    return found
