"""Queries of the dossier: SQL in, plain rows out."""

from __future__ import annotations

from typing import Any, Final

from pipeline.io.views.session import Session
from pipeline.moments import moment_at

Row = dict[str, Any]

HOUR_US: Final = 3_600_000_000
DAY_US: Final = 24 * HOUR_US


def rows_of(session: Session, sql: str) -> list[Row]:
    """All rows of a query; what is asked for here is bounded."""
    with session.run(sql) as result:
        return [row for batch in result.batches for row in batch.to_pylist()]


def network_sql(address: str) -> str:
    """The network of an address, as `pipeline.features.identity` has it: what is no address is its own.

    Args:
        address: a column.
    """
    return f"""CASE
        WHEN {address} LIKE '%:%' THEN array_to_string(string_split({address}, ':')[1:3], ':') || '::/48'
        WHEN rtrim({address}, '0123456789') LIKE '%.' THEN rtrim({address}, '0123456789') || '0/24'
        ELSE {address} END"""


def network_prefix(network: str) -> str:
    """What every address of a network begins with, by `network_sql`; others may, too."""
    return network.removesuffix("0/24") if network.endswith(".0/24") else network.removesuffix("::/48")


def moment_sql(time_us: int) -> str:
    """A moment as SQL has it: a constant, so that files are left out by it."""
    return f"TIMESTAMPTZ '{moment_at(time_us):%Y-%m-%d %H:%M:%S.%f}+00'"


def hour_sql(time_us: int) -> str:
    """A condition: rows of the hour that a moment is in."""
    moment = moment_at(time_us)
    return f"(dt = DATE '{moment:%Y-%m-%d}' AND hour = {moment.hour})"
