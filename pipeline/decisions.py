"""What people decide about accounts and alerts, and the record of who did what: the words of it.

Pure: nothing here touches the world.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from pipeline.batch import Partition

Decision = Literal["harvesting", "benign", "unsure", "withdrawn"]
"""What a verdict says; `withdrawn` takes the account's last one back, and stays on record like any other."""

DECISIONS: Final[tuple[Decision, ...]] = get_args(Decision)

Scope = Literal["account", "organisation", "rule"]
"""What an exception speaks of; one on an account or an organisation may be narrowed to one rule."""

SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)


@dataclass(frozen=True, slots=True)
class JudgedRow:
    """The row of features and scores that a verdict speaks of, as it was stored then.

    Attributes:
        partition: that the account's events come by.
        offset: of the record that triggered the row.
        scored_at_us: the account's clock, microseconds of event time since the epoch.
        risk: 0 to 1; None: unknown.
        features: by name; None where one was not computable.
        exchanges: of the account's life until then.
        kind: why the row was emitted: `count` or `tick`.
    """

    partition: Partition
    offset: int
    scored_at_us: int
    risk: float | None
    features: Mapping[str, float | None]
    exchanges: int
    kind: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Somebody's judgement of an account.  A later one of the same account stands in its place; none is ever changed.

    Attributes:
        verdict_id: 32 hex digits.  Who brings the same id again changes nothing.
        account_id: whom it judges.
        decision: what it says.
        why: the reason, in words.
        given_by: who decided.
        given_at_us: when it came here, wall clock, microseconds since the epoch.
        source: how it came: `command`, `page`, `csv:NAME`, `kafka:TOPIC`.
        about_us: moment of event time that it speaks of; None: whatever was known when it was given.
        alert_id: of the alert that it answers; empty: none.
        row: what was known of the account at the moment that it speaks of; None: nothing.
        seq: its place among all verdicts, from 1 on; 0 before it is on record.
        unread: file of the lake that may hold the row and could not be read when it was given, so that there is no row;
            empty: none.  It is kept in the audit log, and of a verdict that is read back not known.
    """

    verdict_id: str
    account_id: str
    decision: Decision
    why: str
    given_by: str
    given_at_us: int
    source: str = "command"
    about_us: int | None = None
    alert_id: str = ""
    row: JudgedRow | None = None
    seq: int = 0
    unread: str = ""


@dataclass(frozen=True, slots=True)
class AllowEntry:
    """An exception: alerts that it covers are recorded and counted as suppressed, and delivered to nobody.

    Attributes:
        exception_id: 32 hex digits.
        scope: what it speaks of.
        subject: id of the account or the organisation; name of the rule.
        rule: only alerts of this rule; empty: of every rule.
        owner: who answers for it.
        reason: why, in words.
        created_at_us: wall clock, microseconds since the epoch.
        created_by: who made it.
        expires_at_us: from then on it covers nothing.
        ended_at_us: when somebody ended it before its time; None: nobody did.
        ended_by: who did; empty: nobody.
    """

    exception_id: str
    scope: Scope
    subject: str
    rule: str
    owner: str
    reason: str
    created_at_us: int
    created_by: str
    expires_at_us: int
    ended_at_us: int | None = None
    ended_by: str = ""

    def state_at(self, now_us: int) -> Literal["active", "expired", "ended"]:
        """Whether it covers anything at a moment of the wall clock, and if not, why not."""
        if self.ended_at_us is not None and self.ended_at_us <= now_us:
            return "ended"
        return "expired" if self.expires_at_us <= now_us else "active"


ACTIONS: Final = (
    "alert.claimed", "alert.released", "backfill.given_up", "catalog.rebuilt", "content.exported", "content.queried",
    "content.seen", "decisions.erased", "delivery.dead", "delivery.digest_left_out", "delivery.digested",
    "delivery.released", "delivery.replayed", "delivery.sent", "delivery.sink_added", "delivery.sink_forgotten",
    "delivery.suppressed", "delivery.tested", "erase", "erase.began", "exception.added", "exception.ended", "replace",
    "rule.began", "rule.changed", "rule.stopped", "verdict.given", "verdict.refused", "verdicts.skipped",
)  # fmt: skip
"""All that a record may say was done."""


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One line of the record of who did what, which can be added to and never changed.

    Attributes:
        seq: its place, from 1 on, without gaps.
        audit_id: 32 hex digits.
        at_us: wall clock, microseconds since the epoch.
        action: one of `ACTIONS`; an older version may have known others.
        actor: the person, or the command that acted by itself.
        worker: host and process.
        subject_type: `account`, `alert`, `rule`, `exception`, `sink`, …; empty: none.
        subject: its id; empty: none, or the account was erased.
        subject_sha256: HMAC of the id under the catalog's key, in hex: what stays where an account was erased; of
            records from before catalog version 7 a plain SHA-256.
        details: what is worth knowing; holds no account's id.
        chain: SHA-256 over this record and the chain of the one before it, in hex.
    """

    seq: int
    audit_id: str
    at_us: int
    action: str
    actor: str
    worker: str
    subject_type: str
    subject: str
    subject_sha256: str
    details: Mapping[str, Any] = field(default_factory=dict)
    chain: str = ""
