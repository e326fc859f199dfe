"""Rule files: TOML in, checked rules out, and errors that name file, line, rule, what is wrong and how to mend it."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

from pipeline.errors import ConfigError
from pipeline.rules.condition import Condition, ConditionError, read_condition
from pipeline.rules.example import EXAMPLES_MAX, WORDS, Example, is_words, read_example, read_words
from pipeline.rules.fields import NAME, Wrong, is_number, one_line, wrong_in
from pipeline.rules.places import Place, places_of
from pipeline.rules.rule import ROW_NAMES, Rule
from pipeline.rules.rule_fields import RULE_FIELDS

SHIPPED: Final = "shipped.toml"

RULES_MAX: Final = 200
"""Rules that run together: each costs some microseconds a batch and an entry for every account that it alerts."""

_BYTES_MAX: Final = 1 << 20
_KEYS: Final = frozenset({"rule", "constants", "words"})


@dataclass(frozen=True, slots=True)
class RuleFiles:
    """What some rule files hold.

    Attributes:
        rules: those that can be used, in order.
        problems: all that is wrong, a line each; with any of them the files cannot be run.
    """

    rules: tuple[Rule, ...]
    problems: tuple[str, ...]


def shipped_text() -> str:
    """The rule file that the package ships."""
    return (resources.files("pipeline.rules") / SHIPPED).read_text(encoding="utf-8")


def read_rules(
    files: Sequence[Path | None] | None, known: Collection[str], *, text: str | None = None
) -> tuple[Rule, ...]:
    """Read the rules that are to run together.

    Args:
        files: rule files, in this order; None, or None among them, takes the shipped one.
        known: names of the features.
        text: a rule file's content, instead of the shipped one's.

    Raises:
        ConfigError: a file cannot be read or holds a rule that is none, or two rules have one name.
    """
    found = read_rule_files(files, known, text=text)
    if found.problems:
        first, more = found.problems[0], len(found.problems) - 1
        raise ConfigError(f"{first} (`stillwatch rules check` says what else is wrong: {more} more)" if more else first)
    return found.rules


def read_rule_files(
    files: Sequence[Path | None] | None, known: Collection[str], *, text: str | None = None
) -> RuleFiles:
    """Read rules, and say all that is wrong with them.

    Args:
        files: rule files, in this order; None, or None among them, takes the shipped one.
        known: names of the features.
        text: a rule file's content, instead of the shipped one's.
    """
    names = frozenset([*ROW_NAMES, *known])
    rules: list[Rule] = []
    problems: list[str] = []
    where: dict[str, str] = {}
    for file in [None] if files is None else files:
        source = SHIPPED if file is None else str(file)
        try:
            content = _content(file) if file is not None else shipped_text() if text is None else text
            found = _File(source, content, names)
        except ConfigError as error:
            problems.append(str(error))
            continue
        problems += found.problems
        for rule in found.rules:
            if rule.name in where:
                problems.append(
                    f"{rule.place}, rule {rule.name!r}: {where[rule.name]} has a rule of this name; rename one of them"
                )
            where.setdefault(rule.name, rule.place)
            rules.append(rule)
        if len(rules) > RULES_MAX:
            problems.append(f"{source}: {len(rules)} rules are too many; {RULES_MAX} run together at most")
    return RuleFiles(tuple(rules), tuple(problems))


def _content(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            content = stream.read(_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"rules: {file}: {error.strerror}") from None
    if len(content) > _BYTES_MAX:
        raise ConfigError(f"rules: {file}: larger than {_BYTES_MAX:,} bytes; is it a rule file?")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"rules: {file}: not UTF-8 at byte {error.start:,}") from None


class _File:
    """The rules of one file, and all that is wrong with it."""

    def __init__(self, source: str, content: str, names: Collection[str]) -> None:
        """Read it.

        Raises:
            ConfigError: it is no rule file, so that nothing can be said of its rules.
        """
        self._source, self._names = source, names
        document = _document(source, content)
        tables = document["rule"]
        self.problems: list[str] = []
        self._constants = self._read_constants(document.get("constants", {}))
        self._words = self._read_words(document.get("words", {}))
        self._used: set[str] = set()
        self.rules: list[Rule] = []
        for number, (place, table) in enumerate(zip(places_of(content, len(tables)), tables, strict=True), 1):
            rule = self._rule(number, place, table)
            if rule is not None:
                self.rules.append(rule)
        unused = set(self._constants) - self._used
        if unused and len(self.rules) == len(tables):
            self._say(f"[constants] {min(unused)}: no condition uses it; remove or use it")

    def _say(self, what: str) -> None:
        self.problems.append(f"rules: {self._source}: {what}")

    def _read_constants(self, table: Any) -> Mapping[str, float]:
        constants: dict[str, float] = {}
        if not isinstance(table, dict):
            self._say("constants: expected a table, as in [constants]")
            return constants
        for name, value in table.items():
            if not NAME.fullmatch(name):
                self._say(f"[constants] {name!r}: use lower-case letters, digits and _")
            elif name in self._names:
                self._say(f"[constants] {name}: rows have numbers of this name; choose another")
            elif not is_number(value):
                self._say(f"[constants] {name}: expected a number")
            else:
                constants[name] = float(value)
        return constants

    def _read_words(self, table: Any) -> Mapping[str, tuple[str, ...]]:
        if is_words(table):
            return read_words(table)
        self._say(f"[words]: expected {WORDS}")
        return {}

    def _rule(self, number: int, place: Place, table: Mapping[str, Any]) -> Rule | None:
        """Read one rule; None: something is wrong with it."""
        called = one_line(repr(table["name"]) if isinstance(table.get("name"), str) else f"number {number}")
        wrong = list(wrong_in(table, RULE_FIELDS, place, "a rule"))
        condition = self._condition(table, place, wrong)
        examples = self._examples(table.get("example"), place, wrong)
        for line, what in wrong:
            self.problems.append(f"{_place(self._source, line)}, rule {called}: {what}")
        if wrong or condition is None:
            return None
        fields = {name: table[name] for name in ("name", "version", "state", "severity")}
        texts = {name: table[name].strip() for name in ("title", "owner", "runbook", "blind_spots")}
        return Rule(
            **fields, **texts, condition=condition, suppress_hours=float(table["suppress_hours"]),
            atlas=tuple(table["atlas"]), examples=examples, place=_place(self._source, place.line),
        )  # fmt: skip

    def _condition(self, table: Mapping[str, Any], place: Place, wrong: list[Wrong]) -> Condition | None:
        if not isinstance(table.get("condition"), str):
            return None
        try:
            condition = read_condition(table["condition"], self._names, self._constants)
        except ConditionError as error:
            wrong.append((place.of("condition"), one_line(str(error))))
            return None
        self._used |= set(condition.constants)
        return condition

    def _examples(self, tables: Any, place: Place, wrong: list[Wrong]) -> tuple[Example, ...]:
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            return ()
        if len(tables) > EXAMPLES_MAX:
            wrong.append((place.line, f"{len(tables)} sequences are too many; {EXAMPLES_MAX} at most"))
            return ()
        examples: dict[str, Example] = {}
        for number, (table, where) in enumerate(zip(tables, place.below("example", len(tables)), strict=True), 1):
            found = read_example(table, where, self._words, self._source)
            called = one_line(repr(table["name"]) if isinstance(table.get("name"), str) else f"number {number}")
            if isinstance(found, Example):
                if found.name in examples:
                    wrong.append(
                        (where.of("name"), f"sequence {called}: another one has this name; rename one of them")
                    )
                examples[found.name] = found
            else:
                wrong += [(line, f"sequence {called}: {what}") for line, what in found]
        return tuple(examples.values())


def _document(source: str, content: str) -> Mapping[str, Any]:
    """The file as TOML has it, with rules in it.

    Raises:
        ConfigError: it is no TOML, or holds no rules, or other things.
    """
    try:
        document = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"rules: {source}: not TOML: {one_line(str(error))}") from None
    except RecursionError:
        raise ConfigError(f"rules: {source}: not TOML that anybody writes: nested too deep") from None
    for key in document:
        if key not in _KEYS:
            holds = "a rule file holds [[rule]] and [constants], and [words] for sequences"
            raise ConfigError(f"rules: {source}: unknown key {one_line(repr(key))}; {holds}")
    tables = document.get("rule", [])
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"rules: {source}: no rules; each begins with a line [[rule]]")
    return document


def _place(source: str, line: int | None) -> str:
    return f"{source}, line {line}" if line else source
