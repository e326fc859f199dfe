"""Which other accounts have what an account has: looked for in the hours before its last request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pipeline.commits import FileEntry
from pipeline.dossier import Activity, LookedThrough, Shared
from pipeline.dossier.dossier import SharedKind, UsedKind
from pipeline.io.dossier.lake_time import requests_by_hour
from pipeline.io.dossier.rows import HOUR_US, moment_sql, network_prefix, network_sql, rows_of
from pipeline.io.views.session import Session
from pipeline.sql_text import literal

KINDS: Final[Mapping[SharedKind, str]] = {
    "key": "api_key_id", "network": "client_ip", "asn": "asn::VARCHAR", "tls": "tls_ja4"
}  # fmt: skip
"""Of the log: what is looked for, and its column; of networks, that of the addresses."""

LOOK_BACK_US: Final = 24 * HOUR_US
REQUESTS_MAX: Final = 3_000_000
"""Requests of all accounts that are looked through, unless another look-back was asked for: about a second's work."""

EXAMPLES: Final = 5
_VALUES_MAX: Final = 20


def choose(files: Sequence[FileEntry], last_us: int, look_back_us: int, requests_max: int | None) -> LookedThrough:
    """Which hours are looked through: back from the account's last request.

    Args:
        files: of the lake.
        last_us: when that was, or when one was that is not far ahead of the lake's time.
        look_back_us: how far back, at most.
        requests_max: how many requests at most; the last hour is looked through whatever it holds; None: all.
    """
    last = last_us // HOUR_US
    wanted = range(last, last - max(1, -(-look_back_us // HOUR_US)), -1)
    rows = requests_by_hour(files)
    total, first = rows[last], last
    for hour in wanted[1:]:
        if requests_max is not None and total + rows[hour] > requests_max:
            break
        total, first = total + rows[hour], hour
    return LookedThrough(first * HOUR_US, (last + 1) * HOUR_US, total, shortened=first != wanted[-1])


def read_neighbours(
    session: Session, account_id: str, activity: Activity, looked: LookedThrough
) -> tuple[list[Shared], list[SharedKind]]:
    """Who shares what.

    Args:
        session: on the lake.
        account_id: whose neighbours.
        activity: what it was seen with.
        looked: the hours.

    Returns:
        What others have, too; and the kinds of things that it has and nobody else was seen with.
    """
    mine = {kind: [one.value for one in activity.used[_used_kind(kind)]][:_VALUES_MAX] for kind in KINDS}
    asked = {kind: values for kind, values in mine.items() if values}
    if not asked:
        return [], []
    rows = rows_of(session, _query(account_id, asked, looked))
    shared = [Shared(row["kind"], row["value"], row["others"], tuple(row["examples"]), 0) for row in rows]
    with_others = {one.kind for one in shared}
    return shared, [kind for kind in asked if kind not in with_others]


def _used_kind(kind: SharedKind) -> UsedKind:
    return kind  # type: ignore[return-value]  # those of the log are called the same


def _query(account_id: str, asked: Mapping[SharedKind, Sequence[str]], looked: LookedThrough) -> str:
    names = {kind: f"v{place}" for place, kind in enumerate(asked)}
    columns = ", ".join(f"{KINDS[kind]} AS {name}" for kind, name in names.items())
    within = " OR ".join(_may_be(kind, KINDS[kind], values) for kind, values in asked.items())
    parts = [
        f"SELECT {literal(kind)} AS kind, {_value(kind, names[kind])} AS value, account_id, sum(times) AS requests "  # noqa: S608  # as below
        f"FROM near GROUP BY ALL HAVING value IN ({', '.join(map(literal, values))})"
        for kind, values in asked.items()
    ]  # fmt: skip
    return f"""
        WITH near AS MATERIALIZED (
            SELECT account_id, {columns}, count(*) AS times FROM access
            WHERE event_time >= {moment_sql(looked.since_us)} AND event_time < {moment_sql(looked.until_us)}
              AND account_id <> {literal(account_id)} AND ({within})
            GROUP BY ALL
        )
        SELECT kind, value, count(*) AS others,
               list(account_id ORDER BY requests DESC, account_id)[1:{EXAMPLES}] AS examples
        FROM ({" UNION ALL ".join(parts)})
        GROUP BY ALL ORDER BY others, kind, value"""  # noqa: S608  # names of our own, values quoted


def _may_be(kind: SharedKind, column: str, values: Sequence[str]) -> str:
    """A condition that is quick to look at and holds for every row that has one of some values, and for few others."""
    if kind == "network":
        return " OR ".join(f"starts_with({column}, {literal(network_prefix(value))})" for value in values)
    return f"{column} IN ({', '.join(map(literal, values))})"


def _value(kind: SharedKind, name: str) -> str:
    return network_sql(name) if kind == "network" else name


def in_order(shared: Sequence[Shared]) -> tuple[Shared, ...]:
    """The rarest first."""
    return tuple(sorted(shared, key=lambda one: (one.others, one.kind, one.value)))
