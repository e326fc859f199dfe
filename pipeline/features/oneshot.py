"""One-shots: an account's requests that begin something and that nobody follows up, apart from all others.

A relay's harvest, or that of an account with cover traffic, is a mode of its own among conversations: averaged over the
account it disappears, so the mode is looked at by itself, and set against the account as a whole.  A request is a
one-shot if it is a first turn without tools and the account's next request is a first turn too; so it counts once the
next one is seen.
"""

# ruff: noqa: E501  # a feature a line: its definition is a sentence
from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.features.clock import HORIZON
from pipeline.features.events import Events
from pipeline.features.family import Family
from pipeline.features.feature import Feature
from pipeline.features.fields import WEEK, Field, Merge, View, counter, mix, total
from pipeline.features.flat import Bytes, Ends, flat, heads
from pipeline.features.folding import Views
from pipeline.features.integers import Floats, Q, log2, log2_q, mean_spread, ratio, top_share
from pipeline.features.panes import Panes

SHORT_ANSWER: Final = 5
"""Output tokens up to which an answer is a label."""

LONG_ANSWER: Final = 100
"""Output tokens from which an answer is worth learning from."""

SIMHASH_BYTES: Final = 160
"""How much of a prompt its simhash looks at."""

_BITS: Final = 64
_RUN: Final = 4
_TEXTS_AT_ONCE: Final = 1024
"""Votes on so many texts fit in a CPU's own cache."""

_SEVEN_DAYS: Final = "7 d view"
_ONE_SHOT: Final = "signal 19: harvested pairs are single-turn and never followed up"
_MODES: Final = "signal 14: a relay's harvest is a mode of its own inside ordinary traffic"
_SIMHASH: Final = "Charikar, Similarity estimation techniques from rounding algorithms, STOC 2002; signals 16, 17"

_MOMENTS: Final = (
    ("output", "log2(1 + output tokens)", "length of answers to one-shots, in tokens"),
    ("input", "log2(1 + input tokens)", "length of one-shots, in tokens"),
    ("out_in", "log2((1 + output tokens) / (1 + input tokens))", "length of answers against one-shots"),
    ("prompt", "log2(1 + length of the prompt)", "length of the texts of one-shots, in characters"),
    ("gap", "log2(1 + ms since the one-shot before)", "time between one-shots, in ms"),
)
_CONTRASTED: Final = {
    "output": ("answers to one-shots", "answers are"),
    "input": ("one-shots", "requests are"),
    "out_in": ("answers per one-shot", "answers per request are"),
    "prompt": ("texts of one-shots", "texts are"),
}
"""Those that are known of all requests too (`shape`), and how one-shots and all requests are spoken of."""

if TYPE_CHECKING:
    import polars as pl
else:
    from pipeline.late import polars as pl


def _feature(name: str, unit: str, definition: str, words: str, signals: tuple[int, ...], source: str) -> Feature:
    return Feature(name, "oneshot", unit, f"{definition}, {_SEVEN_DAYS}", signals, source, words)


def _features() -> list[Feature]:
    made = [
        _feature("oneshots_7d", "log2(1 + requests)", "one-shots", "one-shot requests in the last week", (19, 16), _ONE_SHOT),
        _feature("oneshot_share_7d", "share", "one-shots / requests with message_count", "share of requests that are one-shots", (19,), _ONE_SHOT),
        _feature("oneshot_of_first_7d", "share", "one-shots / first turns", "share of first turns that nobody follows up", (19,), _ONE_SHOT),
        _feature("followups_per_first_7d", "log2", "log2 of (1 + requests that are no first turn) / (1 + first turns)", "follow-ups per first turn", (19,), _ONE_SHOT),
        _feature("oneshot_short_7d", "share", f"one-shots with at most {SHORT_ANSWER} output tokens / one-shots with output_tokens", "share of one-shots answered with a label", (19,), _ONE_SHOT),
        _feature("oneshot_long_7d", "share", f"one-shots with at least {LONG_ANSWER} output tokens / one-shots with output_tokens", "share of one-shots answered at length", (19,), _ONE_SHOT),
        _feature("oneshot_settings_top_7d", "share", "largest of 16 hashed counts of the combination of settings / their sum, over one-shots", "share of one-shots with the commonest settings", (17, 19), _MODES),
        _feature("oneshot_similarity_7d", "correlation", f"mean over pairs of sampled one-shots of the correlation of their 64-bit simhashes of 4-byte runs in the first {SIMHASH_BYTES} bytes; null under 3", "similarity of one-shots to each other", (16, 17), _SIMHASH),
    ]  # fmt: skip
    for name, what, words in _MOMENTS:
        made.append(
            _feature(
                f"oneshot_{name}_mean_7d", "log2", f"mean of {what}, over one-shots", f"mean {words}", (19,), _MODES
            )
        )
        made.append(
            _feature(
                f"oneshot_{name}_spread_7d",
                "log2",
                f"standard deviation of {what}, over one-shots; null under 2",
                f"spread of the {words}",
                (12, 17, 19),
                _MODES,
            )
        )
    of_one_shots = {name: what for name, what, _ in _MOMENTS}
    for name, (words, all_words) in _CONTRASTED.items():
        what = of_one_shots[name]
        made.append(
            _feature(
                f"oneshot_{name}_apart_7d",
                "log2",
                f"mean of {what}, over one-shots, less the mean over all requests",
                f"{words}, how much longer than {all_words}",
                (14, 19),
                _MODES,
            )
        )
        made.append(
            _feature(
                f"oneshot_{name}_wider_7d",
                "log2",
                f"standard deviation of {what}, over one-shots, less that over all requests; null under 2 one-shots",
                f"{words}, how much more spread than {all_words}",
                (14, 17),
                _MODES,
            )
        )
    return made  # fmt: skip


_FIELDS: Final = (
    counter("first_turns"),
    counter("later_turns"),
    counter("oneshots"),
    counter("oneshots_short"),
    counter("oneshots_long"),
    mix("oneshot_settings_mix", 16),
    counter("oneshots_alike"),
    Field("oneshot_bits", "i2", Merge.ADD, _BITS, WEEK),  # a quarter of thinned events: below 2^15
    *(counter(f"oneshot_{name}_n") for name, *_ in _MOMENTS),
    *(total(f"oneshot_{name}_q") for name, *_ in _MOMENTS),
    *(total(f"oneshot_{name}_qq") for name, *_ in _MOMENTS),
)

_CARRIED: Final = {
    "turn": "u1",  # 0: nothing known, 1: a first turn without tools, 2: any other
    "turn_clock": "i8",
    "turn_input": "i8",  # tokens; -1 where not logged, 0 stands for no event
    "turn_output": "i8",
    "turn_length": "i8",
    "turn_settings": "u8",
    "turn_simhash": "u8",  # 0: not in the sample
    "oneshot_clock": "i8",
}

_FIRST: Final = 1
_LATER: Final = 2


def simhashes(texts: pl.Series) -> npt.NDArray[np.uint64]:
    """A 64-bit simhash of each text: texts with many 4-byte runs in common differ in few bits; 0 where there is none.

    Args:
        texts: String.

    Source: Charikar 2002, over runs of bytes, which need no words and so no language.
    """
    data, ends = flat(heads(texts, SIMHASH_BYTES))
    bits = np.empty(len(texts), np.uint64)
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        stop = min(start + _TEXTS_AT_ONCE, len(texts))
        begin, end = int(ends[start]), int(ends[stop])
        bits[start:stop] = _votes(data[begin:end], ends[start : stop + 1] - begin)
    bits = np.where(bits == 0, np.uint64(1), bits)
    return np.where(np.diff(ends) > 0, bits, np.uint64(0))


def _votes(data: Bytes, ends: Ends) -> npt.NDArray[np.uint64]:
    """The bits that more runs of each text speak for than against."""
    texts, runs = len(ends) - 1, len(data) - _RUN + 1
    if runs < 1:
        return np.zeros(texts, np.uint64)
    hashed = _hashed_runs(data)
    cell = np.repeat(np.arange(0, texts * 2 * _BITS, 2 * _BITS), np.diff(ends))[:runs]
    cell += hashed & np.uint32(_BITS - 1) | hashed >> np.uint32(10) & np.uint32(_BITS)  # bit 16 says for or against
    for short in range(1, _RUN):  # a run over the end of a text counts for none
        at = ends[1:] - short
        cell[at[(at >= 0) & (at < runs)]] = texts * 2 * _BITS
    counts = np.zeros(texts * 2 * _BITS + 1, np.int16)
    np.add.at(counts, cell, np.ones(runs, np.int16))
    votes = counts[:-1].reshape(texts, 2, _BITS)
    return np.packbits(votes[:, 1] > votes[:, 0], axis=1, bitorder="little").view(np.uint64)[:, 0]


def _hashed_runs(data: Bytes) -> npt.NDArray[np.uint32]:
    """A hash of every run of `_RUN` bytes: triple32 of C. Wellons' search for integer hashes, first two rounds."""
    raw = data.tobytes()
    run = np.empty(len(data) - _RUN + 1, np.uint32)
    for shift in range(_RUN):
        every = run[shift::_RUN]
        every[:] = np.frombuffer(raw, "<u4", len(every), shift)
    run ^= run >> np.uint32(15)
    run *= np.uint32(0x2C1B3C6D)
    run ^= run >> np.uint32(12)
    run *= np.uint32(0x297A2D39)
    run ^= run >> np.uint32(15)
    return run


def _sampled_simhashes(events: Events) -> npt.NDArray[np.uint64]:
    found = np.zeros(len(events), np.uint64)
    if not events.is_absent("prompt"):
        pick = events.sampled[events.is_first_turn[events.sampled] & events.thinned[events.sampled]]
        found[pick] = simhashes(events.texts("prompt", pick))
    return found


def _contribute(events: Events, panes: Panes) -> None:
    if events.is_absent("message_count"):
        turn = np.zeros(len(events), np.uint8)
    else:
        turn = np.where(events.integers("message_count") < 0, 0, np.where(is_opening(events), _FIRST, _LATER))
    panes.tally("first_turns", turn == _FIRST)
    panes.tally("later_turns", turn == _LATER)
    is_oneshot = (events.before("turn", turn.astype(np.uint8)) == _FIRST) & (turn == _FIRST)
    prior = {
        "clock": events.before("turn_clock", events.clock),
        "input": events.before("turn_input", events.integers("input_tokens")),
        "output": events.before("turn_output", events.integers("output_tokens")),
        "prompt": events.before("turn_length", events.lengths("prompt")),
    }
    settings = events.before("turn_settings", events.settings)
    simhash = events.before("turn_simhash", _sampled_simhashes(events))
    panes.tally("oneshots", is_oneshot)
    answered = is_oneshot & (prior["output"] >= 0)
    panes.tally("oneshots_short", answered & (prior["output"] <= SHORT_ANSWER))
    panes.tally("oneshots_long", answered & (prior["output"] >= LONG_ANSWER))
    panes.mix("oneshot_settings_mix", settings, is_oneshot & events.thinned)
    _moments(events, panes, is_oneshot, prior)
    _alike(panes, is_oneshot & (simhash != 0), simhash)


def is_opening(events: Events) -> npt.NDArray[np.bool_]:
    """Whether a request is a first turn that offers no tools."""
    return np.asarray(events.is_first_turn & (events.integers("tool_count") <= 0))


def _moments(events: Events, panes: Panes, is_oneshot: npt.NDArray[np.bool_], prior: dict[str, Any]) -> None:
    q = {name: log2_q(np.maximum(prior[name], 0) + 1) for name in ("input", "output", "prompt")}
    q["out_in"] = q["output"] - q["input"]
    present = {name: is_oneshot & (prior[name] >= 0) for name in ("input", "output", "prompt")}
    present["out_in"] = present["input"] & present["output"]
    clock = np.where(is_oneshot, prior["clock"], 0)
    latest = events.latest("oneshot_clock", clock)
    gap = clock - latest
    present["gap"] = is_oneshot & (latest > 0) & (gap < HORIZON)
    q["gap"] = log2_q(np.where(present["gap"], gap, 0) + 1)
    for name, *_ in _MOMENTS:
        kept = np.where(present[name], q[name], 0)
        panes.tally(f"oneshot_{name}_n", present[name])
        panes.add(f"oneshot_{name}_q", kept)
        panes.add(f"oneshot_{name}_qq", kept * kept)


def _alike(panes: Panes, counted: npt.NDArray[np.bool_], simhash: npt.NDArray[np.uint64]) -> None:
    panes.tally("oneshots_alike", counted)
    at = np.flatnonzero(counted)
    if len(at):
        bits = np.unpackbits(simhash[at].reshape(-1, 1).view(np.uint8), axis=1, bitorder="little")
        panes.rows("oneshot_bits", at, bits.astype(np.int16) * 2 - 1)


def _compute(views: Views) -> dict[str, Floats]:
    count, first, later = (views.week(name) for name in ("oneshots", "first_turns", "later_turns"))
    known = first + later > 0
    found: dict[str, Floats] = {
        "oneshots_7d": np.where(known, log2(count.astype(np.float64) + 1), np.nan),
        "oneshot_share_7d": ratio(count, first.astype(np.float64) + later),
        "oneshot_of_first_7d": ratio(count, first),
        "followups_per_first_7d": np.where(known, log2(later.astype(np.float64) + 1) - log2(first.astype(np.float64) + 1), np.nan),
        "oneshot_short_7d": ratio(views.week("oneshots_short"), views.week("oneshot_output_n")),
        "oneshot_long_7d": ratio(views.week("oneshots_long"), views.week("oneshot_output_n")),
        "oneshot_settings_top_7d": top_share(views.cells(View.WEEK, "oneshot_settings_mix")),
    }  # fmt: skip
    alike = views.week("oneshots_alike").astype(np.int64)
    bits = views.cells(View.WEEK, "oneshot_bits").astype(np.float64)
    square = np.einsum("ij,ij->i", bits, bits)  # of whole numbers, and so exact in any order
    pairs = _BITS * alike * (alike - 1)
    found["oneshot_similarity_7d"] = np.where(alike > 2, ratio(square - _BITS * alike, pairs), np.nan)  # noqa: PLR2004
    for name, *_ in _MOMENTS:
        parts = [views.week(f"oneshot_{name}_{part}") for part in ("n", "q", "qq")]
        mean, spread = mean_spread(parts[0], parts[1], parts[2])
        found[f"oneshot_{name}_mean_7d"] = mean / Q
        found[f"oneshot_{name}_spread_7d"] = np.where(parts[0] > 1, spread / Q, np.nan)
    for name in _CONTRASTED:
        mean, spread = mean_spread(*(views.week(f"{name}_{part}") for part in ("n", "q", "qq")))
        found[f"oneshot_{name}_apart_7d"] = found[f"oneshot_{name}_mean_7d"] - mean / Q
        found[f"oneshot_{name}_wider_7d"] = found[f"oneshot_{name}_spread_7d"] - spread / Q
    return found


FAMILY: Final = Family("oneshot", tuple(_features()), _FIELDS, _contribute, _compute, _CARRIED)
