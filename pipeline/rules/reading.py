"""Rule files: TOML in, checked rules out, and errors that name file, line, rule, what is wrong and how to mend it."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final, NoReturn

from pipeline.errors import ConfigError
from pipeline.rules.condition import ConditionError, meant, read_condition
from pipeline.rules.rule import ROW_NAMES, SEVERITIES, STATES, Rule

SHIPPED: Final = "shipped.toml"

RULES_MAX: Final = 200
"""Rules that run together: each costs some microseconds a batch and an entry for every account that it alerts."""

_BYTES_MAX: Final = 1 << 20
_VERSION_MAX: Final = (1 << 31) - 1
_HOURS_MAX: Final = 8_760
_LINE_CHARS_MAX: Final = 120
_TEXT_CHARS_MAX: Final = 4_000

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_ATLAS: Final = re.compile(r"AML\.T\d{4}(\.\d{3})?")

_LEXEME: Final = re.compile(
    r"""(?P<rule>^[ \t]*\[\[[ \t]*(?:rule|"rule"|'rule')[ \t]*\]\])"""
    r"""|\"{3}(?:\\.|[^\\])*?\"{3,5}|'{3}.*?'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|\#[^\n]*""",
    re.MULTILINE | re.DOTALL,
)
"""Where a rule begins, and whatever could hold the same characters: texts and comments."""


def shipped_text() -> str:
    """The rule file that the package ships."""
    return (resources.files("pipeline.rules") / SHIPPED).read_text(encoding="utf-8")


def read_rules(files: Sequence[Path] | None, known: Collection[str], *, text: str | None = None) -> tuple[Rule, ...]:
    """Read the rules that are to run together.

    Args:
        files: rule files, in this order; None takes the shipped one.
        known: names of the features.
        text: a rule file's content, instead of the shipped one's.

    Raises:
        ConfigError: a file cannot be read or holds a rule that is none, or two rules have one name.
    """
    if files is None:
        sources = [(SHIPPED, shipped_text() if text is None else text)]
    else:
        sources = [(str(file), _content(file)) for file in files]
    names = frozenset([*ROW_NAMES, *known])
    rules: list[Rule] = []
    where: dict[str, str] = {}
    for source, content in sources:
        for line, rule in _rules_of(source, content, names):
            place = f"{source}, line {line}" if line else source
            if rule.name in where:
                raise ConfigError(
                    f"{place}, rule {rule.name!r}: {where[rule.name]} has a rule of this name; rename one of them"
                )
            where[rule.name] = place
            rules.append(rule)
    if len(rules) > RULES_MAX:
        raise ConfigError(f"{sources[-1][0]}: {len(rules)} rules are too many; {RULES_MAX} run together at most")
    return tuple(rules)


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


def _rules_of(source: str, content: str, names: Collection[str]) -> list[tuple[int | None, Rule]]:
    """The rules of one file, each with the line where it begins."""
    try:
        document = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"rules: {source}: not TOML: {_one_line(str(error))}") from None
    except RecursionError:
        raise ConfigError(f"rules: {source}: not TOML that anybody writes: nested too deep") from None
    for key in document:
        if key not in {"rule", "constants"}:
            raise ConfigError(f"rules: {source}: unknown key {key!r}; a rule file holds [[rule]] and [constants]")
    tables = document.get("rule", [])
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"rules: {source}: no rules; each begins with a line [[rule]]")
    constants = _constants(source, document.get("constants", {}), names)
    lines = _lines(content)
    starts: list[int | None] = [*lines] if len(lines) == len(tables) else [None] * len(tables)
    reader = _TableReader(source, names, constants)
    rules = [
        (line, reader.rule(number, line, table))
        for number, (line, table) in enumerate(zip(starts, tables, strict=True), 1)
    ]
    unused = set(constants) - {name for _, rule in rules for name in rule.condition.constants}
    if unused:
        raise ConfigError(f"rules: {source}: [constants] {min(unused)}: no condition uses it; remove or use it")
    return rules


def _lines(content: str) -> list[int]:
    """Numbers of the lines that begin a rule."""
    return [
        content.count("\n", 0, found.start()) + 1 for found in _LEXEME.finditer(content) if found["rule"] is not None
    ]


def _constants(source: str, table: Any, names: Collection[str]) -> Mapping[str, float]:
    if not isinstance(table, dict):
        raise ConfigError(f"rules: {source}: constants: expected a table, as in [constants]")
    constants = {}
    for name, value in table.items():
        if not _NAME.fullmatch(name):
            raise ConfigError(f"rules: {source}: [constants] {name!r}: use lower-case letters, digits and _")
        if name in names:
            raise ConfigError(f"rules: {source}: [constants] {name}: rows have numbers of this name; choose another")
        if not _is_number(value):
            raise ConfigError(f"rules: {source}: [constants] {name}: expected a number")
        constants[name] = float(value)
    return constants


class _TableReader:
    """Reads the rule tables of one file."""

    def __init__(self, source: str, names: Collection[str], constants: Mapping[str, float]) -> None:
        self._source, self._names, self._constants = source, names, constants

    def rule(self, number: int, line: int | None, table: Mapping[str, Any]) -> Rule:
        """Read one rule.

        Raises:
            ConfigError: it is none.
        """
        called = repr(table["name"]) if isinstance(table.get("name"), str) else f"number {number}"
        place = f"{self._source}, line {line}" if line else self._source

        def refuse(what: str) -> NoReturn:
            raise ConfigError(f"{place}, rule {_one_line(called)}: {what}")

        for key in table:
            if key not in _FIELDS:
                refuse(f"unknown field {key!r}{_nearest_field(key)}")
        for name, (is_right, expected) in _FIELDS.items():
            if name not in table:
                refuse(f"{name} is missing; give {expected}")
            if not is_right(table[name]):
                refuse(f"{name} = {_quoted(table[name])}: expected {expected}")
        fields = {**table, "atlas": tuple(table["atlas"]), "suppress_hours": float(table["suppress_hours"])}
        for name in ("title", "owner", "runbook", "blind_spots"):
            fields[name] = table[name].strip()
        try:
            fields["condition"] = read_condition(table["condition"], self._names, self._constants)
        except ConditionError as error:
            refuse(_one_line(str(error)))
        return Rule(**fields)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _is_version(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _VERSION_MAX


def _is_line(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value.strip()) <= _LINE_CHARS_MAX and value.strip().isprintable()


def _is_text(value: Any) -> bool:
    """Sentences; line ends are all that is let through of what is not printed."""
    return (
        isinstance(value, str) and 0 < len(value.strip()) <= _TEXT_CHARS_MAX and value.replace("\n", " ").isprintable()
    )


def _is_atlas(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) and _ATLAS.fullmatch(one) for one in value)


_LINE: Final = f"one line of text, at most {_LINE_CHARS_MAX} characters"
_TEXT: Final = f"text of at most {_TEXT_CHARS_MAX:,} characters"

_FIELDS: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "name": (_is_name, "up to 63 lower-case letters, digits and _, a letter first"),
    "version": (_is_version, "a whole number from 1 on"),
    "title": (_is_line, _LINE),
    "state": (lambda value: value in STATES, " or ".join(f'"{state}"' for state in STATES)),
    "severity": (lambda value: value in SEVERITIES, "one of " + ", ".join(f'"{word}"' for word in SEVERITIES)),
    "condition": (lambda value: isinstance(value, str), 'a text, for example "risk >= 0.9 and exchanges >= 8"'),
    "suppress_hours": (
        lambda value: _is_number(value) and 0 < value <= _HOURS_MAX,
        f"a number of hours, above 0 and at most {_HOURS_MAX:,}",
    ),
    "atlas": (_is_atlas, 'a list of MITRE ATLAS ids, for example ["AML.T0024.002"]; it may be empty'),
    "owner": (_is_line, _LINE),
    "runbook": (_is_text, _TEXT),
    "blind_spots": (_is_text, _TEXT),
}
"""Each field of a rule: how it is checked, and what is expected, in words."""


def _nearest_field(key: str) -> str:
    hint = meant(key, _FIELDS)
    return hint if "did you mean" in hint else "; a rule has " + ", ".join(_FIELDS)


_QUOTED_CHARS: Final = 60


def _quoted(value: Any) -> str:
    text = _one_line(repr(value))
    return text if len(text) <= _QUOTED_CHARS else f"{text[:_QUOTED_CHARS]}…"


def _one_line(text: str) -> str:
    """Text for a one-line message: what does not print is written out."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
