"""Which rows of the lake a replacement takes away: those of some offsets whose event time is in a range.

Offsets say of which sources, and end where these were landed to when the replacement began: what comes later stays,
whoever landed it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.backfilling.slices import Bools, Slice
from pipeline.backfilling.stated_times import stated_time
from pipeline.batch import Partition
from pipeline.errors import SchemaError
from pipeline.io.rewriting.writing import by_partition
from pipeline.lake_tables import TABLES

REPLACED: Final = ("access", "content", "rejects")
"""Tables of which rows are replaced: what records say.  What was concluded from them stays as it was."""

_REJECTS: Final = "rejects"


@dataclass(frozen=True, slots=True)
class Chosen:
    """Rows that are chosen.

    Attributes:
        spans: offsets by partition: the first ones, and those after the last.
        asked: event times; of a reject, what its bytes state.
    """

    spans: Mapping[Partition, Sequence[tuple[int, int]]]
    asked: Slice

    def covers(self, partition: Partition, first: int, following: int) -> bool:
        """Whether the offsets from one to another are chosen."""
        return any(low <= first and following <= high for low, high in self.spans.get(partition, ()))

    def mask(self, table: str, rows: pa.Table) -> Bools:
        """Which rows of a table are chosen."""
        chosen = np.zeros(len(rows), np.bool_)
        offsets = rows["offset"].to_numpy()
        for partition, mine in by_partition(rows):
            for first, following in self.spans.get(partition, ()):
                chosen |= mine & (offsets >= first) & (offsets < following)
        if not self.asked.is_whole and chosen.any():
            chosen &= self._in_time(table, rows)
        return chosen

    def _in_time(self, table: str, rows: pa.Table) -> Bools:
        if table != _REJECTS:
            times = rows[TABLES[table].time].cast(pa.int64()).to_numpy()
            return self.asked.holds(times, np.ones(len(times), np.bool_))
        stated = [stated_time(raw) for raw in rows["raw"].to_pylist()]
        known = np.array([time is not None for time in stated], np.bool_)
        # of no range, for all that anybody can tell: it stays
        return known & self.asked.holds(np.array([time or 0 for time in stated], np.int64), known)

    def rows_in(self, table: str, root: Path, paths: Sequence[str]) -> dict[str, Counter[str]]:
        """How many rows of each file are chosen, by topic; files without any are left out.

        Raises:
            SchemaError: a file is missing or broken.
        """
        names = ["topic", "partition", "offset", "raw" if table == _REJECTS else TABLES[table].time]
        found: dict[str, Counter[str]] = {}
        for path in paths:
            try:
                with pq.ParquetFile(root / path) as file:
                    for batch in file.iter_batches(columns=names):
                        rows = pa.Table.from_batches([batch])
                        mine = rows["topic"].filter(pa.array(self.mask(table, rows))).value_counts().to_pylist()
                        for topic in mine:
                            found.setdefault(path, Counter())[topic["values"]] += topic["counts"]
            except (pa.ArrowInvalid, OSError) as error:
                raise SchemaError(f"{path}: {' '.join(str(error).split())}; see `maintain verify`") from error
        return found


def total(found: Mapping[Any, Counter[str]]) -> Counter[str]:
    """Rows by topic, of all files together."""
    return sum(found.values(), Counter())
