"""Kinds of harvesting that look so unlike each other that models take them for classes of their own.

An account that does nothing else, one that hides a little of it among conversations, and one of many that each ask a
handful of times have no look in common: a model of "harvesting" learns what lies between them, which is honest use.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

KINDS: Final = ("open", "hidden", "pooled")
"""Classes 1, 2 and 3; class 0 is honest."""

_KIND_OF_VARIANT: Final = {"mixed": 2, "faint": 2, "hydra": 3, "drip": 3}
"""Other variants (`loud`, `paced`) are open."""

LOOKS: Final = ("open", "hidden", "any")
"""What trees tell of a row: two kinds, and whether it is any of the three.  A pool's member is told from honest
accounts before there is enough of it to be told from harvesters of other kinds.  What is likeliest hidden counts for
nothing in the risk (`evidence.SPENT`); it is there to be measured."""

HIDDEN_EXCHANGES_MIN: Final = 64
"""Before so many exchanges an account that hides its harvest has done little but converse, and would teach the models
that conversation is harvest."""

EXCHANGES_MIN: Final = 4
"""An account with fewer exchanges is neither learned from nor scored."""

GROWN_EXCHANGES: Final = 48
"""From here on an account has shown what it does."""

QUIET_EXCHANGES: Final = 8
"""Of people who fall silent before, some look like a pool's members by chance, and more of them than of others: they
are compared with each other.  As measured on unseen families, `hydra` is found a third more often so."""

COLD, EARLY, FEW, QUIET, GROWN = -1, 0, 1, 2, 3
STAGES: Final = 4
"""`EARLY`, `FEW`, `QUIET` and `GROWN`; rows that are `COLD` get no risk."""


def kind_of(variants: Iterable[str]) -> npt.NDArray[np.int8]:
    """The kind of harvesting of variants of labelled runs, int8[n] from 1."""
    return np.array([_KIND_OF_VARIANT.get(variant, 1) for variant in variants], dtype=np.int8)


def stage_of(exchanges: Ints, is_count: npt.NDArray[np.bool_]) -> Ints:
    """What a row can be told by, int64[n]: `COLD`, `EARLY`, `FEW`, `QUIET` or `GROWN`.

    The first requests of a product in full swing look like all that a member of a pool ever sends: a young account that
    has fallen quiet is compared with others that have, and one in full swing says little until it has grown.

    Args:
        exchanges: int64[n].
        is_count: bool[n]: whether rows were emitted in full swing, by count, and not by time.
    """
    young = np.where(is_count, EARLY, np.where(exchanges < QUIET_EXCHANGES, FEW, QUIET))
    return np.where(exchanges < EXCHANGES_MIN, COLD, np.where(exchanges < GROWN_EXCHANGES, young, GROWN))


def looks_of(probability: Floats) -> Floats:
    """Probabilities of LOOKS, float64[n, K], from those of KINDS."""
    return np.column_stack([probability[:, :-1], probability.sum(axis=1)])


def likeliest_kind(looks: Floats) -> npt.NDArray[np.int8]:
    """The class that is likeliest among KINDS, int8[n] from 1, given probabilities of LOOKS float64[n, K]."""
    others = looks[:, :-1]
    kinds = np.column_stack([others, looks[:, -1] - others.sum(axis=1)])
    likeliest: npt.NDArray[np.int8] = (kinds.argmax(axis=1) + 1).astype(np.int8)
    return likeliest
