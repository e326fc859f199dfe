"""Conditions of rules: a small language of comparisons over numbers, read by Python's grammar and never run as Python.

::

    condition   comparison | condition `and` condition | condition `or` condition | `not` condition | ( condition )
    comparison  number (< | <= | > | >= | == | !=) number, also in a chain: 0.2 <= x < 0.5
    number      a literal, a name, -number, +number, number (+ | - | * | /) number, ( number )

The logic has three values, as SQL's: a comparison with an unknown number (NaN) is unknown, so is its negation, and what
is unknown does not fire.  A division by zero, or whatever else is no finite number, is unknown too.
"""

from __future__ import annotations

import ast
import difflib
import math
import operator
import re
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

CHARS_MAX: Final = 2_000
NODES_MAX: Final = 300
"""Bounds of one condition; what is longer is several rules."""

Mask = npt.NDArray[np.bool_]
Columns = Callable[[str], npt.NDArray[Any]]
"""From a name to its numbers, one a row; float32 or float64, NaN where unknown."""

_Number = Callable[[Columns], Any]
_Truth = Callable[[Columns], tuple[Mask, Mask]]
"""Which rows it is true of, and which it is false of; of those in neither nobody knows."""

_ARITHMETIC: Final[Mapping[type[ast.AST], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_COMPARISONS: Final[Mapping[type[ast.AST], Callable[[Any, Any], Any]]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_WORD: Final = re.compile(r"[A-Za-z_]\w*")
_TRUTHS: Final = (ast.BoolOp, ast.Compare)
_ALLOWED: Final = "a condition has comparisons (< <= > >= == !=), and, or, not, parentheses, numbers and + - * /"


class ConditionError(ValueError):
    """A condition cannot be read; the message says what and how to mend it."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One comparison of a condition.

    Attributes:
        text: as in the condition, with the numbers that constants stand for.
        wanted: what the condition wants it to be: false below an odd number of `not`.
        names: that it looks at.
    """

    text: str
    wanted: bool
    names: tuple[str, ...]
    _sides: tuple[_Number, _Number]
    _truth: _Truth

    def holds(self, columns: Columns, n_rows: int) -> Mask:
        """Say of which rows it is what is wanted: bool[n_rows]; of unknown numbers it is nothing."""
        with np.errstate(all="ignore"):
            true, false = self._truth(columns)
        return np.broadcast_to(true if self.wanted else false, n_rows)

    def gaps(self, columns: Columns, n_rows: int) -> npt.NDArray[np.float64]:
        """How far its two sides are apart, against the larger one: float64[n_rows], infinite where unknown."""
        with np.errstate(all="ignore"):
            one, other = (np.asarray(side(columns), np.float64) for side in self._sides)
            apart = np.abs(one - other) / np.maximum(np.maximum(np.abs(one), np.abs(other)), 1e-12)
        return np.broadcast_to(np.where(np.isfinite(apart), apart, np.inf), n_rows)


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that was read and checked.

    Attributes:
        text: as it was written, white space made single.
        names: that it looks at, in order of first mention.
        constants: named numbers of the rule file that it uses.
        comparisons: what it is made of, in the order in which they are written.
    """

    text: str
    names: tuple[str, ...]
    constants: Mapping[str, float]
    comparisons: tuple[Comparison, ...]
    _truth: _Truth

    @property
    def filled(self) -> str:
        """The text, with the number that each constant stands for."""
        return with_numbers(self.text, self.constants)

    def fires(self, columns: Columns, n_rows: int) -> Mask:
        """Say of which rows it is true.

        Args:
            columns: gives the numbers of a name, `n_rows` of them; asked only for `names`.
            n_rows: how many rows there are.

        Returns:
            bool[n_rows].
        """
        with np.errstate(all="ignore"):
            true, _ = self._truth(columns)
        return np.broadcast_to(true, n_rows)


def read_condition(text: str, known: Collection[str], constants: Mapping[str, float] | None = None) -> Condition:
    """Read a condition.

    Args:
        text: the condition.
        known: names that rows have numbers for.
        constants: named numbers; none of `known`.

    Raises:
        ConditionError: it is none, or names what nobody knows.
    """
    line = " ".join(text.split())
    reader = _Reader(known, constants or {})
    truth = reader.truth(_parsed(line))
    return Condition(line, tuple(reader.names), reader.used, tuple(reader.comparisons), truth)


def with_numbers(text: str, constants: Mapping[str, float]) -> str:
    """A text in which each constant is followed by its number: `risk >= high (0.9)`."""
    return _WORD.sub(lambda word: f"{word[0]} ({constants[word[0]]:g})" if word[0] in constants else word[0], text)


def _parsed(line: str) -> ast.expr:
    """The syntax tree, of bounded size.

    Raises:
        ConditionError: Python's grammar does not know it, or it is too long.
    """
    if not line:
        raise ConditionError("the condition is empty; write for example: risk >= 0.9 and exchanges >= 8")
    if len(line) > CHARS_MAX:
        raise ConditionError(
            f"the condition is {len(line):,} characters long, more than {CHARS_MAX:,}; make it two rules"
        )
    if "#" in line:  # to Python's grammar a comment, which would swallow the rest without a word
        raise ConditionError("the condition holds a #; put comments on lines of their own, above the rule")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "1and 2" and the like warn, and are refused or right
            tree = ast.parse(line, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        where = f" near character {error.offset}" if isinstance(error, SyntaxError) and error.offset else ""
        what = error.msg if isinstance(error, SyntaxError) else "nested too deep, or not text"
        raise ConditionError(f"the condition cannot be read{where} ({what}); {_ALLOWED}") from None
    if sum(1 for _ in ast.walk(tree)) > NODES_MAX:
        raise ConditionError(f"the condition has more than {NODES_MAX} parts; make it two rules")
    return tree


class _Reader:
    """Turns a syntax tree into functions over columns; what it does not know by name, it refuses."""

    def __init__(self, known: Collection[str], constants: Mapping[str, float]) -> None:
        self._known, self._constants = known, constants
        self.names: dict[str, None] = {}
        self.used: dict[str, float] = {}
        self.comparisons: list[Comparison] = []

    def truth(self, node: ast.expr, *, wanted: bool = True) -> _Truth:
        """What is true or false of a row, and is wanted to be so."""
        if isinstance(node, ast.BoolOp):
            parts = [self.truth(part, wanted=wanted) for part in node.values]
            return _both(parts) if isinstance(node.op, ast.And) else _either(parts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return _neither(self.truth(node.operand, wanted=not wanted))
        if isinstance(node, ast.Compare):
            numbers = [node.left, *node.comparators]
            pairs = zip(numbers, node.ops, numbers[1:], strict=False)
            return _both([self._comparison(ast.Compare(left, [how], [right]), wanted) for left, how, right in pairs])
        if isinstance(node, (ast.Name, ast.BinOp, ast.UnaryOp, ast.Constant)):
            self._number(node)  # what is wrong inside is said first
            raise ConditionError(f"{_shown(node)} is a number; compare it, for example: {_shown(node)} >= 1")
        raise _refusal(node)

    def _comparison(self, node: ast.Compare, wanted: bool) -> _Truth:  # the only other thing there is to say
        left, how, right = node.left, node.ops[0], node.comparators[0]
        compare = _COMPARISONS.get(type(how))
        if compare is None:
            raise ConditionError(f"{_word(how)} is no comparison here; use < <= > >= == !=")
        one, other = self._number(left), self._number(right)
        if isinstance(one, float) and isinstance(other, float):
            raise ConditionError(f"{_shown(left)} and {_shown(right)} are both fixed numbers; compare one with a name")
        truth = _compared(compare, one, other)
        named = tuple(dict.fromkeys(part.id for part in ast.walk(node) if isinstance(part, ast.Name)))
        text = with_numbers(ast.unparse(node if wanted else ast.UnaryOp(ast.Not(), node)), self.used)
        names = tuple(name for name in named if name in self.names)
        sides = _as_function(one), _as_function(other)
        self.comparisons.append(Comparison(text, wanted, names, sides, truth))
        return truth

    def _number(self, node: ast.expr) -> _Number | float:
        """A number of a row, or one that is the same for all."""
        if isinstance(node, ast.Constant):
            return _literal(node)
        if isinstance(node, ast.Name):
            return self._named(node.id)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
            zero = ast.Constant(0)
            return self._calculated(operator.sub if isinstance(node.op, ast.USub) else operator.add, zero, node.operand)
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            return self._calculated(_ARITHMETIC[type(node.op)], node.left, node.right)
        if isinstance(node, _TRUTHS) or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)):
            raise ConditionError(f"{_shown(node)} is true or false and no number; join such parts with and, or, not")
        raise _refusal(node)

    def _named(self, name: str) -> _Number | float:
        if name in self._constants:
            self.used[name] = self._constants[name]
            return self._constants[name]
        if name not in self._known:
            raise ConditionError(f"unknown name {name}{meant(name, [*self._known, *self._constants])}")
        self.names[name] = None
        return lambda columns: columns(name)

    def _calculated(self, how: Callable[[Any, Any], Any], left: ast.expr, right: ast.expr) -> _Number | float:
        one, other = self._number(left), self._number(right)
        if isinstance(one, float) and isinstance(other, float):
            try:
                return _finite(float(how(one, other)))
            except ZeroDivisionError:
                raise ConditionError(f"{_shown(left)} is divided by zero") from None
        first, second = _as_function(one), _as_function(other)
        return lambda columns: how(first(columns), second(columns))


def meant(name: str, known: Collection[str]) -> str:
    """`; did you mean …?` with the nearest name, or a hint where the names are listed."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else "; docs/features.md lists the names"


def _literal(node: ast.Constant) -> float:
    if isinstance(node.value, bool) or not isinstance(node.value, (int, float)):
        raise ConditionError(f"{_shown(node)} is no number; {_ALLOWED}")
    try:
        return _finite(float(node.value))
    except OverflowError:
        raise ConditionError("a number in the condition is larger than any float") from None


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ConditionError("a number in the condition is larger than any float")
    return number


def _as_function(number: _Number | float) -> _Number:
    return number if not isinstance(number, float) else lambda _columns: number


def _compared(compare: Callable[[Any, Any], Any], left: _Number | float, right: _Number | float) -> _Truth:
    first, second = _as_function(left), _as_function(right)

    def truth(columns: Columns) -> tuple[Mask, Mask]:
        one, other = first(columns), second(columns)
        if isinstance(right, float):
            known = np.isfinite(one)
        elif isinstance(left, float):
            known = np.isfinite(other)
        else:
            known = np.isfinite(one) & np.isfinite(other)
        true = known & compare(one, other)
        return true, known ^ true

    return truth


def _both(parts: list[_Truth]) -> _Truth:
    if len(parts) == 1:
        return parts[0]

    def truth(columns: Columns) -> tuple[Mask, Mask]:
        true, false = parts[0](columns)
        for part in parts[1:]:
            also_true, also_false = part(columns)
            true, false = true & also_true, false | also_false
        return true, false

    return truth


def _either(parts: list[_Truth]) -> _Truth:
    return _neither(_both([_neither(part) for part in parts]))  # De Morgan holds for three values


def _neither(part: _Truth) -> _Truth:
    def truth(columns: Columns) -> tuple[Mask, Mask]:
        true, false = part(columns)
        return false, true

    return truth


_SHOWN_CHARS: Final = 40


def _shown(node: ast.expr) -> str:
    text = ast.unparse(node)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


def _word(node: ast.AST) -> str:
    return {"In": "in", "NotIn": "not in", "Is": "is", "IsNot": "is not"}.get(type(node).__name__, type(node).__name__)


def _refusal(node: ast.expr) -> ConditionError:
    return ConditionError(f"{_shown(node)} is not allowed; {_ALLOWED}")
