"""From a sequence as it is written to the events and the accounts feed that it stands for."""

from __future__ import annotations

import heapq
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import orjson

from pipeline.accounts import Accounts
from pipeline.errors import ConfigError
from pipeline.moments import in_utc_unless_said, micros_of, rfc3339
from pipeline.rules.condition import meant
from pipeline.rules.example import EVENTS_MAX, Example, Traffic

_SLOT: Final = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_NUMBER: Final = "n"
_MODEL: Final = "model-1"
"""Every event has a model; where a sequence names none, this."""

_LINE_BYTES_MAX: Final = 1 << 20


def lines_of(example: Example) -> list[bytes]:
    """The events of a sequence, one JSON object each, in the order of time.

    Raises:
        ConfigError: a text names words that there are not, or the file of events cannot be read.
    """
    if example.events:
        return _file_lines(example)
    streams = [_stream(example, number, traffic) for number, traffic in enumerate(example.traffic)]
    try:
        return [orjson.dumps(event) for _, event in heapq.merge(*streams, key=lambda timed: timed[0])]
    except orjson.JSONEncodeError as error:
        raise ConfigError(f"{_of(example)}: send holds what JSON cannot: {error}") from None


def feed_of(example: Example) -> Accounts | None:
    """The accounts feed of a sequence; None: it has none.

    Raises:
        ConfigError: a record is none.
    """
    if not example.feed:
        return None
    records = [orjson.dumps(record) for given in example.feed for record in _records(example, given)]
    return Accounts.of_lines(records, f"{example.place}, the feed of {example.name!r}")


def ids_of(account_id: str, accounts: int | None) -> list[str]:
    """The account, or the several that do the same."""
    return [account_id] if accounts is None else [f"{account_id}-{number}" for number in range(1, accounts + 1)]


def _file_lines(example: Example) -> list[bytes]:
    path = example.folder / example.events
    try:
        with path.open("rb") as stream:
            lines = list(itertools.islice(iter(lambda: stream.readline(_LINE_BYTES_MAX), b""), EVENTS_MAX + 1))
    except OSError as error:
        raise ConfigError(f"{example.place}, events of {example.name!r}: {path}: {error.strerror}") from None
    if len(lines) > EVENTS_MAX:
        raise ConfigError(f"{example.place}, events of {example.name!r}: {path}: more than {EVENTS_MAX:,} lines")
    return [line for line in lines if line.strip()]


Timed = tuple[tuple[datetime, int, int], dict[str, Any]]
"""An event, and what it is sorted by: its time, then its place in the file."""


def _stream(example: Example, number: int, traffic: Traffic) -> Iterator[Timed]:
    """The events of one table of traffic; accounts that do the same send at the same times, each something else."""
    makers = {name: _maker(example, name, value) for name, value in traffic.send.items()}
    accounts = ids_of(traffic.account_id, traffic.accounts)
    moment = example.starts + timedelta(seconds=traffic.after_s)
    pauses = itertools.cycle(traffic.every_s)
    for request in range(traffic.requests):
        for place, account_id in enumerate(accounts):
            count = request * len(accounts) + place
            sent = {name: make(count) for name, make in makers.items()}
            event = {"event_time": _rfc3339(moment), "account_id": account_id, "model": _MODEL, **sent}
            yield (moment, number, count), event
        moment += timedelta(seconds=next(pauses))


def _maker(example: Example, name: str, value: Any) -> Callable[[int], Any]:
    """What makes the value of a field, from the number of the request."""
    if isinstance(value, list):
        if not value:
            raise ConfigError(f"{_of(example)}, send.{name}: an empty list; name at least one value")
        makers = [_maker(example, name, one) for one in value]
        return lambda count: makers[count % len(makers)](count // len(makers))
    if isinstance(value, str) and (slots := _SLOT.findall(value)):
        lists = _lists(example, name, slots)
        return lambda count: _filled(value, lists, count)
    return lambda _count: value


def _lists(example: Example, name: str, slots: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """The words of a text's slots, in the order of their first mention."""
    lists = {}
    for slot in dict.fromkeys(slots):
        if slot == _NUMBER:
            continue
        if slot not in example.words:
            hint = meant(slot, example.words) if example.words else ""
            fix = hint if "did you mean" in hint else "; add a list of that name to [rule.example.words] or [words]"
            raise ConfigError(f"{_of(example)}, send.{name}: no words for {{{slot}}}{fix}")
        lists[slot] = example.words[slot]
    return lists


def _filled(text: str, lists: Mapping[str, Sequence[str]], count: int) -> str:
    """A text with its slots filled: no combination comes again before all have been, the first slot turns quickest."""
    chosen = {_NUMBER: str(count + 1)}
    rest = count
    for slot, words in lists.items():
        rest, at = divmod(rest, len(words))
        chosen[slot] = words[at]
    return _SLOT.sub(lambda found: chosen[found[1]], text)


def _records(example: Example, given: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    fields = {name: value for name, value in given.items() if name not in {"accounts", "age_days"}}
    if "age_days" in given:
        fields["created_at"] = example.starts - timedelta(days=given["age_days"])
    record = {name: _rfc3339(value) if isinstance(value, date) else value for name, value in fields.items()}
    for account_id in ids_of(given["account_id"], given.get("accounts")):
        yield {**record, "account_id": account_id}


def _rfc3339(moment: date) -> str:
    """A time, or a day's beginning, in UTC."""
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
    return rfc3339(micros_of(in_utc_unless_said(moment)))


def _of(example: Example) -> str:
    return f"{example.place}, sequence {example.name!r}"
