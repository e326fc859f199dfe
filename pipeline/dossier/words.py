"""What a dossier says in words, wherever it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from pipeline.counted import counted
from pipeline.dossier.dossier import Degree, Dossier, LookedThrough, Measure, RaisedAlert, Sample, Shared, TextState
from pipeline.reasons import number_in_words, time_in_words, weighed_of
from pipeline.sql_text import literal

_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001  # UTC, and plots want no zone
REASONS_MAX: Final = 5
RISK_SHOWN_MIN: Final = 0.001

_DAY_US: Final = 86_400_000_000

KIND_WORDS: Final[Mapping[str, str]] = {
    "organisation": "organisation", "key": "API key", "network": "network", "asn": "network operator (ASN)",
    "country": "country", "user agent": "user agent", "tls": "TLS fingerprint (JA4)", "model": "model",
    "operation": "operation", "payment": "means of payment", "email domain": "e-mail domain",
}  # fmt: skip

DEGREE_WORDS: Final[Mapping[Degree, str]] = {
    "rare": "rare: worth a look",
    "some": "some have it: says little by itself",
    "common": "common: no evidence by itself (a provider, a NAT, a popular client)",
}

TEXT_WORDS: Final[Mapping[TextState, str]] = {
    "kept": "",
    "expired": "its text was kept and is gone: texts have a shorter life than the log",
    "absent": "the gateway sent no text",
    "withheld": "text not shown",
}

DELIVERY_WORDS: Final[Mapping[str, str]] = {
    "": "not for delivery (its rule is in shadow)",
    "new": "not delivered yet",
    "past": "of the past, raised by a backfill: delivered to nobody",
    "unclear": "whether it was delivered is not known: the catalog was made anew",
    "suppressed": "suppressed: delivered to nobody",
}


def datetime_of(time_us: int) -> datetime:
    """A moment for plots, UTC without saying so."""
    return _EPOCH + timedelta(microseconds=time_us)


def moment(time_us: int | None) -> str:
    """`2026-03-01 12:00:00 UTC`; a dash where there is none; moments that no calendar has are said as numbers."""
    if time_us is None:
        return "–"
    try:
        return time_in_words(time_us)
    except OverflowError:
        return f"{time_us} µs since 1970"


def span(first_us: int | None, last_us: int | None) -> str:
    """How long, in the unit that suits."""
    if first_us is None or last_us is None:
        return "–"
    width = last_us - first_us
    return f"{width / _DAY_US:,.1f} days" if width >= 2 * _DAY_US else f"{width / 3_600_000_000:,.1f} hours"


def whole(number: float | None) -> str:
    """A count."""
    return "–" if number is None else f"{number:,.0f}"


def risk_words(risk: float | None) -> str:
    """A risk; how far below a thousandth one is says nothing."""
    if risk is None:
        return "unknown"
    return "below 0.001" if 0 < risk < RISK_SHOWN_MIN else number_in_words(risk)


def percentile(measure: Measure) -> str:
    """Where a value stands in the population."""
    if measure.place is None:
        return "unknown" if measure.value is None else "–"
    above = measure.place * 100
    return f"above {above:.0f} %" if above >= 50 else f"below {100 - above:.0f} %"  # noqa: PLR2004  # a half


def summary(dossier: Dossier) -> str:
    """One sentence of facts."""
    activity = dossier.seen.activity
    if activity.first_us is None:
        return "The lake holds no request of this account (any more)."
    if activity.requests == 1:
        failed = ", refused or failed" if activity.errors else ""
        when = f"1 request, at {moment(activity.first_us)}{failed}"
    else:
        failed = f", {activity.errors:,} of them refused or failed" if activity.errors else ""
        between = f"between {moment(activity.first_us)} and {moment(activity.last_us)}"
        when = f"{counted(activity.requests, 'request')}{failed}, {between}"
    return f"{when}: {counted(activity.input_tokens, 'token')} in, {counted(activity.output_tokens, 'token')} out."


def why(dossier: Dossier) -> tuple[str, list[str]] | None:
    """The shortest answer to why anybody looks at this account: of the latest live alert, else of the highest score."""
    live = [raised.alert for raised in dossier.inferred.alerts if raised.alert.state == "live"]
    if live:
        said = f"Why {live[0].rule} alerted it, {moment(live[0].raised_at_us)}"
        return said, list(weighed_of(live[0].reasons)[:REASONS_MAX])
    scored = [one for one in dossier.inferred.notable if one.moment.risk is not None and one.reasons]
    if not scored:
        return None
    highest = max(scored, key=lambda one: one.moment.risk or 0.0)
    said = f"Why its risk was {risk_words(highest.moment.risk)}, its highest, {moment(highest.moment.scored_at_us)}"
    return said, list(highest.reasons[:REASONS_MAX])


def came_with(dossier: Dossier) -> str:
    """Of which requests it is said what they came with."""
    activity = dossier.seen.activity
    since, first = activity.used_since_us, activity.first_us
    if since is None or first is None or since <= first:
        return "all of its requests"
    return f"its requests since {moment(since)}"


def looked_words(looked: LookedThrough) -> str:
    """Where neighbours were looked for."""
    hours = (looked.until_us - looked.since_us) // 3_600_000_000
    short = "; a longer look back would be through too many, ask for it with --look-back" if looked.shortened else ""
    return (
        f"Looked for in {counted(looked.requests, 'request')} of all accounts, in the {counted(hours, 'hour')} "
        f"up to {moment(looked.until_us)}, the hour of its last request; what was shared before is not seen{short}."
    )


def shared_words(shared: Shared) -> str:
    """How many others, and how many of the named ones were alerted."""
    others = counted(shared.others, "other account")
    if shared.degree == "common":
        return others
    if len(shared.examples) == 1:
        return f"{others}, {'alerted' if shared.alerted else 'not alerted'}"
    alerted = str(shared.alerted) if shared.alerted else "none"
    return f"{others}; of the {len(shared.examples)} named, {alerted} alerted"


def delivery_words(raised: RaisedAlert) -> str:
    """What became of an alert."""
    said = [DELIVERY_WORDS.get(raised.delivery, raised.delivery)]
    if raised.suppressed_by:
        said = [f"suppressed by exception {raised.suppressed_by[:8]}"]
    if raised.lapsed:
        said.append(f"exception {raised.lapsed[:8]} had expired or ended before")
    said.append(f"claimed by {raised.claimed_by}" if raised.claimed_by else "claimed by nobody")
    return "; ".join(said)


def sample_facts(sample: Sample) -> str:
    """A request in one line, its text left out."""
    said = [sample.model, f"status {whole(sample.status)}" if sample.status is not None else "no status"]
    if sample.message_count is not None:
        said.append(counted(sample.message_count, "message"))
    said.append(f"{whole(sample.input_tokens)} tokens in, {whole(sample.output_tokens)} out")
    return ", ".join(said)


def query(dossier: Dossier) -> str:
    """What lists the requests in `stillwatch sql`; of ids that SQL spells out oddly, as SQL must have it."""
    account = literal(dossier.account_id)
    first, last = dossier.seen.activity.first_us, dossier.seen.activity.last_us
    if first is None or last is None:
        return ""
    days = f"dt BETWEEN '{datetime_of(first):%Y-%m-%d}' AND '{datetime_of(last):%Y-%m-%d}'"
    return f"FROM events WHERE account_id = {account} AND {days} ORDER BY event_time"
