"""What the tests of the triage page as a process have in common: accounts with odd names, and words that mean harm."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

from pipeline.io.catalog import Catalog
from tests.unit.io.dossier_lake import HOSTILE

KEY = "correct-horse-battery-staple-7"
LONG = HOSTILE + "x" * 10_000
WORDS = "<img src=x onerror=alert(1)> {{ 7*7 }} </textarea><script>alert('why')</script> & \"'"
SPACED = " acct in spaces "
"""It has an event and nothing else."""

BLANKS, WITH_NUL = "   ", "nul\0id"
"""So have these."""

SOON = f"{datetime.now(UTC) + timedelta(days=20):%Y-%m-%d}"


def digest_of(account: str) -> str:
    return hashlib.sha256(account.encode()).hexdigest()


def alert_id(catalog: Catalog, account: str) -> str:
    return next(one.alert_id for one in catalog.alerts() if one.entity_id == account and one.state == "live")
