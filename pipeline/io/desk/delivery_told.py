"""What became of alerts at each sink, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from pipeline.io.desk.delivery_tables import delivery_asides, delivery_log, delivery_sinks
from pipeline.io.desk.numbers import in_portions

_ASIDE: Final = {
    "dead": "dead (`stillwatch deliver status` says why)",
    "replay": "to be sent again",
    "suppressed": "suppressed by an exception",
}


def told(tx: sa.Connection, alert_ids: Sequence[str]) -> dict[str, str]:
    """How far each routed alert is, such as `pager: done; slack: waits`.

    It is `done` also where a digest or a filter took it, or the sink came later.

    Args:
        tx: a transaction.
        alert_ids: those that were never routed are left out.
    """
    sinks = tx.execute(sa.select(delivery_sinks.c.sink, delivery_sinks.c.cursor).order_by(delivery_sinks.c.sink)).all()
    found: dict[str, str] = {}
    for some in in_portions(alert_ids):
        asides = sa.select(delivery_asides).where(delivery_asides.c.alert_id.in_(some))
        aside = {(row.alert_id, row.sink): row.state for row in tx.execute(asides)}
        log = sa.select(delivery_log.c.alert_id, delivery_log.c.seq).where(delivery_log.c.alert_id.in_(some))
        for row in tx.execute(log.order_by(delivery_log.c.seq)):
            at_sinks = [
                f"{sink}: {_ASIDE.get(aside.get((row.alert_id, sink), ''), 'done' if row.seq < cursor else 'waits')}"
                for sink, cursor in sinks
            ]
            found[row.alert_id] = "; ".join(at_sinks) or "no sink yet"
    return found
