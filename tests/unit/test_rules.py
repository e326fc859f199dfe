"""Rules: the language of conditions, rule files, and what is refused with which words."""

from __future__ import annotations

import ast
import math
import operator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.rules import Condition, ConditionError, Rule, read_condition, read_rules
from pipeline.rules.condition import CHARS_MAX
from tests.rule_files import KNOWN, rule_text

NAN = math.nan
ROWS = {
    "a": np.array([0.0, 1.0, 2.0, NAN], np.float32),
    "b": np.array([1.0, 1.0, NAN, NAN], np.float32),
    "risk": np.array([0.9, 0.89, NAN, 1.0], np.float32),
    "exchanges": np.array([8.0, 7.0, 1e15, 0.0]),
}


def condition(text: str, **constants: float) -> Condition:
    return read_condition(text, ROWS, constants)


def fires(text: str, **constants: float) -> list[int]:
    return condition(text, **constants).fires(ROWS.__getitem__, 4).astype(int).tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    (
        ("a > 0", [0, 1, 1, 0]),
        ("a >= b", [0, 1, 0, 0]),
        ("a == 1", [0, 1, 0, 0]),
        ("a != 1", [1, 0, 1, 0]),
        ("0 < a < 2", [0, 1, 0, 0]),
        ("0 <= a <= b", [1, 1, 0, 0]),
        ("risk >= 0.9", [1, 0, 0, 1]),
        ("risk >= 0.9 and exchanges >= 8", [1, 0, 0, 0]),
        ("exchanges < 8 or b > 0", [1, 1, 0, 1]),
        ("not a > 0", [1, 0, 0, 0]),
        ("not (a > 0 and b > 0)", [1, 0, 0, 0]),
        ("not (a > 0 or b > 0)", [0, 0, 0, 0]),
        ("a > 1 and b > 0 or exchanges == 0", [0, 0, 0, 1]),
        ("a > 1 and (b > 0 or exchanges > 0)", [0, 0, 1, 0]),
        ("a * 2 + 1 - b >= 2", [0, 1, 0, 0]),
        ("-a < -0.5", [0, 1, 1, 0]),
        ("+a > 1", [0, 0, 1, 0]),
        ("exchanges / a > 1", [0, 1, 1, 0]),
        ("a / 0 > 1", [0, 0, 0, 0]),
        ("not a / 0 > 1", [0, 0, 0, 0]),
        ("a * 1e300 > 1", [0, 0, 0, 0]),
        ("a < 1e300", [1, 1, 1, 0]),
        ("exchanges * 1e30 > 1e31", [0, 0, 1, 0]),
        ("exchanges * 100000000000000000000000000000000000000 > 1", [1, 1, 1, 0]),
        ("a\n  >\t0", [0, 1, 1, 0]),
        ("((((a > 0))))", [0, 1, 1, 0]),
    ),
)
def test_what_fires(text: str, expected: list[int]) -> None:
    assert fires(text) == expected


def test_constants_stand_for_their_numbers() -> None:
    assert fires("risk >= high and exchanges >= 4 * few", high=0.9, few=2.0) == [1, 0, 0, 0]
    assert condition("risk >= high", high=0.9, low=0.1).constants == {"high": 0.9}
    assert condition("b > 0 and a > 0 and b < 9").names == ("b", "a")


def test_no_rows_are_no_trouble() -> None:
    empty = condition("not (a > 0 or a / b < 1)").fires(lambda _name: np.zeros(0, np.float32), 0)
    assert empty.tolist() == []


@pytest.mark.parametrize(
    ("text", "said"),
    (
        ("", "the condition is empty; write for example: risk >= 0.9"),
        ("  \n ", "the condition is empty"),
        ("c > 0", "unknown name c"),
        ("risc > 0", "unknown name risc; did you mean risk?"),
        ("xyzzy > 0", "unknown name xyzzy; docs/features.md lists the names"),
        ("a", "a is a number; compare it, for example: a >= 1"),
        ("a + 1", "a + 1 is a number; compare it"),
        ("1", "1 is a number"),
        ("a and b > 0", "a is a number"),
        ("not a", "a is a number"),
        ("(a > 0) + 1 > 1", "a > 0 is true or false and no number; join such parts with and, or, not"),
        ("(not a > 0) > 1", "not a > 0 is true or false and no number"),
        ("-(a > 0) < 1", "a > 0 is true or false and no number"),
        ("1 > 0", "1 and 0 are both fixed numbers; compare one with a name"),
        ("a > 0 and 1 / 0 > 2", "1 is divided by zero"),
        ("a > 1e999", "larger than any float"),
        (f"a > {'9' * 400}", "larger than any float"),
        ("a > 1e300 * 1e300", "larger than any float"),
        ("a is 0", "is is no comparison here; use < <= > >= == !="),
        ("a in (1, 2)", "in is no comparison here"),
        ("a not in b", "not in is no comparison here"),
        ("a > True", "True is no number"),
        ("a > None", "None is no number"),
        ("a == 'x'", "'x' is no number"),
        ("a > 1j", "1j is no number"),
        ("a ** 2 > 1", "a ** 2 is not allowed; a condition has comparisons"),
        ("a // 2 > 1", "a // 2 is not allowed"),
        ("a % 2 > 1", "a % 2 is not allowed"),
        ("~a > 1", "~a is not allowed"),
        ("a & b > 1", "a & b is not allowed"),
        ("a.b > 1", "a.b is not allowed"),
        ("a[0] > 1", "a[0] is not allowed"),
        ("abs(a) > 1", "abs(a) is not allowed"),
        ("__import__('os').system('true') > 0", "is not allowed"),
        ("(lambda: 1) > a", "is not allowed"),
        ("[a > 0 for a in b]", "is not allowed"),
        ("a > 0 if b > 0 else b > 1", "is not allowed"),
        ("(a := 1) > b", "is not allowed"),
        ("f'{a}' > 0", "is not allowed"),
        ("a >", "cannot be read"),
        ("a > 0; b > 0", "cannot be read near character 6"),
        ("a = 1", "cannot be read"),
        ("a > 0)", "cannot be read"),
        ("a > 0\x00", "cannot be read"),
        ("a > 0 # and b > 0", "the condition holds a #"),
        ("(" * 300 + "a > 0" + ")" * 300, "cannot be read"),
        ("not " * 290 + "a > 0", "more than 300 parts"),
        ("-" * 1900 + "a > 0", "more than 300 parts"),
        ("a > 0 and " * 200 + "a > 0", "the condition is 2,005 characters long, more than 2,000; make it two rules"),
        ("a > 0 and " * 150 + "a > 0", "more than 300 parts"),
    ),
)
def test_what_is_no_condition_is_refused_with_a_reason(text: str, said: str) -> None:
    with pytest.raises(ConditionError) as refused:
        condition(text)
    assert said in str(refused.value)
    assert len(str(refused.value)) < 400


@given(st.text(max_size=80) | st.text(alphabet="ab0.19<>=!()+-*/ notandor\n", max_size=80))
def test_any_text_is_a_condition_or_is_refused(text: str) -> None:
    try:
        known = condition(text)
    except ConditionError:
        return
    assert known.fires(ROWS.__getitem__, 4).dtype == np.bool_


def test_a_condition_tells_its_comparisons_apart_and_what_it_wants_of_each() -> None:
    found = condition("risk >= high and not (0 < a <= b or exchanges < 8)", high=0.9)
    assert found.filled == "risk >= high (0.9) and not (0 < a <= b or exchanges < 8)"
    assert [(one.text, one.names) for one in found.comparisons] == [
        ("risk >= high (0.9)", ("risk",)), ("not 0 < a", ("a",)), ("not a <= b", ("a", "b")), ("not exchanges < 8", ("exchanges",)),
    ]  # fmt: skip
    holds = [one.holds(ROWS.__getitem__, 4).astype(int).tolist() for one in found.comparisons]
    assert holds == [[1, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0], [1, 0, 1, 0]]
    gaps = found.comparisons[0].gaps(ROWS.__getitem__, 4)
    assert gaps[1] == pytest.approx(0.01 / 0.9, rel=1e-4)
    assert math.isinf(gaps[2])


LEAVES = st.sampled_from(("a", "b", "exchanges", "2", "0.5"))
NUMBERS = st.recursive(
    LEAVES, lambda inner: st.builds("({} {} {})".format, inner, st.sampled_from("+-*/"), inner) | inner.map("-{}".format), max_leaves=4
)  # fmt: skip
COMPARISONS = st.builds("{} {} {}".format, NUMBERS, st.sampled_from(("<", "<=", ">", ">=", "==", "!=")), NUMBERS)
CONDITIONS = st.recursive(
    COMPARISONS, lambda inner: st.builds("({} {} {})".format, inner, st.sampled_from(("and", "or")), inner) | inner.map("(not {})".format), max_leaves=5
)  # fmt: skip
OPERATORS: dict[type[ast.AST], Any] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv, ast.Lt: operator.lt,
    ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Eq: operator.eq, ast.NotEq: operator.ne,
}  # fmt: skip


def naive(node: ast.expr, row: dict[str, float]) -> Any:  # noqa: PLR0911  # one for each kind of node
    """One row, one node at a time; None is unknown."""
    match node:
        case ast.BoolOp(ast.And(), parts):
            values = [naive(part, row) for part in parts]
            return False if False in values else None if None in values else True
        case ast.BoolOp(ast.Or(), parts):
            values = [naive(part, row) for part in parts]
            return True if True in values else None if None in values else False
        case ast.UnaryOp(ast.Not(), part):
            value = naive(part, row)
            return None if value is None else not value
        case ast.UnaryOp(ast.USub(), part):
            return -naive(part, row)
        case ast.Compare(left, [how], [right]):
            one, other = naive(left, row), naive(right, row)
            if not (math.isfinite(one) and math.isfinite(other)):
                return None
            return OPERATORS[type(how)](one, other)
        case ast.BinOp(left, how, right):
            one, other = naive(left, row), naive(right, row)
            return OPERATORS[type(how)](one, other) if other or not isinstance(how, ast.Div) else NAN
        case ast.Name(name):
            return row[name]
        case ast.Constant(value):
            return float(value)
    raise AssertionError(node)


@given(CONDITIONS, st.lists(st.sampled_from((0.0, -1.0, 0.5, 2.0, 8.0, NAN)), min_size=9, max_size=9))
def test_all_rows_at_once_are_what_each_is_alone(text: str, numbers: list[float]) -> None:
    """Powers of two, so that float32 and float64 say the same."""
    columns = {name: np.array(numbers[start : start + 3]) for name, start in (("a", 0), ("b", 3), ("exchanges", 6))}
    try:
        known = condition(text)
    except ConditionError as error:
        assert "fixed numbers" in str(error) or "divided by zero" in str(error)  # noqa: PT017
        return
    tree = ast.parse(text, mode="eval").body
    expected = [naive(tree, {name: float(column[row]) for name, column in columns.items()}) is True for row in range(3)]
    assert known.fires(columns.__getitem__, 3).tolist() == expected
    if " or " not in text and "not " not in text:  # then it is true where every comparison is
        each = [one.holds(columns.__getitem__, 3) for one in known.comparisons]
        assert np.logical_and.reduce(each).tolist() == expected


def read(text: str, known: tuple[str, ...] = KNOWN) -> tuple[Rule, ...]:
    return read_rules(None, known, text=text)


def test_a_rule_is_read_whole() -> None:
    (rule,) = read("[constants]\nhigh = 1\n" + rule_text(condition="one_shot_share >= high", suppress_hours=0.5))
    assert (rule.name, rule.version, rule.title) == ("one_shot", 1, "Nearly all requests are single-turn")
    assert (rule.state, rule.severity, rule.atlas) == ("shadow", "low", ("AML.T0024.002",))
    assert (rule.suppress_us, rule.condition.constants) == (1_800_000_000, {"high": 1.0})
    assert (rule.owner, rule.runbook) == ("detection", "Look at its prompts.")


@pytest.mark.parametrize(
    ("changes", "withholds"),
    (
        ({"state": "live", "condition": "risk > 0.9"}, True),
        ({"state": "shadow", "condition": "risk > 0.9"}, False),
        ({"state": "live"}, False),
    ),
)
def test_live_rules_on_the_risk_withhold_learning(changes: dict[str, Any], withholds: bool) -> None:
    assert read(rule_text(**changes))[0].withholds_learning == withholds


@pytest.mark.parametrize(
    ("changes", "said"),
    (
        ({"leave_out": "owner"}, "owner is missing; give one line of text"),
        ({"leave_out": "name"}, "rule number 1: name is missing"),
        ({"name": "One Shot"}, "name = 'One Shot': expected up to 63 lower-case letters"),
        ({"name": 7}, "rule number 1: name = 7: expected"),
        ({"name": "a" * 64}, "expected up to 63"),
        ({"version": 0}, "version = 0: expected a whole number from 1 on"),
        ({"version": True}, "version = True: expected a whole number"),
        ({"version": 1.5}, "version = 1.5: expected a whole number"),
        ({"version": 2**31}, "expected a whole number"),
        ({"state": "Live"}, 'state = \'Live\': expected "shadow" or "live"'),
        ({"state": ["live"]}, "state = ['live']: expected"),
        ({"severity": "severe"}, 'severity = \'severe\': expected one of "informational", "low"'),
        ({"suppress_hours": 0}, "suppress_hours = 0: expected a number of hours, above 0"),
        ({"suppress_hours": 10**400}, "expected a number of hours"),
        ({"suppress_hours": "24"}, "suppress_hours = '24': expected a number of hours"),
        ({"atlas": ["T1234"]}, "atlas = ['T1234']: expected a list of MITRE ATLAS ids"),
        ({"title": "two\nlines"}, "title = 'two\\nlines': expected one line of text"),
        ({"title": " "}, "title = ' ': expected one line"),
        ({"title": "x" * 1000}, "expected one line"),
        ({"runbook": "a\x1b[31m"}, "runbook = 'a\\x1b[31m': expected text"),
        ({"condition": 5}, "condition = 5: expected a text"),
        ({"condition": "one_shot_shar > 0.95"}, "unknown name one_shot_shar; did you mean one_shot_share?"),
        ({"condition": "one_shot_share"}, "one_shot_share is a number; compare it"),
        ({"sevrity": "low"}, "unknown field 'sevrity'; did you mean severity?"),
        ({"xyz": "low"}, "unknown field 'xyz'; a rule has name, version, title"),
    ),
)
def test_what_is_no_rule_is_refused_with_file_line_rule_and_fix(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.toml"
    text = "# mine\n\n" + rule_text(**changes)
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        read_rules([file], KNOWN)
    assert said in str(refused.value)
    (wrong,) = changes if "leave_out" not in changes else ("[[rule]]",)
    line = next(number for number, line in enumerate(text.splitlines(), 1) if line.startswith(wrong))
    assert str(refused.value).startswith(f"{file}, line {line}, rule ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    (
        ("[[rule]\n", "not TOML: "),
        ("name = 1\n[[rule]]\nx = \n", "at line 3"),
        ("", "no rules; each begins with a line [[rule]]"),
        ("[rule]\nname = 'x'\n", "no rules; each begins with a line [[rule]]"),
        ("rule = 7\n", "no rules"),
        ("rules = []\n", "unknown key 'rules'; a rule file holds [[rule]] and [constants]"),
        ("constants = 7\n" + rule_text(), "constants: expected a table"),
        ("[constants]\nhigh = 'x'\n" + rule_text(), "[constants] high: expected a number"),
        ("[constants]\nhigh = nan\n" + rule_text(), "[constants] high: expected a number"),
        ("[constants]\n'High x' = 1\n" + rule_text(), "[constants] 'High x': use lower-case"),
        ("[constants]\nrisk = 1\n" + rule_text(), "[constants] risk: rows have numbers of this name; choose another"),
        ("[constants]\nhigh = 1\n" + rule_text(), "[constants] high: no condition uses it; remove or use it"),
        ("x = " + "[" * 5000, "not TOML"),
    ),
)
def test_what_is_no_rule_file_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read(text)
    assert said in str(refused.value)
    assert str(refused.value).startswith("rules: shipped.toml: ")
    assert "\n" not in str(refused.value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9")
    (tmp_path / "large.toml").write_bytes(b"#" * (1 << 21))
    for name, said in (
        ("none.toml", "No such file"),
        ("latin.toml", "not UTF-8 at byte 5"),
        ("large.toml", "larger than"),
        ("", "directory"),
    ):
        with pytest.raises(ConfigError, match=said):
            read_rules([tmp_path / name], KNOWN)


def test_two_rules_of_one_name_are_refused_also_in_two_files(tmp_path: Path) -> None:
    one, other = tmp_path / "one.toml", tmp_path / "other.toml"
    one.write_text(rule_text())
    other.write_text("\n" + rule_text(version=2))
    with pytest.raises(ConfigError) as refused:
        read_rules([one, other], KNOWN)
    assert f"{other}, line 2, rule 'one_shot': {one}, line 1 has a rule of this name" in str(refused.value)


def test_too_many_rules_are_refused() -> None:
    with pytest.raises(ConfigError, match="201 rules are too many; 200 run together at most"):
        read("".join(rule_text(name=f"rule_{number}") for number in range(201)))


def test_lines_are_counted_past_texts_and_comments_that_look_like_rules() -> None:
    first = rule_text(runbook="PLACE").replace("'PLACE'", '"""\n[[rule]]\n\\"""\n[[rule]]\nname = "x\'""" # [[rule]]')
    second = (
        rule_text(name="second", runbook="PLACE")
        .replace("'PLACE'", "'''\n[[rule]] \"\n'''")
        .replace("[[rule]]", ' [[ "rule" ]]', 1)
    )
    third = rule_text(name="third", version=0)
    text = "# [[rule]]\n" + first + second + "\n" + third
    expected = text[: text.index("version = 0")].count("\n") + 1
    with pytest.raises(ConfigError, match=rf"shipped.toml, line {expected}, rule 'third': version"):
        read(text)


def test_rules_in_one_line_are_read_without_a_line_number() -> None:
    fields = ", ".join(rule_text(version=0).splitlines()[1:])
    with pytest.raises(ConfigError, match=r"^shipped.toml, rule 'one_shot': version = 0"):
        read(f"rule = [{{{fields}}}]")


@pytest.mark.parametrize(
    ("changes", "same"),
    (
        ({}, True),
        ({"title": "x", "severity": "high", "owner": "x", "runbook": "x", "blind_spots": "x", "atlas": []}, True),
        ({"condition": "one_shot_share   >\n0.95"}, True),
        ({"condition": "one_shot_share > 0.96"}, False),
        ({"suppress_hours": 25}, False),
        ({"state": "live"}, False),
        ({"version": 2}, False),
    ),
)
def test_the_fingerprint_changes_with_what_decides(changes: dict[str, Any], same: bool) -> None:
    assert (read(rule_text())[0].fingerprint == read(rule_text(**changes))[0].fingerprint) == same


def test_the_fingerprint_changes_with_a_constant_that_the_rule_uses() -> None:
    other = rule_text(name="other", condition="one_shot_share > few")
    texts = [
        f"[constants]\nhigh = {high}\nfew = 1\n{rule_text(condition='one_shot_share > high')}{other}" for high in (1, 2)
    ]
    (mine, others), (changed, same) = map(read, texts)
    assert mine.fingerprint != changed.fingerprint
    assert others.fingerprint == same.fingerprint


def test_bounds_stand_where_they_are_said() -> None:
    assert CHARS_MAX == 2000
