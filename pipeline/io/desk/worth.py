"""What each rule's alerts were worth, by the verdicts that stand."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from pipeline.io import catalog_tables
from pipeline.io.catalog import Catalog
from pipeline.io.desk.tables import suppressions, verdicts


@dataclass(frozen=True, slots=True)
class Worth:
    """A rule's alerts so far, of all its versions.

    Attributes:
        alerts: raised.
        accounts: that they are about.
        suppressed: alerts that an exception covered.
        harvesting: accounts among them that a verdict calls so.
        benign: the same.
        unsure: the same.
    """

    alerts: int
    accounts: int
    suppressed: int = 0
    harvesting: int = 0
    benign: int = 0
    unsure: int = 0

    @property
    def precision(self) -> float | None:
        """The share of harvesters among the alerted accounts that were judged to be one or not; None: none was."""
        judged = self.harvesting + self.benign
        return self.harvesting / judged if judged else None


def worth_of_rules(catalog: Catalog) -> dict[str, Worth]:
    """What the alerts of each rule that ever raised one were worth, by its name."""
    alerts = catalog_tables.alerts.c
    last = sa.select(sa.func.max(verdicts.c.seq)).group_by(verdicts.c.account_sha256)
    standing = sa.select(verdicts.c.account_sha256, verdicts.c.decision).where(verdicts.c.seq.in_(last)).subquery()
    accounts = sa.func.count(sa.distinct(alerts.entity_sha256))
    raised = sa.select(alerts.rule, sa.func.count(), accounts).group_by(alerts.rule)
    judged = (
        sa.select(alerts.rule, standing.c.decision, accounts)
        .join(standing, standing.c.account_sha256 == alerts.entity_sha256)
        .group_by(alerts.rule, standing.c.decision)
    )
    covered = sa.select(alerts.rule, sa.func.count()).join(suppressions, suppressions.c.alert_id == alerts.alert_id)
    with catalog.transaction(snapshot=True) as tx:
        counts = {rule: (count, of_accounts) for rule, count, of_accounts in tx.execute(raised)}
        decisions = {(rule, decision): count for rule, decision, count in tx.execute(judged)}
        suppressed = {rule: count for rule, count in tx.execute(covered.group_by(alerts.rule))}  # noqa: C416  # no pairs
    return {
        rule: Worth(
            count, of_accounts, suppressed.get(rule, 0),
            *(decisions.get((rule, decision), 0) for decision in ("harvesting", "benign", "unsure")),
        )
        for rule, (count, of_accounts) in counts.items()
    }  # fmt: skip
