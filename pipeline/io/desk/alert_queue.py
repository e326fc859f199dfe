"""The analyst's queue: alerts with what people made of them, filtered, sorted, a page at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import sqlalchemy as sa

from pipeline.alerts import Alert, alert_of_row
from pipeline.decisions import Decision
from pipeline.io.catalog_tables import alerts, commits
from pipeline.io.desk.tables import audit_log, audit_subjects, claims, exceptions, suppressions, verdicts
from pipeline.io.desk.transactions import Transaction
from pipeline.rules import SEVERITIES

Order = Literal["risk", "time", "severity"]
ORDERS: Final[tuple[Order, ...]] = get_args(Order)

Claimed = Literal["", "no", "yes"]
Decided = Literal["", "no", "yes"]
Suppressed = Literal["", "no", "yes"]


@dataclass(frozen=True, slots=True)
class QueueFilter:
    """Which alerts are wanted; what is empty excludes none.

    Attributes:
        rule: of this rule.
        severity: of this severity.
        state: `live` or `shadow`.
        account_sha256: about the account whose id has this SHA-256 in hex.
        claimed: whether somebody has taken it on.
        claimed_by: who.
        decided: whether a verdict that stands has answered it, see `AlertQueue`.
        suppressed: whether an exception covers it.
    """

    rule: str = ""
    severity: str = ""
    state: str = "live"
    account_sha256: str = ""
    claimed: Claimed = ""
    claimed_by: str = ""
    decided: Decided = "no"
    suppressed: Suppressed = "no"


@dataclass(frozen=True, slots=True)
class Standing:
    """The verdict on an alert's account that holds now.

    Attributes:
        decision: what it says.
        given_by: who gave it.
        given_at_us: when, wall clock, microseconds since the epoch.
        answers: the alert was there when it was given; an alert that came later is open again.
    """

    decision: Decision
    given_by: str
    given_at_us: int
    answers: bool


@dataclass(frozen=True, slots=True)
class QueuedAlert:
    """An alert, and what people made of it.

    Attributes:
        alert: what the rule said.
        account_sha256: of the account's id, in hex.
        claimed_by: who has taken it on; empty: nobody.
        claimed_at_us: when; None: nobody has.
        standing: the verdict on its account; None: there is none, or it was withdrawn.
        exception_id: of the exception that covers it; empty: none does.
    """

    alert: Alert
    account_sha256: str
    claimed_by: str
    claimed_at_us: int | None
    standing: Standing | None
    exception_id: str


_LATEST: Final = (
    sa.select(verdicts.c.account_sha256, sa.func.max(verdicts.c.seq).label("seq"))
    .group_by(verdicts.c.account_sha256)
    .subquery("latest")
)
_STANDING: Final = verdicts.alias("standing")

# By the clock of the commit that brought the alert: event time says nothing of when somebody could see it.
_ANSWERED: Final = sa.func.coalesce(
    (_STANDING.c.decision != "withdrawn")
    & (
        (_STANDING.c.alert_id == alerts.c.alert_id)
        | (sa.func.coalesce(commits.c.committed_at_us, 0) <= _STANDING.c.given_at_us)
    ),
    sa.false(),
)
_JOINED: Final = (
    sa.join(alerts, commits, commits.c.commit_id == alerts.c.commit_id, isouter=True)
    .join(claims, claims.c.alert_id == alerts.c.alert_id, isouter=True)
    .join(suppressions, suppressions.c.alert_id == alerts.c.alert_id, isouter=True)
    .join(_LATEST, _LATEST.c.account_sha256 == alerts.c.entity_sha256, isouter=True)
    .join(_STANDING, _STANDING.c.seq == _LATEST.c.seq, isouter=True)
)
_RANK: Final = sa.case(
    *((alerts.c.severity == name, rank) for rank, name in enumerate(SEVERITIES)),
    else_=-1,
)
_KEYS: Final[dict[Order, tuple[sa.ColumnElement[Any], ...]]] = {
    "risk": (sa.func.coalesce(alerts.c.risk, -1.0), alerts.c.raised_at_us, alerts.c.alert_id),
    "time": (alerts.c.raised_at_us, alerts.c.alert_id),
    "severity": (_RANK, alerts.c.raised_at_us, alerts.c.alert_id),
}
"""What alerts are sorted by, the largest first; the id last, so that no two are alike."""


class AlertQueue:
    """Reads of it.  `Catalog.desk.queue` gives it.

    A verdict answers the alerts of its account that had come when it was given, and the one that it names.  An alert
    that comes later is open again: whoever was judged benign may have changed, and whoever harvests may go on.
    """

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def page(self, wanted: QueueFilter, order: Order, limit: int, after: str = "") -> list[QueuedAlert]:
        """The next alerts of a list.

        Args:
            wanted: which.
            order: the largest first.
            limit: at most so many.
            after: id of the last alert of the page before; empty, or of no alert: from the beginning on.
        """
        keys = _KEYS[order]
        ids = sa.select(alerts.c.alert_id).select_from(_JOINED).where(*_conditions(wanted))
        ids = ids.order_by(*(key.desc() for key in keys)).limit(limit)
        with self._transaction(snapshot=True) as tx:
            if after:
                last = tx.execute(sa.select(*keys).where(alerts.c.alert_id == after)).one_or_none()
                if last is not None:
                    ids = ids.where(_beyond(keys, tuple(last)))
            found = tx.execute(ids).scalars().all()
            rows = {row["alert_id"]: _queued(row) for row in tx.execute(_whole(found)).mappings()}
        return [rows[alert_id] for alert_id in found]

    def count(self, wanted: QueueFilter, at_most: int) -> int:
        """How many there are, as far as `at_most`."""
        some = sa.select(alerts.c.alert_id).select_from(_JOINED).where(*_conditions(wanted)).limit(at_most)
        with self._transaction() as tx:
            return int(tx.execute(sa.select(sa.func.count()).select_from(some.subquery())).scalar_one())

    def alert(self, alert_id: str) -> QueuedAlert | None:
        """One alert; None if there is none of this id."""
        with self._transaction() as tx:
            row = tx.execute(_whole([alert_id])).mappings().one_or_none()
            return None if row is None else _queued(row)

    def rules(self) -> list[str]:
        """Names of the rules that have raised any alert."""
        with self._transaction() as tx:
            return list(tx.execute(sa.select(alerts.c.rule).distinct().order_by(alerts.c.rule)).scalars())

    def account_of(self, account_sha256: str) -> str | None:
        """An account's id by its SHA-256 in hex; None where the catalog names no such account."""
        named = (
            sa.select(alerts.c.entity_id).where(alerts.c.entity_sha256 == account_sha256),
            sa.select(verdicts.c.account_id).where(verdicts.c.account_sha256 == account_sha256),
            sa.select(exceptions.c.subject).where(
                exceptions.c.subject_sha256 == account_sha256, exceptions.c.scope == "account"
            ),
            sa.select(audit_subjects.c.subject)
            .join(audit_log, audit_log.c.subject_sha256 == audit_subjects.c.subject_sha256)
            .where(audit_subjects.c.id_sha256 == account_sha256, audit_log.c.subject_type == "account"),
        )
        with self._transaction() as tx:
            for query in named:
                found = tx.execute(query.limit(1)).scalar_one_or_none()
                if found is not None:
                    return str(found)
        return None


def _conditions(wanted: QueueFilter) -> list[sa.ColumnElement[bool]]:
    columns = alerts.c
    given = (
        (columns.rule, wanted.rule),
        (columns.severity, wanted.severity),
        (columns.state, wanted.state),
        (columns.entity_sha256, wanted.account_sha256),
        (claims.c.claimed_by, wanted.claimed_by),
    )
    conditions: list[sa.ColumnElement[bool]] = [column == value for column, value in given if value]
    switches = (
        (wanted.claimed, claims.c.alert_id.is_not(None)),
        (wanted.decided, _ANSWERED),
        (wanted.suppressed, suppressions.c.alert_id.is_not(None)),
    )
    conditions += [holds if said == "yes" else sa.not_(holds) for said, holds in switches if said]
    return conditions


def _beyond(keys: tuple[sa.ColumnElement[Any], ...], last: tuple[Any, ...]) -> sa.ColumnElement[bool]:
    """What comes after a row where all keys fall."""
    first: sa.ColumnElement[Any] = keys[0]
    smaller: sa.ColumnElement[bool] = first < last[0]
    if len(keys) == 1:
        return smaller
    same: sa.ColumnElement[bool] = first == last[0]
    return sa.or_(smaller, sa.and_(same, _beyond(keys[1:], last[1:])))


def _whole(alert_ids: list[str] | Any) -> sa.Select[Any]:
    return (
        sa.select(
            alerts,
            claims.c.claimed_by,
            claims.c.claimed_at_us,
            suppressions.c.exception_id,
            _STANDING.c.decision,
            _STANDING.c.given_by,
            _STANDING.c.given_at_us,
            _ANSWERED.label("answered"),
        )
        .select_from(_JOINED)
        .where(alerts.c.alert_id.in_(alert_ids))
    )


def _queued(row: Any) -> QueuedAlert:
    standing = None
    if row["decision"] not in {None, "withdrawn"}:
        standing = Standing(row["decision"], row["given_by"], row["given_at_us"], answers=bool(row["answered"]))
    return QueuedAlert(
        alert=alert_of_row(row),
        account_sha256=row["entity_sha256"],
        claimed_by=row["claimed_by"] or "",
        claimed_at_us=row["claimed_at_us"],
        standing=standing,
        exception_id=row["exception_id"] or "",
    )
