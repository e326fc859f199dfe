"""Sequences of events that a rule must fire on, or must not: written beside the rule, as data.

::

    [[rule.example]]
    name = "One frame over a list of metals"
    expect = "fires"

    [[rule.example.traffic]]
    requests = 256
    every_s = 60
    send = { prompt = "Explain why {metal} {deed}.", message_count = 1, output_tokens = 900 }

    [rule.example.words]
    metal = ["copper", "zinc"]
    deed = ["rusts", "melts"]
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final, Literal, get_args

from pipeline.counted import counted
from pipeline.events import ACCESS_FIELDS, ACCOUNT_FIELDS
from pipeline.rules.fields import LINE, NAME, Field, Wrong, is_line, is_number, is_tables, is_whole, wrong_in
from pipeline.rules.places import Place

Expect = Literal["fires", "stays silent"]
EXPECTS: Final[tuple[Expect, ...]] = get_args(Expect)

ACCOUNT: Final = "watched"
"""The account that a sequence is about, where it names no other."""

STARTS: Final = datetime(2026, 3, 2, tzinfo=UTC)
"""When a sequence begins, where it does not say so: a Monday at midnight."""

EVENTS_MAX: Final = 100_000
"""Events of one sequence."""

EXAMPLES_MAX: Final = 20
"""Sequences of one rule."""

_PAUSE_MAX: Final = 30 * 24 * 3600
_ACCOUNTS_MAX: Final = 10_000
_AGE_DAYS_MAX: Final = 10_000
_YEARS: Final = range(1970, 2200)

WORDS: Final = 'lists of texts by lower-case names other than n, for example metal = ["zinc"]'


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one account sends, or several alike.

    Attributes:
        account_id: of the account; of several its beginning, to which -1, -2, … are added.
        accounts: how many there are; None: one, with the id as it is.
        requests: that each of them sends.
        every_s: seconds from one request to the next, taken in turn.
        after_s: seconds from the sequence's beginning to the first request.
        send: the fields of the requests; of a list each request takes the next one.
    """

    account_id: str
    accounts: int | None
    requests: int
    every_s: tuple[float, ...]
    after_s: float
    send: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Example:
    """One sequence of events.

    Attributes:
        name: one line for people.
        expect: whether the rule must fire for the account, or must not.
        account_id: whom it is about.
        starts: when it begins.
        traffic: what is sent; merged by time.
        events: a file of events beside the rule file, one JSON object a line, instead of `traffic`; empty: none.
        feed: records of the accounts feed; `accounts` among their keys makes several, `age_days` sets `created_at`.
        words: lists that texts take words from.
        source: the rule file.
        line: where it begins there, if that is known.
    """

    name: str
    expect: Expect
    account_id: str = ACCOUNT
    starts: datetime = STARTS
    traffic: tuple[Traffic, ...] = ()
    events: str = ""
    feed: tuple[Mapping[str, Any], ...] = ()
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    source: str = ""
    line: int | None = None

    @property
    def place(self) -> str:
        """Where it is written, for messages."""
        return f"{self.source}, line {self.line}" if self.line else self.source

    @property
    def folder(self) -> Path:
        """Where its file of events is looked for."""
        return Path(self.source).parent


def read_example(
    table: Mapping[str, Any], place: Place, words: Mapping[str, tuple[str, ...]], source: str
) -> Example | list[Wrong]:
    """Read one sequence.

    Args:
        table: as TOML gives it.
        place: where it stands.
        words: lists of the whole file.
        source: the rule file.

    Returns:
        It, or all that is wrong with it.
    """
    wrong = list(wrong_in(table, _EXAMPLE_FIELDS, place, "a sequence"))
    if not wrong:
        wrong = list(_wrong_below(table, place))
    if wrong:
        return wrong
    account = table.get("account_id", ACCOUNT)
    starts = table.get("starts", STARTS)
    return Example(
        name=table["name"].strip(),
        expect=table["expect"],
        account_id=account,
        starts=starts if starts.tzinfo else starts.replace(tzinfo=UTC),
        traffic=tuple(_traffic(one, account) for one in table.get("traffic", [])),
        events=table.get("events", ""),
        feed=tuple(table.get("feed", [])),
        words={**words, **read_words(table.get("words", {}))},
        source=source,
        line=place.line,
    )


def read_words(table: Mapping[str, Any]) -> Mapping[str, tuple[str, ...]]:
    """Lists of words that `is_words` let through."""
    return {name: tuple(words) for name, words in table.items()}


def is_words(value: Any) -> bool:
    """Lists of texts, by names that texts can name."""
    return isinstance(value, dict) and all(
        NAME.fullmatch(name) and name != "n" and isinstance(words, list) and words
        and all(isinstance(word, str) for word in words)
        for name, words in value.items()
    )  # fmt: skip


def _traffic(table: Mapping[str, Any], account: str) -> Traffic:
    every = table.get("every_s", 60)
    return Traffic(
        account_id=table.get("account_id", account),
        accounts=table.get("accounts"),
        requests=table["requests"],
        every_s=tuple(map(float, every if isinstance(every, list) else [every])),
        after_s=float(table.get("after_s", 0)),
        send=table.get("send", {}),
    )


def _wrong_below(table: Mapping[str, Any], place: Place) -> Iterator[Wrong]:
    """What is wrong with the tables below a sequence, and with it as a whole."""
    traffic, feed = table.get("traffic", []), table.get("feed", [])
    if bool(traffic) == ("events" in table):
        yield place.line, "give either [[rule.example.traffic]] or events, a file of events beside the rule file"
        return
    total = 0
    for one, where in zip(traffic, place.below("traffic", len(traffic)), strict=True):
        found = list(wrong_in(one, _TRAFFIC_FIELDS, where, "traffic"))
        found += [(where.of("send"), what) for what in _wrong_names(one.get("send", {}), _SENT)]
        yield from found
        total += 0 if found else one["requests"] * one.get("accounts", 1)
    if total > EVENTS_MAX:
        yield (
            place.line,
            f"{counted(total, 'event is', 'events are')} too many for one sequence; {EVENTS_MAX:,} at most",
        )
    for one, where in zip(feed, place.below("feed", len(feed)), strict=True):
        yield from wrong_in(one, _FEED_FIELDS, where, "a record of the feed")


def _wrong_names(send: Any, known: Collection[str]) -> Iterator[str]:
    """What `send` names that no event has; only when it is a table at all."""
    fields = {name: Field(lambda _value: True, "", needed=False) for name in known}
    for _, what in wrong_in(send if isinstance(send, dict) else {}, fields, Place(), "an event"):
        yield f"send: {what}"


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_start(value: Any) -> bool:
    return isinstance(value, datetime) and value.year in _YEARS


def _is_pause(value: Any) -> bool:
    return is_number(value) and 0 <= value <= _PAUSE_MAX


def _is_pauses(value: Any) -> bool:
    return _is_pause(value) or (isinstance(value, list) and bool(value) and all(map(_is_pause, value)))


_NOT_SENT: Final = frozenset({"event_time", "account_id"})
_SENT: Final = tuple(known.name for known in ACCESS_FIELDS if known.name not in _NOT_SENT)


def _may(is_right: Callable[[Any], bool], expected: str) -> Field:
    """A value that may be left out."""
    return Field(is_right, expected, needed=False)


def _tables(path: str) -> Field:
    return _may(is_tables, f"tables, each beginning with a line [[rule.example.{path}]]")


_ID: Final = _may(_is_id, "a text")
_SOME: Final = _may(
    lambda value: is_whole(value, 1, _ACCOUNTS_MAX),
    f"how many accounts do the same, a whole number from 1 to {_ACCOUNTS_MAX:,}",
)

_EXAMPLE_FIELDS: Final[Mapping[str, Field]] = {
    "name": Field(is_line, LINE),
    "expect": Field(lambda value: value in EXPECTS, " or ".join(f'"{expect}"' for expect in EXPECTS)),
    "account_id": _ID,
    "starts": _may(_is_start, "a time from 1970 to 2199, for example 2026-03-02T00:00:00Z"),
    "traffic": _tables("traffic"),
    "events": _may(_is_id, 'the name of a file beside the rule file, for example "incident.ndjson"'),
    "feed": _tables("feed"),
    "words": _may(is_words, WORDS),
}

_TRAFFIC_FIELDS: Final[Mapping[str, Field]] = {
    "account_id": _ID,
    "accounts": _SOME,
    "requests": Field(lambda value: is_whole(value, 1, EVENTS_MAX), f"a whole number from 1 to {EVENTS_MAX:,}"),
    "every_s": _may(_is_pauses, "seconds from one request to the next, or a list of them that is gone through"),
    "after_s": _may(_is_pause, "seconds from the sequence's beginning"),
    "send": _may(lambda value: isinstance(value, dict), "a table of the fields of schemas/access.v1.json"),
}

_FEED_FIELDS: Final[Mapping[str, Field]] = {
    **{known.name: _may(lambda value: isinstance(value, (str, bool, date)), "a text") for known in ACCOUNT_FIELDS},
    "account_id": Field(_is_id, "a text"),
    "accounts": _SOME,
    "age_days": _may(
        lambda value: is_number(value) and 0 <= value <= _AGE_DAYS_MAX,
        f"days from its making to the sequence's beginning, at most {_AGE_DAYS_MAX:,}",
    ),
}
