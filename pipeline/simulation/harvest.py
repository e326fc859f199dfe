"""What harvesters ask: nine families of prompts, each the work of one operation with one idea of a student model."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from pipeline.simulation.grammar import Frame
from pipeline.simulation.identity import chance, pick, randomness
from pipeline.simulation.wording import LANGUAGES, Fillers, Wording

TRANSLATED = "translated_templates"
FAMILIES = (
    "seed_instructions",
    "reasoning_traces",
    "rubric_grades",
    "tool_traces",
    TRANSLATED,
    "code_exercises",
    "domain_qa",
    "persona_dialogues",
    "neutral_rewrites",
)

_ANSWER_TOKENS: Mapping[str, int] = {
    "seed_instructions": 320,
    "reasoning_traces": 420,
    "rubric_grades": 130,
    "tool_traces": 300,
    TRANSLATED: 260,
    "code_exercises": 380,
    "domain_qa": 240,
    "persona_dialogues": 360,
    "neutral_rewrites": 110,
}


class Harvest:
    """One operation's data set: prompts by number, the same for whoever of the operation asks for them.

    A number always gives the same prompt, so accounts that take every n-th number hold disjoint shards of one set.

    Args:
        family: one of `FAMILIES`.
        seed: chooses frames, themes and prompts.
        frames_max: how many wordings of its templates the operation uses at most.
    """

    def __init__(self, family: str, seed: int, frames_max: int) -> None:
        rng = randomness(seed, family)
        wording = Wording(rng.random)
        self.family = family
        self._seed = seed
        self._grammar = wording.grammar
        self._domains = wording.domains(2 + int(rng.random() * 6))
        self._professions = tuple(wording.of("qa_domain") for _ in range(1 + int(rng.random() * 2)))
        self._level_max = 3 + int(rng.random() * 8)
        frames = 1 + int(rng.random() * frames_max)
        if family == TRANSLATED:
            languages = rng.sample(LANGUAGES, 2 + int(rng.random() * (len(LANGUAGES) - 1)))
            self._frames = [(self._grammar.frame(f"{code}_frame", rng.random), code) for code in languages * frames]
        else:
            self._frames = [(self._grammar.frame(family, rng.random), "") for _ in range(frames)]
        self._shown = ""
        if chance(rng, 0.25):
            domain = self._domains[0]
            self._shown = wording.shown(lambda: self._item(rng), lambda: wording.answer(domain), most=5)
        self.system = wording.of("sys_harvest") if chance(rng, 0.4) else None
        self.answer_tokens = int(_ANSWER_TOKENS[family] * rng.lognormvariate(-0.3, 1.0))

    def prompt(self, number: int) -> str:
        """Prompt `number` of the data set."""
        return self._shown + self._item(randomness(self._seed, "item", number))

    def _item(self, rng: random.Random) -> str:
        frame, language = pick(rng, self._frames)
        return frame.fill(self._slots(rng, frame, language))

    def _slots(self, rng: random.Random, frame: Frame, language: str) -> Fillers:
        wording = Wording(rng.random, self._grammar)
        domain = language or pick(rng, self._domains)
        makers = _everyday(rng, wording, domain, self._level_max)
        if self.family == "domain_qa":
            makers |= _professional(wording, pick(rng, self._professions))
        return Fillers({name: makers[name] for name in sorted(frame.slots)})


def _everyday(rng: random.Random, wording: Wording, domain: str, level_max: int) -> dict[str, Callable[[], str]]:
    draw = rng.random
    if domain in LANGUAGES:
        return {
            "TOPIC": lambda: f"{wording.of(f'{domain}_thing')}, {wording.circumstances(domain)}",
            "QUESTION": lambda: wording.say("ask", domain),
            "ANSWER": lambda: f"{wording.say('ask', domain)} {wording.circumstances(domain)}",
            "LEVEL": lambda: str(1 + int(draw() * level_max)),
        }
    about = wording.about(domain)
    return {
        "TOPIC": lambda: about["THING"] if chance(rng, 0.5) else about["GOAL"],
        "GOAL": lambda: about["GOAL"],
        "SNAG": lambda: about["SNAG"],
        "THING": lambda: about["THING"],
        "EXAMPLE": lambda: wording.say("ask", domain),
        "QUESTION": lambda: wording.of("problem") if chance(rng, 0.2) else wording.say("ask", domain),
        "READER": lambda: wording.of("persona"),
        "PERSONA": lambda: wording.of("persona"),
        "LEVEL": lambda: str(1 + int(draw() * level_max)),
        "PROBLEM": lambda: wording.of("problem"),
        "ANSWER1": lambda: wording.answer(domain),
        "ANSWER2": lambda: wording.answer(domain),
        "TOOLS": lambda: "\n".join([wording.of("tool_spec") for _ in range(2 + int(draw() * 4))]),
        "REQUEST": lambda: wording.of("tool_request"),
        "TASK": lambda: wording.of("code_task"),
        "PLACE": lambda: wording.of("rewrite_place"),
        "PASSAGE": lambda: wording.of("passage"),
    }


def _professional(wording: Wording, profession: str) -> dict[str, Callable[[], str]]:
    return {
        "QA_ROLE": lambda: wording.of(f"{profession}_role"),
        "QA_CASE": lambda: wording.of(f"{profession}_case"),
        "QA_ASK": lambda: wording.of(f"{profession}_ask"),
    }
