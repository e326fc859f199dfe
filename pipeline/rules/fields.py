"""The values of a rule file's tables: how each is checked, and what is expected, in words."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pipeline.rules.condition import meant
from pipeline.rules.places import Place

_LINE_CHARS_MAX: Final = 120
_TEXT_CHARS_MAX: Final = 4_000

NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")

Wrong = tuple[int | None, str]
"""A line, if it is known, and what is wrong there and how to mend it."""


@dataclass(frozen=True, slots=True)
class Field:
    """One value of a table.

    Attributes:
        is_right: says whether a value can be used.
        expected: what one is to be, in words.
        needed: whether it must be there.
    """

    is_right: Callable[[Any], bool]
    expected: str
    needed: bool = True


def wrong_in(table: Mapping[str, Any], fields: Mapping[str, Field], place: Place, what: str) -> Iterator[Wrong]:
    """Find all that is wrong with a table.

    Args:
        table: as TOML gives it.
        fields: what it may hold.
        place: where it stands.
        what: what it is, with its article: "a rule".
    """
    for key in table:
        if key not in fields:
            yield place.of(key), f"unknown field {key!r}{_nearest(key, fields, what)}"
    for name, field in fields.items():
        if name not in table:
            if field.needed:
                yield place.line, f"{name} is missing; give {field.expected}"
        elif not field.is_right(table[name]):
            yield place.of(name), f"{name} = {_quoted(table[name])}: expected {field.expected}"


def _nearest(key: str, fields: Collection[str], what: str) -> str:
    hint = meant(key, fields)
    return hint if "did you mean" in hint else f"; {what} has {', '.join(fields)}"


def is_number(value: Any) -> bool:
    """A number that floats can hold."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_whole(value: Any, least: int, most: int) -> bool:
    """A whole number between two."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def is_line(value: Any) -> bool:
    """One line of words."""
    return isinstance(value, str) and 0 < len(value.strip()) <= _LINE_CHARS_MAX and value.strip().isprintable()


def is_text(value: Any) -> bool:
    """Sentences; line ends are all that is let through of what is not printed."""
    return (
        isinstance(value, str) and 0 < len(value.strip()) <= _TEXT_CHARS_MAX and value.replace("\n", " ").isprintable()
    )


def is_tables(value: Any) -> bool:
    """A list of tables."""
    return isinstance(value, list) and all(isinstance(table, dict) for table in value)


LINE: Final = f"one line of text, at most {_LINE_CHARS_MAX} characters"
TEXT: Final = f"text of at most {_TEXT_CHARS_MAX:,} characters"

_QUOTED_CHARS: Final = 60


def _quoted(value: Any) -> str:
    text = one_line(repr(value))
    return text if len(text) <= _QUOTED_CHARS else f"{text[:_QUOTED_CHARS]}…"


def one_line(text: str) -> str:
    """Text for a one-line message: what does not print is written out."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
