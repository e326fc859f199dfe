"""How alerts stand: suppressed or not, claimed by whom, and what was decided about their accounts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from pipeline.alerts import Alert, without_nul
from pipeline.decisions import AllowEntry, Verdict
from pipeline.io import catalog_tables
from pipeline.io.catalog import Catalog
from pipeline.io.desk.delivery_told import told
from pipeline.io.desk.exception_book import may_cover
from pipeline.io.desk.numbers import in_portions
from pipeline.io.desk.tables import alert_orgs


@dataclass(frozen=True, slots=True)
class Standing:
    """How an alert stands.

    Attributes:
        delivery: how far it is at each sink, or its state in the outbox; empty: it is not there, as those of shadow
            rules are not.
        org_id: organisation of its account, as far as it is known; empty: it is not.
        covered_by: the exception that suppressed it; None: none did.
        lapsed: the exception that would have covered it, had it not expired or been ended before the alert came.
        holder: who has claimed it; empty: nobody.
        verdict: that stands on its account; None: none does.
    """

    delivery: str = ""
    org_id: str = ""
    covered_by: AllowEntry | None = None
    lapsed: AllowEntry | None = None
    holder: str = ""
    verdict: Verdict | None = None


def standing_of(catalog: Catalog, alerts: Sequence[Alert]) -> dict[str, Standing]:
    """How each of these alerts stands, by its id."""
    ids = [alert.alert_id for alert in alerts]
    desk = catalog.desk
    entries = desk.exceptions.find()
    by_id = {entry.exception_id: entry for entry in entries}
    suppressed, holders = desk.exceptions.suppressed_by(ids), desk.claims.holders(ids)
    verdicts = desk.verdicts.standing_of([alert.entity_id for alert in alerts])
    with catalog.transaction() as tx:
        came = {row.alert_id: (row.state, row.created_at_us) for row in _rows(tx, catalog_tables.outbox, ids)}
        at_sinks = told(tx, ids)
        orgs: dict[str, str] = {row.alert_id: row.org_id for row in _rows(tx, alert_orgs, ids)}
    found = {}
    for alert in alerts:
        state, at_us = came.get(alert.alert_id, ("", None))
        covering = by_id.get(suppressed.get(alert.alert_id, ""))
        org_id = orgs.get(alert.alert_id, "")
        lapsed = None if covering or at_us is None else _lapsed(alert, org_id, entries, at_us)
        found[alert.alert_id] = Standing(
            at_sinks.get(alert.alert_id, state), org_id, covering, lapsed, holders.get(alert.alert_id, ""),
            verdicts.get(without_nul(alert.entity_id)),
        )  # fmt: skip
    return found


def _rows(tx: sa.Connection, table: sa.Table, alert_ids: Sequence[str]) -> Iterator[Any]:
    for some in in_portions(alert_ids):
        yield from tx.execute(sa.select(table).where(table.c.alert_id.in_(some)))


def _lapsed(alert: Alert, org_id: str, entries: Iterable[AllowEntry], at_us: int) -> AllowEntry | None:
    """The exception that lapsed last before an alert came."""
    over = [
        entry
        for entry in entries
        if entry.created_at_us <= at_us and entry.state_at(at_us) != "active" and may_cover(entry, alert, org_id)
    ]
    return max(over, key=lambda entry: entry.ended_at_us or entry.expires_at_us, default=None)
