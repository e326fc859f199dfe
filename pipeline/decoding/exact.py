"""One payload → one row, by the letter of the schema, with a reason in words where that cannot be.

This is what decides: `pipeline.decode` may be quicker but never of another mind.
"""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from typing import Final, TypeVar

import orjson
import pyarrow as pa

from pipeline.events import ACCESS_FIELDS, EXTRA, TIME, Field

T = TypeVar("T")

AHEAD_MAX_MS: Final = 3_600_000
"""An event may be this much ahead of its record's Kafka timestamp (clocks differ), no more: features use event time."""

TIME_MIN_US: Final = int(datetime(2015, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
"""No LLM API existed before; what claims to be older is a clock at zero or a wrong unit."""

TIME_MAX_US: Final = int(datetime(2200, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
"""For records without a Kafka timestamp, which `AHEAD_MAX_MS` cannot judge."""

_RFC3339: Final = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,6})\d*)?(Z|z|[+-]\d\d:\d\d)", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIELDS: Final = {field.name: field for field in ACCESS_FIELDS}
_JSON_NAMES: Final = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    dict: "an object",
    list: "an array",
}
_SHOWN_CHARS: Final = 60
_PLAIN: Final = re.compile(rf"[0-9TZtz:.,+/ -]{{0,{_SHOWN_CHARS}}}", re.ASCII)
"""What times and numbers are written with, and nothing else is."""
_INT64_END: Final = 2**63
_DAY_S: Final = 86_400


class Refusal(Exception):  # noqa: N818  # it is an answer of this module and not an error of the program
    """Why a payload is not an event.

    Attributes:
        error_type: `null_value`, `invalid_utf8`, `invalid_json`, `missing_field`, `wrong_type` or `impossible_value`.
        field: the field at fault, if it is one field's.
        reason: in words, for the person who mends the producer.
    """

    def __init__(self, error_type: str, reason: str, field: str | None = None) -> None:
        super().__init__(reason)
        self.error_type, self.reason, self.field = error_type, reason, field


def decode(value: bytes | None, kafka_time_ms: int) -> dict[str, object]:
    """Decode one payload.

    Args:
        value: the record's value.
        kafka_time_ms: the record's Kafka timestamp; negative where it has none.

    Returns:
        One entry for each field of the event that is there, and `extra` where there is more.

    Raises:
        Refusal: it is no event.
    """
    payload = _parse(value)
    row: dict[str, object] = {}
    for field in ACCESS_FIELDS:
        given = payload.get(field.name)
        if given is not None:
            row[field.name] = _check(field, given, kafka_time_ms)
        elif field.required:
            state = "is null" if field.name in payload else "is missing"
            raise Refusal("missing_field", f"required field {field.name} {state}", field.name)
    unknown = {name: given for name, given in payload.items() if name not in _FIELDS and given is not None}
    if unknown:
        row[EXTRA.name] = _as_json(unknown, value)
    return row


def _parse(value: bytes | None) -> dict[str, object]:
    if value is None:
        raise Refusal("null_value", "the record has no value (a tombstone)")
    try:
        value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refusal("invalid_utf8", f"not UTF-8: {error.reason} at byte {error.start}") from None
    if not value.strip():
        raise Refusal("invalid_json", "the value is empty")
    try:
        payload = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise Refusal("invalid_json", f"not JSON: {error}") from None
    if not isinstance(payload, dict):
        raise Refusal("wrong_type", f"expected an object, got {_named(payload)}")
    return payload


def _as_json(unknown: dict[str, object], value: bytes | None) -> str:
    try:
        written = orjson.dumps(unknown).decode()
    except orjson.JSONEncodeError:  # it reads 1024 levels and writes 254
        raise Refusal("impossible_value", "unknown fields are nested too deep to keep") from None
    if not _holds_large_float(unknown):
        return written
    # It may have been an integer of more than 64 bits, of which orjson makes a float; Python's own reader keeps it.
    try:
        payload = json.loads(value or b"")
    except ValueError:
        raise Refusal("impossible_value", "unknown fields hold a number too long to keep") from None
    return json.dumps({name: payload[name] for name in unknown}, ensure_ascii=False, separators=(",", ":"))


def _holds_large_float(value: object) -> bool:
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            left += one.values()
        elif isinstance(one, list):
            left += one
        elif isinstance(one, float) and abs(one) >= _INT64_END:
            return True
    return False


def _check(field: Field, given: object, kafka_time_ms: int) -> object:
    """The value as its column holds it, or a Refusal."""
    if field.arrow == TIME:
        return _time(field, _of_type(field, given, str, "a time as text"), kafka_time_ms)
    if field.arrow == pa.string():
        text = _of_type(field, given, str, "text")
        if len(text) < field.length_min:
            raise Refusal("impossible_value", f"{field.name} is empty", field.name)
        return text
    if field.arrow == pa.bool_():
        return _of_type(field, given, bool, "a boolean")
    return _number(field, given)


def _of_type(field: Field, given: object, kind: type[T], wanted: str) -> T:
    if not isinstance(given, kind):
        raise Refusal("wrong_type", f"{field.name}: expected {wanted}, got {_named(given)}", field.name)
    return given


def _number(field: Field, given: object) -> float | int:
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise Refusal("wrong_type", f"{field.name}: expected a number, got {_named(given)}", field.name)
    if not math.isfinite(given):
        raise Refusal("impossible_value", f"{field.name} is too large for a number", field.name)
    if field.arrow == pa.int64() and given != int(given):
        raise Refusal("wrong_type", f"{field.name}: expected a whole number, got {given}", field.name)
    low, high = field.minimum, field.maximum
    if (low is not None and given < low) or (high is not None and given > high):
        raise Refusal("impossible_value", f"{field.name} is {given}, outside {low} to {high}", field.name)
    return int(given) if field.arrow == pa.int64() else float(given)


def _time(field: Field, text: str, kafka_time_ms: int) -> datetime:
    moment = _parse_time(text)
    if moment is None:
        raise Refusal(
            "impossible_value", f"{field.name}: {_shown(text)} is not an RFC 3339 time with a zone", field.name
        )
    micros = _micros(moment)
    if kafka_time_ms >= 0 and micros > (kafka_time_ms + AHEAD_MAX_MS) * 1000:
        ahead_s = micros / 1e6 - kafka_time_ms / 1e3
        ahead = f"{ahead_s:,.0f} s" if ahead_s < 2 * _DAY_S else f"{ahead_s / _DAY_S:,.0f} days"
        raise Refusal("impossible_value", f"{field.name} is {ahead} ahead of the record's Kafka time", field.name)
    if not TIME_MIN_US <= micros < TIME_MAX_US:
        raise Refusal("impossible_value", f"{field.name}: year {moment.year} cannot be", field.name)
    return moment


def micros_of(text: str) -> int | None:
    """A time as a record states it, in microseconds since the epoch, whether it can be or not; None if it is none."""
    moment = _parse_time(text)
    return None if moment is None else _micros(moment)


def _micros(moment: datetime) -> int:
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _parse_time(text: str) -> datetime | None:
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    day, clock, fraction, zone = match.groups()
    try:
        return datetime.fromisoformat(f"{day}T{clock}.{(fraction or '0'):<06}{zone.upper()}").astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _named(given: object) -> str:
    if isinstance(given, str):
        shown = _shown(given)
        return f"text {shown}" if shown.startswith("'") else shown
    name = _JSON_NAMES.get(type(given), "null")
    return f"{name} {given!r}"[:_SHOWN_CHARS] if isinstance(given, int | float) else name


def _shown(text: str) -> str:
    """A text of a record, for a reason that anybody may read: in a field of another type a prompt may have landed."""
    return f"'{text}'" if _PLAIN.fullmatch(text) else f"a text of {len(text):,} characters"
