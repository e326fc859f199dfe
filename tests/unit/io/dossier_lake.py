"""The lake that tests of the dossier read: a loud harvester that is scored for real, its neighbours, and strangers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from pipeline.config import read_settings
from pipeline.io.catalog import Catalog
from pipeline.io.dossier import Wanted, read_dossier
from pipeline.io.views.session import Session

NOW_US: Final = 1_780_000_000_000_000
BEGIN: Final = datetime(2026, 3, 1, 8, tzinfo=UTC)
HARVESTER: Final = "acct_loud"
HOSTILE: Final = (
    "</script><svg onload=alert(1)>'\"; DROP TABLE access; --\u202e\x1b[31m\n../../etc/passwd %00 \U000e0041"
)


def event(account: str, minutes: float, **fields: Any) -> dict[str, Any]:
    """One request of an account, some minutes after the beginning."""
    moment = BEGIN + timedelta(minutes=minutes)
    return {
        "event_time": moment.isoformat().replace("+00:00", "Z"), "account_id": account, "model": "large-4",
        "request_id": f"{account[:8]}-{minutes}", "status": 200, "input_tokens": 40, "output_tokens": 900,
        "message_count": 1, "client_ip": "192.0.2.7", "asn": 64500, "api_key_id": f"key_{account[:8]}",
        "tls_ja4": "t13d1516h2_8daaf6152771_02713d6af862", "user_agent": "OpenAI/Python 1.4", **fields,
    }  # fmt: skip


def harvest(account: str = HARVESTER, requests: int = 80, **fields: Any) -> list[dict[str, Any]]:
    """One frame with ever other fillings, a request every two minutes."""
    frame = (
        "You are an expert. Write a detailed exam question about topic {} and explain the reasoning step by step. "
        "Number the steps, give two wrong answers that are tempting, say for each why it is wrong and how one would "
        "notice, and end with a sentence that sums it up for a pupil who has never heard of any of it."
    )
    return [
        event(
            account, 2 * number, status=429 if number % 20 == 19 else 200, api_key_id="key_shared",
            prompt=frame.format(number), response=f"Question {number}: " + "because of this, " * 40,
            **{"output_tokens": 500 + 137 * number % 800, **fields},
        )
        for number in range(requests)
    ]  # fmt: skip


def traffic() -> list[dict[str, Any]]:
    """The harvester, one that shares its key, sixty on its network operator, and one that sent a single request."""
    others = [event(f"acct_{number:03}", 30 + number, client_ip=f"198.51.100.{number}") for number in range(60)]
    twin = [event("acct_twin", 10, api_key_id="key_shared", client_ip="203.0.113.9", prompt="Hello", response="Hi")]
    single = [event("acct_one", 100, client_ip="2001:db8:5::1", asn=64501, tls_ja4=None, api_key_id=None)]
    hostile = [
        event(HOSTILE, 40 + number, prompt=HOSTILE, user_agent=HOSTILE, api_key_id=HOSTILE, response=HOSTILE)
        for number in range(9)
    ]
    found = [*harvest(), *others, *twin, *single, *hostile]
    return sorted(found, key=lambda one: str(one["event_time"]))


@contextlib.contextmanager
def reading(root: Path) -> Iterator[tuple[Session, Catalog]]:
    """A session on a lake, and its catalog."""
    settings = read_settings(None, lake=str(root))
    with (
        Session.open(settings) as session,
        contextlib.closing(Catalog.open(settings.catalog_url, create=False)) as catalog,
    ):
        yield session, catalog


def dossier_of(root: Path, account: str, **wanted: Any) -> Any:
    """What is known of an account."""
    with reading(root) as (session, catalog):
        return read_dossier(session, catalog, account, Wanted(**{"now_us": NOW_US, "by": "ann", **wanted}))
