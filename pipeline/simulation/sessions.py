"""Requests and the sessions they come in: conversations, single questions, batch runs, agent loops.

A session is an iterator of `(time_ms, Request)` in time order; a behaviour is an endless iterator of sessions by their
start.  `interleave` turns a behaviour into one stream, holding only the sessions that are under way.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from pipeline.simulation.identity import chance, token
from pipeline.simulation.wording import Wording


@dataclass(slots=True)
class Request:
    """One exchange with the model, before parameters and identity are added.

    Attributes:
        prompt: the last user message.
        system: the system prompt, if any.
        messages: messages in the request, history included.
        context_tokens: tokens of the history and of tool definitions.
        answer_tokens: length of the answer, before `max_tokens` cuts it.
        conversation: its identifier, where the client sends one.
        tools: tools offered; `calls_tool` says that the answer was a tool call.
        short: the client caps the answer at a few tokens, as classifiers do.
    """

    prompt: str
    system: str | None
    messages: int
    context_tokens: int
    answer_tokens: int
    conversation: str | None = None
    tools: int = 0
    calls_tool: bool = False
    short: bool = False


_CONTEXT_TOKENS_MAX = 120_000
_PASTED = ("document", "document", "code_sample", "problem", "review", "listing")
Session = Iterator[tuple[int, Request]]
Sessions = Iterator[tuple[int, Session]]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How an account acts: `per_day` requests expected, and its sessions from a time on."""

    per_day: float
    sessions: Callable[[int], Sessions]


def tokens_of(text: str) -> int:
    """About how many tokens a text has: four letters each in English, fewer in other scripts."""
    if text.isascii():
        return len(text) // 4 + 1
    return int(len(text.encode()) / 3.4) + 1


def interleave(sessions: Sessions, until_ms: int) -> Session:
    """Merge overlapping sessions into one stream in time order, up to `until_ms`."""
    active: list[tuple[int, int, Request, Session]] = []
    for number, (start_ms, session) in enumerate(sessions):
        while active and active[0][0] <= start_ms:
            at_ms, order, request, source = active[0]
            if at_ms >= until_ms:
                return
            yield at_ms, request
            _advance(active, order, source)
        if start_ms >= until_ms:
            break
        first = next(session, None)
        if first is not None:
            heapq.heappush(active, (first[0], number, first[1], session))
    while active and active[0][0] < until_ms:
        at_ms, order, request, source = active[0]
        yield at_ms, request
        _advance(active, order, source)


def _advance(active: list[tuple[int, int, Request, Session]], order: int, source: Session) -> None:
    following = next(source, None)
    if following is None:
        heapq.heappop(active)
    else:
        heapq.heapreplace(active, (following[0], order, following[1], source))


def combine(*behaviours: Behaviour) -> Behaviour:
    """One account that does several things."""

    def sessions(from_ms: int) -> Sessions:
        return heapq.merge(*(behaviour.sessions(from_ms) for behaviour in behaviours), key=lambda item: item[0])

    return Behaviour(sum(behaviour.per_day for behaviour in behaviours), sessions)


def lognormal(rng: random.Random, median: float, sigma: float) -> float:
    """A skewed positive number, such as a length or a pause."""
    return rng.lognormvariate(0.0, sigma) * median


@dataclass(frozen=True, slots=True)
class Chatting:
    """What somebody's conversations are like.

    Attributes:
        domains: everyday domains or language codes; one is drawn for each conversation.
        system: the product's system prompt, if any.
        opening: rule of the first message (`ask` or `chat`); `following` of the later ones.
        turns_mean: mean number of user messages.
        pause_s: median pause between an answer and the next message.
        answer_tokens: median length of an answer.
        named: the client sends a conversation identifier.
        keeps_history: the client resends what was said.
        pastes: share of messages with something pasted below: a letter, a piece of code, an exercise.
    """

    domains: tuple[str, ...]
    system: str | None
    opening: str
    following: tuple[str, ...]
    turns_mean: float
    pause_s: float
    answer_tokens: float
    named: bool
    keeps_history: bool
    pastes: float = 0.0


def converse(rng: random.Random, wording: Wording, chatting: Chatting, start_ms: int) -> Session:
    """A conversation of a few turns about one domain."""
    domain = chatting.domains[int(rng.random() * len(chatting.domains))]
    name = token(rng, "conv_", 12) if chatting.named else None
    at_ms, turn, history = start_ms, 0, 0
    stop = 1 / chatting.turns_mean
    base = 1 if chatting.system is None else 2
    while True:
        rule = chatting.following[int(rng.random() * len(chatting.following))] if turn else chatting.opening
        prompt = wording.say(rule, domain)
        if chatting.pastes and chance(rng, chatting.pastes):
            prompt = f"{prompt}\n\n{wording.of(_PASTED[int(rng.random() * len(_PASTED))])}"
        answer = 1 + int(lognormal(rng, chatting.answer_tokens, 0.8))
        kept = turn if chatting.keeps_history else 0
        yield at_ms, Request(prompt, chatting.system, base + 2 * kept, history if kept else 0, answer, name)
        if chance(rng, stop):
            return
        history += tokens_of(prompt) + answer
        turn += 1
        at_ms += int(answer * 15 + 1000 * lognormal(rng, chatting.pause_s, 0.9)) + 700


def single(start_ms: int, request: Request) -> Session:
    """One request and nothing after it."""
    yield start_ms, request


def singles(starts: Iterable[int], ask: Callable[[], Request]) -> Sessions:
    """One request at each start."""
    for start_ms in starts:
        yield start_ms, single(start_ms, ask())


@dataclass(frozen=True, slots=True)
class Run:
    """A batch run: `size_mean` items, `pause_s` apart on average, each made by `item` from its number."""

    size_mean: float
    pause_s: float
    item: Callable[[int], Request]
    restarts: bool = False


def run_batch(rng: random.Random, run: Run, first_item: int, start_ms: int) -> Session:
    """Items of a batch one after the other, faster and slower as its workers are."""
    at_ms = float(start_ms)
    for number in range(max(1, int(lognormal(rng, run.size_mean, 0.35)))):
        yield int(at_ms), run.item(first_item + number)
        at_ms += rng.expovariate(1) * run.pause_s * 1000


def batches(rng: random.Random, run: Run, starts: Iterator[int]) -> Sessions:
    """Runs one after the other; a run that restarts takes the same items as the one before."""
    first_item = 0
    for start_ms in starts:
        yield start_ms, run_batch(rng, run, 0 if run.restarts else first_item, start_ms)
        first_item += int(run.size_mean * 3)


def work_as_agent(rng: random.Random, wording: Wording, system: str, tools: int, start_ms: int) -> Session:
    """A loop of tool calls on one goal: the last user message stays, the history grows and is mostly cached."""
    name = token(rng, "conv_", 12) if chance(rng, 0.75) else None
    prompt = wording.say("agent_goal", "software")
    at_ms, messages = start_ms, 2
    history = 350 + 90 * tools
    while True:
        calls = chance(rng, 0.93)
        answer = 1 + int(lognormal(rng, 55 if calls else 160, 0.7))
        yield at_ms, Request(prompt, system, messages, history, answer, name, tools, calls)
        if not calls:
            if chance(rng, 0.6):
                return
            prompt = wording.say("agent_reply", "software")
            at_ms += int(1000 * lognormal(rng, 70, 1.0))
        at_ms += 900 + int(answer * 14 + 1000 * lognormal(rng, 2.5, 0.8))
        messages += 2
        history += answer + int(lognormal(rng, 180, 1.0))
        if history > _CONTEXT_TOKENS_MAX:
            return
