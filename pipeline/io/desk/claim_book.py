"""Who has taken which alert on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from pipeline.errors import RetryableError
from pipeline.io import catalog_tables
from pipeline.io.desk.audit_log import Act, append
from pipeline.io.desk.numbers import in_portions
from pipeline.io.desk.tables import claims
from pipeline.io.desk.transactions import Transaction

_TRIES_MAX: Final = 100


class ClaimBook:
    """Claims on alerts: one at a time.  `Catalog.desk.claims` gives it."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def claim(self, alert_id: str, by: str, now_us: int) -> str:
        """Take an alert on, unless somebody has; says who has it now.

        Raises:
            RetryableError: others claim and release it all the time.
        """
        row = {"alert_id": alert_id, "claimed_by": by, "claimed_at_us": now_us}
        with self._transaction(write=True) as tx:
            for _ in range(_TRIES_MAX):
                new = catalog_tables.insert(tx.engine, claims).values(row).on_conflict_do_nothing()
                if tx.execute(new.returning(claims.c.alert_id)).first() is not None:
                    append(tx, Act("alert.claimed", by, "alert", alert_id), now_us)
                    return by
                held = sa.select(claims.c.claimed_by).where(claims.c.alert_id == alert_id)
                holder = tx.execute(held).scalar_one_or_none()
                if holder is not None:
                    return str(holder)  # else it was released in between, which PostgreSQL lets happen
        raise RetryableError(f"alert {alert_id[:8]} is claimed and released by others all the time")

    def release(self, alert_id: str, by: str, now_us: int, seen: str | None = None) -> bool:
        """Let go of an alert, if it is still with whom it was seen with.

        Args:
            alert_id: of the alert.
            by: who lets go of it: its holder, or somebody else.
            now_us: wall clock.
            seen: who had it when somebody decided to let go of it; None: whoever has it.

        Returns:
            False where nothing was done, since nobody has it, or another than `seen`.
        """
        with self._transaction(write=True) as tx:
            mine = sa.delete(claims).where(claims.c.alert_id == alert_id)
            if seen is not None:
                mine = mine.where(claims.c.claimed_by == seen)
            held = tx.execute(mine.returning(claims.c.claimed_by)).scalar_one_or_none()
            if held is None:
                return False
            append(tx, Act("alert.released", by, "alert", alert_id, {"held_by": held}), now_us)
        return True

    def holders(self, alert_ids: Sequence[str]) -> dict[str, str]:
        """Who has which of these alerts."""
        query = sa.select(claims.c.alert_id, claims.c.claimed_by)
        with self._transaction() as tx:
            return {
                row.alert_id: row.claimed_by
                for some in in_portions(alert_ids)
                for row in tx.execute(query.where(claims.c.alert_id.in_(some)))
            }
