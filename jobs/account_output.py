"""A dossier as people and programs read it: words that fit a terminal, JSON."""

from __future__ import annotations

import json
import math
import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Final

from rich.cells import cell_len

from jobs import listed
from pipeline.counted import counted
from pipeline.dossier import Dossier, Measure, RaisedAlert, Sample, words
from pipeline.harmless import harmless
from pipeline.reasons import number_in_words

TEXT_CELLS: Final = 100
"""Width of words where no terminal has one."""

MEASURES_SHOWN: Final = 12
ALERTS_SHOWN: Final = 3
SCORES_SHOWN: Final = 4
TEXT_LINES_MAX: Final = 3
"""Lines of a prompt or an answer on a terminal; the page and JSON have more."""

_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_NOTHING: Final = " "
_SPARK_CELLS_MAX: Final = 72
_INDENT: Final = 2


def as_text(dossier: Dossier, width: int) -> str:
    """The dossier in words, none of its lines wider than the terminal, but for words that are; nothing in it is obeyed.

    Args:
        dossier: to be shown.
        width: cells of a line; below 80 lines are as for 80.
    """
    width = max(width, listed.TABLE_CELLS_MIN)
    lines = [f"account {listed.shown_account(dossier.account_id)}", *_flow(words.summary(dossier), width), ""]
    lines += [*_head(dossier, width), ""]
    for title, part in (
        ("FACTS: what the log and the sign-up system say", _facts),
        ("INFERENCE: what Stillwatch makes of the facts; no proof", _inference),
        ("DECISIONS: what people said", _decisions),
    ):
        lines += [title, *part(dossier, width), ""]
    lines += _flow(
        "--html FILE writes all of it as a page with plots, --format json as data. All times are UTC.", width
    )
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _head(dossier: Dossier, width: int) -> list[str]:
    inferred, standing = dossier.inferred, dossier.decided.standing
    live = sum(raised.alert.state == "live" for raised in inferred.alerts)
    risk = f"{words.risk_words(inferred.risk)} at its last score" if inferred.history else "never scored"
    said = f"risk {risk}; {counted(live, 'live alert')}"
    said += f"; verdict: {standing.decision if standing else 'none'}"
    lines = _flow(said, width)
    why = words.why(dossier)
    if why is not None:
        lines += [*_flow(f"{harmless(why[0])} (inferred):", width)]
        lines += [line for reason in why[1] for line in _item(harmless(reason), width)]
    return lines


def _facts(dossier: Dossier, width: int) -> list[str]:
    seen = dossier.seen
    return [
        *_pairs(_who(dossier), width),
        *_spark_lines(dossier, width),
        "",
        "  what other accounts have, too",
        *_neighbours(dossier, width),
        "",
        f"  sample requests ({len(seen.samples)} of {seen.activity.requests:,})",
        *_samples(dossier, width),
    ]


def _who(dossier: Dossier) -> Iterator[tuple[str, str]]:
    activity, sign_up = dossier.seen.activity, dossier.seen.sign_up
    if sign_up is not None:
        yield "signed up", words.moment(sign_up.created_at_us)
        for name, value in (
            ("plan", sign_up.plan), ("organisation", sign_up.org_id), ("e-mail domain", sign_up.email_domain),
            ("sign-up country", sign_up.country), ("payment", sign_up.payment_fingerprint),
        ):  # fmt: skip
            if value:
                yield name, harmless(str(value))
        if sign_up.verified is not None:
            yield "verified", "yes" if sign_up.verified else "no"
    elif dossier.seen.has_feed:
        yield "sign-up", "the accounts feed does not have this account"
    else:
        yield "sign-up", "not known here: no accounts feed is configured (--accounts)"
    if any(activity.used.values()):
        yield "came with", f"(of {words.came_with(dossier)})"
    for kind, values in activity.used.items():
        if values:
            said = ", ".join(f"{_short(used.value)} (× {used.requests:,})" for used in values[:3])
            more = activity.distinct[kind] - 3
            yield words.KIND_WORDS[kind], f"{said}{f', and {more:,} more' if more > 0 else ''}"


def _spark_lines(dossier: Dossier, width: int) -> list[str]:
    seen = dossier.seen
    if len(seen.timeline) < 2:  # noqa: PLR2004  # a line of one point says nothing
        return []
    cells = min(_SPARK_CELLS_MAX, width - 14)
    first, last = seen.timeline[0].start_us, seen.timeline[-1].start_us + seen.bucket_us
    cells = min(cells, (last - first) // seen.bucket_us)
    counts = spread([(bucket.start_us, float(bucket.requests)) for bucket in seen.timeline], first, last, cells)
    unit = "an hour" if seen.bucket_us < 86_400_000_000 else "a day"  # noqa: PLR2004  # a day
    most = f"at most {max(bucket.requests for bucket in seen.timeline):,} in {unit}"
    said = f"from {words.moment(first)} to {words.moment(last)}; {most}"
    return ["", f"  requests  {spark(counts, None)}", *_flow(said, width, 12)]


def spread(points: Sequence[tuple[int, float]], first: int, last: int, cells: int) -> list[float]:
    """The highest value in each of equal parts of a time; NaN where there is none."""
    found = [math.nan] * cells
    for at, value in points:
        cell = min(cells - 1, (at - first) * cells // max(last - first, 1))
        found[cell] = value if math.isnan(found[cell]) else max(found[cell], value)
    return found


def spark(values: Sequence[float], top: float | None) -> str:
    """Values as blocks, the highest as a whole one; spaces where there is none.

    Args:
        values: 0 or more; NaN for none.
        top: what a whole block stands for; None: the highest.
    """
    known = [value for value in values if not math.isnan(value)]
    whole = top if top is not None else max(known, default=1.0)
    steps = len(_BLOCKS) - 1
    return "".join(
        _NOTHING if math.isnan(value) else _BLOCKS[min(steps, round(value / whole * steps)) if whole else 0]
        for value in values
    )


def _neighbours(dossier: Dossier, width: int) -> list[str]:
    seen = dossier.seen
    lines = _flow(words.looked_words(seen.looked), width, 4) if seen.looked else []
    for one in seen.shared:
        lines += _item(
            f"{words.KIND_WORDS[one.kind]} {_short(one.value)}: {words.shared_words(one)}; "
            f"{words.DEGREE_WORDS[one.degree]}",
            width,
        )
        if one.degree != "common":
            lines += _flow(", ".join(_short(name) for name in one.examples), width, 6)
    if not seen.shared:
        lines += _flow("nothing that was found", width, 4)
    if seen.not_shared:
        lines += _flow(
            f"of no other account: {', '.join(words.KIND_WORDS[kind] for kind in seen.not_shared)}", width, 4
        )
    return lines


def _samples(dossier: Dossier, width: int) -> list[str]:
    texts = dossier.seen.texts
    lines = []
    if texts.shown:
        lines += _flow("evenly spread, always the same ones; that their texts were looked at is on record", width, 4)
    else:
        lines += _flow(f"no text is shown: {harmless(texts.why_not)}", width, 4)
    if texts.kept_since_us is not None:
        lines += _flow(f"texts from before {words.moment(texts.kept_since_us)} are gone by retention", width, 4)
    for sample in dossier.seen.samples:
        lines += _sample(sample, width, any_text=texts.shown)
    query = words.query(dossier)
    plain = harmless(query) == query and len(query) <= 400  # noqa: PLR2004  # what can be copied
    return [*lines, *(_flow(f"all of them: stillwatch sql {shlex.quote(query)}", width, 4) if query and plain else [])]


def _sample(sample: Sample, width: int, *, any_text: bool) -> Iterator[str]:
    yield from _item(f"{words.moment(sample.event_time_us)}: {harmless(words.sample_facts(sample))}", width)
    if sample.text == "kept":
        for name, text in (("system", sample.system_prompt), ("prompt", sample.prompt), ("answer", sample.response)):
            if text is not None:
                yield from _quoted(name, text, width)
    elif any_text:
        yield from _flow(words.TEXT_WORDS[sample.text], width, 6)


def _quoted(name: str, text: str, width: int) -> list[str]:
    """The beginning of a text, in few lines."""
    room = max(width - 15, 20)
    folded = _wrap(harmless(" ".join(text[: room * (TEXT_LINES_MAX + 1)].split())), room)
    cut = len(folded) > TEXT_LINES_MAX or len(text) > room * (TEXT_LINES_MAX + 1)
    shown = folded[:TEXT_LINES_MAX] or [""]
    if cut:
        shown[-1] = f"{shown[-1][: room - 2]} …"
    return [f"      {name if place == 0 else '':<8} {line}" for place, line in enumerate(shown)]


def _inference(dossier: Dossier, width: int) -> list[str]:
    inferred = dossier.inferred
    lines = [line for raised in inferred.alerts[:ALERTS_SHOWN] for line in _alert(raised, width)]
    if len(inferred.alerts) > ALERTS_SHOWN:
        more = f"{len(inferred.alerts) - ALERTS_SHOWN}{' or more' if inferred.alerts_more else ''}"
        lines += _flow(f"and {more} earlier alerts: stillwatch alerts list --state all --account …", width)
    if not inferred.alerts:
        lines += _flow("no alerts", width)
    if not inferred.history:
        return [*lines, *_flow("never scored: accounts are scored from their eighth request on", width)]
    lines += _risk_lines(dossier, width)
    for one in [one for one in inferred.notable if one.reasons][-SCORES_SHOWN:]:
        head = (
            f"{words.moment(one.moment.scored_at_us)}: risk {words.risk_words(one.moment.risk)} ({harmless(one.why)}; "
        )
        lines += _item(f"{head}after {counted(one.moment.exchanges, 'exchange')})", width)
        lines += [line for reason in one.reasons[:3] for line in _wrap(reason, width, "      - ", "        ")]
    return [*lines, *_measures(dossier, width)]


def _risk_lines(dossier: Dossier, width: int) -> list[str]:
    history = dossier.inferred.history
    count = counted(len(history), "score")
    since = (
        f"{count}; its present life, whose exchanges are counted, began {words.moment(dossier.inferred.first_seen_us)}"
    )
    known = [(moment.scored_at_us, moment.risk) for moment in history if moment.risk is not None]
    if len(known) < 2:  # noqa: PLR2004  # a line of one point says nothing
        return ["", *_flow(since, width)]
    cells = min(_SPARK_CELLS_MAX, width - 14)
    drawn = spark(spread(known, history[0].scored_at_us, history[-1].scored_at_us, cells), 1.0)
    return [
        "",
        f"  risk      {drawn}",
        *_flow(f"{since}; the last {words.moment(history[-1].scored_at_us)}", width, 12),
    ]


def _alert(raised: RaisedAlert, width: int) -> Iterator[str]:
    alert = raised.alert
    said = f"{harmless(alert.rule)} ({alert.state}, {alert.severity}), {words.moment(alert.raised_at_us)}: risk "
    said += f"{number_in_words(alert.risk)} after {counted(alert.exchanges, 'exchange')}; "
    said += harmless(words.delivery_words(raised))
    yield from _item(f"{said}; stillwatch alerts show {alert.alert_id[: listed.ID_SHOWN]}", width)


def _measures(dossier: Dossier, width: int) -> list[str]:
    known = [measure for measure in dossier.inferred.measures if measure.place is not None]
    lines = ["", *_flow(f"features furthest from {dossier.inferred.population}", width)]
    rows = [_measure_row(measure) for measure in known[:MEASURES_SHOWN]]
    head = ("feature", "here", "median", "5 – 95 %", "of accounts")
    lines += listed.table(head, rows, width, ((0, 40), (3, 20), (0, 24), (3, 14), (0, 16)))
    rest = len(known) - len(rows)
    unknown = len(dossier.inferred.measures) - len(known)
    return [*lines, *_flow(f"and {rest} more, and {unknown} that are unknown: --html FILE or --format json", width)]


def _measure_row(measure: Measure) -> tuple[str, ...]:
    usual = f"{measure.usual[0]} – {measure.usual[1]}"
    return measure.words, measure.said, measure.median, usual, words.percentile(measure)


def _decisions(dossier: Dossier, width: int) -> list[str]:
    lines = []
    for verdict in dossier.decided.verdicts:
        stands = "; stands" if verdict is dossier.decided.standing else ""
        by = f"verdict {verdict.decision} by {harmless(verdict.given_by)}, {words.moment(verdict.given_at_us)}{stands}"
        lines += _item(f"{by}: {harmless(' '.join(verdict.why.split()))}", width)
    for entry in dossier.decided.exceptions:
        on = f"on the {entry.scope} {_short(entry.subject)}{f', rule {harmless(entry.rule)}' if entry.rule else ''}"
        lines += _item(
            f"exception {entry.exception_id[: listed.ID_SHOWN]} {on}: {entry.state_at(dossier.made_at_us)}, until "
            f"{words.moment(entry.expires_at_us)}, owner {harmless(entry.owner)}: "
            f"{harmless(' '.join(entry.reason.split()))}",
            width,
        )
    return lines or _flow("no verdicts, no exceptions", width)


def _short(text: str) -> str:
    return listed.shown_account(text, 60)


def _pairs(pairs: Iterator[tuple[str, str]], width: int) -> list[str]:
    known = list(pairs)
    margin = max((cell_len(name) for name, _ in known), default=0)
    return [
        line
        for name, text in known
        for line in _wrap(text, width, f"  {name}{' ' * (margin - cell_len(name))}  ", " " * (margin + 4))
    ]


def _flow(text: str, width: int, indent: int = _INDENT) -> list[str]:
    return _wrap(text, width, " " * indent, " " * indent)


def _item(text: str, width: int) -> list[str]:
    return _wrap(text, width, "  - ", "    ")


def _wrap(text: str, width: int, first: str = "", rest: str = "") -> list[str]:
    return textwrap.wrap(
        text, max(width, len(rest) + 20), initial_indent=first, subsequent_indent=rest, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def as_json(dossier: Dossier) -> str:
    """The dossier as one JSON object, by the names of `pipeline.dossier`; times in RFC 3339."""
    return json.dumps(_plain(dossier), indent=2) + "\n"


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return dict(_named(field.name, getattr(value, field.name)) for field in fields(value))
    if isinstance(value, Mapping):
        return {str(name): _plain(said) for name, said in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _named(name: str, value: Any) -> tuple[str, Any]:
    """A field; moments lose the unit in their names."""
    if name == "bucket_us":
        return "bucket_s", value // 1_000_000
    if name.endswith("_us"):
        return name.removesuffix("_us"), None if value is None else listed.rfc3339(value)
    return name, _plain(value)
