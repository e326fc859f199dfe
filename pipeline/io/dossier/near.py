"""Ids like one that is not there: of accounts that sent something in the last hours of the lake."""

from __future__ import annotations

from typing import Final

from pipeline.io.dossier.lake_time import last_hour
from pipeline.io.dossier.rows import HOUR_US, moment_sql, rows_of
from pipeline.io.views.session import Session
from pipeline.sql_text import literal

_CHARS_MAX: Final = 200
"""Of longer ids nobody has mistyped a letter."""

_LIKE: Final = 0.85
_HOURS: Final = 24


def near_ids(session: Session, account_id: str) -> list[str]:
    """The likest first: those that begin with it, that it begins with, or that are a few letters away."""
    last = last_hour(session.live_files())
    if last is None or not account_id or len(account_id) > _CHARS_MAX:
        return []
    since = (last + 1 - _HOURS) * HOUR_US
    wanted = literal(account_id)
    rows = rows_of(
        session,
        f"""
        SELECT account_id FROM (
            SELECT DISTINCT account_id FROM access
            WHERE event_time >= {moment_sql(since)} AND len(account_id) <= {_CHARS_MAX}
        )
        WHERE jaro_winkler_similarity(lower(account_id), lower({wanted})) >= {_LIKE}
        ORDER BY jaro_winkler_similarity(lower(account_id), lower({wanted})) DESC, account_id LIMIT 10""",  # noqa: S608  # the id is quoted
    )
    return [row["account_id"] for row in rows]
