"""Grammars give the texts that their rules describe, and refuse to load where a rule is wrong."""

import random
import re

import pytest

from pipeline.simulation.grammar import Frame, Grammar, Slot, traffic_grammar
from pipeline.simulation.harvest import FAMILIES, Harvest
from pipeline.simulation.wording import LANGUAGES


def draws(seed: int) -> random.Random:
    return random.Random(seed)


def test_references_spans_slots_and_escapes_are_expanded() -> None:
    grammar = Grammar("a: {b} and {#3-3}, {SLOT}¶{{x}}\nb: one | one\n  one")

    assert grammar.expand("a", draws(1).random, {"SLOT": "two"}) == "one and 3, two\n{x}"


def test_every_alternative_and_every_number_of_a_span_comes_up() -> None:
    grammar = Grammar("a: x{#1-3} | y")
    rng = draws(2)

    assert {grammar.expand("a", rng.random) for _ in range(200)} == {"x1", "x2", "x3", "y"}


def test_a_frame_keeps_its_wording_and_leaves_slots_open() -> None:
    grammar = Grammar("a: {verb} this: {DOC}\nverb: Sum up | Shorten")
    frame = grammar.frame("a", draws(3).random)

    first, second = frame.fill({"DOC": "1"}), frame.fill({"DOC": "2"})

    assert frame.slots == {"DOC"}
    assert first.removesuffix("1") == second.removesuffix("2")


def test_adjacent_literals_of_a_frame_are_joined() -> None:
    assert Frame(["a", "b", Slot("X"), "c"]).parts == ("ab", Slot("X"), "c")


@pytest.mark.parametrize(
    ("text", "complaint"),
    (
        ("a: {b}", "refers to 'b'"),
        ("a: x\na: y", "second time"),
        ("a = x", "no rule"),
        ("a: {B-1}", "brace"),
        ("a: }", "brace"),
    ),
)
def test_a_wrong_grammar_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Grammar(text)


def test_a_slot_without_a_value_is_an_error() -> None:
    grammar = Grammar("a: {SLOT}")

    with pytest.raises(KeyError, match="SLOT"):
        grammar.expand("a", draws(1).random)


def test_every_rule_of_the_traffic_grammar_can_be_expanded() -> None:
    grammar = traffic_grammar()
    rng = draws(4)
    for name in grammar.rules:
        for _ in range(20):
            frame = grammar.frame(name, rng.random)
            text = frame.fill(dict.fromkeys(frame.slots, "filled"))
            assert text.strip(), name


def test_every_rule_is_used_or_asked_for_by_name() -> None:
    grammar = traffic_grammar()
    referenced = set()
    for rule in grammar.rules.values():
        for alternative in rule.alternatives:
            if not isinstance(alternative, str):
                referenced |= {
                    part.name for part in alternative if not isinstance(part, (str, Slot)) and hasattr(part, "name")
                }
    by_name = {
        *FAMILIES, *LANGUAGES, "ask", "more", "close", "chat", "answer", "domain", "problem", "choice", "choice_a",
        "job", "labels", "eval_frame", "judge_frame", "agent_goal", "agent_reply", "sys_chat", "sys_qa",
        "sys_platform", "sys_agent", "sys_harvest", "qa_domain", "tool_spec", "tool_request", "passage",
        "rewrite_place", "persona", "code_task", "document", "snippet",
    }  # fmt: skip
    suffixes = re.compile(r".*_(thing|goal|snag|role|case|ask|frame|sys|more|chat|detail)")

    unused = {name for name in grammar.rules if name not in referenced | by_name and not suffixes.fullmatch(name)}

    assert unused == set()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_has_many_prompts_and_the_same_number_gives_the_same_one(family: str) -> None:
    harvest = Harvest(family, seed=5, frames_max=3)

    prompts = [harvest.prompt(number) for number in range(300)]

    assert len(set(prompts)) >= 280
    assert not any("{" in prompt and "}" in prompt and re.search(r"\{[A-Z_]+\}", prompt) for prompt in prompts)
    again = Harvest(family, seed=5, frames_max=3)
    assert [again.prompt(number) for number in reversed(range(300))] == prompts[::-1]
