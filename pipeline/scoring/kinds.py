"""Kinds of harvesting that look so unlike each other that models take them for classes of their own.

An account that does nothing else, one that hides a little of it among conversations, and one of many that each ask a
handful of times have no look in common: a model of "harvesting" learns what lies between them, which is honest use.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

KINDS: Final = ("open", "hidden", "pooled")
"""Classes 1, 2 and 3; class 0 is honest."""

_KIND_OF_VARIANT: Final = {"mixed": 2, "faint": 2, "hydra": 3, "drip": 3}
"""Other variants (`loud`, `paced`) are open."""

HIDDEN_EXCHANGES_MIN: Final = 64
"""Before so many exchanges an account that hides its harvest has done little but converse, and would teach the models
that conversation is harvest."""

STAGES: Final = 6
"""What has been seen of an account when a row is emitted, from a first glance to long acquaintance: `stage_of`."""

_EARLY: Final = 16
_WARM: Final = 64
_LONG: Final = 256


def kind_of(variants: Iterable[str]) -> npt.NDArray[np.int8]:
    """The kind of harvesting of variants of labelled runs, int8[n] from 1."""
    return np.array([_KIND_OF_VARIANT.get(variant, 1) for variant in variants], dtype=np.int8)


def stage_of(exchanges: npt.NDArray[np.int64], is_count: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """The stage of rows, int64[n] in [0, STAGES).

    The first requests of a product look like all that a member of a pool ever sends; so rows are compared with honest
    accounts at the same stage, and a row of an account that has fallen quiet is not one of an account in full swing.

    Args:
        exchanges: int64[n].
        is_count: bool[n]: whether rows were emitted in full swing, by count, and not by time.
    """
    early, warm = exchanges < _EARLY, exchanges < _WARM
    young = np.where(is_count, np.where(early, 0, 1), np.where(early, 2, 3))
    return np.where(warm, young, np.where(exchanges < _LONG, 4, 5))
