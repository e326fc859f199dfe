"""The dossier of an account, as data.

`Dossier.seen` holds facts: what the log and the sign-up system say.  `Dossier.inferred` holds what Stillwatch makes
of them: features, scores, alerts.  `Dossier.decided` holds what people said.  Whoever shows a dossier keeps the three
apart.

All times are microseconds since the epoch.  Strangers chose ids, user agents and texts: whoever shows them escapes
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from pipeline.alerts import Alert
from pipeline.decisions import AllowEntry, Verdict

UsedKind = Literal["organisation", "key", "network", "asn", "country", "user agent", "tls", "model", "operation"]
"""What an account was seen with.  A network is the /24 of an IPv4 address, the first three groups of an IPv6 address,
or the whole of what a gateway sends in their place, as it is for the features."""

SharedKind = Literal["key", "network", "asn", "tls", "payment", "email domain", "organisation"]
"""What accounts may share; the last three are of the accounts feed."""

Degree = Literal["rare", "some", "common"]

TextState = Literal["kept", "expired", "absent", "withheld"]
"""Of the text of a request: it is here; it was kept and is too old now; the gateway sent none; it is not shown."""

RARE_MAX: Final = 5
SOME_MAX: Final = 50
"""Other accounts up to which a shared thing is rare, and up to which it says anything at all."""


@dataclass(frozen=True, slots=True)
class SignUp:
    """What the accounts feed says; None where it does not say.

    Attributes:
        created_at_us: when the account was made.
        org_id: its organisation.
        plan: what it pays for.
        payment_fingerprint: keyed hash of the means of payment.
        email_domain: of its address.
        country: given at sign-up.
        verified: whether its identity was verified.
    """

    created_at_us: int | None = None
    org_id: str | None = None
    plan: str | None = None
    payment_fingerprint: str | None = None
    email_domain: str | None = None
    country: str | None = None
    verified: bool | None = None


@dataclass(frozen=True, slots=True)
class Used:
    """One value that the account's requests came with.

    Attributes:
        value: as the log has it.
        requests: how many came with it.
    """

    value: str
    requests: int


@dataclass(frozen=True, slots=True)
class Activity:
    """All requests of the account that the lake holds, counted.

    Attributes:
        requests: how many.
        input_tokens: as far as they were logged.
        output_tokens: as far as they were logged.
        errors: requests with a status of 400 or more.
        first_us: event time of the first; None: there are no requests.
        last_us: event time of the last.
        used_since_us: since when it was counted what they came with; None: there are no requests.
        used: what they came with since then, the commonest first, at most `USED_MAX` each.
        distinct: of how many values those are the commonest.
    """

    requests: int
    input_tokens: int
    output_tokens: int
    errors: int
    first_us: int | None
    last_us: int | None
    used_since_us: int | None
    used: Mapping[UsedKind, tuple[Used, ...]]
    distinct: Mapping[UsedKind, int]


@dataclass(frozen=True, slots=True)
class Bucket:
    """An hour or a day of the account's requests.

    Attributes:
        start_us: when it begins.
        requests: how many.
        input_tokens: as far as they were logged.
        output_tokens: as far as they were logged.
        errors: requests with a status of 400 or more.
    """

    start_us: int
    requests: int
    input_tokens: int
    output_tokens: int
    errors: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One request.

    Attributes:
        event_time_us: when the gateway accepted it.
        topic: where its record is, with the next two.
        partition: of the topic.
        offset: in the partition.
        request_id: the gateway's id; None: it has none.
        model: that answered.
        status: HTTP status of the answer.
        message_count: messages in the request.
        input_tokens: tokens in the request.
        output_tokens: tokens in the answer.
        user_agent: of the client.
        text: whether there is text, and if not, why.
        system_prompt: of the request, cut as the next two; None where there is none or none is shown.
        prompt: the last user message.
        response: the answer.
    """

    event_time_us: int
    topic: str
    partition: int
    offset: int
    request_id: str | None
    model: str
    status: int | None
    message_count: int | None
    input_tokens: int | None
    output_tokens: int | None
    user_agent: str | None
    text: TextState
    system_prompt: str | None = None
    prompt: str | None = None
    response: str | None = None


@dataclass(frozen=True, slots=True)
class Texts:
    """Whether texts of requests are shown.

    Attributes:
        shown: there are some in the samples; that they were looked at is on record.
        why_not: in words; empty where they are shown.
        kept_since_us: texts from before are gone by retention; None: none went so.
    """

    shown: bool
    why_not: str
    kept_since_us: int | None


@dataclass(frozen=True, slots=True)
class Shared:
    """Something of the account that other accounts have, too.

    Attributes:
        kind: what it is.
        value: as it is logged.
        others: how many other accounts have it.
        examples: some of them, those with most requests with it first.
        alerted: how many of those examples have a live alert.
    """

    kind: SharedKind
    value: str
    others: int
    examples: tuple[str, ...]
    alerted: int

    @property
    def degree(self) -> Degree:
        """How much it says: what thousands share is a provider, a NAT or a browser, and says nothing."""
        return "rare" if self.others <= RARE_MAX else "some" if self.others <= SOME_MAX else "common"


@dataclass(frozen=True, slots=True)
class LookedThrough:
    """Where neighbours were looked for; outside of it accounts may share more.

    Attributes:
        since_us: from this event time on.
        until_us: up to this one.
        requests: of all accounts.
        shortened: the look-back that was asked for holds more requests than are looked through.
    """

    since_us: int
    until_us: int
    requests: int
    shortened: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """Facts.

    Attributes:
        sign_up: what the feed says; None: there is no feed, or it does not have the account.
        has_feed: there is one.
        activity: totals.
        timeline: requests by hour or day, without those of none, in order.
        bucket_us: how long each is.
        samples: some requests, spread evenly over those of the account (or over those whose text is kept).
        texts: whether their texts are shown.
        shared: what other accounts have, too; the rarest first.
        not_shared: kinds of things that the account has and no other was seen with.
        looked: where the neighbours of the log were looked for; None: nowhere.
    """

    sign_up: SignUp | None
    has_feed: bool
    activity: Activity
    timeline: tuple[Bucket, ...]
    bucket_us: int
    samples: tuple[Sample, ...]
    texts: Texts
    shared: tuple[Shared, ...]
    not_shared: tuple[SharedKind, ...]
    looked: LookedThrough | None


@dataclass(frozen=True, slots=True)
class Measure:
    """One feature of the account beside the population's, as of its last score.

    Attributes:
        name: of the feature.
        family: that it belongs to.
        words: what it is.
        value: None: its inputs are absent.
        said: the value in words; empty where it is unknown.
        median: of the population, in words.
        usual: where 90 % of the population lie, in words: the 5th and the 95th percentile.
        place: share of the population below it, 0 to 1; None: unknown.
        band: where value, 5 %, median and 95 % lie on one scale from 0 to 1, for drawing; None: unknown.
    """

    name: str
    family: str
    words: str
    value: float | None
    said: str
    median: str
    usual: tuple[str, str]
    place: float | None
    band: tuple[float, float, float, float] | None

    @property
    def unusual(self) -> bool:
        """It lies outside of where 90 % of the population do."""
        return self.place is not None and not 0.05 <= self.place <= 0.95  # noqa: PLR2004  # the 90 % of `usual`


@dataclass(frozen=True, slots=True)
class ScoredMoment:
    """One score.

    Attributes:
        scored_at_us: the account's clock.
        kind: `count` or `tick`: why it was scored then.
        exchanges: of its present life until then.
        output_tokens: of the same.
        risk: 0 to 1; None: unknown.
        offset: of the record that triggered it.
    """

    scored_at_us: int
    kind: str
    exchanges: int
    output_tokens: int
    risk: float | None
    offset: int


@dataclass(frozen=True, slots=True)
class Notable:
    """A score worth a look.

    Attributes:
        moment: the score.
        why: why it is worth one, in words.
        reasons: what weighed most, in sentences.
    """

    moment: ScoredMoment
    why: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RaisedAlert:
    """An alert, and what became of it.

    Attributes:
        alert: as it was raised.
        delivery: its state in the outbox: `new`, `suppressed`, …; empty: it is not for delivery (of a shadow rule).
        suppressed_by: id of the exception; empty: none.
        lapsed: id of the exception that would have covered it, had it not expired or ended before; empty: none.
        claimed_by: who has taken it on; empty: nobody.
    """

    alert: Alert
    delivery: str
    suppressed_by: str
    lapsed: str
    claimed_by: str


@dataclass(frozen=True, slots=True)
class Inferred:
    """What Stillwatch makes of it.

    Attributes:
        risk: of the last score; None: unknown, or there is none.
        first_seen_us: when the account's present life began; None: it was never scored.
        history: scores in order, the latest `HISTORY_MAX`.
        notable: some of them.
        measures: every feature; those furthest out first.
        population: whom the measures are compared with, in words.
        alerts: the latest first.
        alerts_more: there are more than these.
        versions: of features, models and configuration of the last score, as they are stored.
    """

    risk: float | None
    first_seen_us: int | None
    history: tuple[ScoredMoment, ...]
    notable: tuple[Notable, ...]
    measures: tuple[Measure, ...]
    population: str
    alerts: tuple[RaisedAlert, ...]
    alerts_more: bool
    versions: str


@dataclass(frozen=True, slots=True)
class Decided:
    """What people decided.

    Attributes:
        verdicts: all of the account, the latest first.
        exceptions: that speak of it, of its organisation, or of a rule that alerted it; the latest first.
    """

    verdicts: tuple[Verdict, ...]
    exceptions: tuple[AllowEntry, ...]

    @property
    def standing(self) -> Verdict | None:
        """The verdict that holds; None where there is none, or the last was withdrawn."""
        return self.verdicts[0] if self.verdicts and self.verdicts[0].decision != "withdrawn" else None


@dataclass(frozen=True, slots=True)
class Dossier:
    """All of it.

    Attributes:
        account_id: whose.
        made_at_us: wall clock.
        seen: facts.
        inferred: what Stillwatch makes of them.
        decided: what people said.
    """

    account_id: str
    made_at_us: int
    seen: Seen
    inferred: Inferred
    decided: Decided
