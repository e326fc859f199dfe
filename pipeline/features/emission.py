"""When an account's state is emitted as a row: the one place to change it.

Rows decide what scoring costs, so they are few.  An account is scored from its eighth event on, not at the end of an
hour: by count, more and more seldom; and by event time, where enough came since the last row.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

FIRST: Final = (8, 16, 32, 48, 64, 96, 128, 160, 192, 224, 256)
"""Events of its present life at which an account is emitted."""

EVERY: Final = 128
"""After the last of `FIRST`: each time that many more have come."""

HOUR_EVENTS_MIN: Final = 16
"""New events since its last row that make an account's hour emit."""

DAY_EVENTS_MIN: Final = 4
"""New events since its last row that make an account's day emit; fewer wait for more."""

_LAST: Final = FIRST[-1]
_BUCKET: Final = np.searchsorted(FIRST, np.arange(_LAST), side="right")
_FULL: Final = np.isin(np.arange(1, _LAST + 1), FIRST)


def bucket(seq: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Which stretch between two emissions each event falls in, by its number (from 0) in its account's life."""
    return np.where(seq < _LAST, _BUCKET[np.minimum(seq, _LAST - 1)], len(FIRST) + (seq - _LAST) // EVERY)


def is_full(seq: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether the account is emitted at this event, by its number (from 0) in its account's life."""
    return np.where(seq < _LAST, _FULL[np.minimum(seq, _LAST - 1)], (seq - _LAST) % EVERY == EVERY - 1)
