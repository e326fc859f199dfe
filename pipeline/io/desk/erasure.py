"""What is erased of an account at the desk: everything but the audit log, which keeps no id in clear."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from pipeline.io.desk import audit_log, delivery_book, exception_book, verdict_book
from pipeline.io.desk.tables import alert_orgs, claims, suppressions

_IDS_MAX: Final = 500


def erase(tx: sa.Connection, account_id: str, alert_ids: Sequence[str]) -> int:
    """Remove what people decided about an account and its alerts; says how many verdicts and exceptions there were."""
    for start in range(0, len(alert_ids), _IDS_MAX):
        some = alert_ids[start : start + _IDS_MAX]
        for table in (alert_orgs, claims, suppressions):
            tx.execute(sa.delete(table).where(table.c.alert_id.in_(some)))
        delivery_book.forget(tx, some)
    audit_log.forget(tx, account_id)
    return verdict_book.forget(tx, account_id) + exception_book.forget(tx, account_id)
