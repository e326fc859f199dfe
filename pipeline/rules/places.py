"""Where things stand in a rule file: TOML's own reader gives values and forgets their lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

_PART: Final = r"""(?:[A-Za-z_]+|"[A-Za-z_]+"|'[A-Za-z_]+')"""
_PATH: Final = rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*"

_LEXEME: Final = re.compile(
    rf"^[ \t]*\[\[[ \t]*(?P<item>{_PATH})[ \t]*\]\]"
    rf"|^[ \t]*\[[ \t]*(?P<table>{_PATH})[ \t]*\][ \t]*(?:\#[^\n]*)?$"
    rf"|^[ \t]*(?P<key>{_PART})[ \t]*="
    r"""|\"{3}(?:\\.|[^\\])*?\"{3,5}|'{3}.*?'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|\#[^\n]*""",
    re.MULTILINE | re.DOTALL,
)
"""Where an item, a table or a value begins, and whatever could hold the same characters: texts and comments."""

_RULE: Final = "rule"


@dataclass(slots=True)
class Place:
    """Where a table of a rule file stands.

    Attributes:
        line: where it begins; None: nobody knows.
        keys: the lines of its values, as far as they are known.
        items: what is below it as `[[rule.NAME]]`, by name.
    """

    line: int | None = None
    keys: dict[str, int] = field(default_factory=dict)
    items: dict[str, list[Place]] = field(default_factory=dict)

    def of(self, key: str) -> int | None:
        """The line of one of its values; its own, where that is not known."""
        return self.keys.get(key, self.line)

    def below(self, name: str, count: int) -> list[Place]:
        """The places of the items of a name, if there are as many as found; otherwise its own for each."""
        found = self.items.get(name, [])
        return found if len(found) == count else [Place(self.of(name)) for _ in range(count)]


def places_of(content: str, count: int) -> list[Place]:
    """Find the rules of a file.

    Args:
        content: the file.
        count: how many rules TOML's reader found.

    Returns:
        The place of each; places without lines where they are written so that the lines are not found.
    """
    rules: list[Place] = []
    here: Place | None = None
    for line, kind, path in _lexemes(content):
        if kind == "key":
            if here is not None and len(path) == 1:
                here.keys.setdefault(path[0], line)
        elif kind == "item" and path == (_RULE,):
            here = Place(line)
            rules.append(here)
        elif path[0] == _RULE and rules:
            here = _below(rules[-1], line, kind, path[1:])
        elif kind == "table" or path[0] == _RULE:
            here = None
    return rules if len(rules) == count else [Place() for _ in range(count)]


def _lexemes(content: str) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """Line, kind and path of whatever begins, in order."""
    line, start = 1, 0
    for found in _LEXEME.finditer(content):
        if found.lastgroup is not None:
            line += content.count("\n", start, found.start())
            start = found.start()
            parts = found[found.lastgroup].split(".")
            yield line, found.lastgroup, tuple(part.strip().strip("\"'") for part in parts)


def _below(rule: Place, line: int, kind: str, path: tuple[str, ...]) -> Place | None:
    """The place of a table below a rule; None for one whose values are not told apart."""
    parent = rule
    for name in path[:-1]:
        items = parent.items.get(name)
        if not items:
            return None
        parent = items[-1]
    if kind == "table":
        parent.keys.setdefault(path[-1], line)
        return None
    place = Place(line)
    parent.items.setdefault(path[-1], []).append(place)
    return place
