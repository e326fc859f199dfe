"""What is erased of an account at the desk: everything but the audit log, which keeps no id in clear."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from pipeline.io.desk import audit_log, delivery_book, exception_book, verdict_book
from pipeline.io.desk.numbers import in_portions
from pipeline.io.desk.tables import alert_orgs, claims, suppressions


def erase(tx: sa.Connection, account_id: str, alert_ids: Sequence[str]) -> int:
    """Remove what people decided about an account and its alerts; says how many verdicts and exceptions there were."""
    for some in in_portions(alert_ids):
        for table in (alert_orgs, claims, suppressions):
            tx.execute(sa.delete(table).where(table.c.alert_id.in_(some)))
        delivery_book.forget(tx, some)
    audit_log.forget(tx, account_id)
    return verdict_book.forget(tx, account_id) + exception_book.forget(tx, account_id)
