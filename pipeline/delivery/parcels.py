"""What is sent: one alert, or a digest of many; and what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.alerts import Alert, Severity
from pipeline.counted import counted
from pipeline.moments import rfc3339


@dataclass(frozen=True, slots=True)
class RuleWords:
    """What a message says of a rule beside the alert's own reasons.

    Attributes:
        title: one line for people.
        atlas: ids of MITRE ATLAS techniques.
        owner: who answers for it.
        runbook: what to do about an alert.
    """

    title: str
    atlas: tuple[str, ...] = ()
    owner: str = ""
    runbook: str = ""


@dataclass(frozen=True, slots=True)
class AlertParcel:
    """One alert on its way.

    Attributes:
        alert: it.
        rule: of its rule, if that is still among the rules.
        link: where people look at it; empty: nowhere.
        test: nobody is harvesting: somebody tries whether the sink works.
    """

    alert: Alert
    rule: RuleWords | None = None
    link: str = ""
    test: bool = False

    @property
    def key(self) -> str:
        """By which a receiver knows that it has it already."""
        return self.alert.alert_id

    @property
    def title(self) -> str:
        """One line."""
        said = self.rule.title if self.rule else self.alert.rule
        return f"TEST, not a finding: {said}" if self.test else said


@dataclass(frozen=True, slots=True)
class DigestParcel:
    """More alerts than a sink takes one by one, as one message.

    Attributes:
        digest_id: 32 hex digits; the same whenever the same alerts are sent again.
        count: how many alerts.
        first_raised_us: event time of the earliest.
        last_raised_us: event time of the latest.
        severities: how many of each, the gravest first.
        rules: how many of each, the most frequent first, at most ten.
        rules_count: how many rules there are in all.
        accounts: those with most alerts and how many, at most ten.
        accounts_count: how many accounts there are in all.
        worst: the gravest alerts themselves, at most five.
    """

    digest_id: str
    count: int
    first_raised_us: int
    last_raised_us: int
    severities: Mapping[Severity, int]
    rules: Sequence[tuple[str, int]]
    rules_count: int
    accounts: Sequence[tuple[str, int]]
    accounts_count: int
    worst: Sequence[Alert] = field(default_factory=tuple)

    @property
    def key(self) -> str:
        """By which a receiver knows that it has it already."""
        return self.digest_id

    @property
    def severity(self) -> Severity:
        """The gravest."""
        return next(iter(self.severities), "informational")

    @property
    def title(self) -> str:
        """One line."""
        return f"{counted(self.count, 'alert')} about {counted(self.accounts_count, 'account')}, in one message"


Parcel = AlertParcel | DigestParcel


@dataclass(frozen=True, slots=True)
class Sent:
    """The sink has it."""


@dataclass(frozen=True, slots=True)
class Later:
    """The sink did not take it, and may at another time; it may also have it, and not have said so.

    Attributes:
        reason: in words that name no secret and no account.
        unreachable: nothing answered, or it said that it is busy: no fault of what was sent.
        after_s: how long it asked to be left alone.
    """

    reason: str
    unreachable: bool = False
    after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The sink will not take it, however often it is sent.

    Attributes:
        reason: in words that name no secret and no account.
    """

    reason: str


Outcome = Sent | Later | Refused


def see_all(digest: DigestParcel) -> str:
    """The command that lists the alerts of a digest, and perhaps others of the same time."""
    since = rfc3339(digest.first_raised_us)[:19]
    return f"stillwatch alerts list --since {since}Z --limit 0"


def see_one(alert_id: str) -> str:
    """The command that shows an alert."""
    return f"stillwatch alerts show {alert_id}"
