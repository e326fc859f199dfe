"""Which account is meant by an id that somebody typed: no command line holds a NUL, and some ids do."""

from __future__ import annotations

from pipeline.alerts import spellings
from pipeline.io.views.session import Session
from pipeline.io.views.tables import literal

_SOUGHT = {"access": "account_id", "account_windows": "account_id", "alerts": "entity_id"}


def as_in_lake(session: Session, account_id: str) -> str:
    """An id as the lake has it.

    Args:
        session: on the lake.
        account_id: as it was typed; U+2400 may stand for NULs, as it does wherever they are shown.

    Returns:
        With NULs, if that is how the lake has it; as it was typed, if the lake has neither or both.

    Raises:
        SchemaError: a file of the lake is missing or broken.
    """
    every = spellings(account_id)
    if len(every) == 1:
        return account_id
    names = ", ".join(map(literal, every))
    query = " UNION ".join(
        f"SELECT {column} AS name FROM {table} WHERE {column} IN ({names})"  # noqa: S608  # names of our own, the ids quoted
        for table, column in _SOUGHT.items()
    )
    with session.run(query) as result:
        found = {row["name"] for batch in result.batches for row in batch.to_pylist()}
    typed, with_nul = every
    return with_nul if found == {with_nul} else typed
