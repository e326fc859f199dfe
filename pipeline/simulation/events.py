"""From requests to canonical events: parameters, token counts, latency, failures, and the sender's identity."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from pipeline.simulation.identity import Account, Origin, chance, pick
from pipeline.simulation.sessions import Request, tokens_of

Event = dict[str, Any]

LARGE, SMALL, THINKING, LAUNCHED = "atlas-3-large", "atlas-3-mini", "atlas-3-think", "atlas-3.5-large"

_DAY_MS = 86_400_000
_CACHED_TOKENS_MIN = 1024
_NO_TEMPERATURE, _NO_LIMIT = None, None
# How a kind of customer sets its requests: weights of the models large, mini and think; temperatures; answer limits.
# They overlap on purpose, and harvesters borrow those of the kind that they pass for.
_HABITS: Mapping[str, tuple[tuple[int, int, int], tuple[float | None, ...], tuple[int | None, ...]]] = {
    "people": ((6, 3, 3), (_NO_TEMPERATURE, _NO_TEMPERATURE, 0.7, 1.0), (_NO_LIMIT, _NO_LIMIT, 1024, 4096)),
    "chat_app": ((5, 5, 1), (0.7, 0.8, 0.9, 1.0, _NO_TEMPERATURE), (256, 512, 1024, _NO_LIMIT)),
    "qa_app": ((5, 4, 2), (0.0, 0.2, 0.5, 0.7, _NO_TEMPERATURE), (512, 1024, 2048, _NO_LIMIT)),
    "etl": ((4, 6, 1), (0.0, 0.0, 0.2, 0.7), (1024, 2048, 4096, _NO_LIMIT)),
    "classifier": ((2, 8, 1), (0.0, 0.0, 0.2), (1, 4, 16, 64)),
    "eval_harness": ((5, 3, 4), (0.0, 0.0, 0.6, 1.0), (1024, 2048, 4096, _NO_LIMIT)),
    "judge": ((6, 2, 3), (0.0, 0.2, 0.7), (256, 512, 1024, _NO_LIMIT)),
    "agent": ((7, 2, 3), (_NO_TEMPERATURE, 0.0, 0.2, 1.0), (4096, 8192, _NO_LIMIT)),
    "platform": ((5, 4, 3), (_NO_TEMPERATURE, 0.2, 0.7, 1.0), (1024, 4096, _NO_LIMIT)),
}


class Sender:
    """Turns an account's requests into events.

    Args:
        rng: the account's randomness.
        account: the sender.
        origin: where it sends from.
        habit: the population whose parameters it uses.
        answer_tokens: answers that it wants whole, so that it sets no limit below twice that.
        pivot_ms: when it moves to the newly launched model, if ever.
    """

    def __init__(
        self,
        rng: random.Random,
        account: Account,
        origin: Origin,
        habit: str,
        answer_tokens: int,
        pivot_ms: int | None,
    ) -> None:
        weights, temperatures, limits = _HABITS[habit]
        limits = tuple(limit for limit in limits if limit is None or limit >= 2 * answer_tokens) or (_NO_LIMIT,)
        self._rng = rng
        self._account = account
        self._origin = origin
        self._pivot_ms = pivot_ms
        kinds = 1 if chance(rng, 0.7) else 2
        self._models = tuple(rng.choices((LARGE, SMALL, THINKING), weights)[0] for _ in range(kinds))
        several = 3 if habit in ("platform", "people") and chance(rng, 0.4) else 1
        self._temperatures = tuple(pick(rng, temperatures) for _ in range(several))
        self._limits = tuple(pick(rng, limits) for _ in range(several))
        self._short_limit = pick(rng, (1, 4, 16, 16, 64))
        self._top_p = pick(rng, (0.9, 0.95, 1.0)) if chance(rng, 0.15) else None
        self._sampling_seed = 42 if chance(rng, 0.04) else None
        self._logprobs = habit in ("classifier", "judge", "eval_harness") and chance(rng, 0.25)
        self._streams = rng.random() < (0.75 if habit in ("people", "chat_app", "agent", "platform") else 0.15)
        self._failure = 0.004 + rng.random() ** 4 * 0.05
        self._speed_ms = 9 + rng.random() * 9

    def event(self, at_ms: int, request: Request) -> Event:
        """The canonical event of one request; its time is `at_ms`, when the request came in."""
        rng = self._rng
        draw = rng.random
        account, origin = self._account, self._origin
        network = pick(rng, origin.networks)
        client = pick(rng, origin.clients)
        model = pick(rng, self._models)
        if self._pivot_ms is not None and at_ms >= self._pivot_ms and model != SMALL:
            model = LAUNCHED
        limit = self._short_limit if request.short else pick(rng, self._limits)
        usage = self._usage(request, model, limit)
        return {
            "event_time": rfc3339(at_ms),
            "request_id": f"{rng.getrandbits(96):024x}",
            "account_id": account.account_id,
            "org_id": account.org_id,
            "api_key_id": pick(rng, origin.keys),
            "client_ip": f"{network.prefix}{1 + (hash_host(network.prefix) + int(draw() * origin.hosts)) % 254}",
            "asn": network.asn,
            "country": network.country,
            "user_agent": client.user_agent,
            "tls_ja4": client.tls_ja4,
            "operation": "chat",
            "model": model,
            "status": usage[0],
            "stream": self._streams,
            "temperature": pick(rng, self._temperatures),
            "top_p": self._top_p,
            "max_tokens": limit,
            "n": 1,
            "seed": self._sampling_seed,
            "logprobs": self._logprobs,
            "tool_count": request.tools,
            "message_count": request.messages,
            "conversation_id": request.conversation,
            "input_tokens": usage[1],
            "output_tokens": usage[2],
            "reasoning_tokens": usage[3],
            "cached_input_tokens": usage[4],
            "latency_ms": usage[5],
            "finish_reason": usage[6],
            "system_prompt": request.system,
            "prompt": request.prompt,
            "response": None,
        }

    def _usage(
        self, request: Request, model: str, limit: int | None
    ) -> tuple[int, int, int, int, int, int, str | None]:
        """Status, input, output, reasoning and cached tokens, latency, finish reason."""
        draw = self._rng.random
        system = tokens_of(request.system) if request.system else 0
        tokens_in = 4 + 3 * request.messages + system + request.context_tokens + tokens_of(request.prompt)
        if draw() < self._failure:
            status = (429, 429, 500, 503, 400)[int(draw() * 5)]
            return status, tokens_in, 0, 0, 0, 20 + int(draw() * (300 if status in (400, 429) else 9000)), None
        thinking = int(request.answer_tokens * (1 + 3 * draw())) + 40 if model == THINKING else 0
        tokens_out, finish = request.answer_tokens, "tool_calls" if request.calls_tool else "stop"
        if limit is not None and tokens_out >= limit:
            tokens_out, finish = limit, "length"
        cached = int(request.context_tokens * 0.9) // 128 * 128 if request.context_tokens > _CACHED_TOKENS_MIN else 0
        latency = 140 + int(draw() * 260 + (tokens_out + thinking) * self._speed_ms + (tokens_in - cached) * 0.08)
        return 200, tokens_in, tokens_out + thinking, thinking, cached, latency, finish


def rfc3339(at_ms: int) -> str:
    """A time in UTC with milliseconds, such as `2026-03-01T08:15:30.250Z`."""
    day, of_day = divmod(at_ms, _DAY_MS)
    seconds, millis = divmod(of_day, 1000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{_date(day)}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z"


@lru_cache(maxsize=64)
def _date(day: int) -> str:
    return datetime.fromtimestamp(day * 86_400, UTC).date().isoformat()


@lru_cache(maxsize=4096)
def hash_host(prefix: str) -> int:
    """Where in a /24 a sender's addresses begin: the same for all who share the network."""
    return sum(prefix.encode()) * 97 % 254
