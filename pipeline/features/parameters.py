"""Parameters: how constant the settings of an account's requests are.  A pipeline sends the same ones all day."""

from __future__ import annotations

from typing import Final

import numpy as np

from pipeline.features.events import Events, Mask
from pipeline.features.family import Family
from pipeline.features.feature import Feature
from pipeline.features.fields import View, mix
from pipeline.features.folding import Views
from pipeline.features.hashing import Hashes, joined
from pipeline.features.integers import Floats, cells_filled, cells_taken, top_share
from pipeline.features.panes import Panes

_TEMPLATE: Final = "signal 17: a constant frame; its settings are constant with it"

_KINDS: Final = (
    # name, cells, words
    ("temperature", 8, "temperature"),
    ("max_tokens", 8, "limit on answer tokens"),
    ("top_p", 8, "nucleus sampling"),
    ("model", 8, "model"),
    ("system_prompt", 16, "system prompt"),
    ("settings", 16, "combination of all settings"),
)

_NONE: Final = np.uint64(0x9E3779B97F4A7C15)
"""Stands for "none given" in a log that does give it elsewhere."""

_FEATURES: Final = tuple(
    feature
    for name, cells, words in _KINDS
    for feature in (
        Feature(
            f"{name}_top_share_7d", "parameters", "share",
            f"largest of {cells} hashed counts of {words} / their sum, 7 d view; none given is a value once the partition had any",
            (17, 19), _TEMPLATE, f"share of requests with the commonest {words}",
        ),
        Feature(
            f"{name}_distinct_7d", "parameters", "values",
            f"distinct values of {words} by linear counting in {cells} cells, 7 d view; at most about {cells * 3}",
            (14, 17), "signal 14: a relay passes on the settings of many clients", f"different values of {words}",
        ),
    )
)  # fmt: skip

_FIELDS: Final = tuple(mix(f"{name}_mix", cells) for name, cells, _ in _KINDS)


def _value(events: Events, name: str, fingerprint: str | None = None) -> Hashes:
    """Hash of a setting; a constant where none is given but others give one; 0 where the log has no such column."""
    found = events.hashed(name) if fingerprint is None else events.hashed_either(name, fingerprint)
    known: Mask = events.filled(name)
    if fingerprint is not None:
        known = known | events.filled(fingerprint)
    return np.where(found == 0, np.where(known, _NONE, np.uint64(0)), found)


def _contribute(events: Events, panes: Panes) -> None:
    together = np.zeros(len(events), np.uint64)
    for name, *_ in _KINDS[:-1]:
        value = _value(events, name, "system_prompt_hash" if name == "system_prompt" else None)
        panes.mix(f"{name}_mix", value, events.thinned)
        together = joined(together, value)
    events.settings = together
    panes.mix("settings_mix", together, events.thinned)


def _compute(views: Views) -> dict[str, Floats]:
    found = {}
    for name, cells, _ in _KINDS:
        counts = views.cells(View.WEEK, f"{name}_mix")
        found[f"{name}_top_share_7d"] = top_share(counts)
        found[f"{name}_distinct_7d"] = cells_taken(cells_filled(counts), cells)
    return found


FAMILY: Final = Family("parameters", _FEATURES, _FIELDS, _contribute, _compute)
