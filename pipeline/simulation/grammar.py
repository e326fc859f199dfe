"""Text from small grammars: rules with alternatives, written in plain files and compiled once.

A grammar file is UTF-8 text.  A line `name: this | that {other}` defines a rule; an indented line continues it; `#`
starts a comment line.  Inside an alternative `{rule}` is replaced by an expansion of that rule, `{#2-9}` by a whole
number in that range, and `{SLOT}` (upper case) by a value given by the caller; `¶` is a line break, `{{` and `}}` are
braces.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from typing import NamedTuple

Draw = Callable[[], float]
"""A source of uniform numbers in [0, 1), such as `random.Random(7).random`: the only randomness there is."""

_TOKEN = re.compile(r"\{\{|\}\}|\{([a-z][a-z0-9_]*)\}|\{#(\d+)-(\d+)\}|\{([A-Z][A-Z0-9_]*)\}")
_RULE = re.compile(r"([a-z][a-z0-9_]*):\s+(.*)")


class Slot(NamedTuple):
    """A place that the caller fills."""

    name: str


class Span(NamedTuple):
    """A whole number from `low`, `size` of them."""

    low: int
    size: int


class Rule:
    """The alternatives of one rule; each is a literal, or a tuple of literals, rules, spans and slots."""

    __slots__ = ("alternatives", "count", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.alternatives: tuple[str | Parts, ...] = ()
        self.count = 0


Part = str | Rule | Span | Slot
Parts = tuple[Part, ...]


class Frame:
    """A text with open slots, fixed but for what is filled in: how templated traffic is made."""

    __slots__ = ("parts",)

    def __init__(self, parts: list[str | Slot]) -> None:
        merged: list[str | Slot] = []
        for part in parts:
            if isinstance(part, str) and merged and isinstance(merged[-1], str):
                merged[-1] += part
            else:
                merged.append(part)
        self.parts = tuple(merged)

    @property
    def slots(self) -> frozenset[str]:
        """Names of the open slots."""
        return frozenset(part.name for part in self.parts if isinstance(part, Slot))

    def fill(self, values: Mapping[str, str]) -> str:
        """The text with every slot replaced; raises KeyError for a slot that has no value."""
        return "".join([part if isinstance(part, str) else values[part.name] for part in self.parts])


class Grammar:
    """Rules by name, and their expansion."""

    def __init__(self, text: str) -> None:
        self.rules: dict[str, Rule] = {}
        sources = _read_rules(text)
        for name in sources:
            self.rules[name] = Rule(name)
        for name, source in sources.items():
            rule = self.rules[name]
            rule.alternatives = tuple(self._compile(name, part.strip()) for part in re.split(r"(?:^|\s)\|\s", source))
            rule.count = len(rule.alternatives)

    def _compile(self, name: str, source: str) -> str | Parts:
        parts: list[Part] = []
        end = 0
        for match in _TOKEN.finditer(source):
            _append_literal(parts, _plain(name, source[end : match.start()]))
            end = match.end()
            reference, low, high, slot = match.groups()
            if reference:
                if reference not in self.rules:
                    msg = f"rule {name!r} refers to {reference!r}, which no grammar file defines"
                    raise ValueError(msg)
                parts.append(self.rules[reference])
            elif low:
                parts.append(Span(int(low), int(high) - int(low) + 1))
            elif slot:
                parts.append(Slot(slot))
            else:
                _append_literal(parts, match.group()[0])
        _append_literal(parts, _plain(name, source[end:]))
        if not parts or (len(parts) == 1 and isinstance(parts[0], str)):
            return "".join(part for part in parts if isinstance(part, str))
        return tuple(parts)

    def expand(self, name: str, draw: Draw, values: Mapping[str, str] | None = None) -> str:
        """One random expansion of rule `name`; raises KeyError for an unknown rule or a slot without value."""
        out: list[str | Slot] = []
        _emit(self.rules[name], draw, out)
        if values is None:
            return "".join([part if isinstance(part, str) else _unfilled(part) for part in out])
        return "".join([part if isinstance(part, str) else values[part.name] for part in out])

    def frame(self, name: str, draw: Draw) -> Frame:
        """One random expansion of rule `name` whose slots stay open."""
        out: list[str | Slot] = []
        _emit(self.rules[name], draw, out)
        return Frame(out)


def _emit(rule: Rule, draw: Draw, out: list[str | Slot]) -> None:
    chosen = rule.alternatives[int(draw() * rule.count)]
    if isinstance(chosen, str):
        out.append(chosen)
        return
    for part in chosen:
        if isinstance(part, str | Slot):
            out.append(part)
        elif isinstance(part, Rule):
            _emit(part, draw, out)
        else:
            out.append(str(part.low + int(draw() * part.size)))


def _append_literal(parts: list[Part], text: str) -> None:
    if text:
        literal = text.replace("¶", "\n")
        if parts and isinstance(parts[-1], str):
            parts[-1] += literal
        else:
            parts.append(literal)


def _plain(name: str, text: str) -> str:
    if "{" in text or "}" in text:
        msg = f"rule {name!r} has a brace that is neither a reference nor doubled: {text[:60]!r}"
        raise ValueError(msg)
    return text


def _unfilled(slot: Slot) -> str:
    raise KeyError(slot.name)


def _read_rules(text: str) -> dict[str, str]:
    sources: dict[str, str] = {}
    name = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        if line[0].isspace():
            sources[name] += " | " + line.strip()
            continue
        match = _RULE.fullmatch(line.rstrip())
        if match is None or match[1] in sources:
            msg = f"line {number} of the grammar is no rule, or defines one a second time: {line[:60]!r}"
            raise ValueError(msg)
        name = match[1]
        sources[name] = match[2]
    return sources


@cache
def traffic_grammar() -> Grammar:
    """The grammar of all simulated traffic, read from the package's own `grammars/` files."""
    folder = resources.files("pipeline.simulation").joinpath("grammars")
    texts = [file.read_text(encoding="utf-8") for file in sorted(folder.iterdir(), key=lambda entry: entry.name)]
    return Grammar("\n".join(texts))
