"""Spread: how many other accounts send the same openings, endings, outlines and system prompts.

The frames of a harvest are on many accounts, a customer's on one; the stock phrases of chat are on all.  Asked of
one-shots only, and of system prompts.  What others sent is known of the partition alone, and of its latest past.

A long beginning that many accounts fill anew is looked at by itself: what many ask whole, as the questions of a
benchmark, is no such frame, nor is what few accounts have in common, who may be one customer's.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np

from pipeline.features.events import Events
from pipeline.features.family import Family
from pipeline.features.feature import Feature
from pipeline.features.fields import counter, total
from pipeline.features.flat import heads
from pipeline.features.folding import Views
from pipeline.features.hashing import Hashes
from pipeline.features.integers import Floats, Q, log2_q, ratio
from pipeline.features.oneshot import is_opening
from pipeline.features.panes import Panes

_SPREAD: Final = "signals 1 and 8: one fixed injected prompt tied accounts together (Anthropic, September 2026)"

FRAME_BYTES: Final = 128
"""How much of a prompt is a frame: more than an instruction that customers have in common by chance."""

MANY: Final = 7
"""Other accounts from which on a frame is on many."""

REPEATED: Final = 4
"""A frame is filled anew if so many times as many other accounts sent it as sent the whole prompt."""

_SHARDED: Final = "signal 8: accounts with one frame and hardly a prompt in common work on shards of one data set"

_KINDS: Final = (
    ("prompt", "whole prompts of first turns"),
    ("opening", "first 16 bytes of first turns"),
    ("ending", "last 16 bytes of first turns"),
    ("outline", "punctuation and lines of sampled first turns"),
    ("system", "system prompts"),
)


def _features() -> tuple[Feature, ...]:
    made = []
    for name, words in _KINDS:
        made.append(Feature(
            f"{name}_accounts_7d", "spread", "log2(1 + accounts)",
            f"mean of log2 of (1 + other accounts of the partition that lately sent the same), over {words}, 7 d view",
            (1, 8), _SPREAD, f"other accounts with the same {words}",
        ))  # fmt: skip
        made.append(Feature(
            f"{name}_shared_7d", "spread", "share",
            f"share of {words} that another account of the partition lately sent too, 7 d view",
            (1, 8), _SPREAD, f"share of {words} that other accounts send too",
        ))  # fmt: skip
    made.append(Feature(
        "frame_sharded_7d", "spread", "share",
        f"share of first turns whose first {FRAME_BYTES} bytes at least {MANY} other accounts of the partition lately "
        f"sent, and whose whole at most one in {REPEATED} of these, 7 d view",
        (1, 8), _SHARDED, "share of first turns that begin at length as those of many accounts do, and go on otherwise",
    ))  # fmt: skip
    return tuple(made)


_FIELDS: Final = (
    counter("frame_asked"),
    counter("frame_sharded"),
    *(counter(f"{name}_asked") for name, _ in _KINDS),
    *(counter(f"{name}_shared") for name, _ in _KINDS),
    *(total(f"{name}_others_q") for name, _ in _KINDS),
)


def _contribute(events: Events, panes: Panes) -> None:
    opening = is_opening(events) & events.thinned
    hashed: dict[str, Hashes] = {
        "prompt": events.made["prompt"],
        "opening": events.made["prefix16"],
        "ending": events.made["suffix"],
        "outline": events.made["outline"],
        "system": events.hashed_either("system_prompt", "system_prompt_hash"),
    }
    asked = {name: (value, opening if name != "system" else events.thinned) for name, value in hashed.items()}
    frame = events.hashed_as("prompt", "frame", partial(heads, size=FRAME_BYTES))
    is_longer = opening & (frame != events.hashed("prompt"))  # what a frame is the whole of need not be kept twice
    others = events.others(asked | {"frame": (frame, is_longer)})
    panes.tally("frame_asked", opening & (frame != 0))
    many = others["frame"] >= MANY
    panes.tally("frame_sharded", many & (REPEATED * others["prompt"] <= others["frame"]))
    for name, _ in _KINDS:
        counted = asked[name][1] & (hashed[name] != 0)
        panes.tally(f"{name}_asked", counted)
        panes.tally(f"{name}_shared", counted & (others[name] > 0))
        panes.add(f"{name}_others_q", np.where(counted, log2_q(others[name] + 1), 0))


def _compute(views: Views) -> dict[str, Floats]:
    found = {}
    for name, _ in _KINDS:
        asked = views.week(f"{name}_asked")
        found[f"{name}_accounts_7d"] = ratio(views.week(f"{name}_others_q"), asked.astype(np.float64) * Q)
        found[f"{name}_shared_7d"] = ratio(views.week(f"{name}_shared"), asked)
    found["frame_sharded_7d"] = ratio(views.week("frame_sharded"), views.week("frame_asked"))
    return found


FAMILY: Final = Family("spread", _features(), _FIELDS, _contribute, _compute)
