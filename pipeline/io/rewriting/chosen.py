"""Which rows of the lake a replacement takes away: those of some offsets whose event time is in a range.

Offsets say of which sources, and end where these were landed to when the replacement began: what comes later stays,
whoever landed it.  Or they say which records of Kafka's log are read again: then all that these were taken for goes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.backfilling.runs import Runs
from pipeline.backfilling.slices import Bools, Slice
from pipeline.backfilling.stated_times import stated_time
from pipeline.batch import Partition
from pipeline.errors import SchemaError
from pipeline.io.rewriting.writing import by_partition
from pipeline.lake_tables import TABLES
from pipeline.sources import origin

REPLACED: Final = ("access", "content", "rejects")
"""Tables of which rows are replaced: what records say.  What was concluded from them stays as it was."""

_REJECTS: Final = "rejects"


@dataclass(frozen=True, slots=True)
class Chosen:
    """Rows that are chosen.

    Attributes:
        spans: offsets by partition.
        asked: event times; of a reject, what its bytes state.
        again: topic under which records come that are read again; `spans` are of these records then, by the partition
            that they have in Kafka, and stand for all that they are landed as, but for this topic.  Else empty.
    """

    spans: Mapping[Partition, Runs]
    asked: Slice
    again: str = ""

    def covers(self, partition: Partition, first: int, following: int) -> bool:
        """Whether the offsets from one to another are chosen."""
        runs = self._runs_of(partition)
        return runs is not None and runs.covers(first, following)

    def _runs_of(self, partition: Partition) -> Runs | None:
        if not self.again:
            return self.spans.get(partition)
        if partition.topic == self.again:
            return None
        return self.spans.get(Partition(origin(partition.topic), partition.number))

    @property
    def ends(self) -> tuple[int, int]:
        """The first offset of all, and the one after the last."""
        ends = [runs.ends for runs in self.spans.values() if len(runs)] or [(0, 0)]
        return min(first for first, _ in ends), max(following for _, following in ends)

    def mask(self, table: str, rows: pa.Table) -> Bools:
        """Which rows of a table are chosen."""
        chosen = np.zeros(len(rows), np.bool_)
        offsets = rows["offset"].to_numpy()
        for partition, mine in by_partition(rows):
            runs = self._runs_of(partition)
            if runs is not None:
                chosen |= mine & runs.holds(offsets)
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
            for rows in batches_of(root, path, names, self.ends):
                mine = rows["topic"].filter(pa.array(self.mask(table, rows))).value_counts().to_pylist()
                for topic in mine:
                    found.setdefault(path, Counter())[topic["values"]] += topic["counts"]
        return found


def batches_of(root: Path, path: str, names: Sequence[str], ends: tuple[int, int]) -> Iterator[pa.Table]:
    """Columns of a file's rows, without the row groups that hold no offset from one to another.

    Raises:
        SchemaError: the file is missing or broken.
    """
    try:
        with pq.ParquetFile(root / path) as file:
            groups = [at for at in range(file.num_row_groups) if _may_hold(file.metadata.row_group(at), ends)]
            for batch in file.iter_batches(row_groups=groups, columns=names) if groups else ():
                yield pa.Table.from_batches([batch])
    except (pa.ArrowInvalid, OSError) as error:
        raise SchemaError(f"{path}: {' '.join(str(error).split())}; see `maintain verify`") from error


def _may_hold(group: pq.RowGroupMetaData, ends: tuple[int, int]) -> bool:
    """Whether a row group may hold an offset from one to another, as its statistics tell."""
    first, following = ends
    columns = (group.column(at) for at in range(group.num_columns))
    stats = next((column.statistics for column in columns if column.path_in_schema == "offset"), None)
    return stats is None or not stats.has_min_max or (stats.min < following and stats.max >= first)


def total(found: Mapping[Any, Counter[str]]) -> Counter[str]:
    """Rows by topic, of all files together."""
    return sum(found.values(), Counter())
