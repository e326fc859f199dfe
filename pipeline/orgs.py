"""Which organisation the accounts of alerts belong to: exceptions may speak of it.

Pure: tables in, names out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.alerts import Alert
from pipeline.batch import Decoded

OrgOf = Callable[[str], str | None]
"""What is known of an account beside its events."""


def no_org(_account_id: str) -> str | None:
    """Nothing is."""
    return None


def orgs_of(alerts: Sequence[Alert], parts: Sequence[Decoded], org_of: OrgOf) -> dict[str, str]:
    """Each account's organisation: the last that its events name, else the one that is known; else it is left out.

    Args:
        alerts: whose accounts are asked for.
        parts: the events of the same commit, in offset order.
        org_of: what the accounts feed says.
    """
    accounts = {alert.entity_id for alert in alerts}
    if not accounts:
        return {}
    feed = {account: org for account in accounts if (org := org_of(account)) is not None}
    return feed | _named(accounts, parts)


def _named(accounts: set[str], parts: Sequence[Decoded]) -> dict[str, str]:
    wanted = pa.array(sorted(accounts), pa.string())
    found: dict[str, str] = {}  # columns of views have no kernels, so they are cast
    for part in parts:
        account, org = (part.events[name].cast(pa.string()) for name in ("account_id", "org_id"))
        mine = pc.and_(org.is_valid(), pc.is_in(account, wanted))
        found.update(zip(account.filter(mine).to_pylist(), org.filter(mine).to_pylist(), strict=True))
    return found
