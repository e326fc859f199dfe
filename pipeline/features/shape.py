"""Shape: what requests and answers look like from outside, whatever they say, in any language."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

from pipeline.features.events import Events, Mask
from pipeline.features.family import Family
from pipeline.features.feature import Feature
from pipeline.features.fields import counter, total
from pipeline.features.folding import Views
from pipeline.features.hashing import keys
from pipeline.features.integers import Floats, Ints, Q, log2, log2_q, mean_spread, ratio
from pipeline.features.panes import Panes

LONG_ANSWER: Final = 512
"""Output tokens from which an answer is long: a training example worth having, not a label or a phrase."""

_ONE_SHOT: Final = "signal 19: harvested pairs are single-turn, short in, long out, without context"
_ERRORS: Final = "signal 10: probing shows as refusals and errors before one variant is scaled"

_SHARES: Final = (
    # each: its name; the counter of those present; what is counted; words; signals; source
    ("single_turn", "message_count", "the messages are the last user message and at most a system prompt", "share of requests that are single-turn", (19,), _ONE_SHOT),
    ("conversation", "conversation_id", "a conversation id is given", "share of requests within a conversation", (19,), _ONE_SHOT),
    ("cached", "cached_input_tokens", "a prompt cache served some of the request", "share of requests with cached context", (19,), _ONE_SHOT),
    ("tools", "tool_count", "tools are offered", "share of requests that offer tools", (19,), "agents and products offer tools; harvested pairs seldom do"),
    ("streaming", "stream", "the answer is streamed", "share of answers that are streamed", (19,), "people watch an answer grow; batch jobs do not"),
    ("long_answer", "output_tokens", f"output_tokens is at least {LONG_ANSWER}", "share of long answers", (19,), _ONE_SHOT),
    ("cut_off", "finish_reason", "the answer ended at its length limit", "share of answers cut off at their limit", (19,), "a harvester pays for whole answers, a classifier cuts them"),
    ("filtered", "finish_reason", "the answer was ended by a content filter", "share of answers stopped by a content filter", (10,), _ERRORS),
    ("error", "status", "status is 400 or more", "share of requests that failed", (10,), _ERRORS),
    ("reasoned", "reasoning_tokens", "hidden reasoning was spent", "share of answers with hidden reasoning", (2, 19), "reasoning is what published campaigns were after"),
)  # fmt: skip

_MOMENTS: Final = (
    # each: its name; of what; unit; words
    ("input", "log2(1 + input tokens)", "log2(1 + tokens)", "length of requests"),
    ("output", "log2(1 + output tokens)", "log2(1 + tokens)", "length of answers"),
    ("out_in", "log2((1 + output tokens) / (1 + input tokens))", "log2", "length of answers against requests"),
    ("prompt", "log2(1 + length of the last user message)", "log2(1 + characters)", "length of the last user message"),
    ("latency", "log2(1 + latency in ms)", "log2(1 + ms)", "time to answer"),
)


def _features() -> Iterable[Feature]:
    for name, column, rule, words, signals, source in _SHARES:
        definition = f"requests where {rule} / requests with {column}, 7 d view"
        if name == "conversation":
            definition = "requests where a conversation id is given / requests since the partition's first conversation id, 7 d view"
        yield Feature(f"{name}_share_7d", "shape", "share", definition, signals, source, words)
    for name, what, unit, words in _MOMENTS:
        yield Feature(f"{name}_mean_7d", "shape", unit, f"mean of {what}, 7 d view", (19,), _ONE_SHOT, f"mean {words}")
        yield Feature(
            f"{name}_spread_7d", "shape", "log2", f"standard deviation of {what}, 7 d view", (19, 17),
            "signal 17: a frame with slots gives requests of one length", f"spread of the {words}",
        )  # fmt: skip
    yield Feature(
        "output_per_input_7d", "shape", "log2", "log2 of output tokens / input tokens, both summed over requests with both, 7 d view",
        (19,), _ONE_SHOT, "answer tokens per request token",
    )  # fmt: skip
    yield Feature(
        "cached_token_share_7d", "shape", "share", "cached input tokens / input tokens, over requests with both, 7 d view",
        (19,), _ONE_SHOT, "share of request tokens served by a cache",
    )  # fmt: skip


_FEATURES: Final = tuple(_features())

_COUNTED: Final = tuple(dict.fromkeys(column for _, column, *_ in _SHARES if column != "output_tokens"))

_FIELDS: Final = (
    *(counter(f"has_{column}") for column in _COUNTED),
    *(counter(f"is_{name}") for name, *_ in _SHARES),
    *(counter(f"{name}_n") for name, *_ in _MOMENTS),
    *(total(f"{name}_q") for name, *_ in _MOMENTS),
    *(total(f"{name}_qq") for name, *_ in _MOMENTS),
    total("paired_input_tokens"),
    total("paired_output_tokens"),
    total("cacheable_tokens"),
    total("cached_tokens"),
)

_LENGTH_REASONS: Final = keys(["length", "max_tokens", "MAX_TOKENS", "max_output_tokens"])
_FILTER_REASONS: Final = keys(["content_filter", "content_filtered", "safety", "SAFETY", "refusal"])


def _share(panes: Panes, name: str, counted: str, present: Mask, is_so: Mask) -> None:
    if counted not in ("output_tokens", ""):
        panes.tally(f"has_{counted}", present)
    panes.tally(f"is_{name}", present & is_so)


def _contribute(events: Events, panes: Panes) -> None:
    if not events.is_absent("message_count"):
        _share(panes, "single_turn", "message_count", events.integers("message_count") >= 0, events.is_first_turn)
    least = {"cached_input_tokens": ("cached", 1), "tool_count": ("tools", 1)}
    least |= {"stream": ("streaming", 1), "status": ("error", 400), "reasoning_tokens": ("reasoned", 1)}
    least |= {"output_tokens": ("long_answer", LONG_ANSWER)}
    for column, (name, minimum) in least.items():
        if not events.is_absent(column):
            value = events.integers(column)
            _share(panes, name, column, value >= 0, value >= minimum)
    if not events.is_absent("finish_reason"):
        reason = events.hashed("finish_reason")
        _share(panes, "cut_off", "finish_reason", reason != 0, np.isin(reason, _LENGTH_REASONS))
        _share(panes, "filtered", "", reason != 0, np.isin(reason, _FILTER_REASONS))
    known = events.filled("conversation_id")
    if known.any():
        _share(panes, "conversation", "conversation_id", known, events.has("conversation_id"))
    _sizes(events, panes)


def _moment(panes: Panes, name: str, present: Mask, q: Ints) -> None:
    q = np.where(present, q, 0)
    panes.tally(f"{name}_n", present)
    panes.add(f"{name}_q", q)
    panes.add(f"{name}_qq", q * q)


def _sizes(events: Events, panes: Panes) -> None:
    columns = {"input": events.integers("input_tokens"), "output": events.integers("output_tokens")}
    columns |= {"latency": events.integers("latency_ms"), "prompt": events.lengths("prompt")}
    q = {}
    for name, value in columns.items():
        q[name] = log2_q(np.maximum(value, 0) + 1)
        _moment(panes, name, value >= 0, q[name])
    both = (columns["input"] >= 0) & (columns["output"] >= 0)
    _moment(panes, "out_in", both, q["output"] - q["input"])
    panes.add("paired_input_tokens", np.where(both, columns["input"], 0))
    panes.add("paired_output_tokens", np.where(both, columns["output"], 0))
    cached = events.integers("cached_input_tokens")
    both = (columns["input"] >= 0) & (cached >= 0)
    panes.add("cacheable_tokens", np.where(both, columns["input"], 0))
    panes.add("cached_tokens", np.where(both, cached, 0))


def _compute(views: Views) -> dict[str, Floats]:
    found: dict[str, Floats] = {}
    for name, column, *_ in _SHARES:
        count = views.week("answered" if column == "output_tokens" else f"has_{column}")
        found[f"{name}_share_7d"] = ratio(views.week(f"is_{name}"), count)
    for name, *_ in _MOMENTS:
        mean, spread = mean_spread(*(views.week(f"{name}_{part}") for part in ("n", "q", "qq")))
        found[f"{name}_mean_7d"], found[f"{name}_spread_7d"] = mean / Q, spread / Q
    found["output_per_input_7d"] = log2(ratio(views.week("paired_output_tokens"), views.week("paired_input_tokens")))
    found["cached_token_share_7d"] = np.minimum(ratio(views.week("cached_tokens"), views.week("cacheable_tokens")), 1)
    return found


FAMILY: Final = Family("shape", _FEATURES, _FIELDS, _contribute, _compute)
