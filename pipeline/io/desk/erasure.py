"""What is erased of an account at the desk: everything but the audit log, which keeps no id in clear."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from pipeline.io.desk import audit_log, delivery_book, exception_book, seals, verdict_book
from pipeline.io.desk.numbers import in_portions
from pipeline.io.desk.tables import alert_orgs, claims, suppressions


def erase(tx: sa.Connection, account_id: str, alert_ids: Sequence[str], by: str, now_us: int) -> int:
    """Remove what people decided about an account and its alerts, and record which decisions went.

    Args:
        tx: does all of it, or nothing.
        account_id: whose.
        alert_ids: of all its alerts.
        by: who erases.
        now_us: wall clock.

    Returns:
        How many verdicts and exceptions there were.
    """
    for some in in_portions(alert_ids):
        for table in (alert_orgs, claims, suppressions):
            tx.execute(sa.delete(table).where(table.c.alert_id.in_(some)))
        delivery_book.forget(tx, some)
    struck = audit_log.forget(tx, account_id)
    gone = [seals.name_of("verdict", one) for one in verdict_book.forget(tx, account_id)]
    gone += [seals.name_of("exception", one) for one in exception_book.forget(tx, account_id)]
    if gone or struck:  # whoever finds records without a name finds, in the same transaction, why
        details = {"decisions": gone}
        audit_log.append(tx, audit_log.Act(seals.ERASED, by, "account", account_id, details, is_named=False), now_us)
    return len(gone)
