"""What the catalog says of an account: its alerts and what became of them, verdicts, exceptions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from pipeline.alerts import Alert
from pipeline.decisions import AllowEntry
from pipeline.dossier import Decided, RaisedAlert, Shared
from pipeline.io.catalog import AlertFilter, Catalog
from pipeline.io.desk.standing import Standing, standing_of

ALERTS_MAX: Final = 200
"""Alerts that are read, the latest; a rule raises one a day at most, as they ship."""

_ORGS_MAX: Final = 5


def read_alerts(catalog: Catalog, account_id: str) -> tuple[tuple[RaisedAlert, ...], bool]:
    """An account's alerts, the latest first, and whether there are more."""
    found = catalog.alerts(AlertFilter(entity_id=account_id, limit=ALERTS_MAX + 1))
    shown = found[:ALERTS_MAX]
    standing = standing_of(catalog, shown)
    raised = (_raised(alert, standing[alert.alert_id]) for alert in shown)
    return tuple(raised), len(found) > len(shown)


def _raised(alert: Alert, standing: Standing) -> RaisedAlert:
    covered, lapsed = standing.covered_by, standing.lapsed
    return RaisedAlert(
        alert,
        delivery=standing.delivery,
        suppressed_by=covered.exception_id if covered else "",
        lapsed=lapsed.exception_id if lapsed else "",
        claimed_by=standing.holder,
    )


def read_decided(catalog: Catalog, account_id: str, orgs: Sequence[str], rules: Iterable[str]) -> Decided:
    """What people decided about an account.

    Args:
        catalog: of the lake.
        account_id: the account.
        orgs: organisations that it was seen with.
        rules: names of rules that alerted it.
    """
    asked = [("account", account_id), *(("organisation", org) for org in orgs[:_ORGS_MAX])]
    asked += [("rule", rule) for rule in sorted(set(rules))]
    entries = [
        entry
        for scope, subject in asked
        for entry in catalog.desk.exceptions.find(subject=subject)
        if entry.scope == scope
    ]
    return Decided(tuple(catalog.desk.verdicts.of(account_id)), tuple(sorted(entries, key=_latest_first)))


def _latest_first(entry: AllowEntry) -> tuple[int, str]:
    return -entry.created_at_us, entry.exception_id


def with_alerted(catalog: Catalog, shared: Iterable[Shared]) -> list[Shared]:
    """Say how many of the examples have a live alert; of what is common nobody asks."""
    known: dict[str, bool] = {}

    def is_alerted(account: str) -> bool:
        if account not in known:
            known[account] = bool(catalog.alerts(AlertFilter(entity_id=account, state="live", limit=1)))
        return known[account]

    return [
        one if one.degree == "common" else replace(one, alerted=sum(map(is_alerted, one.examples))) for one in shared
    ]
