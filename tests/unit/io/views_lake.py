"""The lake that tests of views ask, and how they ask it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.config import read_settings
from pipeline.io.views.session import Session

DAYS = ("2026-03-01", "2026-03-02", "2026-03-03")
HOURS = (0, 5, 23)

Rows = list[tuple[Any, ...]]


def event(event_time: str, number: int = 0, **fields: object) -> dict[str, object]:
    return {
        "event_time": event_time,
        "request_id": f"r{number}",
        "account_id": f"acct_{number % 3}",
        "model": "small",
        "output_tokens": number,
        **fields,
    }


def three_days() -> list[dict[str, object] | bytes]:
    """Nine hours of four events, the first of each without text; a record a day that is none."""
    payloads: list[dict[str, object] | bytes] = []
    for day in DAYS:
        for hour in HOURS:
            for minute in range(4):
                text = {"prompt": f"p{len(payloads)}"} if minute else {}
                payloads.append(event(f"{day}T{hour:02}:{minute * 15:02}:00Z", len(payloads), **text))
        payloads.append(event(f"{day}T12:00:00Z", len(payloads), output_tokens=-1))
    return payloads


@contextlib.contextmanager
def session_on(root: Path, **settings: object) -> Iterator[Session]:
    with Session.open(read_settings(None, lake=str(root), **settings)) as session:
        yield session


def rows_of(session: Session, sql: str, *, prune: bool = True) -> Rows:
    with session.run(sql, prune=prune) as result:
        found = [zip(*(column.to_pylist() for column in batch.columns), strict=True) for batch in result.batches]
    return [row for batch in found for row in batch]
