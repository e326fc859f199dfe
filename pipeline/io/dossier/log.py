"""What the access log says of an account: totals, when, and with what; and some of its requests."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.dossier import Activity, Bucket, Sample, Used
from pipeline.dossier.dossier import TextState, UsedKind
from pipeline.io.dossier.lake_time import last_hour
from pipeline.io.dossier.rows import DAY_US, HOUR_US, Row, hour_sql, moment_sql, network_sql, rows_of
from pipeline.io.views.session import Session
from pipeline.sql_text import literal

USED_MAX: Final = 20
"""Values of each kind that are kept: those of most requests."""

SAMPLES: Final = 8

HOURS_SHOWN_MAX: Final = 8 * 24
"""A longer timeline is by day."""

TEXT_CHARS_MAX: Final = 4_000
"""Characters of a text that are read; the rest is in `stillwatch sql`."""

USED_BACK_US: Final = 7 * DAY_US
"""How far back from its last request it is counted what an account's requests came with: a third of the time that all
would take, of an account of a month."""

_COLUMNS: Final[dict[UsedKind, str]] = {
    "organisation": "org_id", "key": "api_key_id", "network": "client_ip", "asn": "asn::VARCHAR", "country": "country",
    "user agent": "user_agent", "tls": "tls_ja4", "model": "model", "operation": "operation",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Logged:
    """What was counted.

    Attributes:
        activity: totals.
        hours: every hour that has requests, in order.
        latest_us: the last request, but for those that are dated far ahead of the lake's time; None: there are none.
    """

    activity: Activity
    hours: tuple[Bucket, ...]
    latest_us: int | None


def read_activity(session: Session, account_id: str, back_us: int = USED_BACK_US) -> Logged:
    """Count an account's requests: all of them by the hour, and what the latest of them came with.

    Args:
        session: on the lake.
        account_id: whose.
        back_us: how far back from the last one it is counted what they came with.
    """
    hours = rows_of(
        session,
        f"""
        SELECT epoch_us(event_time) // {HOUR_US} * {HOUR_US} AS hour_us, count(*) AS requests,
               sum(coalesce(input_tokens, 0))::BIGINT AS input_tokens,
               sum(coalesce(output_tokens, 0))::BIGINT AS output_tokens, count(*) FILTER (status >= 400) AS errors,
               min(epoch_us(event_time)) AS first_us, max(epoch_us(event_time)) AS last_us
        FROM access WHERE account_id = {literal(account_id)} GROUP BY hour_us ORDER BY hour_us""",  # noqa: S608  # the id is quoted
    )
    last_us = max((row["last_us"] for row in hours), default=None)
    end = last_hour(session.live_files())
    in_time = [row["last_us"] for row in hours if end is None or row["hour_us"] <= end * HOUR_US]
    latest_us = max(in_time, default=last_us)
    since_us = None if latest_us is None else max(hours[0]["hour_us"], (latest_us - back_us) // HOUR_US * HOUR_US)
    used = {} if since_us is None else _read_used(session, account_id, since_us)
    return Logged(
        Activity(
            requests=sum(row["requests"] for row in hours),
            input_tokens=sum(row["input_tokens"] for row in hours),
            output_tokens=sum(row["output_tokens"] for row in hours),
            errors=sum(row["errors"] for row in hours),
            first_us=min((row["first_us"] for row in hours), default=None),
            last_us=last_us,
            used_since_us=since_us,
            used={kind: used.get(kind, ((), 0))[0] for kind in _COLUMNS},
            distinct={kind: used.get(kind, ((), 0))[1] for kind in _COLUMNS},
        ),
        tuple(_bucket(row, row["hour_us"]) for row in hours),
        latest_us,
    )


def _read_used(session: Session, account_id: str, since_us: int) -> dict[UsedKind, tuple[tuple[Used, ...], int]]:
    """The commonest values of each kind, and how many there are; in one pass, and networks of addresses afterwards."""
    names = [f"v{place}" for place in range(len(_COLUMNS))]
    columns = ", ".join(f"{sql} AS {name}" for name, sql in zip(names, _COLUMNS.values(), strict=True))
    which = " ".join(f"WHEN GROUPING({name}) = 0 THEN {place}" for place, name in enumerate(names))
    network = list(_COLUMNS).index("network")
    rows = rows_of(
        session,
        f"""
        WITH counted AS (
            SELECT CASE {which} END AS kind, coalesce({", ".join(names)}) AS value, count(*) AS requests
            FROM (SELECT {columns} FROM access
                  WHERE account_id = {literal(account_id)} AND event_time >= {moment_sql(since_us)})
            GROUP BY GROUPING SETS ({", ".join(f"({name})" for name in names)})
        ), named AS (
            SELECT kind, CASE WHEN kind = {network} THEN {network_sql("value")} ELSE value END AS value,
                   sum(requests)::BIGINT AS requests
            FROM counted WHERE value IS NOT NULL GROUP BY ALL
        )
        SELECT *, count(*) OVER (PARTITION BY kind) AS different FROM named
        QUALIFY row_number() OVER (PARTITION BY kind ORDER BY requests DESC, value) <= {USED_MAX}
        ORDER BY kind, requests DESC, value""",  # noqa: S608  # names of our own, the id quoted
    )
    kinds = list(_COLUMNS)
    found: dict[UsedKind, tuple[tuple[Used, ...], int]] = {}
    for place, mine in itertools.groupby(rows, key=lambda row: int(row["kind"])):
        some = list(mine)
        found[kinds[place]] = tuple(Used(row["value"], row["requests"]) for row in some), some[0]["different"]
    return found


def _bucket(row: Row, start_us: int) -> Bucket:
    return Bucket(start_us, row["requests"], row["input_tokens"], row["output_tokens"], row["errors"])


def timeline(hours: Sequence[Bucket]) -> tuple[tuple[Bucket, ...], int]:
    """By hour, or by day where that would be many; and how long each part is, microseconds."""
    if not hours or (hours[-1].start_us - hours[0].start_us) // HOUR_US < HOURS_SHOWN_MAX:
        return tuple(hours), HOUR_US
    days = itertools.groupby(hours, key=lambda hour: hour.start_us // DAY_US * DAY_US)
    return tuple(_together(day, list(parts)) for day, parts in days), DAY_US


def _together(start_us: int, parts: Sequence[Bucket]) -> Bucket:
    return Bucket(
        start_us,
        sum(part.requests for part in parts),
        sum(part.input_tokens for part in parts),
        sum(part.output_tokens for part in parts),
        sum(part.errors for part in parts),
    )


def read_samples(
    session: Session, account_id: str, hours: Sequence[Bucket], *, texts: bool, kept_since_us: int | None
) -> list[Sample]:
    """Some requests of an account, evenly spread over its requests; the same ones for the same lake.

    Args:
        session: on the lake.
        account_id: whose.
        hours: how many requests it has in each.
        texts: read them; then the requests are of the time whose texts are kept, if there are any.
        kept_since_us: texts from before are gone; None: none are.
    """
    kept = [hour for hour in hours if hour.start_us >= (kept_since_us or 0)]
    places = dict(_places(kept if texts and kept else hours))
    if not places:
        return []
    asked = " OR ".join(hour_sql(hour_us) for hour_us in places)
    text = ", ".join(
        f"left({name}, {TEXT_CHARS_MAX + 1}) AS {name}" if texts else f"NULL AS {name}"
        for name in ("system_prompt", "prompt", "response")
    )
    rows = rows_of(
        session,
        f"""
        SELECT epoch_us(event_time) AS event_time_us, topic, "partition", "offset", request_id, model, status,
               message_count, input_tokens, output_tokens, user_agent, {text},
               row_number() OVER (PARTITION BY dt, hour ORDER BY event_time, topic, "partition", "offset") - 1 AS place
        FROM {"events" if texts else "access"} WHERE account_id = {literal(account_id)} AND ({asked})
        QUALIFY {" OR ".join(_place_sql(hour, within) for hour, within in places.items())}
        ORDER BY event_time, topic, "partition", "offset" """,  # noqa: S608  # numbers, and the id quoted
    )
    return [_sample(row, texts=texts, kept_since_us=kept_since_us or 0) for row in rows]


def _places(hours: Sequence[Bucket]) -> Iterator[tuple[int, list[int]]]:
    """For each hour that has some: which of its requests, by their place in it, are of the sample."""
    total = sum(hour.requests for hour in hours)
    count = min(SAMPLES, total)
    wanted = [step * (total - 1) // max(count - 1, 1) for step in range(count)]
    before = 0
    for hour in hours:
        within = [place - before for place in wanted if before <= place < before + hour.requests]
        before += hour.requests
        if within:
            yield hour.start_us, within


def _place_sql(hour_us: int, within: Sequence[int]) -> str:
    return f"({hour_sql(hour_us)} AND place IN ({', '.join(map(str, within))}))"


def _sample(row: Row, *, texts: bool, kept_since_us: int) -> Sample:
    said = [row[name] for name in ("system_prompt", "prompt", "response")]
    state: TextState = "withheld"
    if texts:
        is_there = any(text is not None for text in said)
        state = "kept" if is_there else "expired" if row["event_time_us"] < kept_since_us else "absent"
    names = [name for name in Sample.__slots__ if name != "text"]
    return Sample(**{name: row[name] for name in names}, text=state)
