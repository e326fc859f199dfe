"""Template: whether an account's prompts are one frame with a slot, in any language.

Prompts are compared by hashes: of the whole, of the first and last bytes, and, on the sample of texts, of what is left
when their variable parts are masked.  For gateways that ship no text, `prompt_hash`, `prompt_prefix_hash` and
`prompt_skeleton_hash` take the places of the whole, both prefixes and the skeleton.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from pipeline.features.events import Events
from pipeline.features.family import Family
from pipeline.features.feature import Feature
from pipeline.features.fields import View, counter, mix, registers
from pipeline.features.flat import flat, heads, series, tails
from pipeline.features.folding import Views
from pipeline.features.hashing import Hashes, hashes
from pipeline.features.integers import Floats, distinct_registers, log2, ratio, top_share
from pipeline.features.panes import Panes

if TYPE_CHECKING:
    import polars as pl
else:
    from pipeline.late import polars as pl

HEAD_CHARS: Final = 128
"""How much of a prompt the skeleton looks at: time is bounded, however long a prompt is."""

OUTLINE_CHARS: Final = 64
"""How much of it the outline looks at."""

_VARIABLE: Final = r""""[^"\n]*"|[0-9]+|[:\uff1a][^\n]+"""
_GOES_ON: Final = 0x80
"""The first two bits of a byte of UTF-8 that does not begin a character."""
_CHARACTERS: Final = 0x110000
_SURROGATES: Final = slice(0xD800, 0xE000)
_TOLD: Final = b"\n!\"#%&'()*,-./:;?@[\\]_{}"
"""Punctuation of ASCII as Unicode has it, to which $ + < = > ^ ` | ~ do not belong, and the end of a line."""
_FAR: Final = 2
_KIND_OF_BYTE: Final = bytes(1 if byte in _TOLD else _FAR if byte >= 128 else 0 for byte in range(256))  # noqa: PLR2004
_SEAT: Final = "signal 17; PRADA (Juuti et al., 2019) and SEAT (Zhang et al., 2021) compare queries within an account"

_KINDS: Final = (
    # name, registers (0: no distinct share), cells (0: no top share), what, words
    ("prompt", 64, 0, "the last user message", "prompts"),
    ("prefix16", 0, 16, "its first 16 bytes", "openings of prompts"),
    ("prefix32", 32, 0, "its first 32 bytes", "longer openings of prompts"),
    ("suffix", 32, 16, "its last 16 bytes", "endings of prompts"),
    ("skeleton", 32, 16, f"its first {HEAD_CHARS} characters with quotes, numbers and what follows a colon masked; on the sample", "skeletons of prompts"),
    ("outline", 16, 16, f"the punctuation and line ends of its first {OUTLINE_CHARS} characters; on the sample", "outlines of prompts"),
)  # fmt: skip


def _features() -> tuple[Feature, ...]:
    made = []
    for name, size, cells, what, words in _KINDS:
        if size:
            made.append(
                Feature(
                    f"{name}_distinct_share_7d", "template", "share",
                    f"distinct values of {what}, by HyperLogLog with {size} registers / how many there were, at most 1, 7 d view",
                    (17, 19), _SEAT, f"share of {words} that are distinct",
                )
            )  # fmt: skip
        if cells:
            made.append(
                Feature(
                    f"{name}_top_share_7d", "template", "share",
                    f"largest of {cells} hashed counts of {what} / their sum, 7 d view", (17,), _SEAT,
                    f"share of requests with the commonest of all {words}",
                )
            )  # fmt: skip
    made.append(
        Feature(
            "prompts_per_frame_7d", "template", "log2", "log2 of distinct prompts / distinct first 32 bytes, both by HyperLogLog, 7 d view",
            (17,), _SEAT, "distinct prompts per distinct opening",
        )
    )  # fmt: skip
    return tuple(made)


_FIELDS: Final = (
    *(counter(f"{name}_count") for name, size, *_ in _KINDS if size),
    *(registers(f"{name}_registers", size) for name, size, *_ in _KINDS if size),
    *(mix(f"{name}_mix", cells) for name, _, cells, *_ in _KINDS if cells),
)


def _head(size: int) -> Callable[[pl.Series], pl.Series]:
    return lambda texts: heads(texts, size)  # bytes: nobody walks through characters


def _tail(texts: pl.Series) -> pl.Series:
    return tails(texts, 16)


def skeletons(texts: pl.Series) -> pl.Series:
    """What is left of each text when its variable parts are masked."""
    return texts.str.slice(0, HEAD_CHARS).str.replace_all(_VARIABLE, "_")


def outlines(texts: pl.Series) -> Hashes:
    """XXH3-64 of the punctuation and line ends of each text; 0 where there is no text."""
    cut = texts.str.slice(0, OUTLINE_CHARS)
    data, ends = flat(cut)
    kind = np.frombuffer(data.tobytes().translate(_KIND_OF_BYTE), np.uint8)
    told = np.flatnonzero(kind != 0)
    own = hashes(series(data[told], np.searchsorted(told, ends)))
    found = np.where(texts.is_null().to_numpy(), np.uint64(0), own)
    far = np.searchsorted(told[kind[told] == _FAR], ends)
    if other := np.flatnonzero(far[1:] > far[:-1]).tolist():  # beyond ASCII one byte does not tell what is punctuation
        found[other] = _far_outlines(cut.gather(other))
    return found


def _far_outlines(texts: pl.Series) -> Hashes:
    """The same, character by character."""
    data, ends = flat(texts)
    characters = np.frombuffer(data.tobytes().decode().encode("utf-32-le"), "<u4")
    size = np.diff(np.flatnonzero(data & 0xC0 != _GOES_ON), append=len(data))  # of each character
    told = np.flatnonzero(np.repeat(_is_punctuation()[characters], size))
    return hashes(series(data[told], np.searchsorted(told, ends)))


@cache
def _is_punctuation() -> npt.NDArray[np.bool_]:
    """By character: whether it is punctuation, as Polars' regular expressions have it, or ends a line."""
    every = np.delete(np.arange(_CHARACTERS, dtype="<u4"), _SURROGATES).tobytes().decode("utf-32-le")
    told = pl.Series([every]).str.replace_all(r"[^\p{P}\n]+", "").item()
    return np.isin(np.arange(_CHARACTERS), [ord(character) for character in told])


def _sampled(events: Events, made: Callable[[pl.Series], Hashes]) -> Hashes:
    found = np.zeros(len(events), np.uint64)
    if not events.is_absent("prompt"):
        found[events.sampled] = made(events.sampled_texts("prompt"))
    return found


def _either(events: Events, own: Hashes, fingerprint: str) -> Hashes:
    return own if events.is_absent(fingerprint) else np.where(own != 0, own, events.hashed(fingerprint))


def _contribute(events: Events, panes: Panes) -> None:
    found = {
        "prompt": events.hashed_either("prompt", "prompt_hash"),
        "suffix": events.hashed_as("prompt", "suffix", _tail),
        "skeleton": _either(events, _sampled(events, lambda texts: hashes(skeletons(texts))), "prompt_skeleton_hash"),
        "outline": _sampled(events, outlines),
    }
    for size in (16, 32):
        own = events.hashed_as("prompt", f"prefix{size}", _head(size))
        found[f"prefix{size}"] = _either(events, own, "prompt_prefix_hash")
    events.made.update(found)
    for name, registers_kept, cells, *_ in _KINDS:
        if registers_kept:
            panes.tally(f"{name}_count", found[name] != 0)
            panes.ranks(f"{name}_registers", found[name])
        if cells:
            panes.mix(f"{name}_mix", found[name], events.thinned)


def _compute(views: Views) -> dict[str, Floats]:
    found, number = {}, {}
    for name, registers_kept, cells, *_ in _KINDS:
        if registers_kept:
            number[name] = distinct_registers(views.cells(View.WEEK, f"{name}_registers"))
            found[f"{name}_distinct_share_7d"] = np.minimum(ratio(number[name], views.week(f"{name}_count")), 1)
        if cells:
            found[f"{name}_top_share_7d"] = top_share(views.cells(View.WEEK, f"{name}_mix"))
    found["prompts_per_frame_7d"] = log2(ratio(number["prompt"], number["prefix32"]))
    return found


FAMILY: Final = Family("template", _features(), _FIELDS, _contribute, _compute)
