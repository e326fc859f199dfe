"""Labelled rows of features: what training and evaluation work on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.scoring.kinds import HIDDEN_EXCHANGES_MIN, KINDS, kind_of
from pipeline.scoring.scaling import Floats, Values

Texts = npt.NDArray[np.str_]
Chosen = npt.NDArray[np.int64] | npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class LabelledRows:
    """n rows of features of labelled accounts; an account's rows follow one another, the earliest first.

    Attributes:
        values: float32[n, F].
        account: str[n]: unique over all sources.
        exchanges: int64[n]: how many exchanges the account had made.
        stage: int64[n]: see `kinds.stage_of`.
        harvesting: bool[n].
        population: str[n]: kind of honest account; "" for a harvester.
        family: str[n]: what a harvester is after; "" for an honest account.
        variant: str[n]: how it goes about it; "" for an honest account.
        source: str[n]: the run that the row is from.
    """

    values: Values
    account: Texts
    exchanges: npt.NDArray[np.int64]
    stage: npt.NDArray[np.int64]
    harvesting: npt.NDArray[np.bool_]
    population: Texts
    family: Texts
    variant: Texts
    source: Texts

    def __len__(self) -> int:
        return len(self.values)

    def take(self, chosen: Chosen) -> LabelledRows:
        """Some of the rows, by position or by mask."""
        return LabelledRows(*(getattr(self, column.name)[chosen] for column in fields(self)))

    def with_values(self, values: Values) -> LabelledRows:
        """The same rows with other values."""
        return LabelledRows(values, *(getattr(self, column.name) for column in fields(self)[1:]))

    @staticmethod
    def concat(parts: Sequence[LabelledRows]) -> LabelledRows:
        """The rows of all of `parts`, at least one."""
        columns = (np.concatenate([getattr(part, column.name) for part in parts]) for column in fields(LabelledRows))
        return LabelledRows(*columns)

    def account_starts(self) -> npt.NDArray[np.int64]:
        """Where each account's rows begin, int64[accounts]."""
        return np.flatnonzero(np.r_[True, self.account[1:] != self.account[:-1]][: len(self)])

    @property
    def kind(self) -> npt.NDArray[np.int8]:
        """Class of each row, int8[n]: 0 for honest accounts, else the kind of harvesting."""
        return np.where(self.harvesting, kind_of(self.variant.tolist()), 0).astype(np.int8)

    @property
    def teaches(self) -> npt.NDArray[np.bool_]:
        """Which rows can teach, bool[n]: an account that hides its harvest has shown none of it at first."""
        hidden = KINDS.index("hidden") + 1
        return np.asarray((self.kind != hidden) | (self.exchanges >= HIDDEN_EXCHANGES_MIN))

    @property
    def ends_doubling(self) -> npt.NDArray[np.bool_]:
        """Which rows are their account's last before its exchanges double (4 to 7, 8 to 15, and so on), bool[n]."""
        return self._ends_stretch(np.floor(np.log2(np.maximum(self.exchanges, 1))))

    @property
    def ends_stage(self) -> npt.NDArray[np.bool_]:
        """Which rows are their account's last before its stage changes, bool[n]."""
        return self._ends_stretch(self.stage)

    def _ends_stretch(self, alike: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Which rows are their account's last before `alike`, one value a row, changes; bool[n]."""
        follows = (self.account[1:] != self.account[:-1]) | (alike[1:] != alike[:-1])
        return np.asarray(np.r_[follows, True][: len(self)])

    def account_weights(self) -> Floats:
        """1 / (rows of the row's account), float64[n]: an account counts once."""
        _, place, counts = np.unique(self.account, return_inverse=True, return_counts=True)
        weights: Floats = 1.0 / counts[place]
        return weights

    def per_stage_weights(self) -> Floats:
        """1 / (rows of the row's account at the row's stage), float64[n]: an account counts once at each stage."""
        _, place, counts = np.unique(
            np.char.add(self.account, self.stage.astype(np.str_)), return_inverse=True, return_counts=True
        )
        weights: Floats = 1.0 / counts[place]
        return weights


def split_of(accounts: Texts, splits: int) -> npt.NDArray[np.int64]:
    """The split of each account by a hash of its id, int64[n] in [0, splits)."""
    distinct, where = np.unique(accounts, return_inverse=True)
    digests = [hashlib.sha256(account.encode()).digest() for account in distinct.tolist()]
    drawn = [int.from_bytes(digest[:8], "big") % splits for digest in digests]
    return np.array(drawn, dtype=np.int64)[where]


def spread_rows(rows: LabelledRows, most: int) -> npt.NDArray[np.int64]:
    """At most `most` rows of each account, evenly over its rows, the first and the last among them; positions."""
    starts = rows.account_starts()
    chosen: list[Any] = []
    for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
        picked = np.linspace(stop - 1, start, min(most, stop - start))
        chosen.append(np.unique(np.round(picked).astype(np.int64)))
    return np.concatenate(chosen) if chosen else np.empty(0, dtype=np.int64)
