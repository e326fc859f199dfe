"""The traffic that is measured: compact canonical JSON events of exactly 520 bytes, always the same ones."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

EVENT_BYTES: Final = 520
ACCOUNTS: Final = 8_000
SEED: Final = 20_250_602
BEGIN: Final = np.datetime64("2025-06-02T09:20:00.000")
SPAN_MS: Final = 3_600_000
"""An hour of traffic with the turn of an hour in it: it falls into two of the lake's partitions."""

_CHUNK: Final = 50_000
_TEXT_BYTES: Final = 1 << 20
_WORDS: Final = (
    "a an and answer any as ask at be book by can change city code compare could data day describe does each explain "
    "few find first for from give good great had has have how if in into is it its keep large letter like line list "
    "long made make many model more most much music name new next no not now number of on one or order other our out "
    "over page part people place plan please price question read reason report river say sentence should show small "
    "so some story summary table tell text than that the their then there these they this to time train translate two "
    "up use value very want was water way we week well were what when which who why will with word work would write "
    "year you your"
)
_MODELS: Final = ("large-4", "large-4-mini", "medium-3", "small-2", "embed-1")
_COUNTRIES: Final = ("BR", "CA", "DE", "FR", "GB", "IN", "JP", "KR", "NL", "SG", "US")
_AGENTS: Final = tuple(
    f"{name}/{major}.{minor}.0"
    for name in ("OpenAI/Python", "litellm", "python-requests", "node-fetch", "curl")
    for major in (1, 2)
    for minor in (4, 17, 30)
)
_FINISHES: Final = ("stop", "stop", "stop", "stop", "stop", "stop", "length", "tool_calls")
_STATUSES: Final = (200,) * 38 + (429, 500)


def event_lines(count: int) -> Iterator[bytes]:
    """Make events in the order in which a gateway would log them: by the end of the request.

    Args:
        count: how many; the same count gives the same bytes.

    Yields:
        Events, `EVENT_BYTES` long, without a newline.
    """
    draw = np.random.default_rng(SEED)
    text = _text()
    accounts = [_account(draw) for _ in range(ACCOUNTS)]
    weights = 1 / (np.arange(ACCOUNTS) + 20.0)
    for begin in range(0, count, _CHUNK):
        size = min(_CHUNK, count - begin)
        latency_ms = draw.integers(120, 9_000, size)
        began = BEGIN + np.arange(begin, begin + size) * SPAN_MS // count - latency_ms
        columns = (
            np.datetime_as_string(began, "ms").tolist(),
            draw.bytes(size * 12).hex("-", 12).split("-"),
            draw.choice(ACCOUNTS, size, p=weights / weights.sum()).tolist(),
            latency_ms.tolist(),
            draw.integers(20, 4_000, size).tolist(),
            draw.integers(1, 2_000, size).tolist(),
            draw.integers(1, 9, size).tolist(),
            draw.integers(0, 1 << 30, size).tolist(),
        )
        for time, request, account, latency, tokens_in, tokens_out, messages, choice in zip(*columns, strict=True):
            head = (
                f'{{"event_time":"{time}Z","request_id":"{request}",{accounts[account]}'
                f'"status":{_STATUSES[choice % 40]},"stream":{"true" if choice & 64 else "false"},'
                f'"message_count":{messages},"input_tokens":{tokens_in},"output_tokens":{tokens_out},'
                f'"latency_ms":{latency},"finish_reason":"{_FINISHES[choice >> 7 & 7]}","prompt":"'
            )
            at = text.index(" ", (choice >> 10) % (_TEXT_BYTES - 2 * EVENT_BYTES)) + 1
            prompt = _whole(text[at : at + EVENT_BYTES - len(head) - 2])
            yield f'{head}{prompt}"}}'.encode()


def account_of(event: bytes) -> bytes:
    """The account of an event made here: the record's key."""
    return event.split(b'"', 12)[11]


def write_ndjson(path: Path, count: int) -> None:
    """Write events to a file, one a line.

    Raises:
        ValueError: an event has another size than the tables say.
    """
    with path.open("wb", buffering=1 << 20) as file:
        for event in event_lines(count):
            if len(event) != EVENT_BYTES:
                raise ValueError(f"an event of {len(event)} bytes: {event!r}")
            file.write(event + b"\n")


def _account(draw: np.random.Generator) -> str:
    """The part of an account's events that stays the same."""
    ip = ".".join(str(part) for part in draw.integers(1, 255, 4))
    return (
        f'"account_id":"acct_{draw.bytes(5).hex()}","org_id":"org_{draw.bytes(4).hex()}",'
        f'"api_key_id":"key_{draw.bytes(5).hex()}","client_ip":"{ip}","asn":{draw.integers(1_000, 64_000)},'
        f'"country":"{draw.choice(_COUNTRIES)}","user_agent":"{draw.choice(_AGENTS)}","operation":"chat",'
        f'"model":"{draw.choice(_MODELS)}","temperature":{draw.choice([0.0, 0.3, 0.7, 1.0])},'
        f'"max_tokens":{draw.choice([256, 512, 1024, 4096])},'
    )


def _text() -> str:
    """Words with an escaped newline or quotation mark here and there, as JSON writes them."""
    draw = random.Random(SEED)
    choices = _WORDS.split()
    words: list[str] = []
    size = 0
    while size < _TEXT_BYTES:
        word = draw.choice(choices)
        word = draw.choices((word, f'\\"{word}\\"', f"{word}\\n", f"{word}:"), (90, 3, 4, 3))[0]
        words.append(word)
        size += len(word) + 1
    return " ".join(words)


def _whole(piece: str) -> str:
    """A piece of the text, of the same length, that does not end in the middle of an escape."""
    return piece[:-1] + "." if piece[-1] == "\\" else piece
