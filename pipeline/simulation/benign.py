"""Customers who use the API as it is meant: nine populations, each with habits of its own.

Most are honest twins of harvesting in one respect: `qa_app` asks single questions, `etl` and `classifier` fill one
template for days, `eval_harness` and `judge` ask for reasoning and grades, `platform` mixes everything in one account.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pipeline.simulation.identity import Origin, chance, pick, randomness
from pipeline.simulation.rhythm import EVENING, FLAT, HUMAN, OFFICE, PRODUCT, arrivals, clustered, schedule
from pipeline.simulation.sessions import (
    Behaviour,
    Chatting,
    Request,
    Run,
    Sessions,
    batches,
    combine,
    converse,
    lognormal,
    singles,
    work_as_agent,
)
from pipeline.simulation.wording import LANGUAGES, Fillers, Wording


class Population(NamedTuple):
    """A kind of customer: its name, its share of the benign accounts, and how one of them comes to behave."""

    name: str
    share: float
    personal: bool
    behave: Callable[[random.Random, Origin], Behaviour]


def people(rng: random.Random, origin: Origin) -> Behaviour:
    """A person with an app or a small script: a few conversations a day, in the evening or at work."""
    wording = Wording(rng.random)
    domains = wording.domains(1 + int(rng.random() * 5))
    local = origin.home.language
    if local and chance(rng, 0.6):
        domains = (local,) if chance(rng, 0.5) else (*domains, local, local)
    chatting = Chatting(
        domains=domains,
        system=wording.of("sys_platform") if chance(rng, 0.35) else None,
        opening="ask",
        following=("more", "more", "more", "ask", "close"),
        turns_mean=1 + rng.expovariate(1 / 1.8),
        pause_s=45,
        answer_tokens=int(lognormal(rng, 150, 0.5)),
        named=chance(rng, 0.6),
        keeps_history=chance(rng, 0.9),
        pastes=rng.random() ** 2 * 0.4,
    )
    conversations = lognormal(rng, 1.3, 0.8)
    return _conversations(rng, origin, wording, chatting, conversations)


def chat_app(rng: random.Random, origin: Origin) -> Behaviour:
    """A product whose many users chat with one assistant or character."""
    wording = Wording(rng.random)
    languages = _languages(rng, origin)
    social = chance(rng, 0.6)
    domains = languages or wording.domains(2 + int(rng.random() * 6))
    chatting = Chatting(
        domains=domains,
        system=wording.of(f"{pick(rng, languages)}_sys" if languages and chance(rng, 0.7) else "sys_chat"),
        opening="chat" if social else "ask",
        following=("chat", "chat", "more", "close") if social else ("more", "ask", "more", "close", "chat"),
        turns_mean=2.5 + rng.expovariate(1 / 4),
        pause_s=35,
        answer_tokens=22 if social else 70,
        named=chance(rng, 0.65),
        keeps_history=chance(rng, 0.95),
    )
    return _conversations(rng, origin, wording, chatting, lognormal(rng, 21, 0.9), crowd=0.3)


def qa_app(rng: random.Random, origin: Origin) -> Behaviour:
    """A single-turn product: one question in, one answer out, nothing kept."""
    wording = Wording(rng.random)
    domains = _languages(rng, origin) or wording.domains(1 + int(rng.random() * 4))
    system = wording.of("sys_qa") if chance(rng, 0.75) else None
    tutor = chance(rng, 0.2)
    suffix = wording.of("eval_tail") if chance(rng, 0.2) else ""
    answer = lognormal(rng, 150, 0.7)
    prefix = f"{wording.of('label_task')} " if chance(rng, 0.06) else ""

    def ask() -> Request:
        question = wording.of("problem") if tutor and chance(rng, 0.8) else wording.say("ask", pick(rng, domains))
        prompt = f"{prefix}{question}{' ' + suffix if suffix else ''}"
        return Request(prompt, system, 1 + (system is not None), 0, 1 + int(lognormal(rng, answer, 0.6)))

    return _singles(rng, origin, ask, lognormal(rng, 100, 0.9))


def etl(rng: random.Random, origin: Origin) -> Behaviour:
    """Scheduled jobs that push documents through one or a few fixed prompts."""
    wording = Wording(rng.random)
    frames = [wording.grammar.frame("job", rng.random) for _ in range(1 + int(rng.random() ** 2 * 4))]
    kind = pick(rng, ("document", "ticket", "invoice", "memo", "abstract", "listing", "logs", "review"))
    parts = 1 + int(rng.random() ** 2 * 4)
    system = "Output only the result." if chance(rng, 0.3) else None
    answer = lognormal(rng, 70, 0.7)
    document = Fillers({"DOC": lambda: wording.document(kind, parts)})
    shown = ""
    if chance(rng, 0.25):
        shown = wording.shown(lambda: frames[0].fill(document), lambda: wording.of("snippet"), most=3)

    def item(_: int) -> Request:
        prompt = shown + pick(rng, frames).fill(document)
        return Request(prompt, system, 1 + (system is not None), 0, 1 + int(lognormal(rng, answer, 0.5)))

    return _scheduled(rng, origin, item, lognormal(rng, 110, 0.8))


def classifier(rng: random.Random, origin: Origin) -> Behaviour:
    """Labels for a stream of short texts: routing, moderation, sentiment."""
    wording = Wording(rng.random)
    frame = wording.grammar.frame("labels", rng.random)
    kind = pick(rng, ("snippet", "snippet", "review", "ask_short", "ticket"))
    instruction_in_system = chance(rng, 0.4)
    system = frame.fill({"DOC": "(next message)"}) if instruction_in_system else None
    text = Fillers({"DOC": lambda: wording.say("chat", "travel") if chance(rng, 0.1) else wording.of(kind)})
    shown = ""
    if not instruction_in_system and chance(rng, 0.4):
        shown = wording.shown(lambda: frame.fill(text), lambda: wording.of("sector"), most=5)

    def label(_: int = 0) -> Request:
        prompt = text["DOC"] if instruction_in_system else shown + frame.fill(text)
        return Request(prompt, system, 1 + (system is not None), 0, 1 + int(rng.random() * 5), short=True)

    if chance(rng, 0.4):
        return _scheduled(rng, origin, label, lognormal(rng, 140, 0.8))
    return _singles(rng, origin, label, lognormal(rng, 140, 0.8))


def eval_harness(rng: random.Random, origin: Origin) -> Behaviour:
    """Test suites run against the model: the same items again and again, often asking for reasoning."""
    grammar = Wording(rng.random).grammar
    suite = rng.getrandbits(48)
    kinds = tuple(pick(rng, ("problem", "problem", "choice", "code_task")) for _ in range(1 + int(rng.random() * 2)))
    frame = grammar.frame("eval_frame", rng.random)
    size = 40 + int(rng.random() * 400)
    system = "You are a careful solver." if chance(rng, 0.25) else None
    answer = lognormal(rng, 60, 0.9)

    def item(number: int) -> Request:
        own = randomness(suite, number % size)
        prompt = frame.fill({"ITEM": Wording(own.random, grammar).exam_item(kinds[number % len(kinds)])})
        return Request(prompt, system, 1 + (system is not None), 0, 1 + int(lognormal(rng, answer, 0.6)))

    return _scheduled(rng, origin, item, lognormal(rng, 110, 0.9), restarts=True)


def judge(rng: random.Random, origin: Origin) -> Behaviour:
    """A product team that lets the model grade its own product's answers."""
    wording = Wording(rng.random)
    domains = wording.domains(1 + int(rng.random() * 3))
    frame = wording.grammar.frame("judge_frame", rng.random)
    system = wording.of("judge_head") if chance(rng, 0.5) else None

    def item(_: int) -> Request:
        domain = pick(rng, domains)
        values = Fillers(
            {
                "QUESTION": lambda: wording.say("ask", domain),
                "ANSWER1": lambda: wording.answer(domain),
                "ANSWER2": lambda: wording.answer(domain),
            }
        )
        return Request(frame.fill(values), system, 1 + (system is not None), 0, 2 + int(lognormal(rng, 35, 0.7)))

    return _scheduled(rng, origin, item, lognormal(rng, 110, 0.8))


def agent(rng: random.Random, origin: Origin) -> Behaviour:
    """Programs that work through tools, step by step, with a long and mostly cached context."""
    wording = Wording(rng.random)
    system = wording.of("sys_agent")
    tools = 3 + int(rng.random() * 16)
    tasks = lognormal(rng, 2.2, 0.8)

    def sessions(from_ms: int) -> Sessions:
        rhythm = pick(rng, (OFFICE, OFFICE, PRODUCT, FLAT))
        for start_ms in arrivals(rng, rhythm, tasks, origin.home.utc_offset_h, from_ms):
            yield start_ms, work_as_agent(rng, wording, system, tools, start_ms)

    return Behaviour(tasks * 23, sessions)


def platform(rng: random.Random, origin: Origin) -> Behaviour:
    """A company or reseller behind one account: chats, questions and batch work side by side."""
    parts = [people, chat_app, qa_app, etl, classifier, judge]
    chosen = [pick(rng, (people, chat_app, qa_app)), *(part for part in parts if chance(rng, 0.3))]
    return combine(*(part(rng, origin) for part in chosen))


POPULATIONS = (
    Population("people", 0.60, True, people),
    Population("chat_app", 0.06, False, chat_app),
    Population("qa_app", 0.05, False, qa_app),
    Population("etl", 0.06, False, etl),
    Population("classifier", 0.03, False, classifier),
    Population("eval_harness", 0.04, False, eval_harness),
    Population("judge", 0.025, False, judge),
    Population("agent", 0.04, False, agent),
    Population("platform", 0.095, False, platform),
)


def _languages(rng: random.Random, origin: Origin) -> tuple[str, ...]:
    """Languages of a product that is not in English; none for most."""
    if chance(rng, 0.65):
        return ()
    first = origin.home.language or pick(rng, LANGUAGES)
    return (first, pick(rng, LANGUAGES)) if chance(rng, 0.3) else (first,)


def _conversations(
    rng: random.Random, origin: Origin, wording: Wording, chatting: Chatting, per_day: float, crowd: float = 0.0
) -> Behaviour:
    def sessions(from_ms: int) -> Sessions:
        rhythm = PRODUCT if crowd else pick(rng, HUMAN)
        starts: Iterator[int] = arrivals(rng, rhythm, per_day * (1 - crowd), origin.home.utc_offset_h, from_ms)
        for start_ms in clustered(rng, starts, crowd, decay_s=240) if crowd else starts:
            yield start_ms, converse(rng, wording, chatting, start_ms)

    return Behaviour(per_day * chatting.turns_mean, sessions)


def _singles(rng: random.Random, origin: Origin, ask: Callable[[], Request], per_day: float) -> Behaviour:
    branching = rng.random() * 0.5

    def sessions(from_ms: int) -> Sessions:
        rhythm = pick(rng, (PRODUCT, PRODUCT, EVENING, OFFICE))
        starts = arrivals(rng, rhythm, per_day * (1 - branching), origin.home.utc_offset_h, from_ms)
        yield from singles(clustered(rng, starts, branching, decay_s=90), ask)

    return Behaviour(per_day, sessions)


def _scheduled(
    rng: random.Random, origin: Origin, item: Callable[[int], Request], per_day: float, *, restarts: bool = False
) -> Behaviour:
    every_h = pick(rng, (1, 2, 6, 12, 24))
    by_hand = chance(rng, 0.35)
    size = max(2.0, per_day * every_h / 24)
    run = Run(size, pause_s=lognormal(rng, 2.0, 1.0), item=item, restarts=restarts)

    def sessions(from_ms: int) -> Sessions:
        if by_hand:
            starts = arrivals(rng, OFFICE, 24 / every_h, origin.home.utc_offset_h, from_ms)
        else:
            starts = schedule(rng, every_h, origin.home.utc_offset_h, from_ms)
        return batches(rng, run, starts)

    return Behaviour(size * 24 / every_h, sessions)
