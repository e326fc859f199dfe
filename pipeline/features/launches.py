"""Launches: when each model was first seen in a partition, so that a model's first day can be told.

Law: all of it is a function of the partition's records in order: its time is the watermark, a model is entered at the
first record that it answered.  A model that was there in the first `WATCHED` of the partition may be of any age.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.errors import SchemaError
from pipeline.features.clock import DAY, NEVER
from pipeline.features.hashing import Hashes, numbered

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

MODELS_MAX: Final = 256
"""Models that are kept; any further one counts as old, for a table that forgot would call old ones new."""

WATCHED: Final = DAY
"""How long a partition must have been watched before a model that it never saw counts as newly released."""

FRESH: Final = DAY
"""How long it counts as that."""

_OLD: Final = -NEVER


class Launches:
    """The models of one partition and when they came."""

    def __init__(self) -> None:
        self._start = NEVER
        """When the partition's time was first known, milliseconds since the epoch; NEVER: not yet."""
        self._first: dict[int, int] = {}
        """Model's hash → when it was first seen; `_OLD` if that was before `WATCHED`."""

    def look(self, models: Hashes, late: Ints) -> tuple[Mask, Mask]:
        """Take the next records of the partition.

        Args:
            models: hash of the model that answered each record, 0 for none, in stream order.
            late: the partition's time at each record, milliseconds since the epoch, never falling.

        Returns:
            Which records come after the partition was watched for long enough to tell, and which of them are on a
            model in its first day.
        """
        known = np.flatnonzero(late > _OLD // 2)
        if self._start == NEVER and len(known):
            self._start = int(late[known[0]])
        watched = late >= self._start + WATCHED
        first, of_record = numbered(models)
        found = models[first]
        for at, model in enumerate(found.tolist()):
            if model and model not in self._first and len(self._first) < MODELS_MAX:
                self._first[model] = int(late[first[at]]) if watched[first[at]] else _OLD
        since = np.array([self._first.get(model, _OLD) for model in found.tolist()], np.int64)[of_record]
        watched &= models != 0
        return watched, watched & (since > _OLD) & (late < since + FRESH)

    def scalars(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {"start": self._start, "first": [list(pair) for pair in self._first.items()]}

    def restore(self, scalars: dict[str, Any]) -> None:
        """Take the place of what `scalars` was made of.

        Raises:
            SchemaError: they are not of this version.
        """
        if scalars.keys() != {"start", "first"}:
            raise SchemaError("the snapshot's launches of models are not of this version: replay from an older offset")
        self._start = scalars["start"]
        self._first = dict(scalars["first"])
