"""Elicitation: how much of what an account asks for is reasoning in full, grading, or rewriting to be inoffensive.

Looked for by phrases of general wording, in `lexicons/`, one file a language; a paraphrase that none of them has is
missed, and an honest tutor or editor has the same words.  Cost is bounded by looking at few texts, and at little of
each.  A first pass over all phrases at once sorts out the texts that have none, which is nearly all of them.
"""

# ruff: noqa: E501  # a feature a line: its definition is a sentence
from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from pipeline.features.events import Events
from pipeline.features.family import Family
from pipeline.features.feature import Feature
from pipeline.features.fields import counter
from pipeline.features.folding import Views
from pipeline.features.hashing import grouped
from pipeline.features.integers import Floats, ratio
from pipeline.features.panes import Panes

if TYPE_CHECKING:
    import polars as pl
else:
    from pipeline.late import polars as pl

Mask = npt.NDArray[np.bool_]

WHOLE_BYTES: Final = 768
"""A prompt of up to this size is looked at whole; of a longer one, …"""

HEAD_CHARS: Final = 512
"""… so many first characters, …"""

TAIL_CHARS: Final = 256
"""… and so many last ones: what is wanted is said before or after a long text."""

CLOSE: Final = 64
"""Up to this number of events of a life, all texts of the sample are looked at, …"""

EVERY: Final = 16
"""… and after it the text of every so many events: shares are known by then."""

_SOURCE: Final = "Anthropic, February 2026: prompts for the reasoning that led here, rubric grading and censorship-safe rewrites; Google GTIG, February 2026: much of it not in English"

_KINDS: Final = (
    ("reasoning", "for reasoning in full: step by step, word by word, in tags, translated", 2, "asking for the reasoning in full"),
    ("grading", "for a score, a grade by a rubric, or a preference", 18, "asking for a grade or a preference"),
    ("rewriting", "for something neutral, safe, compliant or uncensored", 20, "asking for a neutral, safe or compliant wording"),
)  # fmt: skip

_FEATURES: Final = tuple(
    Feature(
        f"{kind}_asked_share_7d", "elicitation", "share",
        f"prompts that, or whose system prompt, have a phrase that asks {what} / prompts looked at, 7 d view; those of the sample, from event {CLOSE} on every {EVERY}th; "
        f"up to {WHOLE_BYTES} bytes whole, else the first {HEAD_CHARS} and the last {TAIL_CHARS} characters",
        (signal,), _SOURCE, f"share of prompts {words}",
    )
    for kind, what, signal, words in _KINDS
)  # fmt: skip

_FIELDS: Final = (counter("prompts_read"), *(counter(f"asked_{kind}") for kind, *_ in _KINDS))


@cache
def lexicon() -> dict[str, tuple[str, ...]]:
    """Phrases of all languages by kind, in lower case."""
    found: dict[str, set[str]] = {kind: set() for kind, *_ in _KINDS}
    for file in files("pipeline.features").joinpath("lexicons").iterdir():
        if file.name.endswith(".toml"):
            for kind, phrases in tomllib.loads(file.read_text(encoding="utf-8")).items():
                found[kind].update(phrases)
    return {kind: tuple(sorted(phrases)) for kind, phrases in found.items()}


def _alternation(phrases: Iterable[str]) -> str:
    """A pattern of literals alone: any flag or assertion costs the search its filter, and so ten times the time."""
    return "|".join(re.escape(phrase).replace("\\ ", " ") for phrase in sorted(phrases))


@cache
def _any() -> str:
    return _alternation({phrase for phrases in lexicon().values() for phrase in phrases})


@cache
def _exact(kind: str) -> str:
    """For texts as `_words` makes them: "rate the" is not in "generate the"."""
    return _alternation(f" {phrase}" if "a" <= phrase[0] <= "z" else phrase for phrase in lexicon()[kind])


def asked(texts: pl.Series) -> dict[str, Mask]:
    """Which texts ask for what.

    Args:
        texts: String, without nulls.

    Returns:
        By kind ("reasoning", "grading", "rewriting"), bool[n].
    """
    is_long = (texts.str.len_bytes() > WHOLE_BYTES).to_numpy()
    rows = np.concatenate([np.flatnonzero(~is_long), np.flatnonzero(is_long)])
    short, long = texts.filter(pl.Series(~is_long)), texts.filter(pl.Series(is_long))
    ends = long.str.slice(0, HEAD_CHARS) + "\n" + long.str.slice(-TAIL_CHARS)
    lower = short.append(ends).str.to_lowercase()
    hit = np.flatnonzero(lower.str.contains(_any()).to_numpy())
    found = {kind: np.zeros(len(texts), np.bool_) for kind, *_ in _KINDS}
    if len(hit):
        words = _words(lower.gather(hit))
        for kind, mask in found.items():
            mask[rows[hit]] = words.str.contains(_exact(kind)).to_numpy()
    return found


def _words(texts: pl.Series) -> pl.Series:
    """With a space before each, and in the place of signs that words begin after and that no phrase has."""
    return " " + texts.str.replace_all(r"[\n\t\"(\[*:/]", " ")


def _contribute(events: Events, panes: Panes) -> None:
    if events.is_absent("prompt"):
        return
    seq = events.seq[events.sampled]
    read = events.sampled[(seq < CLOSE) | (seq % EVERY == 0)]
    texts = events.texts("prompt", read)
    if texts.null_count():
        read = read[texts.is_not_null().to_numpy()]
        texts = texts.drop_nulls()
    if not len(read):
        return
    panes.tally("prompts_read", _marked(len(events), read))
    by_system = _system_asked(events, read)
    for kind, mask in asked(texts).items():
        panes.tally(f"asked_{kind}", _marked(len(events), read[mask | by_system.get(kind, False)]))


def _system_asked(events: Events, read: npt.NDArray[np.int64]) -> dict[str, Mask]:
    """What the system prompts of some events ask for; each is looked at once a slice, for accounts have few."""
    if events.is_absent("system_prompt"):
        return {}
    hashed = events.hashed("system_prompt")[read]
    first, of_event = grouped(hashed)
    texts = events.texts("system_prompt", read[first]).fill_null("")
    return {kind: (mask & (hashed[first] != 0))[of_event] for kind, mask in asked(texts).items()}


def _marked(count: int, at: npt.NDArray[np.int64]) -> Mask:
    marked = np.zeros(count, np.bool_)
    marked[at] = True
    return marked


def _compute(views: Views) -> dict[str, Floats]:
    read = views.week("prompts_read")
    return {f"{kind}_asked_share_7d": ratio(views.week(f"asked_{kind}"), read) for kind, *_ in _KINDS}


FAMILY: Final = Family("elicitation", _FEATURES, _FIELDS, _contribute, _compute)
