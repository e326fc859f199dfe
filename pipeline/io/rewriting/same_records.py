"""Records of Kafka's log that are read again: which of them are landed, and that those that come are those that go.

A record is known by partition, offset and Kafka time, whatever it is landed as: by the live job, of a past range, as an
event or a reject, or as both where a replay made an event of a reject.  So a log that was made anew, or that lacks
records which it had, is told from the one that was landed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import sqlalchemy as sa

from pipeline.backfilling.runs import Runs
from pipeline.batch import Partition
from pipeline.commits import FileEntry
from pipeline.counted import counted
from pipeline.errors import ConfigError, FencedError
from pipeline.io import catalog_tables as tables
from pipeline.io.rewriting.chosen import Chosen, batches_of
from pipeline.io.rewriting.writing import by_partition
from pipeline.sources import AGAIN, origin

RECORDS: Final = ("access", "rejects")
"""Tables of which every record has a row in one or the other, or in both."""

_NAMES: Final = ("topic", "partition", "offset", "kafka_time")
_TIMELESS: Final = -1

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

Wanted = Callable[[int, "Landed"], Bools]
"""Which of some records of a partition, in any order, are wanted."""


@dataclass(frozen=True, slots=True, eq=False)
class Landed:
    """Records of one partition.

    Attributes:
        offsets: int64, rising, each once.
        times: int64, their Kafka times in microseconds since the epoch; -1 where there is none.
    """

    offsets: Ints
    times: Ints


def landed_records(  # where, and of all that is there what
    root: Path,
    files: Iterable[FileEntry],
    topic: str,
    ends: tuple[int, int],
    but: str = "",
    wanted: Wanted = lambda _number, some: np.ones(len(some.offsets), np.bool_),
) -> dict[int, Landed]:
    """Which records of a topic files hold, by partition.

    Args:
        root: of the lake.
        files: those of other tables than `RECORDS` are left alone.
        topic: of Kafka.
        ends: offsets from one to another are looked for.
        but: a topic under which records are landed that do not count.
        wanted: which are kept in mind, of those between `ends`; all without it.

    Raises:
        SchemaError: a file is missing or broken.
    """
    found: dict[int, list[tuple[Ints, Ints]]] = {}
    for file in files:
        if file.table_name not in RECORDS:
            continue
        for rows in batches_of(root, file.path, _NAMES, ends):
            offsets = rows["offset"].to_numpy()
            times = rows["kafka_time"].cast(pa.int64()).fill_null(_TIMELESS).to_numpy()
            inside = (offsets >= ends[0]) & (offsets < ends[1])
            for partition, mine in by_partition(rows):
                if origin(partition.topic) == topic and partition.topic != but:
                    some = Landed(offsets[mine & inside], times[mine & inside])
                    kept = wanted(partition.number, some)
                    found.setdefault(partition.number, []).append((some.offsets[kept], some.times[kept]))
    return {number: _once(parts) for number, parts in sorted(found.items())}


def _once(parts: Sequence[tuple[Ints, Ints]]) -> Landed:
    offsets, at = np.unique(np.concatenate([offsets for offsets, _ in parts]), return_index=True)
    return Landed(offsets, np.concatenate([times for _, times in parts])[at])


class SameRecords:
    """Sees that a replacement lets go of the records that come, all of them and no others, up to its last moment."""

    def __init__(self, topic: str, chosen: Chosen, comes: Mapping[int, Landed]) -> None:
        """Say what comes.

        Args:
            topic: of Kafka.
            chosen: records that are read again.
            comes: what was read of them.
        """
        self._topic, self._chosen, self._comes = topic, chosen, comes
        self._commits: set[str] = set()

    def look(self, tx: sa.Connection) -> None:
        """Remember which commits have rows of these records: called before it is looked which rows go."""
        self._commits = set(self._touching(tx))

    def check(self, root: Path, former: Iterable[FileEntry]) -> None:
        """See that the records of rows that go are those that come.

        Args:
            root: of the lake.
            former: files that hold the rows that go.

        Raises:
            ConfigError: they are not; nothing may be changed.
        """
        goes = landed_records(root, former, self._topic, self._chosen.ends, self._chosen.again)
        for partition, runs in self._chosen.spans.items():
            gone = _within(goes.get(partition.number), runs)
            come = _within(self._comes.get(partition.number), runs)
            _check_same(partition, gone, come)

    def hold(self, tx: sa.Connection) -> None:
        """See, in the transaction that makes the swap, that nobody has landed such rows since; nor will, unseen.

        A replay of rejects that is under way has found rejects that go now: it is fenced, as by one that begins later.

        Raises:
            FencedError: somebody has landed some, or is about to show them: look again.
        """
        if tx.dialect.name == "postgresql":  # SQLite has one writer at a time; here none may begin a replay meanwhile
            tx.execute(sa.text("LOCK TABLE offsets IN SHARE ROW EXCLUSIVE MODE"))
        pending = sa.select(tables.files.c.commit_id).where(tables.files.c.state == "pending").distinct()
        now = set(self._touching(tx))
        if now != self._commits or now & set(tx.execute(pending).scalars()):
            raise FencedError("rows of the same records have been landed meanwhile; nothing was changed")
        replays = [topic for topic in self._topics(tx) if topic.startswith(AGAIN)]
        numbers = [partition.number for partition in self._chosen.spans]
        mine = (tables.offsets.c.topic.in_(replays), tables.offsets.c.partition.in_(numbers))
        tx.execute(sa.update(tables.offsets).where(*mine).values(epoch=tables.offsets.c.epoch + 1))

    def _touching(self, tx: sa.Connection) -> Iterable[str]:
        """Commits that have rows, and offsets among those of these records."""
        low, high = self._chosen.ends
        columns = tables.commits.c
        query = sa.select(columns.commit_id, columns.partition, columns.first_offset, columns.next_offset).where(
            columns.topic.in_([topic for topic in self._topics(tx) if topic != self._chosen.again]),
            columns.first_offset < high, columns.next_offset > low, columns.events + columns.rejects > 0,
        )  # fmt: skip
        for commit in tx.execute(query):
            runs = self._chosen.spans.get(Partition(self._topic, commit.partition))
            if runs is not None and commit.first_offset < runs.ends[1] and commit.next_offset > runs.ends[0]:
                yield commit.commit_id

    def _topics(self, tx: sa.Connection) -> list[str]:
        """Under which records of this topic are landed."""
        every = tx.execute(sa.select(tables.offsets.c.topic).distinct()).scalars()
        return [topic for topic in every if origin(topic) == self._topic]


def _within(landed: Landed | None, runs: Runs) -> Landed:
    if landed is None:
        nothing = np.array([], np.int64)
        return Landed(nothing, nothing)
    inside = runs.holds(landed.offsets)
    return Landed(landed.offsets[inside], landed.times[inside])


def _check_same(partition: Partition, gone: Landed, come: Landed) -> None:
    lost = np.setdiff1d(gone.offsets, come.offsets, assume_unique=True)
    if len(lost):
        raise ConfigError(
            f"--replace: of {partition}, Kafka no longer holds {len(lost):,} of the "
            f"{counted(len(gone.offsets), 'record')} that "
            f"are landed of the range, the first at offset {lost[0]}: compacted or cut away since. Their rows would go "
            "and nothing would come: nothing was changed. Give a range without them"
        )
    if len(come.offsets) > len(gone.offsets):
        more = np.setdiff1d(come.offsets, gone.offsets, assume_unique=True)
        raise ConfigError(
            f"--replace: of {partition}, rows of {counted(len(more), 'record')}, the first at offset "
            f"{more[0]}, were erased or "
            "grew too old while the range was read again: nothing was changed. Run the same command again"
        )
    other = np.flatnonzero(gone.times != come.times)
    if len(other):
        raise ConfigError(
            f"--replace: of {partition}, Kafka holds another record at offset {gone.offsets[other[0]]} than the one "
            f"that is landed, by its time, and {len(other):,} such in all: the topic was made anew, or its log was cut "
            "back. Nothing was changed, for what is landed cannot be read again"
        )
