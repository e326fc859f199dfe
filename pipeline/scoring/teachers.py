"""Which rows may teach what is normal: at most one an account a day, so that loud accounts do not set the norm."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

SLOTS: Final = 1 << 14
"""Accounts that may teach a day; of two accounts in one slot the second must wait for another day."""

_DAY_US: Final = 86_400_000_000
_NEVER: Final = -(1 << 30)
_MIX: Final = np.uint64(0x9E3779B97F4A7C15)


class DailyTeachers:
    """For each slot the last day on which it taught.

    Memory is the same whatever the number of accounts.  Accounts share a slot by chance and another one each day.

    Args:
        days: int32[SLOTS]: day since the epoch; None for nobody yet.
    """

    def __init__(self, days: npt.NDArray[np.int32] | None = None) -> None:
        self.days = np.full(SLOTS, _NEVER, dtype=np.int32) if days is None else days.copy()

    def admit(self, key: npt.NDArray[np.uint64], at_us: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which of the rows may teach, bool[n]; those that may have taken their account's slot for the day.

        Args:
            key: uint64[n]: hash of the account.
            at_us: int64[n]: event time, microseconds since the epoch.
        """
        day = (at_us // _DAY_US).astype(np.int32)
        mixed = (key ^ day.astype(np.uint64)) * _MIX
        slot = (mixed >> np.uint64(50)).astype(np.int64)
        last = dict(zip(slot.tolist(), self.days[slot].tolist(), strict=True))
        admitted = np.zeros(len(key), dtype=np.bool_)
        for row, (where, today) in enumerate(zip(slot.tolist(), day.tolist(), strict=True)):
            taught = last[where]
            # A slot that is ahead was taken by a clock that runs ahead: it must not keep others out for years.
            if taught < today or taught > today + 1:
                last[where] = today
                admitted[row] = True
        self.days[list(last)] = list(last.values())
        return admitted
