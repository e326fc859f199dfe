"""Numbers that grow in the order in which transactions are committed: who has read up to one has missed none."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Final

import sqlalchemy as sa

from pipeline.alerts import without_nul
from pipeline.io import catalog_tables
from pipeline.io.desk.tables import counters

_PORTION: Final = 500


def next_number(tx: sa.Connection, name: str) -> int:
    """The next one; the counter's row is locked until the transaction ends, so nobody gets a later one before."""
    return next_numbers(tx, name, 1)


def next_numbers(tx: sa.Connection, name: str, count: int) -> int:
    """The next `count` of them: the last one."""
    mine = counters.c.name == name
    new = catalog_tables.insert(tx.engine, counters).values(name=name, value=0)
    tx.execute(new.on_conflict_do_nothing())
    tx.execute(sa.update(counters).where(mine).values(value=counters.c.value + count))
    return int(tx.execute(sa.select(counters.c.value).where(mine)).scalar_one())


def in_portions(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """As many at a time as one statement may name: SQLite takes 32,766 values."""
    for start in range(0, len(names), _PORTION):
        yield names[start : start + _PORTION]


def sha256_of_id(name: str) -> str:
    """By what the rows about an id are found: an index of PostgreSQL holds no ids of 10 kB.  In hex."""
    return hashlib.sha256(without_nul(name).encode("utf-8", "surrogatepass")).hexdigest()
